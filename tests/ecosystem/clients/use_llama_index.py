"""LlamaIndex: embeddings, an index of them, and re-ranking by a cross-encoder."""

from common import MODEL, classifier, expect, same, texts
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.postprocessor import SentenceTransformerRerank
from llama_index.core.schema import Document
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from sentence_transformers import CrossEncoder, SentenceTransformer

documents = texts.glosses()[:100]
embedding = HuggingFaceEmbedding(model_name=MODEL)
direct = SentenceTransformer(MODEL).encode(documents)
expect(same(embedding.get_text_embedding_batch(documents), direct), "the embeddings are ours")
with_prompt = HuggingFaceEmbedding(model_name=MODEL, query_instruction="query: ")
expect(same(with_prompt.get_query_embedding("a river"), SentenceTransformer(MODEL).encode("query: a river")),
       "an instruction stands before a query")  # fmt: skip
Settings.llm = None
index = VectorStoreIndex.from_documents([Document(text=text) for text in documents], embed_model=embedding)
found = index.as_retriever(similarity_top_k=5).retrieve("a living thing")
expect(found[0].score > 0.5, "search in its index", (found[0].text, round(found[0].score, 3)))
folder = str(classifier())
best = SentenceTransformerRerank(model=folder, top_n=2).postprocess_nodes(found, query_str="a living thing")
scores = CrossEncoder(folder).predict([("a living thing", node.text) for node in found])
expect(same(best[0].score, max(scores)), "re-ranked by our scores", [round(float(node.score), 3) for node in best])
