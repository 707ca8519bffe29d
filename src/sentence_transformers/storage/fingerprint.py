"""Fingerprints: which weights lie in a folder, what a loaded model's outputs depend on, and what they are like.

    of_files    {name of a tensor: "F32:" + sha256 of 64 bytes from its middle, 8 digits of it}, matrices alone
    of_model    sha256 of   every weight and buffer, byte by byte, with its name, type and shape
                            every setting of the model and its modules: prompts, dimensions, lengths, attributes
                            the tokenizer, as it is written to a file, and how it cuts some texts
    of_vector   64 numbers of the vector of one text

The first reads headers and 64 bytes per matrix of `model.safetensors`, about a millisecond: an exported graph keeps it,
and is refused beside weights that were trained since. Training changes every matrix that it trains; saving a model
again in other pieces, in another order, or as part of a larger model changes none. The second reads all weights, about
a second for each gigabyte, since a sample of them would miss changes: for caches of embeddings, and for machines that
work on one job. The third is compared by its cosine, since backends and precisions move a vector a little and another
model gives quite another one: for indexes, which either may open.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sentence_transformers.storage.files import Source, check_relative, sha256_of
from sentence_transformers.storage.weights import SAFE_NAME
from sentence_transformers.util.misc import fullname

SAMPLE = 64  # bytes, or numbers of a vector
FLOATS = {"F32", "F16", "BF16", "F64"}
PROBES = ("", "The quick brown fox jumps over the lazy dog, 42 times.", "Ünïcode – 東京 🙂 naïve")
NETWORKS = ("transformers.", "peft.", "sentence_transformers.backends.")  # described by their weights
SETTINGS = ("prompts", "default_prompt_name", "truncate_dim", "max_seq_length")
NOT_SETTINGS = ("training", "model_card_data", "came_from", "trust_remote_code", "token_budget")
TOKENIZER_SETTINGS = ("truncation_side", "padding_side", "model_max_length", "do_lower_case", "chat_template")
ADAPTERS = ("_active_adapter", "_disable_adapters")


# ---- weights in a folder


def of_files(source: Source) -> dict[str, str]:
    """The fingerprint of weights in files; {} where there are none on this machine.

    What cannot be compared is left out: other types of numbers, `pytorch_model.bin`, adapters.
    """
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


# ---- a model in memory


def of_model(model: nn.Module) -> str:
    """The fingerprint of a model as it is now: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in described(model):
        digest.update(part if isinstance(part, bytes) else repr(part).encode("utf-8", "replace"))
        digest.update(b"\0")
    return digest.hexdigest()


def described(model: nn.Module) -> Iterator[Any]:
    """Everything that goes into the fingerprint."""
    yield [getattr(model, name, None) for name in SETTINGS]
    activation = getattr(model, "activation_fn", None)  # of a cross-encoder, and none of its modules
    yield repr(activation) if isinstance(activation, nn.Module) else getattr(activation, "__qualname__", None)
    yield from described_module(model)
    if isinstance(model, nn.Module):
        for module in model.modules():
            yield [getattr(module, name) for name in ADAPTERS if hasattr(module, name)]
        for name, value in sorted(model.state_dict().items()):
            yield name
            yield from contents(value)


def described_module(module: Any) -> Iterator[Any]:
    """The settings and the tokenizer of a module, then those of the modules in it."""
    if any(base.__module__.startswith(NETWORKS) for base in type(module).__mro__):
        if hasattr(module, "origin"):  # a graph; exported once more it has other bytes
            yield module.path.name, module.origin or [sha256_of(file) for file in module.files()]
        return
    yield fullname(module), settings_of(module)
    if not isinstance(module, nn.Sequential):
        yield described_tokenizer(getattr(module, "tokenizer", None))
    tokens, unpadded = getattr(module, "tokens", None), getattr(module, "unpadded", None)
    if callable(tokens) and (hasattr(module, "preprocess") if unpadded is None else unpadded()):
        yield tokens(list(PROBES), None).ids.tobytes()
    for name, part in module.named_children() if isinstance(module, nn.Module) else ():
        yield name
        yield from described_module(part)


def settings_of(module: object) -> dict[str, Any]:
    """The settings of a module, and its public attributes that are plain values."""
    config = getattr(module, "get_config_dict", None)
    found = dict(config()) if config is not None and not inspect.signature(config).parameters else {}
    own = vars(module) if hasattr(module, "__dict__") else {}
    plain = {key: value for key, value in own.items() if key[0] != "_" and key not in NOT_SETTINGS and is_plain(value)}
    return dict(sorted((found | plain).items()))


def is_plain(value: object) -> bool:
    """Whether a value is made of texts and numbers alone."""
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | int | float | bool | torch.dtype)


def contents(value: object) -> Iterator[Any]:
    """A tensor's type, shape and bytes; the parts of a tuple; anything else as it prints."""
    if isinstance(value, Tensor):
        yield value.dtype, tuple(value.shape)
        tensor = value.detach()
        tensor = tensor.dequantize() if tensor.is_quantized else tensor.to_dense() if tensor.is_sparse else tensor
        yield tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, list | tuple):
        for part in value:
            yield from contents(part)
    else:
        yield value


def described_tokenizer(tokenizer: object) -> Any:
    """A tokenizer as text."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(backend, "to_str"):
        return backend.to_str(), [getattr(tokenizer, name, None) for name in TOKENIZER_SETTINGS]
    return fullname(tokenizer), settings_of(tokenizer), len(tokenizer) if hasattr(tokenizer, "__len__") else None


# ---- a model by what it gives


def of_vector(vector: Any) -> list[float]:
    """The beginning of a vector (H,); of a sparse one (V,), its heaviest terms and their weights by turns."""
    if not isinstance(vector, Tensor):
        return [round(float(value), 6) for value in vector[:SAMPLE]]
    vector = vector.coalesce()
    order = vector.values().argsort(descending=True, stable=True)[: SAMPLE // 2]
    pairs = zip(vector.indices()[0][order].tolist(), vector.values()[order].tolist(), strict=True)
    return [number for term, weight in pairs for number in (term, round(weight, 6))]


def cosine(one: list[float], other: list[float], sparse: bool) -> float:
    """How alike the vectors are whose fingerprints these are; 0 for dense ones of different lengths."""
    if sparse:
        left, right = (dict(zip(pairs[::2], pairs[1::2], strict=True)) for pairs in (one, other))
        terms = {*left, *right}
        one, other = ([weights.get(term, 0.0) for term in terms] for weights in (left, right))
    if len(one) != len(other):
        return 0.0
    return float(np.dot(one, other) / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12))
