"""The folder of a job: what it is, which units are done, and no way to mix two of them up.

    manifest.json        the model's fingerprint, files with checksums, settings; written once, before the first unit
    journal.jsonl        a line for each unit that is done: rows, rejects, size and checksum of its shard
    part-000007.parquet  the shard of unit 7
    rejects.jsonl        {"id", "reason"} of each row that was not encoded; written when all is done
    job.input            a data set as files, for the time of the job

A shard is written under another name, flushed, and renamed; its line in the journal comes after that. So whatever is
killed at whatever moment, a unit either counts as done, and then its shard is whole, or is done again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentence_transformers.errors import InputError
from sentence_transformers.util.atomic import drafts, lock, replacing

FORMAT, VERSION = "sentence-transformers cluster job", 1
MANIFEST, JOURNAL, REJECTS, LOCK = "manifest.json", "journal.jsonl", "rejects.jsonl", "job.lock"
INPUT = "job.input"


def shard_name(unit: int) -> str:
    return f"part-{unit:06d}.parquet"


class Folder:
    """The folder of a job."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One driver at a time."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("a+b") as file:
            try:
                lock(file)
            except OSError as error:
                raise InputError(f"Another job is writing into {self.path}; wait for it or stop it.") from error
            yield

    def manifest(self) -> dict[str, Any] | None:
        """What job this folder holds; None if it is empty.

        Raises:
            InputError: if there is something else in it.
        """
        file = self.path / MANIFEST
        if not file.is_file():
            others = {*self.path.iterdir()} - {self.path / LOCK, self.path / INPUT, *drafts(self.path, MANIFEST)}
            if others:
                raise InputError(
                    f"{self.path} holds no job of encode_dataset, but {min(others).name!r}. Give an empty folder."
                )
            return None
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file} is damaged: {error}. Give another folder.") from error
        if found.get("format") != FORMAT or found.get("version") != VERSION:
            raise InputError(f"{file} is not a manifest of this version ({FORMAT} {VERSION}).")
        return found

    def write_manifest(self, content: dict[str, Any]) -> None:
        """Write the manifest in one step."""
        data = json.dumps({"format": FORMAT, "version": VERSION, **content}, indent=1).encode() + b"\n"
        with replacing(self.path / MANIFEST) as fresh:
            fresh.write_bytes(data)

    def check_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """`InputError` naming what differs between the job in the folder and the one that is asked for."""
        for part, words in (("model", "another model"), ("settings", "other settings"), ("source", "another input")):
            old, new = before.get(part), json.loads(json.dumps(now[part]))
            if old != new:
                raise InputError(
                    f"{self.path} holds a job with {words}: {difference(old, new)}. Give another folder for this job, "
                    "or empty this one."
                )

    def done(self) -> dict[int, dict[str, Any]]:
        """The lines of the journal by unit, the rejects as their number. A line that was cut off does not count."""
        found: dict[int, dict[str, Any]] = {}
        for place, entry in self.lines():
            found[entry["unit"]] = entry | {"rejects": len(entry["rejects"]), "place": place}
        return found

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The whole lines of the journal and where they begin."""
        path, place = self.path / JOURNAL, 0
        with path.open("rb") if path.is_file() else io.BytesIO() as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    if line.endswith(b"\n"):
                        yield place, json.loads(line)
                place += len(line)

    def whole(self, entry: dict[str, Any]) -> bool:
        """Whether the shard of a journal line is there with its size."""
        path = self.path / shard_name(entry["unit"])
        return "size" not in entry or (path.is_file() and path.stat().st_size == entry["size"])

    @contextmanager
    def journal(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Gives the function that notes a unit as done, durably."""
        path = self.path / JOURNAL
        with path.open("ab") as file:
            if file.tell():
                file.write(b"\n")  # ends a line that was cut off; an empty line says nothing

            def note(entry: dict[str, Any]) -> None:
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

            yield note

    def sweep(self) -> None:
        """Remove drafts that a killed job left."""
        for path in drafts(self.path, rf"{MANIFEST}|{REJECTS}|part-\d+\.parquet"):
            path.unlink(missing_ok=True)

    def write_rejects(self, done: dict[int, dict[str, Any]]) -> Path | None:
        """All rejects in one file, by unit, read from the journal; None if there are none."""
        if not any(entry["rejects"] for entry in done.values()):
            return None
        with (
            replacing(self.path / REJECTS) as fresh,
            fresh.open("wb") as file,
            (self.path / JOURNAL).open("rb") as journal,
        ):
            for _, entry in sorted(done.items()):
                journal.seek(entry["place"])
                for key, reason in json.loads(journal.readline())["rejects"] if entry["rejects"] else []:
                    file.write(json.dumps({"id": key, "reason": reason}, ensure_ascii=False).encode() + b"\n")
        return self.path / REJECTS


def difference(old: object, new: object) -> str:
    """The first entry in which two dictionaries differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                return f"{name}: {difference(old.get(name), new.get(name))}"
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return next(difference(one, other) for one, other in zip(old, new, strict=True) if one != other)
    return f"{old!r:.120} there, {new!r:.120} here"
