"""Weights of one module on disk: safetensors first, `pytorch_model.bin` only with `weights_only=True`.

Reading checks what is there before anything is allocated: a truncated safetensors file, a missing or surplus name, or a
shape that does not fit gives a `ModelFormatError` that names the file and the tensors.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sentence_transformers.errors import ModelFormatError
from sentence_transformers.storage.files import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

SAFE_NAME = "model.safetensors"
TORCH_NAME = "pytorch_model.bin"


def read_tensors(source: Source) -> dict[str, torch.Tensor]:
    """All tensors of one part of a model, by name.

    Raises:
        ModelFormatError: if there is no weight file or it is truncated or not a weight file.
    """
    if path := source.path(SAFE_NAME):
        return read_safetensors(path)
    if path := source.path(TORCH_NAME):
        return read_torch(path)
    where = f"{source.name}/{source.subfolder}".rstrip("/")
    raise ModelFormatError(f"{where} holds no weights: expected {SAFE_NAME} (or the older {TORCH_NAME}).")


def read_safetensors(path: str) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        size = Path(path).stat().st_size
        raise ModelFormatError(
            f"{path} ({size:,} bytes) cannot be read as safetensors: {error}. It may be truncated; fetch it again."
        ) from error


def read_torch(path: str) -> dict[str, torch.Tensor]:
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelFormatError(
            f"{path} cannot be read as plain weights (weights_only=True): {str(error).splitlines()[0]} "
            f"Files with other Python objects are refused; convert the model to safetensors."
        ) from error


def load_into(module: nn.Module, source: Source) -> None:
    """Read the weights of one part of a model into `module`.

    Raises:
        ModelFormatError: if names or shapes differ between file and module; the module is then unchanged.
    """
    tensors = read_tensors(source)
    own = module.state_dict()
    where = f"{source.name}/{source.subfolder}".rstrip("/")
    missing, surplus = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
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
    module.load_state_dict(tensors)


def write(module: nn.Module, folder: str | os.PathLike[str], safe_serialization: bool = True) -> None:
    """Write a module's weights as `model.safetensors`, or as `pytorch_model.bin` if `safe_serialization` is False."""
    if safe_serialization:
        from safetensors.torch import save_model

        save_model(module, str(Path(folder, SAFE_NAME)))
    else:
        import torch

        torch.save(module.state_dict(), Path(folder, TORCH_NAME))
