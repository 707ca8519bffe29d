"""txtai: dense and sparse indexes on our encoders."""

from common import MODEL, expect, same, texts
from txtai import Embeddings

from sentence_transformers import SentenceTransformer

documents = texts.glosses()[:300]
dense = Embeddings(path=MODEL, method="sentence-transformers", content=True, gpu=False)
dense.index(documents)
best = dense.search("a living thing that can move", 1)[0]
expect(best["score"] > 0.5, "dense search", (best["text"][:60], round(best["score"], 3)))
direct = SentenceTransformer(MODEL).encode(documents[0], normalize_embeddings=True)
expect(same(dense.transform(documents[0]), direct), "the embeddings are ours")
sparse = Embeddings(sparse=str(texts.splade()), content=True, gpu=False)
sparse.index(documents)
best = sparse.search("a living thing that can move", 1)[0]
expect(
    "living" in best["text"] or "move" in best["text"], "sparse search", (best["text"][:60], round(best["score"], 3))
)
