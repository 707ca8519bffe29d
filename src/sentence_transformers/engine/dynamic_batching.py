"""Calls that come in at the same time are computed as one batch.

For servers: each request is a short `encode`, many run at once. While one batch is computed further requests wait; when
it is done, all that wait and ask for the same settings become the next. No timer is involved, so a lone request never
waits.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sentence_transformers.util.tensor import take_rows

if TYPE_CHECKING:
    from sentence_transformers.engine.result_buffer import Rows


class Request(NamedTuple):
    """One waiting call.

    Attributes:
        context: the context variables of the caller.
        state: what else the result depends on.
    """

    texts: list[str]
    kwargs: dict[str, Any]
    future: Future[Any]
    alone: bool
    context: Context
    state: Hashable

    @property
    def key(self) -> Hashable:
        """Equal for calls that may be merged."""
        return id(self.future) if self.alone else None, self.state, certain(self.kwargs)


def certain(value: object) -> Hashable:
    """Equal for two arguments only if they are certainly the same: plain values of one type, or one object."""
    if value is None or isinstance(value, (str, bytes, bool, int, float)):
        return type(value), value
    if isinstance(value, (list, tuple)):
        return type(value), *map(certain, value)
    if isinstance(value, dict):
        return frozenset((certain(key), certain(item)) for key, item in value.items())
    return type(value), id(value)


class Batcher:
    """Merges concurrent calls of one function.

    Args:
        encode: list of texts, keyword arguments -> one row per text; called with the caller's context variables.
        state: what the result depends on besides; calls are merged where it is equal.
    """

    def __init__(self, encode: Callable[..., Any], state: Callable[[], Hashable] = lambda: None) -> None:
        self._encode, self._state = encode, state
        self._waiting: list[Request] = []
        self._lock = threading.Lock()
        self._busy = False
        self._thread = ThreadPoolExecutor(1, "encode-async")

    async def submit(self, texts: list[str], kwargs: dict[str, Any], alone: bool = False) -> Any:
        """Rows of these texts, when their batch is done; `alone` keeps it to this call's texts."""
        future: Future[Any] = Future()
        request = Request(texts, kwargs, future, alone, copy_context(), self._state())
        with self._lock:
            self._waiting.append(request)
            if not self._busy:
                self._busy = True
                self._thread.submit(self._drain)
        return await asyncio.wrap_future(future)

    def _drain(self) -> None:
        """Compute what waits until nothing waits any more."""
        while True:
            with self._lock:
                waiting, self._waiting = self._waiting, []
                if not waiting:
                    self._busy = False
                    return
            groups: dict[Hashable, list[Request]] = {}
            for request in waiting:
                if request.future.set_running_or_notify_cancel():
                    groups.setdefault(request.key, []).append(request)
            for group in groups.values():
                self._compute(group)

    def _compute(self, group: list[Request]) -> None:
        """One batch for all requests of a group; if it fails each is tried alone, so that one cannot spoil another."""
        try:
            first, texts = group[0], [text for request in group for text in request.texts]
            rows = first.context.run(self._encode, texts, **first.kwargs)
            sizes = [len(request.texts) for request in group]
            parts = [row_slice(rows, stop - size, stop) for size, stop in zip(sizes, accumulate(sizes), strict=True)]
        except Exception as error:
            if len(group) == 1:
                group[0].future.set_exception(error)
                return
            for request in group:
                self._compute([request])
            return
        for request, part in zip(group, parts, strict=True):
            request.future.set_result(part)


def row_slice(rows: Rows, start: int, stop: int) -> Any:
    """Rows `start:stop` of a list, an array or a tensor of any layout."""
    if not isinstance(rows, Tensor) or rows.layout == torch.strided:
        return rows[start:stop]
    part = take_rows(rows, start, stop)
    return part.to_sparse_csr() if rows.layout == torch.sparse_csr else part
