"""Run a function over texts of equal length, so that no text's result depends on its neighbours or on padding.

Convolutions and recurrences mix the tokens of one text. `map_texts` hands them dense arrays (n, l, H) of n texts that
are all l tokens long, exactly what each would see alone, and puts the results back where the tokens were:

    packed   (T, H) -> (T, H')         a group of the `Packing` is a view; nothing is copied on the way in
    padded   (B, L, H) -> (B, L, H')   texts are sorted by length, and padding positions become 0

The function may change the length l to l' ≥ 1, the same for every text of length l. Then the lengths in the features
follow, and the entries that belong to the tokens before (`input_ids`, …) are removed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sentence_transformers.features import LAYERS, PER_TOKEN, Features, Packing
from sentence_transformers.util.tensor import repad_flattened_features

TextFunction = Callable[[Tensor], Tensor]


def map_texts(features: dict[str, Any], function: TextFunction, dimension: int) -> dict[str, Any]:
    """Replace `token_embeddings` by `function` of them, length by length.

    Args:
        function: (n, l, H) -> (n, l', H').
        dimension: H'.
    """
    if features.get("packing") is not None:
        return map_packed(features, function, dimension)
    return map_padded(repad_flattened_features(features), function, dimension)


def map_packed(features: dict[str, Any], function: TextFunction, dimension: int) -> dict[str, Any]:
    before: Packing = features["packing"]
    rows, after = map_rows(features["token_embeddings"], before, function, dimension)
    if after.lengths != before.lengths:
        forget_tokens(features)
        features["packing"] = after
    features["token_embeddings"] = rows
    return features


def map_padded(features: dict[str, Any], function: TextFunction, dimension: int) -> dict[str, Any]:
    tokens, mask = features["token_embeddings"], Features.of(features).token_mask
    order = mask.sum(1).argsort()
    back = order.argsort()
    before = Packing(mask.sum(1)[order].tolist(), tokens.device)
    rows, after = map_rows(tokens[order][mask[order]], before, function, dimension)
    if after.lengths != before.lengths:
        forget_tokens(features)
        features["attention_mask"], features["token_embeddings"] = after.mask[back], after.pad(rows)[back]
        return features
    padded = rows.new_zeros(*mask.shape, dimension)
    padded[mask[order]] = rows
    features["token_embeddings"] = padded[back]
    return features


def map_rows(rows: Tensor, packing: Packing, function: TextFunction, dimension: int) -> tuple[Tensor, Packing]:
    """(T, H) -> (T', H') and the lengths afterwards. Texts without tokens stay without."""
    outputs, lengths = [rows.new_zeros(0, dimension)], []
    for group, (texts,) in zip(packing.groups, packing.views(rows), strict=True):
        output = function(texts) if group.length else rows.new_zeros(group.count, 0, dimension)
        outputs.append(output.flatten(0, 1))
        lengths += [output.shape[1]] * group.count
    return torch.cat(outputs), Packing(lengths, rows.device)


def forget_tokens(features: dict[str, Any]) -> None:
    """Remove the entries that describe tokens which no longer correspond to `token_embeddings`."""
    for key in (*PER_TOKEN, LAYERS, "prompt_length"):
        features.pop(key, None)
