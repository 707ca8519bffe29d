"""Where positions begin: what a config says is what the model looks up."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sentence_transformers.backends import packed_attention
from sentence_transformers.backends.tasks import OFFSET_FAMILY, position_offset

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "pad_token_id": 4,
}
EXTRA: dict[str, dict[str, Any]] = {
    "longformer": {"attention_window": [4]},
    "esm": {"mask_token_id": 5},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "mpnet": {"pad_token_id": 1},  # which it takes for given
}


@pytest.mark.parametrize("family", [*sorted(OFFSET_FAMILY), "bert", "distilbert", "electra", "ernie"])
def test_positions_begin_where_the_model_begins(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(family, **SIZES | EXTRA.get(family, {}))
    model = transformers.AutoModel.from_config(config).eval()
    looked_up = []
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in packed_attention.POSITION_TABLES:
            module.register_forward_hook(lambda _, args, __: looked_up.append(args[0].flatten()[0].item()))
    with torch.no_grad():
        model(input_ids=torch.tensor([[7, 8, 9, 10]]), attention_mask=torch.ones(1, 4, dtype=torch.int64))
    assert looked_up
    offsets = {position_offset(config), position_offset(config.to_dict()), packed_attention.position_offset(model)}
    assert offsets == set(looked_up)
