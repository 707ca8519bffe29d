"""What `encode` was asked to return, from features to the caller.

Inside, a micro-batch gives one kind of thing: a float32 or model-type array of shape (n, H), a tensor, or a list of
rows. `Output.rows` makes it; `as_asked` brings the gathered rows into the caller's form, once, at the door.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.features import Features
from sentence_transformers.quantization import PRECISIONS, Precision, quantize_embeddings
from sentence_transformers.util.tensor import normalize_embeddings

if TYPE_CHECKING:
    from sentence_transformers.encoders.base import BaseModel
    from sentence_transformers.encoders.embedding import EmbeddingModel
    from sentence_transformers.engine.result_buffer import Rows


def embedding_of(model: BaseModel, features: dict[str, Any]) -> Tensor:
    """`sentence_embedding`; `ModelFormatError` where no module of the model makes one."""
    if "sentence_embedding" not in features:
        raise ModelFormatError(
            "No module of this model makes a sentence_embedding. Add one, such as Pooling; in a model folder "
            f"modules.json names them. There are {[type(module).__name__ for module in model]}."
        )
    return features["sentence_embedding"]


@dataclass(frozen=True)
class Output:
    """The output arguments of `encode`.

    Attributes:
        value: "sentence_embedding", "token_embeddings" or None for all features.
        precision: float32, int8, uint8, binary or ubinary.
        numpy, tensor: convert_to_numpy and convert_to_tensor; `tensor` wins.
        normalize: scale texts' vectors to length 1; token vectors and features stay as they are.
        truncate: keep the first dimensions of texts' vectors.
    """

    value: str | None = "sentence_embedding"
    precision: Precision = "float32"
    numpy: bool = True
    tensor: bool = False
    normalize: bool = False
    truncate: int | None = None

    @property
    def as_arrays(self) -> bool:
        """Whether rows leave the device as numpy arrays."""
        return self.precision != "float32" or (self.numpy and not self.tensor)

    def for_worker(self) -> Output:
        """The same rows, as arrays; precision is applied to the merged result."""
        return replace(self, precision="float32", numpy=True, tensor=False)

    def rows(self, model: BaseModel, features: dict[str, Any], count: int) -> Any:
        """Rows of one micro-batch of `count` texts."""
        if self.truncate is not None and "sentence_embedding" in features:
            features = features | {"sentence_embedding": features["sentence_embedding"][..., : self.truncate]}
        if self.value != "sentence_embedding":
            with torch.inference_mode(False):  # so that the rows are ordinary tensors
                if self.value is None:
                    return all_features(model, features, count)
                return Features.of(features).split("token_embeddings", count)
        rows = embedding_of(model, features)
        if self.normalize:
            rows = normalize_embeddings(rows)
        return to_numpy(rows) if self.as_arrays else rows


@dataclass(frozen=True)
class TokenOutput:
    """Rows of one vector per token: a tensor (n, H) for each text, or a dictionary of all its features.

    Attributes:
        value: "token_embeddings" or None for all features.
        numpy: as arrays.
        normalize: scale token vectors to length 1.
        pooling: joins token vectors afterwards: a `BaseTokenPooling`, or None.
        task: side of the texts, which the pooling may ask for.
    """

    value: str | None = "token_embeddings"
    numpy: bool = False
    normalize: bool = False
    pooling: Any = None
    task: str | None = None

    def for_worker(self) -> TokenOutput:
        return replace(self, numpy=True)

    def rows(self, model: BaseModel, features: dict[str, Any], count: int) -> list[Any]:
        if self.normalize:
            unit = normalize_embeddings(features["token_embeddings"])
            features = features | {"token_embeddings": unit}
        with torch.inference_mode(False):  # so that the rows are ordinary tensors
            if self.value is None:
                if self.pooling is not None:
                    features = self.pooling(features, task=self.task)
                return all_features(model, features, count)
            rows = Features.of(features).split("token_embeddings", count)
            if self.pooling is not None:
                rows = self.pooling.pool(rows, task=self.task)
            return [to_numpy(row) for row in rows] if self.numpy else rows

    def as_asked(self, rows: list[Any] | None, singular: bool, device: torch.device) -> Any:
        """The gathered rows in the caller's form: a list, or its only entry."""
        rows = [] if rows is None else rows
        if self.value is not None and not self.numpy:
            rows = [torch.from_numpy(row) if isinstance(row, np.ndarray) else row for row in rows]
            rows = [row.to(device) for row in rows]
        return rows[0] if singular else rows


def check_output(output: Output) -> None:
    """Raise `InputError` for arguments of `encode` that cannot be meant."""
    if output.precision not in PRECISIONS:
        raise InputError(f"Unknown precision {output.precision!r}; known are {', '.join(PRECISIONS)}.")
    if output.value not in ("sentence_embedding", "token_embeddings", None):
        raise InputError(
            f"Unknown output_value {output.value!r}; known are 'sentence_embedding', 'token_embeddings' and None."
        )


def to_numpy(rows: Tensor) -> np.ndarray:
    """As an array; bfloat16, which numpy does not have, as float32."""
    rows = rows.detach()
    return (rows.float() if rows.dtype == torch.bfloat16 else rows).cpu().numpy()


def all_features(model: BaseModel, features: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """All features of each text as version 6.2.0 names them: without positions, with the types of tokens."""
    kept = {key: value for key, value in features.items() if key != "position_ids"}
    if "token_type_ids" not in kept and "input_ids" in kept and getattr(model[0], "gives_types", False):
        kept["token_type_ids"] = torch.zeros_like(kept["input_ids"])
    return Features.of(kept).per_text(count)


def as_asked(
    rows: Rows | None, output: Output, singular: bool, model: EmbeddingModel, device: torch.device | None = None
) -> Any:
    """The gathered rows in the caller's form.

    Args:
        rows: array, tensor or list; None where there were no inputs.
        singular: whether one text was given, not a list.
        device: where tensors lie; default: the model's device.
    """
    if output.value != "sentence_embedding":
        rows = [] if rows is None else rows
        return rows[0] if singular else rows
    if rows is None:
        rows = np.zeros((0, output.truncate or model.get_embedding_dimension() or 0), np.float32)
    if output.precision != "float32":
        rows = quantize_embeddings(rows, output.precision)
    if output.tensor:
        rows = rows if isinstance(rows, Tensor) else torch.as_tensor(rows)
        if output.precision == "float32":
            rows = rows.to(model.device if device is None else device)
    elif output.numpy:
        rows = to_numpy(rows) if isinstance(rows, Tensor) else rows
    else:
        rows = list(torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows)
    return rows[0] if singular else rows
