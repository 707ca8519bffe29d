"""What a checkpoint holds besides what transformers writes, and which checkpoint can be gone on from.

The model is written as a model folder, in one step. A loss with parameters of its own (a classifier, a learned scale)
is part of the run and not of the model: it goes into `loss.safetensors`. transformers writes `trainer_state.json` last,
so a checkpoint without it was cut off while it was written and is passed over.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sentence_transformers import _names
from sentence_transformers.errors import InputError
from sentence_transformers.util.atomic import replacing

if TYPE_CHECKING:
    from sentence_transformers.encoders.base import BaseModel
    from sentence_transformers.training.arguments import BaseTrainingArguments

logger = logging.getLogger(__name__)

LOSS_FILE = "loss.safetensors"
STATE_FILE = "trainer_state.json"


def last_checkpoint(folder: str) -> str | None:
    """The latest complete checkpoint in a folder; None if there is none."""
    found = {}
    for path in Path(folder).glob("checkpoint-*"):
        number = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if number and (path / STATE_FILE).is_file():
            found[int(number[1])] = path
        elif number:
            logger.warning("%s is incomplete, it was cut off while it was written; it is passed over.", path)
    return str(found[max(found)]) if found else None


def save_loss(parameters: Mapping[str, nn.Parameter], folder: str) -> None:
    """Write the parameters of the losses."""
    if not parameters:
        return
    from safetensors.torch import save_file

    tensors = {name: parameter.detach().cpu().contiguous().clone() for name, parameter in parameters.items()}
    with replacing(Path(folder, LOSS_FILE)) as path:
        save_file(tensors, str(path))


def save_arguments(args: BaseTrainingArguments, folder: str) -> None:
    """Write the arguments of a run; left out where they hold what cannot be written, a function in a function say."""
    try:
        with replacing(Path(folder, "training_args.bin")) as path:
            torch.save(args, path)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        logger.warning("training_args.bin is not written, which only documents a run: %s", error)


def load_loss(parameters: Mapping[str, nn.Parameter], folder: str) -> None:
    """Read the parameters of the losses."""
    path = Path(folder, LOSS_FILE)
    if not parameters or not path.is_file():
        return
    from safetensors.torch import load_file

    tensors = load_file(str(path))
    if missing := parameters.keys() ^ tensors.keys():
        raise InputError(f"{path} is of another loss: {sorted(missing)} are in one of the two only.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def load_model(model: BaseModel, folder: str) -> None:
    """Read a checkpoint's weights into a model; the classes that it is made of are trusted."""
    kind = next(base for base in type(model).__mro__ if base.__module__.startswith("sentence_transformers."))
    parts = [*model.modules(), *(getattr(part, "tokenizer", None) for part in model.modules())]
    with _names.known_classes({type(part) for part in parts}):
        saved = kind(folder, device="cpu", trust_remote_code=model.trust_remote_code, local_files_only=True)
    for encoder in (model, saved):
        _ = encoder.transformers_model  # the same form of both
    model.load_state_dict(saved.state_dict())


@contextlib.contextmanager
def whole_weights(model: nn.Module, state_dict: dict[str, Tensor] | None) -> Iterator[None]:
    """Within the context a sharded model has its whole weights, to be saved."""
    if not state_dict:
        yield
        return
    places = [(part, name, f"{prefix}.{name}".lstrip(".")) for prefix, part in model.named_modules()
              for name in part._parameters]  # fmt: skip
    before = [part._parameters[name] for part, name, _ in places]
    try:
        for part, name, full in places:
            if full in state_dict:
                part._parameters[name] = nn.Parameter(state_dict[full], requires_grad=False)
        yield
    finally:
        for (part, name, _), parameter in zip(places, before, strict=True):
            part._parameters[name] = parameter
