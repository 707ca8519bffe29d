"""Documents that change: a list of segments that never do, in memory or in a folder.

A change makes a new `State` out of the old one. New documents become a segment; the last segments are joined with it
as long as they are not larger than what is joined, so there are at most about log₂ N, and a document is moved that
often at most. A deletion only marks rows; joining drops them.

In a folder, a change is one commit (see `store`): it is on disk when it returns, and whatever fails before leaves the
old state. Readers take `state` once and work with it to the end.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sentence_transformers.index import graph, keys, segments
from sentence_transformers.index.arrays import Arrays, Column
from sentence_transformers.index.manifest import Manifest
from sentence_transformers.index.segments import Documents, Segment
from sentence_transformers.index.settings import Settings
from sentence_transformers.index.store import Store, entries

LARGE = 500_000
"""Segments of so many documents are no longer joined with new ones."""


@dataclass(frozen=True)
class State:
    """A collection at one moment.

    Args:
        models: what is remembered of the models (see `models`).
        next_id: the next document without an id gets this one.
        commit: counts the changes.
    """

    settings: Settings
    models: Mapping[str, Any] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    next_id: int = 0
    commit: int = 0

    def __len__(self) -> int:
        return sum(segment.live for segment in self.segments)

    def find(self, content: Sequence[bytes]) -> list[np.ndarray]:
        """For each segment the row of each id, -1 where it is not there."""
        hashes = keys.hash_of(content)
        return [segment.find(content, hashes) for segment in self.segments]


class Collection:
    """Documents in memory, or in the folder of a store.

    Args:
        state: to begin with; None reads the store's.
    """

    def __init__(self, state: State | None = None, store: Store | None = None) -> None:
        self.changing = threading.RLock()
        self.store = store
        self.state = self._read() if state is None else state

    # ---- the folder

    def _read(self) -> State:
        assert self.store is not None
        found, opened = self.store.open()
        return State(found.settings, found.models, tuple(opened), found.next_id, found.commit)

    def refresh(self) -> bool:
        """Read what others have committed; whether there was something new."""
        with self.changing:
            if self.store is None or self.store.commit() == self.state.commit:
                return False
            self.state = self._read()
            return True

    def begin(self) -> None:
        """Become the writer, and start from the last commit."""
        if self.store is not None and self.store.lock():
            self.refresh()

    def close(self) -> None:
        """Let others write."""
        if self.store is not None:
            self.store.release()

    def save(self, folder: Path) -> None:
        """Write everything into a folder, as one segment, and live there."""
        with self.changing:
            if self.store is not None and self.store.folder.resolve() == folder.resolve():
                return
            old, target = self.store, Store(folder)
            target.lock()
            try:
                self.store = target
                self._commit(dataclasses.replace(self.state, segments=self._joined(), commit=target.commit()))
            except BaseException:
                self.store = old
                target.release()
                raise
            if old is not None:
                old.release()

    # ---- changes

    def change(self, gone: Sequence[np.ndarray], new: Documents | None, **others: Any) -> None:
        """Delete rows and add documents, in one commit.

        Args:
            gone: for each segment the rows to delete.
            new: documents to add.
            others: what else changes in the state.
        """
        state = self.state
        left = [one.without(rows) if len(rows) else one for one, rows in zip(state.segments, gone, strict=True)]
        left = [segment for segment in left if segment.live]
        settings = others.get("settings", state.settings)
        if new is not None and len(new):
            columns = segments.build(new)
            tail = tail_to_join(left, len(new))
            if tail:
                added = Segment(Arrays.of(columns), len(new))
                columns = segments.join([*left[len(left) - tail :], added], settings)
            left = [*left[: len(left) - tail], self._segment(columns, settings)]
        self._commit(dataclasses.replace(state, segments=tuple(left), **others))

    def compact(self) -> None:
        """Rewrite everything as one segment without the deleted rows."""
        old = self.state.segments
        if len(old) > 1 or any(segment.deleted is not None for segment in old):
            self._commit(dataclasses.replace(self.state, segments=self._joined()))

    def _joined(self) -> tuple[Segment, ...]:
        if not len(self.state):
            return ()
        settings = self.state.settings
        return (self._segment(segments.join(self.state.segments, settings), settings),)

    def _segment(self, columns: Mapping[str, Column], settings: Settings) -> Segment:
        """New documents, where this collection lives."""
        if self.store is not None:
            return self.store.write_segment(columns, settings)
        arrays, count = Arrays.of(columns), columns["id.hashes"].shape[0]
        return Segment(arrays, count, graph=graph.build(arrays, count, settings))

    def _commit(self, new: State) -> None:
        """Make a new state the state; in a folder it is on disk then."""
        new = dataclasses.replace(new, commit=new.commit + 1)
        if self.store is not None:
            new = dataclasses.replace(new, segments=tuple(map(self.store.with_marks, new.segments)))
            listed = entries(new.segments)
            self.store.replace(Manifest(new.commit, new.settings, dict(new.models), new.next_id, listed))
        self.state = new


def tail_to_join(old: Sequence[Segment], count: int) -> int:
    """How many of the last segments are joined with `count` new documents."""
    tail = 0
    for segment in reversed(old):
        if segment.live > count or segment.live >= LARGE:
            break
        count += segment.live
        tail += 1
    return tail
