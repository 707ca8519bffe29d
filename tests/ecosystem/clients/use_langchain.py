"""LangChain: embeddings behind its interface, in its vector store."""

from common import MODEL, expect, same, texts
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_huggingface import HuggingFaceEmbeddings

from sentence_transformers import SentenceTransformer

if __name__ == "__main__":  # worker processes import this file
    documents = texts.glosses()[:200]
    embeddings = HuggingFaceEmbeddings(model_name=MODEL, encode_kwargs={"normalize_embeddings": True, "batch_size": 16})
    direct = SentenceTransformer(MODEL).encode(documents)
    expect(same(embeddings.embed_documents(documents), direct), "the embeddings are ours")
    expect(same(embeddings.embed_query(documents[3]), direct[3]), "those of a query too")
    store = InMemoryVectorStore.from_texts(documents, embeddings)
    best = store.similarity_search_with_score("a living thing", k=1)[0]
    expect(best[1] > 0.5, "search in a vector store", (best[0].page_content, round(best[1], 3)))
    workers = HuggingFaceEmbeddings(model_name=MODEL, multi_process=True)
    expect(same(workers.embed_documents(documents), direct), "the same from worker processes")
