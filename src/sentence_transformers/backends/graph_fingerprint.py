"""Which weights a graph file was exported from.

A graph holds a copy of a model's weights, and stays what it is when the model beside it is trained further. So an
export writes a fingerprint of the weights into the file's metadata, and loading compares it with the weights that lie
in the model's folder, if any:

    {name of a tensor: "F32:" + sha256 of 64 bytes from its middle, 8 digits of it}      matrices alone

Only the headers and 64 bytes per matrix of `model.safetensors` are read: about a millisecond. Training changes every
matrix that it trains; saving a model again in other pieces, in another order, or as part of a larger model changes
none. What cannot be compared (another type of numbers, other names, `pytorch_model.bin`, adapters) counts as equal.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentence_transformers.errors import ModelFormatError
from sentence_transformers.storage.files import Source, check_relative
from sentence_transformers.storage.weights import SAFE_NAME

ORIGIN = "sentence_transformers_weights"
"""Key in the metadata of an ONNX file, and in the runtime information of an OpenVINO file."""
SAMPLE = 64  # bytes
FLOATS = {"F32", "F16", "BF16", "F64"}


def fingerprint(source: Source) -> dict[str, str]:
    """The fingerprint of a model's weights; {} where there are none on this machine."""
    source = replace(source, local_files_only=True)
    if source.path("adapter_config.json"):
        return {}
    names = [SAFE_NAME]
    if index := source.json(SAFE_NAME + ".index.json"):
        names = sorted({check_relative(str(name)) for name in dict(index.get("weight_map") or {}).values()})
    found: dict[str, str] = {}
    for name in names:
        if path := source.path(name):
            found |= samples(path)
    return found


def samples(path: str) -> dict[str, str]:
    """The fingerprint of one safetensors file; {} if it is damaged, which is for others to say."""
    try:
        with Path(path).open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size <= os.fstat(file.fileno()).st_size - 8:
                return {}
            header = json.loads(file.read(size))
            found = {}
            for name, entry in header.items():
                if entry.get("dtype") in FLOATS and len(entry["shape"]) > 1:
                    start, stop = entry["data_offsets"]
                    file.seek(8 + size + max(start, (start + stop - SAMPLE) // 2))
                    digest = hashlib.sha256(file.read(min(SAMPLE, stop - start))).hexdigest()
                    found[name] = f"{entry['dtype']}:{digest[:8]}"
            return found
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return {}


def encode(found: dict[str, str]) -> str:
    """A fingerprint as it is written into a file."""
    return json.dumps(found, separators=(",", ":"), sort_keys=True)


def check_origin(origin: str | None, source: Source, path: Path) -> None:
    """Raise `ModelFormatError` if a graph was exported from other weights than those of its folder.

    Args:
        origin: what the graph's file says; None for files made by others.
        source: the folder of the weights.
        path: of the graph.
    """
    if not origin:
        return
    try:
        exported: Any = json.loads(origin)
    except ValueError:
        return
    if not isinstance(exported, dict):
        return
    now = fingerprint(source)
    for name in sorted(now.keys() & exported.keys()):
        then = str(exported[name])
        if then != now[name] and then.partition(":")[0] == now[name].partition(":")[0]:
            raise ModelFormatError(
                f"{path} was exported from other weights than those of {source.name} today: {name} differs. The model "
                "was trained or replaced since. Export it again with model_kwargs={'export': True} and save the model, "
                "or delete the file."
            )
