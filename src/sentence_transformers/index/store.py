"""The folder of an index: opens what the manifest names, writes what is new, replaces the manifest, removes the rest.

index.json                      the manifest
<name>.safetensors              a segment
<name>.deleted                  the deleted rows of a segment: one bit a row, as numpy packs them
<name>.graph                    the HNSW graph of a segment
index.lock                      held by the writer
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from sentence_transformers.errors import IndexFormatError, IndexLockedError, IndexNotFoundError
from sentence_transformers.index import arrays, graph, manifest
from sentence_transformers.index.arrays import Column, MappedArrays
from sentence_transformers.index.manifest import MANIFEST, Manifest
from sentence_transformers.index.segments import Segment
from sentence_transformers.index.settings import Settings, check_choice
from sentence_transformers.util.atomic import creating, drafts, lock, replacing, sync_folder

LOCK = "index.lock"
Check = Literal["read", "open", "never"]
ATTEMPTS = 20
"""How often opening starts again because a writer removed what the manifest named a moment ago."""


class Store:
    """The folder of an index.

    Args:
        folder: made by the first write if need be.
        check: when files are compared with their checksums (see `Index.load`).
    """

    def __init__(self, folder: Path, check: Check = "read") -> None:
        check_choice("check", check, get_args(Check))
        self.folder, self.check = folder, check
        self._lock: Lock | None = None

    # ---- reading

    def open(self) -> tuple[Manifest, list[Segment]]:
        """The index as it was last committed."""
        for attempt in range(ATTEMPTS):
            found = manifest.read(self.folder)
            try:
                return found, [self.open_segment(entry, found.settings) for entry in found.segments]
            except FileNotFoundError as error:
                if attempt == ATTEMPTS - 1 or manifest.read(self.folder).commit == found.commit:
                    raise IndexFormatError(
                        f"{self.folder} is incomplete: {Path(error.filename).name} is missing. Restore it from a copy."
                    ) from error
        raise AssertionError("unreachable")

    def commit(self) -> int:
        """The number of the last commit; 0 if there is no index."""
        try:
            return manifest.read(self.folder).commit
        except IndexNotFoundError:
            return 0

    def open_segment(self, entry: Mapping[str, Any], settings: Settings) -> Segment:
        opened = MappedArrays(self.path(entry, "safetensors"), entry["size"], entry["checksum"], self.check != "never")
        if opened.length("id.hashes") != entry["rows"]:
            raise arrays.damaged(self.folder / MANIFEST, f"segment {entry['name']} has other rows")
        if self.check == "open":
            opened.check()
        deleted = entry["deleted"] and self.read_deleted(entry["deleted"], entry["rows"])
        stored = entry["graph"] and self.open_graph(entry["graph"], settings)
        return Segment(opened, entry["rows"], deleted, dict(entry), marked=True, graph=stored)

    def open_graph(self, entry: Mapping[str, Any], settings: Settings) -> graph.StoredGraph:
        path = self.path(entry, "graph")
        stored = graph.StoredGraph(path, entry["size"], entry["checksum"], settings, self.check != "never")
        if self.check == "open":
            stored.check()
        return stored

    def read_deleted(self, entry: Mapping[str, Any], rows: int) -> np.ndarray:
        path = self.path(entry, "deleted")
        content = path.read_bytes()
        if len(content) != entry["size"] or zlib.crc32(content) != entry["checksum"]:
            raise arrays.damaged(path, "it does not match its checksum")
        return np.unpackbits(np.frombuffer(content, np.uint8), count=rows).astype(bool)

    def path(self, entry: Mapping[str, Any], ending: str) -> Path:
        return self.folder / f"{entry['name']}.{ending}"

    # ---- writing

    def lock(self) -> bool:
        """Become the writer of the folder; whether it was not before."""
        if self._lock is not None:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.folder)
        return True

    def release(self) -> None:
        """Let others write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def write_segment(self, columns: Mapping[str, Column], settings: Settings) -> Segment:
        """New documents on disk; not yet part of the index."""
        name = secrets.token_hex(8)
        size, checksum = arrays.write(self.folder / f"{name}.safetensors", columns)
        rows = columns["id.hashes"].shape[0]
        entry = {"name": name, "rows": rows, "size": size, "checksum": checksum, "deleted": None, "graph": None}
        segment = self.open_segment(entry, settings)
        built = graph.build(segment.arrays, rows, settings)
        if built is None:
            return segment
        return self.open_segment(entry | {"graph": self.write_graph(built, name)}, settings)

    def write_graph(self, built: graph.Graph, name: str) -> dict[str, Any]:
        """A graph on disk; not yet part of the index."""
        path = self.folder / f"{name}.graph"
        built.write(path)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
            return {"name": name, "size": os.fstat(file.fileno()).st_size, "checksum": graph.checksum_of(file)}

    def with_marks(self, segment: Segment) -> Segment:
        """A segment whose deleted rows are on disk as well; not yet part of the index."""
        if segment.deleted is None or segment.marked:
            return segment
        assert segment.entry is not None
        content, name = np.packbits(segment.deleted).tobytes(), secrets.token_hex(8)
        with creating(self.folder / f"{name}.deleted") as file:
            file.write(content)
        deleted = {"name": name, "size": len(content), "checksum": zlib.crc32(content)}
        return dataclasses.replace(segment, entry=segment.entry | {"deleted": deleted}, marked=True)

    def replace(self, new: Manifest) -> None:
        """Make files that were written the index; the others go."""
        sync_folder(self.folder)
        with replacing(self.folder / MANIFEST) as fresh:
            fresh.write_bytes(new.to_bytes())
        self.clean(new)

    def clean(self, current: Manifest) -> None:
        """Remove files of an index that a manifest does not name; what Windows holds open stays until the next time."""
        named = {f"{entry['name']}.safetensors" for entry in current.segments}
        for ending in ("deleted", "graph"):
            named |= {f"{entry[ending]['name']}.{ending}" for entry in current.segments if entry.get(ending)}
        ours = re.compile(rf"{manifest.NAME.pattern}\.(safetensors|deleted|graph|json)")
        left = [path for path in self.folder.iterdir() if ours.fullmatch(path.name) and path.name not in named]
        for path in [*left, *drafts(self.folder, MANIFEST)]:
            with contextlib.suppress(OSError):
                path.unlink()


def entries(segments: Sequence[Segment]) -> tuple[dict[str, Any], ...]:
    """What the manifest says about segments that are on disk."""
    return tuple(segment.entry for segment in segments if segment.entry is not None)


class Lock:
    """The right to write into a folder, held until `release` or the end of the process.

    Raises:
        IndexLockedError: if someone else holds it, naming the process if that can be read.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / LOCK).open("a+b")
        try:
            lock(self._file)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read(20).decode("ascii", "replace").strip()
            self._file.close()
            raise IndexLockedError(
                f"The index in {folder} is being written by another Index"
                f"{f' (process {holder})' if holder else ''}. One writer at a time: `close()` it or wait. "
                "Reading needs no lock."
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()).encode())
        self._file.flush()

    def release(self) -> None:
        """Give the right back."""
        self._file.close()
