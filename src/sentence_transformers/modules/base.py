"""The parts that a model is made of, and what they hand to each other.

A model is a list of modules. The first, an `InputModule`, turns texts into `features`; each module takes the dictionary
`features`, adds or replaces entries and returns it; the last leaves `sentence_embedding` of shape (B, H).

`features` has one of two layouts, the same names in both:

    padded   input_ids, attention_mask (B, L); token_embeddings (B, L, H)
    packed   input_ids, position_ids (T,); token_embeddings (T, H); packing: a `Packing` with the sequence lengths

A packed batch is one flat run of tokens with nothing computed for padding. A module that understands both says
`takes_packed = True`; before any other module the engine pads the batch (`features.pad`).
A subclass stores its constructor's arguments under their own names and lists them in `config_keys`; saving, loading and
`repr` follow from that.
"""

from __future__ import annotations

import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from torch import Tensor, nn

from sentence_transformers.backends.override_detection import packs, unseen
from sentence_transformers.features import Features
from sentence_transformers.storage import files, settings, weights
from sentence_transformers.storage.files import Source
from sentence_transformers.util.whose_code import OWN, is_foreign

if TYPE_CHECKING:
    from sentence_transformers.encoders.base import BaseModel
    from sentence_transformers.protocols import AnyTokenizer

logger = logging.getLogger(__name__)


class Module(nn.Module, ABC):
    """One part of a model.

    Class attributes:
        config_file_name: file that holds the settings, in the module's own folder.
        config_keys: names of the settings; each is an attribute and an argument of the constructor.
        config_key_renames: older name in a config file -> name today.
        save_in_root: whether the module is saved in the model's root folder (input modules) or in a folder of its own.
        forward_kwargs: keyword arguments of `encode` that `forward` takes.
        takes_packed: whether `forward` understands packed batches; see the module's docstring.
        takes_vocabulary: whether `forward` takes `vocabulary`, scores yet to be computed, in the place of logits.
        sees_following: whether `forward` is told the module that comes next, as `following`.
    """

    config_file_name: str = "config.json"
    config_keys: ClassVar[list[str]] = []
    config_key_renames: ClassVar[dict[str, str]] = {}
    save_in_root: bool = False
    forward_kwargs: ClassVar[set[str]] = set()
    takes_packed: ClassVar[bool] = False
    takes_vocabulary: ClassVar[bool] = False
    sees_following: ClassVar[bool] = False

    @abstractmethod
    def forward(self, features: dict[str, Tensor | Any], **kwargs) -> dict[str, Tensor | Any]:
        """Take `features`, add or replace entries, return it."""

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as they are written to `config_file_name`."""
        return {key: getattr(self, key) for key in self.config_keys}

    @property
    def get_sentence_embedding_dimension(self) -> Callable[[], int | None]:
        """Older name of the method `get_embedding_dimension`; as absent as that where a module does not define it."""
        return cast(Any, self).get_embedding_dimension

    @property
    def get_word_embedding_dimension(self) -> Callable[[], int | None]:
        """As `get_sentence_embedding_dimension`."""
        return cast(Any, self).get_embedding_dimension

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.get_config_dict()})"

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **kwargs,
    ) -> Self:
        """Build the module from its settings, then read its weights if it has any.

        Args:
            model_name_or_path: a model folder or hub id.
            subfolder: the module's folder inside it.
            init_defaults: constructor arguments used where the file is silent.
        """
        source = Source(model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        return cls.from_source(source, init_defaults=init_defaults, **kwargs)

    @classmethod
    def from_source(cls, source: Source, init_defaults: dict[str, Any] | None = None, **kwargs: Any) -> Self:
        """What `load` does with the place that its arguments name; a subclass that reads other files overrides this."""
        config = cls.load_config(source.name, source.subfolder, **source.hub_kwargs)
        module = settings.construct(cls, config, source.place(cls.config_file_name), **init_defaults or {})
        if module.state_dict():
            weights.load_into(module, source)
        return module

    @classmethod
    def load_config(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        config_filename: str | None = None,
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> dict[str, Any]:
        """The settings in a module's file under today's names; {} if there is no file."""
        source = Source(model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        config = source.json(config_filename or cls.config_file_name) or {}
        return {cls.config_key_renames.get(key, key): value for key, value in config.items()}

    load_file_path = staticmethod(files.load_file_path)
    load_dir_path = staticmethod(files.load_dir_path)

    @classmethod
    def load_torch_weights(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        model: Self | None = None,
    ) -> Any:
        """Read the module's tensors: into `model` if given (returned), else as a dictionary by name."""
        source = Source(model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        if model is None:
            return weights.read_tensors(source)
        weights.load_into(model, source)
        return model

    def on_model_ready(self, model: BaseModel) -> None:
        """Called once with the whole model after all its modules are in place."""

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        """Write settings and, if there are any, weights into the folder `output_path`."""
        self.save_config(output_path)
        if self.state_dict():
            self.save_torch_weights(output_path, safe_serialization)

    def save_config(self, output_path: str | os.PathLike[str], filename: str | None = None) -> None:
        files.settle(output_path)
        path = Path(output_path, filename or self.config_file_name)
        path.write_text(json.dumps(self.get_config_dict(), indent=4), encoding="utf-8")

    def save_torch_weights(self, output_path: str, safe_serialization: bool = True) -> None:
        weights.write(self, output_path, safe_serialization)


class InputModule(Module):
    """A module that turns texts into features; the first of every model.

    Attributes:
        tokenizer: cuts text into tokens.
        modalities: kinds of input it takes, e.g. ["text"].
    """

    save_in_root: bool = True
    modalities: Sequence[str] = ("text",)
    tokenizer: Any

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs) -> dict[str, Tensor | Any]:
        """Texts -> padded features. A subclass from before version 5 may define `tokenize` instead."""
        if type(self).tokenize is not InputModule.tokenize:
            texts = [prompt + text for text in inputs] if prompt else list(inputs)
            return self.tokenize(texts, **kwargs)
        raise TypeError(f"{type(self).__name__} must define preprocess(inputs, prompt=None, **kwargs).")

    def tokenize(self, texts: list[str], **kwargs) -> dict[str, Tensor | Any]:
        """Older name of `preprocess`."""
        warn_tokenize(self)
        return self.preprocess(texts, **kwargs)

    def resolve(self, task: str | None = None, modality: str | tuple[str, ...] | None = None) -> Any:
        """The input module that a task's texts go to: this one, unless it is a router."""
        return self

    def id_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens of token ids."""
        if hasattr(self.tokenizer, "convert_ids_to_tokens"):
            return self.tokenizer.convert_ids_to_tokens(list(ids))
        return [self.tokenizer.id_to_token(i) for i in ids]

    def save_tokenizer(self, output_path: str, **kwargs) -> None:
        if hasattr(self.tokenizer, "save_pretrained"):
            note_sides(self.tokenizer)
            self.tokenizer.save_pretrained(output_path, **kwargs)
        else:
            self.tokenizer.save(str(Path(output_path, "tokenizer.json")))


def note_sides(tokenizer: AnyTokenizer) -> None:
    """Let a transformers tokenizer save the sides on which it cuts and pads, also if they were set after loading."""
    saved: Any = getattr(tokenizer, "init_kwargs", {})
    for name in ("truncation_side", "padding_side"):
        if (side := getattr(tokenizer, name, "right")) != saved.get(name, "right"):
            saved[name] = side


def warn_tokenize(module: nn.Module) -> None:
    """Say once per model or module that `tokenize` is deprecated."""
    if not module.__dict__.get("_tokenize_reported"):
        module.__dict__["_tokenize_reported"] = True
        logger.warning("The method `tokenize` is deprecated; use `preprocess`, which takes the same arguments.")


def kwargs_of(module: nn.Module) -> set[str]:
    """Names of the keyword arguments of `encode` that a module takes, with those of all modules inside a router."""
    inner = [part for parts in getattr(module, "routes", {}).values() for part in parts]
    return set(getattr(module, "forward_kwargs", ())).union(*map(kwargs_of, inner))


def understands_packed(module: nn.Module) -> bool:
    """Whether a module takes packed batches, by the word of the class that defines its `forward`."""
    if not getattr(module, "takes_packed", False):
        return False
    if "forward" in module.__dict__ and is_foreign(module.forward):
        return False
    return not is_foreign(type(module).forward, OWN) or packs(type(module))


def run_module(
    module: nn.Module, features: dict[str, Any], kwargs: dict[str, Any], following: nn.Module | None = None
) -> dict[str, Any]:
    """Call one module with those keyword arguments that it takes, on a padded batch if it does not take packed ones.

    Args:
        following: the module that comes next, see `arguments`.
    """
    features, given = arguments(module, features, kwargs, following)
    return module(features, **given)


def arguments(
    module: nn.Module, features: dict[str, Any], kwargs: dict[str, Any], following: nn.Module | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The features and keyword arguments for one module, of those of a call.

    Args:
        following: the module that comes next; given to modules that leave it work (`sees_following`), if nobody else
            looks at the features between them (`unseen`).
    """
    if features.get("packing") is not None and not understands_packed(module):
        features = dict(Features.of(features).pad())
    wanted = kwargs_of(module) if kwargs else set()
    given = {key: value for key, value in kwargs.items() if key in wanted}
    leaves_work = getattr(module, "sees_following", False) and getattr(following, "takes_vocabulary", False)
    if following is not None and leaves_work and understands_packed(following) and unseen.value:
        given["following"] = following
    return features, given
