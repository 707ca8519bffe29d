"""Weights of one module on disk: safetensors first, `pytorch_model.bin` only with `weights_only=True`.

Reading checks what is there before anything is allocated: a truncated safetensors file, a missing or surplus name, or a
shape that does not fit gives a `ModelFormatError` that names the file and the tensors.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_transformers.errors import ModelFormatError
from sentence_transformers.storage.files import Source, settle

if TYPE_CHECKING:
    import torch
    from torch import nn

SAFE_NAME = "model.safetensors"
TORCH_NAME = "pytorch_model.bin"


def read_tensors(source: Source) -> dict[str, torch.Tensor]:
    """All tensors of one part of a model, by name.

    Raises:
        ModelFormatError: if there is no weight file, it is truncated or not a weight file, or holds NaN.
    """
    if path := source.path(SAFE_NAME):
        tensors = read_safetensors(path)
    elif path := source.path(TORCH_NAME):
        tensors = read_torch(path)
    else:
        where = f"{source.name}/{source.subfolder}".rstrip("/")
        raise ModelFormatError(f"{where} holds no weights: expected {SAFE_NAME} (or the older {TORCH_NAME}).")
    check_finite(tensors, path)
    return tensors


def check_finite(tensors: dict[str, torch.Tensor], where: str) -> None:
    """Raise `ModelFormatError` naming the first weight that holds NaN or infinite values."""
    import torch

    for key, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.device.type == "meta":
            continue
        wide = torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype
        if not tensor.detach().sum(dtype=wide).isfinite():
            raise ModelFormatError(f"The weight {key} of {where} holds NaN or infinite values.")


def read_safetensors(path: str) -> dict[str, torch.Tensor]:
    """Tensors in memory of their own: a mapped file that is overwritten or cut would change or crash a loaded model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (SafetensorError, ValueError, OSError) as error:
        size = Path(path).stat().st_size
        raise ModelFormatError(
            f"{path} ({size:,} bytes) cannot be read as safetensors: {error}. It may be truncated; fetch it again."
        ) from error


MOST_LAYERS = 1_000  # that are built to see what is missing; layers may share their tensors


def check_layers(source: Source) -> None:
    """Raise `ModelFormatError` if config.json asks for more layers than the weights have tensors: a model of so many
    would be built, layer by layer, before it is seen that they are missing.
    """
    from safetensors import SafetensorError, safe_open

    config = source.json("config.json") or {}
    most = 0
    if index := source.json(f"{SAFE_NAME}.index.json"):
        most = len(index.get("weight_map") or {})
    elif path := source.path(SAFE_NAME):
        with suppress(SafetensorError, OSError), safe_open(path, "pt") as file:  # else named where it is read
            most = len(file.keys())
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    for key, value in (item for part in parts for item in part.items()):
        if (
            re.fullmatch(r"(num_\w*|n_|\w+coder_)layers?", key)
            and type(value) is int
            and value > max(most, MOST_LAYERS)
        ):
            raise ModelFormatError(f"{source.place('config.json')}: {key} is {value}, more than the weights hold.")


def read_torch(path: str) -> dict[str, torch.Tensor]:
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelFormatError(not_plain(path)) from error


def not_plain(path: str | os.PathLike[str]) -> str:
    """What is said of a `pytorch_model.bin` that does not load with weights_only=True."""
    return (
        f"{path} cannot be read as plain weights (weights_only=True): it is truncated, or holds other Python objects, "
        f"which are refused because they may run code. Fetch it again, or convert the model to safetensors."
    )


def load_into(module: nn.Module, source: Source) -> None:
    """Read the weights of one part of a model into `module`.

    Raises:
        ModelFormatError: if names or shapes differ between file and module; the module is then unchanged.
    """
    tensors = read_tensors(source)
    own = module.state_dict()
    where = f"{source.name}/{source.subfolder}".rstrip("/")
    there = {own[name].data_ptr() for name in own.keys() & tensors.keys()}  # a shared weight is stored once
    missing = sorted(name for name in own.keys() - tensors.keys() if own[name].data_ptr() not in there)
    surplus = sorted(tensors.keys() - own.keys())
    if missing or surplus:
        raise ModelFormatError(
            f"The weights in {where} do not fit {type(module).__name__}: missing {missing}, unexpected {surplus}."
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ModelFormatError(
                f"{name} in {where} has shape {tuple(tensor.shape)}; "
                f"the module's config asks for {tuple(own[name].shape)}."
            )
    module.load_state_dict(tensors, strict=False)


COMPILED = "_orig_mod."  # what `torch.compile` calls a module inside of the one that it gives


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a module under the names that they have where nothing is compiled."""
    return {name.replace(COMPILED, ""): tensor for name, tensor in module.state_dict().items()}


def write(module: nn.Module, folder: str | os.PathLike[str], safe_serialization: bool = True) -> None:
    """Write a module's weights as `model.safetensors`, or as `pytorch_model.bin` if `safe_serialization` is False. A
    weight that has several names is stored under the first.
    """
    import torch

    settle(folder)
    tensors = tensors_of(module)
    if not safe_serialization:
        torch.save(tensors, Path(folder, TORCH_NAME))
        return
    from safetensors.torch import save_file

    first: dict[Any, str] = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        first.setdefault((tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()), name)
    # in memory of their own: some may be parts of one tensor (`vector_to_parameters`)
    kept = {name: tensors[name].clone(memory_format=torch.contiguous_format) for name in first.values()}
    save_file(kept, str(Path(folder, SAFE_NAME)), {"format": "pt"})
