"""The names this library is known by elsewhere, and where they live here: one table, no file per alias.

People's code and saved models name classes by dotted paths of several generations:

    sentence_transformers.models.Pooling                                    version 2 to 4, and their saved models
    sentence_transformers.models.Pooling.Pooling                            older saved models
    sentence_transformers.sentence_transformer.modules.pooling.Pooling      today's canonical path

Three tables say it all. `HOME`: public name -> module here. `ALIASES`: module path elsewhere -> module here, the same
module object under two names. `PACKAGES`: package path elsewhere -> the public names it exports. `install` puts one
finder on `sys.meta_path`, which makes aliases and packages when they are first imported and nothing before that.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import Any

ROOT = "sentence_transformers"
REMOTE = "transformers_modules."  # where transformers puts classes that come with a model

# public name -> module it is defined in, here
HOME: dict[str, str] = {
    # encoders
    "SentenceTransformer": "encoders.sentence_transformer",
    "CrossEncoder": "encoders.cross_encoder",
    "SparseEncoder": "encoders.sparse_encoder",
    "BaseModel": "encoders.base",
    "PeftAdapterMixin": "encoders.peft",
    # modules
    "Module": "modules.base",
    "InputModule": "modules.base",
    "Transformer": "modules.transformer",
    "Pooling": "modules.pooling",
    "Dense": "modules.dense",
    "Normalize": "modules.normalize",
    "Router": "modules.router",
    "Asym": "modules.router",
    "StaticEmbedding": "modules.static_embedding",
    "LogitScore": "modules.logit_score",
    "SpladePooling": "modules.splade_pooling",
    "SparseAutoEncoder": "modules.sparse_auto_encoder",
    "TiedTranspose": "modules.sparse_auto_encoder",
    "SparseStaticEmbedding": "modules.sparse_static_embedding",
    "MLMTransformer": "modules.mlm_transformer",
    "BoW": "modules.bow",
    "CNN": "modules.cnn",
    "Dropout": "modules.dropout",
    "LayerNorm": "modules.layer_norm",
    "LSTM": "modules.lstm",
    "WeightedLayerPooling": "modules.weighted_layer_pooling",
    "WordEmbeddings": "modules.word_embeddings",
    "WordWeights": "modules.word_weights",
    "WordTokenizer": "modules.tokenizer.word",
    "TransformersTokenizerWrapper": "modules.tokenizer.word",
    "ENGLISH_STOP_WORDS": "modules.tokenizer.word",
    "WhitespaceTokenizer": "modules.tokenizer.whitespace",
    "PhraseTokenizer": "modules.tokenizer.phrase",
    # model cards
    "BaseModelCardData": "storage.model_card",
    "SentenceTransformerModelCardData": "storage.model_card",
    "CrossEncoderModelCardData": "storage.model_card",
    "SparseEncoderModelCardData": "storage.model_card",
    "generate_model_card": "storage.model_card",
    # functions
    "SimilarityFunction": "similarity",
    "quantize_embeddings": "search.quantization",
    # sparse search
    "SparseIndex": "search.sparse_index",
    "semantic_search_qdrant": "search.engines.qdrant",
    "semantic_search_elasticsearch": "search.engines.elasticsearch",
    "semantic_search_opensearch": "search.engines.opensearch",
    "semantic_search_seismic": "search.engines.seismic",
    "LoggingHandler": "util.logging",
}

_TEXT_MODULES = (
    "Transformer StaticEmbedding Asym BoW CNN Dense Dropout LayerNorm LSTM Normalize Pooling WeightedLayerPooling "
    "WordEmbeddings WordWeights Module InputModule Router"
)

_CROSS_MODULES = "Dense InputModule Module Asym Router Transformer LogitScore"
_SPARSE_MODULES = (
    "Dense InputModule Module Asym Router Transformer MLMTransformer SparseAutoEncoder SparseStaticEmbedding "
    "SpladePooling"
)

# package path elsewhere -> the public names it exports
PACKAGES: dict[str, str] = {
    "base": "BaseModel PeftAdapterMixin",
    "base.modules": "Dense InputModule Module Normalize Router Transformer",
    "sentence_transformer": "SentenceTransformer SentenceTransformerModelCardData",
    "sentence_transformer.modules": _TEXT_MODULES,
    "sentence_transformer.evaluation": "SimilarityFunction",
    "cross_encoder": "CrossEncoder CrossEncoderModelCardData",
    "cross_encoder.modules": _CROSS_MODULES,
    "sparse_encoder": "SparseEncoder SparseEncoderModelCardData",
    "sparse_encoder.modules": _SPARSE_MODULES,
    "sparse_encoder.models": _SPARSE_MODULES,
    "models": _TEXT_MODULES,
    "evaluation": "SimilarityFunction",
    "sparse_encoder.search_engines": (
        "SparseIndex semantic_search_elasticsearch semantic_search_opensearch semantic_search_qdrant "
        "semantic_search_seismic"
    ),
}

# canonical module path elsewhere -> module here; a saved model names a class by the first path that leads to it
ALIASES: dict[str, str] = {
    "base.model": "encoders.base",
    "base.peft_mixin": "encoders.peft",
    "base.model_card": "storage.model_card",
    "base.modules.module": "modules.base",
    "base.modules.input_module": "modules.base",
    "base.modules.transformer": "modules.transformer",
    "base.modules.normalize": "modules.normalize",
    "base.modules.dense": "modules.dense",
    "base.modules.router": "modules.router",
    "sentence_transformer.model": "encoders.sentence_transformer",
    "sentence_transformer.model_card": "storage.model_card",
    "sentence_transformer.modules.pooling": "modules.pooling",
    "sentence_transformer.modules.static_embedding": "modules.static_embedding",
    "sentence_transformer.modules.bow": "modules.bow",
    "sentence_transformer.modules.cnn": "modules.cnn",
    "sentence_transformer.modules.dropout": "modules.dropout",
    "sentence_transformer.modules.layer_norm": "modules.layer_norm",
    "sentence_transformer.modules.lstm": "modules.lstm",
    "sentence_transformer.modules.weighted_layer_pooling": "modules.weighted_layer_pooling",
    "sentence_transformer.modules.word_embeddings": "modules.word_embeddings",
    "sentence_transformer.modules.word_weights": "modules.word_weights",
    "sentence_transformer.modules.normalize": "modules.normalize",
    "sentence_transformer.modules.tokenizer": "modules.tokenizer",
    "sentence_transformer.modules.tokenizer.word": "modules.tokenizer.word",
    "sentence_transformer.modules.tokenizer.whitespace": "modules.tokenizer.whitespace",
    "sentence_transformer.modules.tokenizer.phrase": "modules.tokenizer.phrase",
    "cross_encoder.model": "encoders.cross_encoder",
    "cross_encoder.model_card": "storage.model_card",
    "cross_encoder.modules.logit_score": "modules.logit_score",
    "sparse_encoder.model": "encoders.sparse_encoder",
    "sparse_encoder.model_card": "storage.model_card",
    "sparse_encoder.modules.splade_pooling": "modules.splade_pooling",
    "sparse_encoder.modules.sparse_auto_encoder": "modules.sparse_auto_encoder",
    "sparse_encoder.modules.sparse_static_embedding": "modules.sparse_static_embedding",
    "sparse_encoder.modules.mlm_transformer": "modules.mlm_transformer",
    "util.similarity": "similarity",
    "util.retrieval": "search.exact",
    "util.quantization": "search.quantization",
    # before version 5
    "cross_encoder.CrossEncoder": "encoders.cross_encoder",
    "sparse_encoder.SparseEncoder": "encoders.sparse_encoder",
    "sparse_encoder.models.MLMTransformer": "modules.mlm_transformer",
    "sparse_encoder.models.SparseAutoEncoder": "modules.sparse_auto_encoder",
    "sparse_encoder.models.SparseStaticEmbedding": "modules.sparse_static_embedding",
    "sparse_encoder.models.SpladePooling": "modules.splade_pooling",
    "SentenceTransformer": "encoders.sentence_transformer",
    "LoggingHandler": "util.logging",
    "quantization": "search.quantization",
    "similarity_functions": "similarity",
    "peft_mixin": "encoders.peft",
    "model_card": "storage.model_card",
    "evaluation.SimilarityFunction": "similarity",
    "models.tokenizer": "modules.tokenizer",
    "models.tokenizer.WordTokenizer": "modules.tokenizer.word",
    "models.tokenizer.WhitespaceTokenizer": "modules.tokenizer.whitespace",
    "models.tokenizer.PhraseTokenizer": "modules.tokenizer.phrase",
    **{f"models.{name}": HOME[name] for name in _TEXT_MODULES.split()},
}


def home(name: str) -> Any:
    """The object behind a public name."""
    return getattr(importlib.import_module(f"{ROOT}.{HOME[name]}"), name)


def saved_type(module_class: type) -> str:
    """The dotted path by which `modules.json` names a class; the existing library's path where it has one."""
    here = module_class.__module__.removeprefix(f"{ROOT}.")
    if module_class.__module__.startswith(f"{ROOT}."):
        for path, target in ALIASES.items():
            if target == here:
                return f"{ROOT}.{path}.{module_class.__name__}"
    if module_class.__module__.startswith(REMOTE):
        return f"{module_class.__module__.rpartition('.')[2]}.{module_class.__name__}"
    return f"{module_class.__module__}.{module_class.__name__}"


def find_class(dotted: str, source: Any, trust_remote_code: bool = False) -> type:
    """The class that a saved model names.

    Raises:
        ModelFormatError: if the name is not one of this library's and `source` may not run code, or there is no such
            class of modules (`UntrustedCodeError` in the first case).
    """
    from sentence_transformers.errors import ModelFormatError
    from sentence_transformers.util.misc import import_module_class

    if not isinstance(dotted, str) or "." not in dotted:
        raise ModelFormatError(f"{source.name} names a module type {dotted!r}; expected a dotted class path.")
    try:
        found = import_module_class(
            dotted,
            source.name,
            trust_remote_code=trust_remote_code,
            revision=source.revision,
            token=source.token,
            cache_folder=source.cache_folder,
            local_files_only=source.local_files_only,
        )
    except (ImportError, AttributeError) as error:
        if not dotted.startswith(f"{ROOT}."):
            raise
        raise ModelFormatError(
            f"{source.name} names the module type {dotted!r}, which does not exist: {error}"
        ) from error
    if not (isinstance(found, type) and hasattr(found, "load") and hasattr(found, "save")):
        raise ModelFormatError(f"{source.name} names the module type {dotted!r}, which is not a class of modules.")
    return found


class FrontDoor(ModuleType):
    """A package whose public names stay what they are when a module of the same name is imported.

    `import sentence_transformers.SentenceTransformer` (a module path of old) would otherwise replace the class.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in self.__dict__.get("_public", ()):
            return
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_public", ()):
            value = home(name)
            super().__setattr__(name, value)
            return value
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        try:
            return importlib.import_module(f"{self.__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{self.__name__}.{name}":
                raise
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *self.__dict__.get("_public", ())})


class _PackageLoader(importlib.abc.Loader):
    """Makes a package that only exports names."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        public = PACKAGES[spec.name.removeprefix(f"{ROOT}.")].split()
        module = FrontDoor(spec.name, f"Names exported by {spec.name}.")
        module._public = frozenset(public)
        module.__all__ = sorted(public)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: names are found when they are asked for."""


class _AliasLoader(importlib.abc.Loader):
    """Puts the module that an alias stands for into its place, unchanged."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """An empty module to begin with, as Python makes it."""

    def exec_module(self, module: ModuleType) -> None:
        target = ALIASES[module.__name__.removeprefix(f"{ROOT}.")]
        sys.modules[module.__name__] = importlib.import_module(f"{ROOT}.{target}")


class _Finder:
    """Finds the module paths of `ALIASES` and `PACKAGES`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        inner = name.removeprefix(f"{ROOT}.")
        if inner == name:
            return None
        if inner in ALIASES:
            return importlib.machinery.ModuleSpec(name, _AliasLoader())
        if inner in PACKAGES:
            return importlib.machinery.ModuleSpec(name, _PackageLoader(), is_package=True)
        return None


def install() -> None:
    """Put the finder in place, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # before Python finds the files of an aliased package
