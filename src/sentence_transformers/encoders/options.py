"""What every encoder's constructor takes besides the name of the model, see `BaseModel`: one list, passed on whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

if TYPE_CHECKING:
    from torch import nn

    from sentence_transformers.storage.base_model_card import BaseModelCardData


class ModelOptions(TypedDict):
    modules: list[nn.Module] | None
    device: str | None
    prompts: dict[str, str] | None
    default_prompt_name: str | None
    cache_folder: str | None
    trust_remote_code: bool
    revision: str | None
    local_files_only: bool
    token: bool | str | None
    model_kwargs: dict[str, Any] | None
    processor_kwargs: dict[str, Any] | None
    config_kwargs: dict[str, Any] | None
    model_card_data: BaseModelCardData | None
    backend: Literal["torch", "onnx", "openvino"]


def model_options(arguments: Mapping[str, Any]) -> ModelOptions:
    """Those among the arguments of a subclass's constructor, `locals()`, that are for `BaseModel`."""
    return cast(ModelOptions, {name: arguments[name] for name in ModelOptions.__annotations__})
