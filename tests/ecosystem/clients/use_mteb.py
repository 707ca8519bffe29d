"""MTEB: tasks of our own on real texts; `tests/test_mteb.py` compares more of them with the existing library."""

import json
import os
from pathlib import Path

from common import MODEL, expect, same
from mteb.models import ModelMeta
from tests.golden.mteb_tasks import LeeSTS, NewsGroups, evaluated

from sentence_transformers import SentenceTransformer

model = SentenceTransformer(MODEL)
found = evaluated(model, (LeeSTS, NewsGroups))
golden = json.loads(Path(os.environ["ECOSYSTEM_ROOT"], "tests/golden/mteb.json").read_text(encoding="utf-8"))
expect(all(same(score, golden["scores"]["dense"][task], 2e-3) for task, score in found.items()),
       "the scores are those of 6.2.0", found)  # fmt: skip
meta = ModelMeta.from_sentence_transformer_model(model)
expect(meta.embed_dim == 384 and meta.name == MODEL, "metadata for a submission", (meta.name, meta.max_tokens))
