"""Adapters (LoRA and others) on the transformer inside a model, through the `peft` package."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sentence_transformers.errors import MissingExtraError

if TYPE_CHECKING:
    from sentence_transformers.encoders.base import BaseModel


def peft_wrapper(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the method calls the one of the same name of the transformers model inside, if it takes adapters."""

    @functools.wraps(function)
    def method(self: BaseModel, *args: Any, **kwargs: Any) -> Any:
        self.check_peft_compatible_model()
        return getattr(self.transformers_model, function.__name__)(*args, **kwargs)

    return method


class PeftAdapterMixin:
    """Adapter methods of the transformers model, on the encoder itself; for arguments see transformers'
    `PeftAdapterMixin`.

    Each raises MissingExtraError without the `peft` package, ValueError without a transformers model.
    """

    transformers_model: Any

    def has_peft_compatible_model(self) -> bool:
        """Whether the first module holds a transformers model that takes adapters."""
        return hasattr(self.transformers_model, "load_adapter")

    def check_peft_compatible_model(self) -> None:
        """Raise if adapters cannot be used."""
        if not self.has_peft_compatible_model():
            raise ValueError(
                "Adapters need a model whose first module is a Transformer with a transformers model inside."
            )
        try:
            import peft  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("peft", "peft", "Adapters") from error

    def load_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """Load an adapter from a folder or the hub."""
        from sentence_transformers.backends.pretrained import read_magnitudes

        self.check_peft_compatible_model()
        found = self.transformers_model.load_adapter(*args, **kwargs)
        given = dict(zip(("peft_model_id", "adapter_name"), args, strict=False)) | kwargs
        if given.get("peft_model_id"):
            read_magnitudes(self.transformers_model, given["peft_model_id"], None, given)
        return found

    @peft_wrapper
    def add_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """Add a fresh adapter, to be trained."""

    @peft_wrapper
    def set_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """Make one adapter, or several, the active ones."""

    @peft_wrapper
    def disable_adapters(self) -> Any:
        """Compute without adapters."""

    @peft_wrapper
    def enable_adapters(self) -> Any:
        """Compute with the adapters again."""

    @peft_wrapper
    def active_adapters(self) -> Any:
        """Names of the active adapters."""

    @peft_wrapper
    def get_adapter_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Weights of an adapter by name."""

    @peft_wrapper
    def delete_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """Remove adapters by name."""

    def active_adapter(self) -> str:
        """Name of the active adapter."""
        return self.active_adapters()[0]
