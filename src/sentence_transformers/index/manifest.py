"""The manifest, index.json: which segments make up an index. The one file of an index that is ever replaced.

    {
      "format": "sentence-transformers index", "version": 1,
      "commit": 7,                                   counts the changes
      "settings": {…}, "models": {…},                see `settings` and `models`
      "next_id": 120,                                the next document without an id gets this one
      "segments": [{"name": "0f…", "rows": 120, "size": 812345, "checksum": 1234, "deleted": {…} or null,
                  "graph": {…} or null}],
      "checksum": 5678                               CRC-32 of everything else
    }

A commit writes new files under new names, then the manifest in one step, then removes the files that the new manifest
does not name. Whoever stops at any moment leaves the old index or the new one.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_transformers.errors import IndexFormatError, IndexNotFoundError, InputError
from sentence_transformers.index.settings import Settings

FORMAT, VERSION = "sentence-transformers index", 1
MANIFEST = "index.json"
NAME = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Manifest:
    """What index.json says. `segments` are its entries as they are, checked."""

    commit: int
    settings: Settings
    models: dict[str, Any]
    next_id: int
    segments: tuple[dict[str, Any], ...]

    def to_bytes(self) -> bytes:
        """The content of the file."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "commit": self.commit,
            "settings": self.settings.to_json(),
            "models": self.models,
            "next_id": self.next_id,
            "segments": list(self.segments),
        }
        return json.dumps(content | {"checksum": checksum(content)}, indent=1).encode() + b"\n"


def checksum(content: dict[str, Any]) -> int:
    """CRC-32 of a JSON object, however it is spaced."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def read(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        IndexNotFoundError: if there is none.
        IndexFormatError: if it is malformed, damaged or of a later version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise IndexNotFoundError(f"There is no index in {folder}: {MANIFEST} is missing.")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise IndexFormatError(f"{path} is damaged: it is not valid JSON ({error}). Restore it from a copy.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise IndexFormatError(f"{path} does not describe an index of this kind (format {FORMAT!r}).")
    if content.get("version") != VERSION:
        raise IndexFormatError(f"{path} has version {content.get('version')!r}; this library reads version {VERSION}.")
    if content.pop("checksum", None) != checksum(content):
        raise IndexFormatError(f"{path} is damaged: it does not match its checksum. Restore it from a copy.")
    try:
        return Manifest(
            count(content["commit"]),
            Settings.from_json(content["settings"]),
            dict(content["models"]),
            count(content["next_id"]),
            tuple(map(entry, content["segments"])),
        )
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise IndexFormatError(f"{path} is damaged: {error!r}.") from error


def entry(given: dict[str, Any]) -> dict[str, Any]:
    """An entry of a segment, checked: names stay inside the folder, numbers are numbers."""
    part(given, ("rows",))
    for extra in ("deleted", "graph"):
        if given[extra] is not None:
            part(given[extra], ())
    return given


def part(given: dict[str, Any], numbers: tuple[str, ...]) -> None:
    if not NAME.fullmatch(given["name"]):
        raise ValueError(f"{given['name']!r} is no name of a file of an index")
    for number in ("size", "checksum", *numbers):
        count(given[number])


def count(value: object) -> int:
    """A whole number that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
