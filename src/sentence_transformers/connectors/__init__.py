"""Vector databases: Qdrant, Elasticsearch, OpenSearch, PostgreSQL with pgvector. A file for each; `common` is shared.

    from sentence_transformers.databases import QdrantDatabase, upload

Their clients are imported at the first use.
"""
