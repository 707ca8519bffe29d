"""All columns of a batch in one packed forward.

    sentence_features: one dictionary of features per column          (anchor, positive, negative, …)
      -> joined, texts ordered by length, one forward, put back       one (B, H) per column

Texts of equal length lie side by side then, whatever column they come from, so that attention runs on plain dense
blocks and nothing is computed for padding. A model that cannot take packed batches gets padded ones, each of texts of
nearly equal length. Columns are joined where they are alike: the same route of a `Router`, the same prompt length.
Features that are not texts go through the model column by column.

All of this only where the model computes with this library's code alone (`backends.override_detection`). One that was
overridden, patched or hooked is called with padded features of shape (B, L): the first column, then the others, joined
where alike.

With dropout the order of texts decides which random numbers they meet, not their distribution.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from sentence_transformers.backends.override_detection import is_untouched, unseen
from sentence_transformers.engine.engine import input_module
from sentence_transformers.errors import InputError
from sentence_transformers.features import FeatureDict, Features
from sentence_transformers.util.distributed import all_gather, get_world_size

WIDEST = 1.25  # longest : shortest text of a padded batch
FEWEST = 4  # texts of a padded batch that are not worth a forward pass of their own

_merging: ContextVar[bool] = ContextVar("merging", default=True)


@contextlib.contextmanager
def column_merging_disabled() -> Iterator[None]:
    """Within the context each column of a batch goes through the model by itself."""
    token = _merging.set(False)
    try:
        yield
    finally:
        _merging.reset(token)


def unwrap(model: nn.Module) -> Any:
    """The encoder inside the wrappers that distributed training and compilation put around it."""
    while not hasattr(model, "preprocess") and isinstance(inner := getattr(model, "module", None), nn.Module):
        model = inner
    return getattr(model, "_orig_mod", model)


def has_static_embedding_input(model: nn.Module) -> bool:
    """Whether texts go into a table of static vectors."""
    from sentence_transformers.modules.static_embedding import StaticEmbedding

    return any(isinstance(module, StaticEmbedding) for module in unwrap(model).modules())


@contextlib.contextmanager
def replaced_forward(model: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within the context the encoder's forward pass is another one; afterwards it is what it was, patched or not."""
    encoder = unwrap(model)
    before = vars(encoder).get("forward")
    encoder.forward = forward
    try:
        yield
    finally:
        if before is None:
            del encoder.forward
        else:
            encoder.forward = before


def embed_columns(model: nn.Module, features_list: Iterable[FeatureDict], separate_first: bool = True) -> list[Tensor]:
    """One vector per text.

    Args:
        model: the encoder, or what wraps it.
        features_list: features of each column, packed or padded.
        separate_first: give the first column, the queries, a forward pass of its own.

    Returns:
        (B, H) for each column.
    """
    return over_columns(model, features_list, functools.partial(sentence_rows, model), separate_first=separate_first)


def merge_feature_batches(features_list: Iterable[FeatureDict]) -> FeatureDict | None:
    """The features of several columns as one batch, column after column; None if they cannot be joined."""
    parts = list(features_list)
    signatures = {Features.of(part).signature for part in parts}
    if not _merging.get() or len(signatures) != 1 or not Features.of(parts[0]).joinable:
        return None
    return Features.join(parts)


def over_columns(
    model: nn.Module,
    sentence_features: Iterable[FeatureDict],
    rows_of: Callable[[FeatureDict], Tensor],
    most: int | None = None,
    separate_first: bool = False,
) -> list[Tensor]:
    """`rows_of` a batch, computed over all columns together.

    Args:
        rows_of: features of b texts -> (b, …); called with joined batches.
        most: texts in one of them on the average; None for all in one.
        separate_first: leave the first column by itself.

    Returns:
        (B, …) for each column.
    """
    columns = list(sentence_features)
    if not is_untouched(model):
        return over_padded_columns([as_padded(model, column) for column in columns], rows_of, most)
    results: list[Any] = [None] * len(columns)
    for members in alike(model, columns, separate_first):
        parts = [columns[i] for i in members]
        sizes = [Features.of(part).text_count for part in parts]
        if not Features.of(parts[0]).joinable:
            results[members[0]] = rows_of(parts[0])
            continue
        check_sizes(sizes)
        joined = Features.join(parts)
        order, groups = forwards(model, joined, most)
        rows = torch.cat([rows_of(joined.take(group)) for group in groups])
        back = torch.empty(len(order), dtype=torch.int64, device="cpu")
        back[torch.tensor(order, device="cpu")] = torch.arange(len(order), device="cpu")
        for i, part in zip(members, rows[back.to(rows.device)].split(sizes), strict=True):
            results[i] = part
    return results


def check_sizes(sizes: Sequence[int]) -> None:
    """Raise `InputError` if none of the columns has a text."""
    if not sum(sizes):
        raise InputError("The batch has no texts: a loss needs one row or more.")


def as_padded(model: nn.Module, features: FeatureDict) -> FeatureDict:
    """Features of a batch in the padded layout, with the tokenizer's id of padding."""
    padding = getattr(getattr(unwrap(model), "tokenizer", None), "pad_token_id", None) or 0
    return Features.of(features).pad(padding)


def over_padded_columns(
    columns: Sequence[FeatureDict], rows_of: Callable[[FeatureDict], Tensor], most: int | None
) -> list[Tensor]:
    """As `over_columns`, of padded batches with their texts in order: the first column, then all others."""
    results: list[Tensor] = []
    for members in (columns[:1], columns[1:]):
        joined = merge_feature_batches(members) if len(members) > 1 else None
        for batch in members if joined is None else [joined]:
            if most is None or not Features.of(batch).joinable:
                results.append(rows_of(batch))
                continue
            places = range(Features.of(batch).text_count)
            chunks = [places[start : start + most] for start in places[::most]]
            results.append(torch.cat([rows_of(Features.of(batch).take(chunk)) for chunk in chunks]))
        if joined is not None:
            results.extend(results.pop().split([Features.of(member).text_count for member in members]))
    return results


def alike(model: nn.Module, columns: list[FeatureDict], separate_first: bool = False) -> list[list[int]]:
    """Columns that can be joined, as lists of their numbers. Padded columns become packed ones, in place, if the model
    can take them.
    """
    inner = unwrap(model)
    for i, features in enumerate(map(Features.of, columns)):
        if features.layout == "padded" and features.joinable:
            module = input_module(inner, features.get("task"))
            if getattr(module, "packs", False) and hasattr(module, "tokens"):
                columns[i] = features.pack(getattr(module, "position_offset", 0))
    if not _merging.get():
        return [[i] for i in range(len(columns))]
    groups: dict[Any, list[int]] = {}
    for i, features in enumerate(map(Features.of, columns)):
        alone = not features.joinable or (separate_first and i == 0)
        groups.setdefault(i if alone else features.signature, []).append(i)
    return list(groups.values())


def forwards(model: nn.Module, features: Features, most: int | None = None) -> tuple[list[int], list[list[int]]]:
    """The texts in the order in which they are computed, and the same cut into forward passes."""
    lengths = features.text_lengths
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    if features.layout != "padded":
        return order, in_step(model, mini_batches(lengths, most or len(order), None))
    module = input_module(unwrap(model), features.get("task"))
    equal = not getattr(module, "pads_safely", True)
    groups: list[list[int]] = []
    for i in order:
        longest = lengths[groups[-1][0]] if groups else 0
        narrow = lengths[i] == longest if equal else lengths[i] * WIDEST >= longest or len(groups[-1]) < FEWEST
        if groups and narrow and len(groups[-1]) < (most or len(order)):
            groups[-1].append(i)
        else:
            groups.append([i])
    return order, in_step(model, groups)


def in_step(model: nn.Module, groups: list[list[int]]) -> list[list[int]]:
    """Forward passes of this process, cut further where another one has more of them, if the model is sharded.

    All processes of a sharded model bring their part of the weights to each forward pass, or wait for ever.
    """
    if get_world_size() == 1 or not is_sharded(model):
        return groups
    device = next(model.parameters()).device
    most = int(all_gather(torch.tensor([len(groups)], device=device)).max())
    while len(groups) < most:
        largest = max(groups, key=len)
        if len(largest) < 2:
            raise InputError(f"{len(groups)} texts cannot be {most} forward passes, which another process makes.")
        place, half = groups.index(largest), len(largest) // 2
        groups = [*groups[:place], largest[:half], largest[half:], *groups[place + 1 :]]
    return groups


def is_sharded(model: nn.Module) -> bool:
    """Whether each process holds a part of the weights only: FSDP or DeepSpeed's third stage."""
    wrapped = any(type(part).__name__ == "FullyShardedDataParallel" for part in model.modules())
    return wrapped or any(hasattr(one, "placements") or hasattr(one, "ds_id") for one in model.parameters())


def run(model: nn.Module, features: FeatureDict) -> FeatureDict:
    """Features through the model, with the task of their column."""
    features = dict(features)
    task = features.pop("task", None)
    with unseen.set_to(is_untouched(model)):
        return model(features, **({"task": task} if task is not None else {}))


def sentence_rows(model: nn.Module, features: FeatureDict) -> Tensor:
    """One vector per text: (b, H)."""
    return run(model, features)["sentence_embedding"]


def mini_batches(lengths: Sequence[int], size: int, most_tokens: int | None) -> list[list[int]]:
    """Texts, longest first, cut into mini-batches.

    Args:
        size: texts of a mini-batch on the average: there are ⌈B / size⌉ of them, on every process the same number, with
            about equally many tokens each, so that memory does not depend on where the long texts are.
        most_tokens: most tokens of a mini-batch, in the place of a number of texts.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    if most_tokens is None:
        return balanced(order, [lengths[i] for i in order], -(-len(order) // size))
    groups: list[list[int]] = []
    total = 0
    for i in order:
        if not groups or total + lengths[i] > most_tokens:
            groups.append([])
            total = 0
        groups[-1].append(i)
        total += lengths[i]
    return groups


def balanced(order: list[int], lengths: list[int], count: int) -> list[list[int]]:
    """`order` cut into `count` parts, none of them empty, with about equally many tokens each.

    Args:
        lengths: tokens of each text, in the order of `order`.
    """
    ends = list(itertools.accumulate(lengths))
    groups, start = [], 0
    for number in range(1, count + 1):
        wanted = bisect.bisect_right(ends, ends[-1] * number // count)
        stop = min(max(wanted, start + 1), len(order) - (count - number))
        groups.append(order[start:stop])
        start = stop
    return groups
