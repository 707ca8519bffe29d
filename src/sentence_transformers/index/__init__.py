"""The persistent index: documents with vectors, texts and metadata in one folder.

index        what people use: add, update, delete, search, save, load
documents    what they hand over, checked and in the form that is stored
queries      likewise for a search
models       texts -> vectors, and whether a model is the one that the index was made with
settings     what an index is made of, fixed when it is made
search       one search: candidates, fusion, re-ranking
candidates   the best documents by one kind of vectors
scoring      how queries are compared with each form of vectors
graph        HNSW graphs, by usearch or faiss
collection   documents that change: commits of segments, in memory or in a folder
segments     a run of documents that never changes, with the marks of those that were deleted
keys, records, metadata, dense, sparse, blobs     the parts of a segment, each: build, join, read
arrays       named arrays in one file, checked block by block when they are first read
manifest     which segments make up the index: the one file that is ever replaced
store        the folder: opens and writes segments, replaces the manifest
"""
