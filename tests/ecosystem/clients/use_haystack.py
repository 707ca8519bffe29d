"""Haystack: its embedders and rankers, in a pipeline."""

from common import MODEL, classifier, expect, model_folder, same, texts
from haystack import Document, Pipeline
from haystack.components.evaluators import SASEvaluator
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersSparseTextEmbedder,
    SentenceTransformersTextEmbedder,
)
from haystack_integrations.components.rankers.sentence_transformers import (
    SentenceTransformersDiversityRanker,
    SentenceTransformersSimilarityRanker,
)

from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder

documents = texts.glosses()[:100]
embedded = SentenceTransformersDocumentEmbedder(model=MODEL).run([Document(content=text) for text in documents])
direct = SentenceTransformer(MODEL).encode(documents)
expect(same([document.embedding for document in embedded["documents"]], direct), "the embeddings are ours")
store = InMemoryDocumentStore(embedding_similarity_function="cosine")
store.write_documents(embedded["documents"])
pipeline = Pipeline()
pipeline.add_component("embed", SentenceTransformersTextEmbedder(model=MODEL))
pipeline.add_component("find", InMemoryEmbeddingRetriever(store, top_k=5))
pipeline.connect("embed.embedding", "find.query_embedding")
found = pipeline.run({"embed": {"text": "a living thing"}})["find"]["documents"]
expect(found[0].score > 0.5, "search in a pipeline", (found[0].content, round(found[0].score, 3)))

folder = str(classifier())
ranked = SentenceTransformersSimilarityRanker(model=folder, top_k=2).run(query="a living thing", documents=found)[
    "documents"
]
scores = CrossEncoder(folder).predict([("a living thing", document.content) for document in found])
expect(same(ranked[0].score, max(scores)), "re-ranked by our scores", [round(d.score, 3) for d in ranked])
varied = SentenceTransformersDiversityRanker(model=MODEL, top_k=3).run(query="a living thing", documents=found)[
    "documents"
]
expect(len(varied) == 3, "ranked by diversity", varied[0].content)
splade = str(texts.splade())
sparse = SentenceTransformersSparseTextEmbedder(model=splade).run("a living thing")["sparse_embedding"]
row = SparseEncoder(splade).encode("a living thing").coalesce()
expect(sparse.indices == row.indices()[0].tolist(), "sparse vectors are ours", len(sparse.indices))
evaluator = SASEvaluator(model=str(model_folder()))
alike = evaluator.run(ground_truth_answers=["a cat"], predicted_answers=["a kitten"])["score"]
expect(alike > 0.7, "semantic answer similarity", round(float(alike), 3))
