"""A fingerprint of everything that a model's embeddings depend on, for caches of them.

    sha256 of   every weight and buffer, byte by byte, with its name, type and shape
                every setting of the model and its modules: prompts, dimensions, lengths, attributes of subclasses
                the tokenizer, as it is written to a file

Reading all weights takes about a second for each gigabyte; a sample of them would miss changes.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sentence_transformers.modules.base import Module
from sentence_transformers.util.misc import fullname

VOLATILE = ("training", "model_card_data", "came_from")
TOKENIZER_SETTINGS = ("truncation_side", "padding_side", "model_max_length", "do_lower_case", "chat_template")
ADAPTERS = ("_active_adapter", "_disable_adapters")


def model_fingerprint(model: nn.Module) -> str:
    """64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in described(model):
        digest.update(part if isinstance(part, bytes) else repr(part).encode("utf-8", "replace"))
        digest.update(b"\0")
    return digest.hexdigest()


def described(model: nn.Module) -> Iterator[Any]:
    """Everything that goes into the fingerprint."""
    yield fullname(model), getattr(model, "_made_from", None), settings_of(model)
    for name in ("prompts", "default_prompt_name", "truncate_dim", "max_seq_length"):
        yield name, getattr(model, name, None)
    if isinstance(model, nn.Module):
        for name, module in model.named_modules():
            yield name, [getattr(module, key) for key in ADAPTERS if hasattr(module, key)]
            if isinstance(module, Module) or module in list(model.children()):
                yield fullname(module), settings_of(module)
        for name, value in sorted(model.state_dict().items()):
            yield name
            yield from contents(value)
    yield tokenizer_of(getattr(model, "tokenizer", None))


def settings_of(module: nn.Module) -> dict[str, Any]:
    """The settings of a module, and its public attributes that are plain values."""
    config = getattr(module, "get_config_dict", None)
    found = dict(config()) if config is not None and not inspect.signature(config).parameters else {}
    own = vars(module) if hasattr(module, "__dict__") else {}
    plain = {key: value for key, value in own.items() if key[0] != "_" and key not in VOLATILE and is_plain(value)}
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


def tokenizer_of(tokenizer: Any) -> Any:
    """A tokenizer as text."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(backend, "to_str"):
        return backend.to_str(), [getattr(tokenizer, name, None) for name in TOKENIZER_SETTINGS]
    return fullname(tokenizer), settings_of(tokenizer), len(tokenizer) if hasattr(tokenizer, "__len__") else None
