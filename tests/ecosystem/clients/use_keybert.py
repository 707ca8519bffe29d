"""KeyBERT: key words of a text are the phrases whose embeddings are nearest to the text's."""

from common import MODEL, expect, texts
from keybert import KeyBERT

from sentence_transformers import SentenceTransformer

documents = texts.lee()[0][:10]
by_name, by_object = KeyBERT(MODEL), KeyBERT(SentenceTransformer(MODEL))
found = by_name.extract_keywords(documents, keyphrase_ngram_range=(1, 2), stop_words="english", top_n=3)
expect(all(len(words) == 3 for words in found), "three key phrases for each text", found[0])
expect(found == by_object.extract_keywords(documents, keyphrase_ngram_range=(1, 2), stop_words="english", top_n=3),
       "the same from a model object")  # fmt: skip
diverse = by_name.extract_keywords(documents[0], use_mmr=True, diversity=0.7, top_n=3, stop_words="english")
expect(len({word for word, _ in diverse}) == 3, "maximal marginal relevance", diverse)
