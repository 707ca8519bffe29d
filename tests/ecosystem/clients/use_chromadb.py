"""Chroma: its embedding functions for dense and sparse models, in a collection."""

import chromadb
from chromadb.utils.embedding_functions import (
    HuggingFaceSparseEmbeddingFunction,
    SentenceTransformerEmbeddingFunction,
)
from common import MODEL, expect, same, texts

from sentence_transformers import SentenceTransformer, SparseEncoder

documents = texts.glosses()[:200]
function = SentenceTransformerEmbeddingFunction(model_name=MODEL)
expect(same(function(documents[:5]), SentenceTransformer(MODEL).encode(documents[:5])), "the embeddings are ours")
collection = chromadb.EphemeralClient().create_collection("glosses", embedding_function=function)
collection.add(ids=[str(i) for i in range(len(documents))], documents=documents)
found = collection.query(query_texts=["a living thing"], n_results=1)
expect(found["distances"][0][0] < 1, "search in a collection", (found["documents"][0][0], found["distances"][0][0]))
folder = str(texts.splade())
sparse = HuggingFaceSparseEmbeddingFunction(model_name=folder, device="cpu")(documents[:3])
model = SparseEncoder(folder)
direct = model.decode(model.encode(documents[:3]))
expect([len(vector.indices) for vector in sparse] == [len(words) for words in direct], "sparse vectors are ours",
       [len(words) for words in direct])  # fmt: skip
