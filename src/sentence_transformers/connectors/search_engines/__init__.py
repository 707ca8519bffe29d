"""Sparse search through an engine: Qdrant, Elasticsearch, OpenSearch, Seismic. One file each, `common` what they share.

    from sentence_transformers.sparse_encoder.search_engines import semantic_search_qdrant

The clients of the engines are imported when a function is called.
"""
