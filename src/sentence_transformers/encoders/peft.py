"""Adapters (LoRA and others) on the transformer inside a model, through the `peft` package."""

from __future__ import annotations

from typing import Any

from sentence_transformers.errors import MissingExtraError


def _forward(name: str) -> Any:
    """A method that calls the transformers model's method of the same name."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.check_peft_compatible_model()
        return getattr(self.transformers_model, name)(*args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"PeftAdapterMixin.{name}"
    method.__doc__ = f"`{name}` of the transformers model inside; see transformers' PeftAdapterMixin."
    return method


class PeftAdapterMixin:
    """Adapter methods of the transformers model, on the encoder itself.

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

    load_adapter = _forward("load_adapter")
    add_adapter = _forward("add_adapter")
    set_adapter = _forward("set_adapter")
    disable_adapters = _forward("disable_adapters")
    enable_adapters = _forward("enable_adapters")
    active_adapters = _forward("active_adapters")
    get_adapter_state_dict = _forward("get_adapter_state_dict")
    delete_adapter = _forward("delete_adapter")

    def active_adapter(self) -> str:
        """Name of the active adapter."""
        return self.active_adapters()[0]
