"""Encoder-decoder families: a folder of the whole model gives the vectors of its encoder, also after saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentence_transformers import SentenceTransformer
from tests import models

TEXTS = ["Rain fell all night", "cat", "The river rose over its banks and so on."]
SIDES = {
    f"{side}_{what}": size
    for side in ("encoder", "decoder")
    for what, size in {"layers": 2, "attention_heads": 4, "ffn_dim": 48}.items()
}
BART_LIKE = {"d_model": 32, "max_position_embeddings": 80, "decoder_start_token_id": 0, **SIDES}
T5_LIKE = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
PROPHET = {
    "hidden_size": 32,
    "max_position_embeddings": 80,
    "decoder_start_token_id": 0,
    **{
        f"num_{side}_{what}": size
        for side in ("encoder", "decoder")
        for what, size in {"layers": 2, "attention_heads": 4}.items()
    },
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "M2M100": BART_LIKE,
    "Marian": BART_LIKE,
    "Pegasus": BART_LIKE,
    "PegasusX": BART_LIKE,
    "Blenderbot": BART_LIKE,
    "BlenderbotSmall": BART_LIKE,
    "LongT5": T5_LIKE,
    "SwitchTransformers": T5_LIKE
    | {"num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_decoder_layers": 2},
    "ProphetNet": PROPHET,
}


def build(family: str, folder: Path) -> Any:
    """Write a tiny whole model; its tokenizer."""
    import transformers

    tokenizer = models.wrapped_tokenizer("t5", ("input_ids", "attention_mask"))
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(getattr(transformers, f"{family}Config")(**FAMILIES[family], **ids))
    models.disturb(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_encoder_of_the_whole_model(family, tmp_path):
    import transformers

    tokenizer = build(family, tmp_path / "whole")
    encoder = transformers.AutoModel.from_pretrained(tmp_path / "whole").get_encoder().eval()
    expected = []
    for text in TEXTS:
        inputs = tokenizer([text], return_tensors="pt")
        output = encoder(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        expected.append(output.last_hidden_state[0].mean(0).numpy())
    model = SentenceTransformer(str(tmp_path / "whole"), device="cpu")
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=2e-6)
    model.save_pretrained(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS), expected, atol=2e-6)
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in encoder.parameters())


@pytest.mark.parametrize("kind", ["T5GemmaModel", "T5GemmaForConditionalGeneration"])
def test_t5gemma(kind, tmp_path):
    """Its class for the encoder refuses the config of a whole model."""
    import transformers

    if not hasattr(transformers, kind):
        pytest.skip("this version of transformers has no T5Gemma")
    tokenizer = models.wrapped_tokenizer("t5", ("input_ids", "attention_mask"))
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    side = {**sizes, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": len(tokenizer)}
    config = transformers.T5GemmaConfig(encoder=side, decoder=side, vocab_size=len(tokenizer))
    torch.manual_seed(0)
    whole = getattr(transformers, kind)(config).eval()
    models.disturb(whole)
    whole.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    model = SentenceTransformer(str(tmp_path / "whole"), device="cpu")
    for text, found in zip(TEXTS, model.encode(TEXTS), strict=True):
        with torch.no_grad():
            states = whole.get_encoder()(**tokenizer([text], return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(found, states.mean(0), atol=1e-5)
    model.save_pretrained(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))
