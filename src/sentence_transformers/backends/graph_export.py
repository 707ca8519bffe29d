"""From a transformers model to an ONNX file.

`torch.onnx.export(dynamo=True)` traces the model once, with batch size and length left open. Each input is an object of
its own: one tensor given as two inputs would be merged into one without any error. A graph can run without any error
and be wrong, so what comes out is compared with the model, at several lengths and batch sizes, before it is used.
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sentence_transformers.backends.graph import ORIGIN, Graph
from sentence_transformers.backends.tasks import TASKS
from sentence_transformers.errors import MissingExtraError, ModelFormatError

SHAPES = ((1, 3), (1, 64), (2, 5), (4, 33), (7, 16))  # (texts, tokens)
TOLERANCE = 1e-4  # of the largest number in the model's output, at least 1
INLINE_BYTES = 2**31 - 2**24  # an ONNX file holds less than 2 GiB; larger weights go into a file beside it


class OneOutput(nn.Module):
    """A transformers model with positional inputs and one output."""

    def __init__(self, model: Any, inputs: list[str], output: str) -> None:
        super().__init__()
        self.model, self.inputs, self.output = model, inputs, output
        self.extra = {"use_cache": False} if getattr(model.config, "use_cache", None) else {}

    def forward(self, *args: Tensor) -> Tensor:
        return self.model(**dict(zip(self.inputs, args, strict=True)), **self.extra)[self.output]


def inputs_of(model: Any, tokenizer_inputs: list[str]) -> list[str]:
    """Names of the inputs that the graph gets: those that the tokenizer gives and the model takes."""
    takes = inspect.signature(model.forward).parameters
    types = "token_type_ids"
    return ["input_ids", "attention_mask", *([types] if types in takes and types in tokenizer_inputs else [])]


def example(model: Any, names: list[str], batch: int, length: int, seed: int = 0) -> dict[str, Tensor]:
    """A padded batch of random tokens; every second text is shorter than the first."""
    size = model.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[1::2, max(length // 2, 1) :] = 0
    ids = torch.randint(size // 2, size, (batch, length), generator=generator)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: given[name] for name in names}


def to_onnx(model: Any, names: list[str], task: str, path: Path, origin: str) -> None:
    """Write a transformers model as an ONNX file, with the fingerprint of its weights (`storage.fingerprint`)."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("onnxscript", "onnx", "Exporting a model to ONNX") from error
    axes = {0: "batch", 1: "sequence"}
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            OneOutput(model, names, TASKS[task].output).eval(),
            tuple(example(model, names, 3, 11).values()),
            dynamo=True,
            dynamic_shapes=((axes,) * len(names),),
            input_names=names,
            output_names=[TASKS[task].output],
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props[ORIGIN] = origin
        program.save(str(path), external_data=size > INLINE_BYTES)


@torch.no_grad()
def verify(graph: Graph, model: Any, names: list[str]) -> float:
    """Compare a graph with its transformers model.

    Returns:
        The largest difference found.

    Raises:
        ModelFormatError: naming the largest difference and its shape, if it is above `TOLERANCE`.
    """
    output, worst = TASKS[graph.task].output, (0.0, (0, 0))
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or SHAPES[1][1]
    for shape in SHAPES:
        batch = example(model, names, shape[0], min(shape[1], limit - 2), seed=shape[1])
        extra = {"use_cache": False} if getattr(model.config, "use_cache", None) else {}
        expected, found = model(**batch, **extra)[output].float(), graph(**batch)[output]
        if graph.task != "sequence-classification":
            mask = batch["attention_mask"].bool()
            expected, found = expected[mask], found[mask]
        scale = max(1.0, float(expected.abs().max()))
        difference = float((expected - found).abs().max()) / scale
        worst = max(worst, (difference if difference == difference else float("inf"), shape))
    if worst[0] > TOLERANCE:
        raise ModelFormatError(
            f"The exported graph {graph.path} does not compute what {type(model).__name__} computes: the largest "
            f"difference is {worst[0]:.3g}, at {worst[1][0]} texts of {worst[1][1]} tokens; at most {TOLERANCE:g} is "
            "allowed. Use backend='torch' for this model."
        )
    return worst[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what the exporter says of its own workings."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def scratch_folder() -> Path:
    """A folder for an exported file until the model is saved; removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="sentence-transformers-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
