"""Batches of features cut and joined by texts: what training needs beyond one forward pass.

    join([columns…])        several batches of one layout as one, text after text
    take(batch, rows)       the given texts, in the given order
    unpad(batch, offset)    a padded batch as a packed one

Three layouts occur, told apart by their keys (`modules.base`): packed (`packing`), padded (`attention_mask`), and the
run of a table of static vectors (`offsets`). Entries that belong to tokens are cut with the texts; others (`modality`,
`prompt_length`, `task`) belong to the batch and must be equal where batches are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sentence_transformers.features import Packing

PER_TOKEN = ("input_ids", "position_ids", "token_type_ids", "attention_mask", "kept_mask")
LAYOUTS = ("packing", "attention_mask", "offsets")
KNOWN = {*PER_TOKEN, "packing", "offsets", "modality", "prompt_length", "task"}

Features = dict[str, Any]


def layout(features: Features) -> str | None:
    """The key by which the layout is known; None for features of another kind, which can be neither cut nor joined."""
    if "input_ids" not in features or not features.keys() <= KNOWN:
        return None
    return next((key for key in LAYOUTS if features.get(key) is not None), None)


def signature(features: Features) -> tuple[Any, ...]:
    """Equal for batches that may be joined."""
    names = tuple(sorted(features))
    return (layout(features), names, features.get("prompt_length"), features.get("task"), features.get("modality"))


def text_lengths(features: Features) -> list[int]:
    """Tokens of each text."""
    kind = layout(features)
    if kind == "packing":
        return features["packing"].lengths
    if kind == "attention_mask":
        return kept_mask(features).sum(1).tolist()
    offsets = features["offsets"].tolist()
    return [stop - start for start, stop in zip(offsets, [*offsets[1:], len(features["input_ids"])], strict=True)]


def kept_mask(features: Features) -> Tensor:
    """(B, L), not 0 at the tokens of a padded batch, those included that attention does not look at."""
    found: Tensor = features["kept_mask"] if "kept_mask" in features else features["attention_mask"]
    return found


def count(features: Features) -> int:
    """Number of texts."""
    if features.get("packing") is not None:
        return len(features["packing"])
    if features.get("offsets") is not None:
        return len(features["offsets"])
    return next(len(value) for value in features.values() if isinstance(value, Tensor) and value.dim())


def join(parts: Sequence[Features]) -> Features:
    """Batches with equal `signature` as one batch, text after text."""
    if len(parts) == 1:
        return dict(parts[0])
    joined = dict(parts[0])
    kind = layout(parts[0])
    if kind == "attention_mask":
        longest = max(part["attention_mask"].shape[1] for part in parts)
        left = any(bool((part["attention_mask"][:, 0] == 0).any()) for part in parts)
        for key in PER_TOKEN:
            if key in joined:
                joined[key] = torch.cat([widened(part[key], longest, left) for part in parts])
        return joined
    for key in PER_TOKEN:
        if key in joined:
            joined[key] = torch.cat([part[key] for part in parts])
    if kind == "packing":
        packings = [part["packing"] for part in parts]
        seen = None
        if any(packing.seen is not None for packing in packings):
            seen = [n for packing in packings for n in packing.seen or packing.lengths]
        lengths = [n for packing in packings for n in packing.lengths]
        joined["packing"] = Packing(lengths, packings[0].device, seen)
    else:
        starts = torch.tensor([len(part["input_ids"]) for part in parts], device="cpu").cumsum(0).tolist()
        shifts = [0, *starts[:-1]]
        joined["offsets"] = torch.cat([part["offsets"] + shift for part, shift in zip(parts, shifts, strict=True)])
    return joined


def widened(tensor: Tensor, longest: int, left: bool) -> Tensor:
    """(B, l) -> (B, L), padded with zeros."""
    missing = longest - tensor.shape[1]
    return torch.nn.functional.pad(tensor, (missing, 0) if left else (0, missing)) if missing else tensor


def take(features: Features, rows: Sequence[int]) -> Features:
    """The texts `rows`, in that order; a padded batch loses the columns that none of them needs."""
    taken = dict(features)
    kind = layout(features)
    if kind == "attention_mask":
        index = torch.as_tensor(rows, device=features["attention_mask"].device)
        for key in PER_TOKEN:
            if key in taken:
                taken[key] = features[key][index]
        used = kept_mask(taken).any(0).nonzero()[:, 0]
        if len(used):
            needed = slice(int(used[0]), int(used[-1]) + 1)
            taken |= {key: taken[key][:, needed] for key in PER_TOKEN if key in taken}
        return taken
    lengths = torch.tensor(text_lengths(features), device="cpu")
    device = features["input_ids"].device
    index = rows_of_texts(lengths, torch.as_tensor(rows, device="cpu")).to(device)
    for key in PER_TOKEN:
        if key in taken:
            taken[key] = features[key][index]
    kept = lengths[torch.as_tensor(rows, device="cpu")]
    if kind == "packing":
        packing = features["packing"]
        seen = None if packing.seen is None else [packing.seen[row] for row in rows]
        taken["packing"] = Packing(kept.tolist(), packing.device, seen)
    else:
        taken["offsets"] = (kept.cumsum(0) - kept).to(device)
    return taken


def rows_of_texts(lengths: Tensor, rows: Tensor) -> Tensor:
    """Which rows of a run the given texts take: (B,) lengths of all texts, (b,) texts -> (t,) int64."""
    starts, kept = lengths.cumsum(0) - lengths, lengths[rows]
    begins = kept.cumsum(0) - kept
    return torch.arange(int(kept.sum()), device="cpu") + torch.repeat_interleave(starts[rows] - begins, kept)


def unpad(features: Features, position_offset: int) -> Features:
    """A padded batch in the packed layout."""
    mask = kept_mask(features).bool()
    seen = features["attention_mask"].sum(1).tolist() if "kept_mask" in features else None
    packing = Packing(mask.sum(1).tolist(), mask.device, seen)
    packed = {key: value for key, value in features.items() if key not in PER_TOKEN}
    packed |= {key: features[key][mask] for key in ("input_ids", "token_type_ids") if key in features}
    return packed | {"packing": packing, "position_ids": packing.positions + position_offset}
