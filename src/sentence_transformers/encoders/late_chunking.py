"""Late chunking: vectors of passages whose tokens have seen the text around them.

    document -> windows, as long as the model reads -> token vectors -> those of each passage -> pooling and the rest

Günther et al. 2024, https://arxiv.org/abs/2409.04701. A window is whole passages; one that does not begin with its
document has some passages before it as context, a quarter of the window at most. The special tokens and the prompt of a
window count for its first and last passage, so that the vector of a document of one passage is that of `encode`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.backends.override_detection import extensions
from sentence_transformers.engine import batching, engine
from sentence_transformers.engine.chunking import Passage
from sentence_transformers.engine.model_replicas import on_device
from sentence_transformers.engine.outputs import Output, as_asked
from sentence_transformers.engine.tokenization import BatchTokenizer
from sentence_transformers.errors import InputError
from sentence_transformers.features import Packing
from sentence_transformers.modules.base import run_module
from sentence_transformers.modules.pooling import Pooling

if TYPE_CHECKING:
    from sentence_transformers.encoders.embedding import EmbeddingModel

CHARACTERS = 100_000  # of windows computed together: the vectors of their tokens are in memory


class Window(NamedTuple):
    """A stretch of a document that is computed at once.

    Attributes:
        text: the stretch.
        start: its first character in the document.
        passages: those that get their vectors from it.
    """

    text: str
    start: int
    passages: list[Passage]


def encode(
    model: EmbeddingModel, documents: Sequence[str], passages: Sequence[Passage], output: Output, given: dict[str, Any]
) -> Any:
    """Vectors of passages.

    Args:
        passages: as `split` gives them: document after document, in order.
        output: the form in which they are wanted.
        given: further arguments of `encode`.

    Raises:
        InputError: if the model does not pool token vectors in a way that goes with this.
    """
    if output.value != "sentence_embedding":
        raise InputError("late=True gives one vector for each passage; leave output_value out.")
    if (found := next(extensions(model), None)) is not None:
        raise InputError(f"late=True cuts and pools the model's own tokens, but {found}. Leave late out.")
    if not isinstance(given.get("device"), (list, tuple)):
        model, given = on_device(model, given.get("device")), given | {"device": None}
    last = pooling_and_after(model)
    prompt = model.prompt_text(given.get("prompt"), given.get("prompt_name")) or ""
    module = engine.input_module(model, given.get("task"))
    if getattr(module, "renders", False):
        raise InputError("late=True finds passages in the document's own tokens, and this model reads a chat template.")
    reader = module.reader(given.get("task"))
    rows, stretches = [], list(windows(documents, passages, reader, prompt))
    texts = [window.text for window in stretches]
    for first, stop in batching.windows(texts, CHARACTERS):
        vectors = model.encode(texts[first:stop], output_value="token_embeddings", **given)
        with torch.no_grad():
            features = passage_tokens(stretches[first:stop], vectors, reader, prompt, last[0].include_prompt)
            for module in last:
                features = run_module(module, features, {})
            rows.append(output.rows(model, features, len(features["packing"])))
    merged = None if not rows else torch.cat(rows) if isinstance(rows[0], Tensor) else np.concatenate(rows)
    return as_asked(merged, output, False, model)


def pooling_and_after(model: EmbeddingModel) -> list[Any]:
    """The modules from the pooling on."""
    poolings = [(place, module) for place, module in enumerate(model) if isinstance(module, Pooling)]
    if len(poolings) != 1 or "cls" in poolings[0][1].modes:
        found = f"pools by {poolings[0][1].pooling_mode}" if poolings else "has no Pooling of its own"
        raise InputError(
            f"late=True pools each passage from its own tokens, by mean or maximum; this model {found}. "
            "Leave late out: passages are then encoded one by one."
        )
    return list(model)[poolings[0][0] :]


def windows(
    documents: Sequence[str], passages: Sequence[Passage], reader: BatchTokenizer, prompt: str
) -> Iterator[Window]:
    """As few windows as hold the passages of each document."""
    room = None if reader.max_length is None else reader.max_length - len(reader([prompt]).ids)
    for document, group in groupby(passages, key=lambda passage: passage.document):
        own, text = list(group), documents[document]
        starts, stops = token_places(reader.spans([text])[0], own)
        first = 0
        while first < len(own):
            context, last = extent(starts, stops, first, room)
            begin, end = own[context].start, own[last - 1].stop
            yield Window(text[begin:end], begin, own[first:last])
            first = last


def token_places(spans: np.ndarray, passages: Sequence[Passage]) -> tuple[np.ndarray, np.ndarray]:
    """The first token of each passage, and the one behind its last."""
    starts = np.searchsorted(spans[:, 1], [passage.start for passage in passages], side="right")
    stops = np.searchsorted(spans[:, 0], [passage.stop for passage in passages], side="left")
    return starts, stops


def extent(starts: np.ndarray, stops: np.ndarray, first: int, room: int | None) -> tuple[int, int]:
    """The window from passage `first` on: the first passage of its context, and the passage behind its last."""
    if room is None or (first == 0 and stops[-1] <= room):
        return 0, len(starts)
    room -= room // 32  # a part of a text may have some tokens more than it has within the whole
    context = first
    while (
        context > 0 and starts[first] - starts[context - 1] <= room // 4 and stops[first] - starts[context - 1] <= room
    ):
        context -= 1
    fitting = int(np.searchsorted(stops - starts[context], room, side="right"))
    return context, max(fitting, first + 1)


def passage_tokens(
    group: Sequence[Window], vectors: Sequence[Tensor], reader: BatchTokenizer, prompt: str, with_prompt: bool
) -> dict[str, Any]:
    """The token vectors of all passages of some windows, as a packed batch."""
    rows, lengths = [], []
    spans = reader.spans([prompt + window.text for window in group], special_tokens=True)
    for window, places, found in zip(group, spans, vectors, strict=True):
        for kept in tokens_of(window, places, len(prompt), with_prompt):
            rows.append(found[torch.from_numpy(kept).to(found.device)])
            lengths.append(len(kept))
    packing = Packing(lengths, rows[0].device)
    return {"token_embeddings": torch.cat(rows), "packing": packing, "modality": "text"}


def tokens_of(window: Window, spans: np.ndarray, prompt: int, with_prompt: bool) -> Iterator[np.ndarray]:
    """The places of each passage's tokens among those of its window.

    Args:
        spans: (n, 2) int64, characters of the tokens of prompt and window; -1 for special tokens.
        prompt: characters of the prompt.
        with_prompt: whether what stands before the text counts.
    """
    places = np.arange(len(spans))
    texts, own = np.flatnonzero(spans[:, 0] >= 0), np.flatnonzero(spans[:, 1] > prompt)
    before = places < (own[0] if len(own) else len(spans))
    behind = places > (texts[-1] if len(texts) else len(spans))
    for passage in window.passages:
        start, stop = passage.start - window.start + prompt, passage.stop - window.start + prompt
        kept = (spans[:, 0] >= 0) & (spans[:, 1] > start) & (spans[:, 0] < stop)
        if passage.start == window.start and (with_prompt or not prompt):
            kept |= before
        if passage is window.passages[-1]:
            kept |= behind
        yield places[kept]
