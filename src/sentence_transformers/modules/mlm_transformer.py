"""MLMTransformer: older name of `Transformer(..., transformer_task="fill-mask")`, kept for saved models."""

from __future__ import annotations

import warnings
from typing import Any, Self

from sentence_transformers.modules.transformer import Transformer


class MLMTransformer(Transformer):
    """A `Transformer` with its masked-language-model head. Deprecated in code of your own."""

    def __init__(self, *args: Any, _from_auto_load: bool = False, **kwargs: Any) -> None:
        if not _from_auto_load:
            text = 'MLMTransformer is now Transformer(..., transformer_task="fill-mask").'
            warnings.warn(text, DeprecationWarning, stacklevel=2)
        super().__init__(*args, **{"transformer_task": "fill-mask"} | kwargs)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Self:
        """Like `Transformer.load`."""
        defaults = {"transformer_task": "fill-mask", "_from_auto_load": True} | (
            kwargs.pop("init_defaults", None) or {}
        )
        return super().load(model_name_or_path, subfolder, init_defaults=defaults, **kwargs)
