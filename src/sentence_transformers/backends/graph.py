"""A transformer as a graph in a file, computed by another runtime: what ONNX Runtime and OpenVINO have in common.

    {"input_ids": (B, L), "attention_mask": (B, L), …}  ->  {"last_hidden_state": (B, L, H)} or {"logits": …}

A `Graph` stands in the place of the transformers model inside `modules.transformer`, where a `GraphRunner` calls it on
padded batches; which texts go together is the engine's affair, as always. Files made by others differ in their inputs
and outputs: inputs are given as the graph names them, and the output is found by its name. A fixed number of texts or
tokens is kept to. A graph whose only output is one vector per text gives that vector at every token, which any pooling
turns into the vector itself.

Looked for are `file_name` in the model's folder (or `subfolder`), then in `onnx/` or `openvino/` below it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sentence_transformers.backends.runner import ModelRunner
from sentence_transformers.backends.tasks import TASKS, position_offset
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.storage.files import Source, join
from sentence_transformers.util.threads import thread_count

ORIGIN = "sentence_transformers_weights"
"""Key in the metadata of an ONNX file, and in the runtime information of an OpenVINO file: `fingerprint.of_files`."""
KNOWN_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
SHARED_OUTPUTS = ("token_embeddings", "sentence_embedding")


class Graph(nn.Module):
    """A graph and the runtime that computes it.

    Args:
        path: the file.
        config: the transformers config of the model.
        task: one of `TASKS`.
        options: settings of the runtime.

    Raises:
        ModelFormatError: if the file cannot be read, or belongs to another model.
    """

    folder: ClassVar[str]
    default_name: ClassVar[str]
    on_cpu: ClassVar[dict[str, str]]  # options for the CPU
    not_pickled: ClassVar[tuple[str, ...]] = ("_session",)  # what `_start` makes anew
    input_names: Sequence[str]
    output_names: Sequence[str]
    fixed: tuple[int | None, int | None] = (None, None)  # texts and tokens of a batch, where the file says how many
    origin: str | None = None  # fingerprint of the weights that the file was exported from

    def __init__(self, path: str | Path, config: Any, task: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.path, self.config, self.task, self.options = Path(path), config, task, options
        self._start()
        check_names(self)
        check_sizes(self)

    def _start(self) -> None:
        """Open the file; sets `input_names`, `output_names`, `fixed` and `origin`."""
        raise TypeError("A subclass opens the file.")

    def _compute(self, arrays: dict[str, np.ndarray], output: str) -> np.ndarray:
        """One output for the given inputs."""
        raise TypeError("A subclass computes.")

    @staticmethod
    def companions(name: str) -> list[str]:
        """Names of the files that may belong to a graph file."""
        return []

    @classmethod
    def from_onnx(cls, path: Path, origin: str) -> Path:
        """The graph file of this kind made from an ONNX file, with the fingerprint of its weights."""
        return path

    def files(self) -> list[Path]:
        """The file and those that belong to it."""
        beside = (self.path.with_name(name) for name in self.companions(self.path.name))
        return [self.path, *(path for path in beside if path.is_file())]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in self.not_pickled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._start()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """{name of the task's output: value}."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask} | inputs
        wanted = TASKS[self.task].output
        value = torch.from_numpy(self.run(self.arrays(given)))
        if self.task == "feature-extraction" and value.ndim == 2:
            value = value[:, None].expand(-1, input_ids.shape[1], -1)
        return {wanted: value.float()}

    def arrays(self, features: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """The inputs of the graph, made from a padded batch."""
        given = {"token_type_ids": torch.zeros_like(features["input_ids"])} | features
        if "position_ids" in self.input_names:
            given["position_ids"] = positions(given["attention_mask"], self.config)
        return {name: given[name].cpu().numpy() for name in self.input_names}

    def run(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """The output that is used. A graph of fixed shape gets pieces of that shape, filled up with padding."""
        size, width = self.fixed
        if size is None and width is None:
            return self._compute(arrays, self.output)
        texts, length = arrays["input_ids"].shape
        if width is not None and length > width:
            raise InputError(
                f"{self.path} takes texts of {width} tokens, not of {length}; set max_seq_length={width}, "
                "or export it again with model_kwargs={'export': True}."
            )
        size, width = size or texts, width or length
        parts = []
        for start in range(0, texts, size):
            piece = {name: filled(array[start : start + size], size, width) for name, array in arrays.items()}
            parts.append(self._compute(piece, self.output)[: texts - start])
        value = np.concatenate(parts)
        return value[:, :length] if value.ndim == 3 else value

    @property
    def output(self) -> str:
        """The graph's output that is used."""
        wanted = TASKS[self.task].output
        names = (wanted, *SHARED_OUTPUTS) if self.task == "feature-extraction" else (wanted,)
        found = next((name for name in names if name in self.output_names), None)
        if found is None and len(self.output_names) == 1:
            return self.output_names[0]
        if found is None:
            raise ModelFormatError(
                f"{self.path} has the outputs {list(self.output_names)}; a model for {self.task} needs one of "
                f"{list(names)}. Export the model again with model_kwargs={{'export': True}}."
            )
        return found

    def get_output_embeddings(self) -> None:
        """A graph cannot stop before its last product."""

    def save(self, folder: str | Path) -> None:
        """Copy the files into the sub-folder of their kind."""
        target = Path(folder, self.folder)
        target.mkdir(exist_ok=True)
        for file in self.files():
            shutil.copy(file, target / file.name)


class GraphRunner(ModelRunner):
    """Computes with a graph, on padded batches."""

    def __init__(self, model: Any, name: str) -> None:
        super().__init__(model, name)
        self.arguments = {"input_ids", "attention_mask", "token_type_ids"}


def filled(rows: np.ndarray, size: int, width: int) -> np.ndarray:
    """(b, l) -> (size, width): zeros behind each row, copies of the last row below."""
    wide = np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
    return np.pad(wide, ((0, size - len(wide)), (0, 0)), mode="edge")


def positions(mask: Tensor, config: Any) -> Tensor:
    """(B, L) places of the tokens, by the architecture's count; padding has the place of the first."""
    return (mask.cumsum(1) - 1).clamp(min=0) + position_offset(config)


def find(source: Source, kind: type[Graph], file_name: str | None) -> str | None:
    """Path of the graph file of a model: beside its config, else in the sub-folder of its kind; None if neither."""
    name = file_name or kind.default_name
    for place in (name, join(kind.folder, name)):
        if path := source.path(place):
            for companion in kind.companions(place):
                source.path(companion)
            return path
    return None


def threads_and_share() -> tuple[int, int]:
    """How many batches the engine computes side by side on a CPU, and the threads of each (`util.threads`)."""
    count = thread_count(torch.device("cpu"))
    return count, max(1, torch.get_num_threads() // count)


def check_names(graph: Graph) -> None:
    """Raise `ModelFormatError` if the graph wants an input that a text encoder does not have."""
    unknown = sorted(set(graph.input_names) - set(KNOWN_INPUTS))
    if unknown or "input_ids" not in graph.input_names:
        raise ModelFormatError(
            f"{graph.path} takes the inputs {list(graph.input_names)}; known are {list(KNOWN_INPUTS)}. "
            "It is the file of another kind of model; export it again with model_kwargs={'export': True}."
        )


def check_sizes(graph: Graph) -> None:
    """Raise `ModelFormatError` if the graph's output does not have the sizes of the model's config: another model."""
    text = graph.config.get_text_config()
    sizes = {"feature-extraction": text.hidden_size, "sequence-classification": graph.config.num_labels}
    expected = sizes.get(graph.task, text.vocab_size)
    last_word = torch.tensor([[text.vocab_size - 1, 0]])
    graph.output  # noqa: B018  # raises if there is none
    try:
        (value,) = graph(input_ids=last_word, attention_mask=torch.ones_like(last_word)).values()
    except Exception as error:
        raise ModelFormatError(
            f"{graph.path} fails on two tokens of this model's vocabulary of {text.vocab_size}: {error} "
            "Is it the file of another model? Export it again with model_kwargs={'export': True}."
        ) from error
    if (found := value.shape[-1]) != expected:
        raise ModelFormatError(
            f"{graph.path} gives rows of {found} numbers, but this model's config says {expected}: it is the file of "
            "another model. Export it again with model_kwargs={'export': True}."
        )


def check_task(task: str) -> None:
    """Raise `InputError` for a task without a known output."""
    if task not in TASKS:
        raise InputError(f"Unknown task {task!r}; known are {', '.join(TASKS)}.")
