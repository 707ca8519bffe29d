"""MTEB: a task of one's own, on real judgements; `tests/mteb` compares all kinds with the existing library."""

import mteb
from common import MODEL, expect

from sentence_transformers import SentenceTransformer

expect(mteb.get_model_meta(SentenceTransformer(MODEL)) is not None, "metadata")
