"""One batch on its way through the modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch


class Features(dict[str, Any]):
    """A batch as `preprocess` gives it: a dictionary whose entries are attributes too, as those of transformers'
    `BatchEncoding` are.

    Example:
        >>> features = model.preprocess(["A cat sleeps."]).to(model.device)
        >>> features.input_ids.shape
        torch.Size([1, 6])
    """

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"The features have no entry {name!r}; they have {', '.join(self)}.")

    def __or__(self, other: Mapping[str, Any]) -> Self:  # type: ignore[override]
        return type(self)({**self, **other})

    def copy(self) -> Self:
        return type(self)(self)

    @property
    def data(self) -> Self:
        """The entries."""
        return self

    def to(self, device: str | int | torch.device, *, non_blocking: bool = False) -> Self:
        """Move all tensors, in place; the features themselves are returned."""
        for key, value in self.items():
            if isinstance(value, torch.Tensor):
                self[key] = value.to(device, non_blocking=non_blocking)
        return self
