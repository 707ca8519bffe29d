"""Normalize: every vector is scaled to length 1, so that the dot product of two is the cosine of their angle.

    y = x / max(‖x‖₂, 1e-12)

along the last dimension of the entry `module_input_name`: "sentence_embedding" (B, H), or "token_embeddings", padded
(B, L, H) or packed (T, H). The zero vector stays zero. A model folder without a settings file means the defaults:
older models saved nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from torch import Tensor

from sentence_transformers.modules.base import Module
from sentence_transformers.util.tensor import normalize_embeddings


class Normalize(Module):
    """Scale vectors to length 1.

    Args:
        module_input_name: entry of the features that is read.
        module_output_name: entry of the features that is written; None for the one that is read.
    """

    config_keys: ClassVar[list[str]] = ["module_input_name", "module_output_name"]
    takes_packed = True

    def __init__(self, module_input_name: str = "sentence_embedding", module_output_name: str | None = None) -> None:
        super().__init__()
        self.module_input_name = module_input_name
        self.module_output_name = module_output_name or module_input_name

    def forward(self, features: dict[str, Tensor | Any], **kwargs) -> dict[str, Tensor | Any]:
        features[self.module_output_name] = normalize_embeddings(features[self.module_input_name])
        return features

    @classmethod
    def load(
        cls,
        model_name_or_path: str = "",
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **kwargs,
    ) -> Self:
        """Like `Module.load`; without a name, or without a settings file under it, the defaults."""
        if not model_name_or_path:
            return cls(**init_defaults or {})
        where = (model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        return super().load(*where, init_defaults, **kwargs)
