"""The persistent index: documents with vectors, texts and metadata in one folder.

index        what people use: add, delete, update, search, save, load
collection   documents that change: commits of segments, in memory or in a folder
settings     what an index is made of, fixed when it is made
models       texts -> vectors, and whether a model is the one that the index was made with
candidates   the best documents by one kind of vectors
segments     a run of documents that never changes, with the marks of those that were deleted
keys, records, metadata, dense, sparse     the parts of a segment, each: build, join, read
arrays       named arrays in one file, checked block by block when they are first read
manifest     which segments make up the index: the one file that is ever replaced
store        the folder: opens and writes segments, replaces the manifest
files        durable writes and the lock of the writer
"""
