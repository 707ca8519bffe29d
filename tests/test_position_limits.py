"""Most tokens of a text: no more than a model has learned positions for, whatever limit is set."""

from __future__ import annotations

import numpy as np
import pytest

from sentence_transformers import SentenceTransformer
from tests import models

LONG = " ".join(models.SENTENCES)  # some 200 tokens
# architecture: most tokens; the tables have 80 rows, of which RoBERTa's kin leave padding_idx + 1 = 2 unused
LEARNED = {"bert": 80, "roberta": 78, "mpnet": 78, "distilbert": 80, "electra": 80, "albert": 80, "ernie": 80}
UNLIMITED = ("modernbert", "qwen3", "t5")


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("full", [False, True], ids=["light", "transformers"])
def test_no_limit_means_the_table(name, full, tmp_path, caplog):
    model = SentenceTransformer(str(models.build(name, tmp_path)), device="cpu")
    if full:
        assert model.transformers_model is not None
    model.max_seq_length = None
    assert model.max_seq_length == LEARNED[name]
    expected = model.encode([LONG])
    assert model.preprocess([LONG])["input_ids"].shape == (1, LEARNED[name])
    model.max_seq_length = 5_000
    assert f"5000 is more than the model has positions for: {LEARNED[name]} is used" in caplog.text
    np.testing.assert_array_equal(model.encode([LONG]), expected)
    model.max_seq_length = 7
    assert model.preprocess([LONG])["input_ids"].shape == (1, 7)


@pytest.mark.parametrize("name", UNLIMITED)
def test_computed_positions_have_no_limit(name, tmp_path):
    model = SentenceTransformer(str(models.build(name, tmp_path)), device="cpu")
    model.max_seq_length = None
    assert model.max_seq_length is None
    assert model.preprocess([LONG])["input_ids"].shape[1] > 80
    assert np.isfinite(model.encode([LONG])).all()
