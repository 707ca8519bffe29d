"""Every name under which this library is known elsewhere leads to today's object."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import subprocess
import sys
import types
from pathlib import Path

import pytest

import sentence_transformers
from sentence_transformers import _names
from sentence_transformers.errors import ModelFormatError, SentenceTransformersError
from sentence_transformers.storage.files import Source

ROOT = "sentence_transformers"
DENSE = f"{ROOT}.sentence_transformer"

# the part of section "deprecated import paths" of the interface that is built: old path -> canonical path
OLD_PATHS = {
    "sentence_transformer.modules.normalize": "base.modules.normalize",
    "SentenceTransformer": "sentence_transformer.model",
    "quantization": "util.quantization",
    "similarity_functions": "util.similarity",
    "peft_mixin": "base.peft_mixin",
    "model_card": "sentence_transformer.model_card",
    "LoggingHandler": "util.logging",
    "evaluation.SimilarityFunction": "util.similarity",
    "models.Asym": "base.modules.router",
    "models.BoW": "sentence_transformer.modules.bow",
    "models.CNN": "sentence_transformer.modules.cnn",
    "models.Dense": "base.modules.dense",
    "models.Dropout": "sentence_transformer.modules.dropout",
    "models.InputModule": "base.modules.input_module",
    "models.LSTM": "sentence_transformer.modules.lstm",
    "models.LayerNorm": "sentence_transformer.modules.layer_norm",
    "models.Module": "base.modules.module",
    "models.Normalize": "base.modules.normalize",
    "models.Pooling": "sentence_transformer.modules.pooling",
    "models.Router": "base.modules.router",
    "models.StaticEmbedding": "sentence_transformer.modules.static_embedding",
    "models.Transformer": "base.modules.transformer",
    "models.WeightedLayerPooling": "sentence_transformer.modules.weighted_layer_pooling",
    "models.WordEmbeddings": "sentence_transformer.modules.word_embeddings",
    "models.WordWeights": "sentence_transformer.modules.word_weights",
    "models.tokenizer": "sentence_transformer.modules.tokenizer",
    "models.tokenizer.PhraseTokenizer": "sentence_transformer.modules.tokenizer.phrase",
    "models.tokenizer.WhitespaceTokenizer": "sentence_transformer.modules.tokenizer.whitespace",
    "models.tokenizer.WordTokenizer": "sentence_transformer.modules.tokenizer.word",
}

# canonical package -> those of its public names that are built
PACKAGES = {
    "": "LoggingHandler SentenceTransformer SentenceTransformerModelCardData SimilarityFunction quantize_embeddings",
    "base": "BaseModel PeftAdapterMixin",
    "base.modules": "Dense InputModule Module Normalize Router Transformer",
    "sentence_transformer": "SentenceTransformer SentenceTransformerModelCardData",
    "sentence_transformer.evaluation": "SimilarityFunction",
    "sentence_transformer.modules": (
        "Transformer StaticEmbedding Asym BoW CNN Dense Dropout LayerNorm LSTM Normalize Pooling WeightedLayerPooling "
        "WordEmbeddings WordWeights Module InputModule Router"
    ),
    "sentence_transformer.modules.tokenizer": (
        "WordTokenizer WhitespaceTokenizer PhraseTokenizer ENGLISH_STOP_WORDS TransformersTokenizerWrapper"
    ),
}

# canonical module file -> a name it defines
FILES = {
    "base.model": "BaseModel",
    "base.peft_mixin": "PeftAdapterMixin",
    "base.model_card": "BaseModelCardData",
    "base.modules.module": "Module",
    "base.modules.input_module": "InputModule",
    "sentence_transformer.model": "SentenceTransformer",
    "sentence_transformer.model_card": "SentenceTransformerModelCardData",
    "util.similarity": "SimilarityFunction",
    "util.quantization": "quantize_embeddings",
    "util.logging": "LoggingHandler",
    "util.retrieval": "semantic_search",
    "util.tensor": "normalize_embeddings",
}

# module elsewhere -> public names that are found there, defined in it or imported for its own use
FOUND = {
    "backend.load": "load_onnx_model load_openvino_model",
    "backend.optimize": "export_optimized_onnx_model",
    "backend.utils": "backend_should_export backend_warn_to_save _save_pretrained_wrapper",
    "backend.quantize": "export_dynamic_quantized_onnx_model export_static_quantized_openvino_model",
    "base.merging": "merge_models",
    "base.modality": "infer_modality infer_batch_modality format_modality is_message_dict is_image_url_or_path",
    "base.modality_types": "Modality SingleInput PairInput TextInput ImageInput MessageDict MULTIMODAL_DICT_KEYS",
    "base.modules.transformer": "Transformer ProcessingKwargs ModalityParams ModalityConfig QueryExpansionConfig",
    "base.peft_mixin": "PeftAdapterMixin peft_wrapper",
    "base.sampler": "SetEpochMixin DefaultBatchSampler",
    "sampler": "SetEpochMixin",
    "base.trainer": "BaseTrainer BatchSamplers Router BaseModelCardCallback DefaultBatchSampler",
    "base.model": "BaseModel Router BaseEvaluator load_file_path get_device_name",
    "base.model_card": "BaseModelCardData BaseModelCardCallback generate_model_card",
    "cross_encoder.fit_mixin": "EvaluatorCallback FitMixin FitMixinLoss OriginalCallback SentenceLabelDataset",
    "cross_encoder.util": "cross_encoder_init_args_decorator cross_encoder_predict_rank_args_decorator",
    "cross_encoder.model": "CrossEncoder FitMixin cross_encoder_init_args_decorator",
    "fit_mixin": "FitMixin SaveModelCallback",
    "base.losses.merged_forward": "embed_columns embed_columns_padded merge_feature_batches",
    "sentence_transformer.losses.cosent": "CoSENTLoss embed_columns",
    "cross_encoder.trainer": "CrossEncoderTrainer BinaryCrossEntropyLoss CrossEntropyLoss",
    "sentence_transformer.fit_mixin": "FitMixin SaveModelCallback SentenceLabelDataset batch_to_device",
    "sentence_transformer.losses.cached_multiple_negatives_ranking": "RandContext SentenceTransformer",
    "losses.CachedMultipleNegativesRankingLoss": "RandContext CachedMultipleNegativesRankingLoss",
    "sentence_transformer.evaluation.translation": "pytorch_cos_sim",
    "util.decorators": "deprecated_kwargs save_to_hub_args_decorator transformer_kwargs_decorator",
    "util.deprecated_import": "setup_deprecated_module_imports",
    "util.quantization": "quantize_embeddings semantic_search_faiss semantic_search_usearch",
}

# class -> the type that version 6.2.0 writes, as in the table of the saved-model format
SAVED_TYPES = {
    **{name: f"{ROOT}.base.modules.{name.lower()}.{name}" for name in ("Transformer", "Normalize", "Dense", "Router")},
    **{
        name: f"{DENSE}.modules.{file}.{name}"
        for name, file in {
            "Pooling": "pooling",
            "StaticEmbedding": "static_embedding",
            "BoW": "bow",
            "CNN": "cnn",
            "LSTM": "lstm",
            "Dropout": "dropout",
            "LayerNorm": "layer_norm",
            "WeightedLayerPooling": "weighted_layer_pooling",
            "WordEmbeddings": "word_embeddings",
            "WordWeights": "word_weights",
        }.items()
    },
}


def load(path: str) -> types.ModuleType:
    return importlib.import_module(f"{ROOT}.{path}" if path else ROOT)


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("old", OLD_PATHS)
def test_an_old_module_path_is_the_canonical_module(old):
    """The very same module object, so that a class is one class whatever path it came by, and patches are seen."""
    assert load(old) is load(OLD_PATHS[old])
    assert isinstance(load(old), types.ModuleType)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_exports_its_names(package):
    module = load(package)
    for name in PACKAGES[package].split():
        thing = getattr(module, name)
        assert not isinstance(thing, types.ModuleType)
        assert thing is getattr(load(_names.HOME[name]), name)


@pytest.mark.parametrize("file", FILES)
def test_a_module_file_defines_its_name(file):
    module = load(file)
    assert getattr(module, FILES[file]).__name__ == FILES[file]


@pytest.mark.parametrize("path", FOUND)
def test_public_names_are_found_where_others_import_them(path):
    module = load(path)
    for name in FOUND[path].split():
        thing = getattr(module, name)
        if name in _names.HOME:
            assert thing is _names.home(name)
    with pytest.raises(AttributeError, match="telepathy"):
        _ = module.telepathy


@pytest.mark.parametrize("name", SAVED_TYPES)
def test_types_in_saved_models(name):
    """What is written is what version 6.2.0 writes; that, and both older spellings, are read."""
    home = _names.home(name)
    written = _names.saved_type(home)
    assert written == SAVED_TYPES[name]
    spellings = [written, f"{ROOT}.models.{name}", f"{ROOT}.models.{name}.{name}", f"{DENSE}.modules.{name}"]
    for dotted in spellings:
        assert _names.find_class(dotted, Source("a-model")) is home


@pytest.mark.parametrize(
    ("dotted", "name"),
    [
        (f"{ROOT}.models.Asym", "Router"),
        (f"{ROOT}.models.Asym.Asym", "Router"),
        (f"{DENSE}.modules.normalize.Normalize", "Normalize"),
    ],
)
def test_other_spellings_of_types(dotted, name):
    assert _names.find_class(dotted, Source("a-model")) is _names.home(name)


@pytest.mark.parametrize("dotted", ["", "Pooling", f"{ROOT}.", f"{ROOT}.models.Nothing", f"{ROOT}.models.", None, 3])
def test_what_is_no_type(dotted):
    with pytest.raises(ModelFormatError, match="a-model"):
        _names.find_class(dotted, Source("a-model"))


def test_the_front_door_is_sorted_and_true():
    names = sentence_transformers.__all__
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    assert all(hasattr(sentence_transformers, name) for name in names)
    assert set(names) <= set(dir(sentence_transformers))
    assert {"__version__", "__doc__"} <= set(dir(sentence_transformers))


@pytest.mark.parametrize("package", [package for package in PACKAGES if package])
def test_packages_are_sorted_and_true(package):
    module = load(package)
    assert list(module.__all__) == sorted(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    assert all(hasattr(module, name) for name in module.__all__)


def test_names_that_do_not_exist():
    for module in (sentence_transformers, load("models"), load("base")):
        with pytest.raises(AttributeError, match="telepathy"):
            _ = module.telepathy
        assert not hasattr(module, "_telepathy")
    with pytest.raises(ModuleNotFoundError, match="telepathy"):
        load("models.telepathy")
    with pytest.raises(ImportError, match="telepathy"):
        exec(f"from {ROOT} import telepathy")


def test_importing_the_package_loads_nothing_heavy():
    heavy = ["torch", "transformers", "numpy", "tokenizers", "huggingface_hub", "safetensors", "scipy", "tqdm"]
    code = f"import sys, json, {ROOT}; dir({ROOT}); print(json.dumps(sorted(set({heavy}) & set(sys.modules))))"
    assert json.loads(run(code)) == []


def test_importing_the_package_is_quick():
    """Less than 0.1 s of computing for the package itself, without the interpreter's own start; the best of three."""
    code = f"import time; t = time.process_time(); import {ROOT}; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.1


def test_a_class_stays_a_class_when_the_module_of_its_name_is_imported():
    """Whichever of the two is imported first."""
    statements = [
        "import {0}.SentenceTransformer, {0}.evaluation.SimilarityFunction",
        "from {0} import LoggingHandler; from {0}.models import Pooling",
        "import {0}.LoggingHandler",
        "import {0}.models.Pooling, {0}.models.Transformer, {0}.models.tokenizer.WordTokenizer",
        "import {0} as s, {0}.models as m, {0}.evaluation as e, {0}.models.tokenizer as t",
        "here = [s.SentenceTransformer, s.LoggingHandler, m.Pooling, m.Transformer]",
        "here += [e.SimilarityFunction, t.WordTokenizer]",
        "print(*(thing.__name__ if isinstance(thing, type) else thing for thing in here))",
    ]
    expected = "SentenceTransformer LoggingHandler Pooling Transformer SimilarityFunction WordTokenizer"
    assert run("; ".join(statements).format(ROOT)) == expected


def test_star_imports():
    for package in ("models", "sentence_transformer.modules", "base.modules", "sentence_transformer", "evaluation"):
        scope: dict = {}
        exec(f"from {ROOT}.{package} import *", scope)
        given = {name for name in scope if not name.startswith("__")}
        assert given == set(load(package).__all__)
        assert all(isinstance(scope[name], type) for name in given)


def test_classes_print_and_pickle_under_a_name_that_leads_to_them():
    for name in [*SAVED_TYPES, "SentenceTransformer", "SimilarityFunction"]:
        cls = _names.home(name)
        assert pickle.loads(pickle.dumps(cls)) is cls
        assert getattr(importlib.import_module(cls.__module__), cls.__qualname__) is cls


def test_pickles_of_classes_by_older_paths():
    """Protocol 0 spells the path out: c<module>\\n<name>\\n."""
    for old, name in ((f"{ROOT}.SentenceTransformer", "SentenceTransformer"), (f"{ROOT}.models.Pooling", "Pooling")):
        assert pickle.loads(f"c{old}\n{name}\n.".encode()) is _names.home(name)


def test_errors_form_one_tree():
    """Each error is ours and also the built-in that its place in the tree says."""
    errors = load("errors")
    built_in = {
        "InputError": ValueError,
        "ModelFormatError": ValueError,
        "UntrustedCodeError": ModelFormatError,
        "ModelNotFoundError": FileNotFoundError,
        "NotAFolderError": NotADirectoryError,
        "WorkerError": RuntimeError,
        "VersionRequirementError": ImportError,
        "MissingExtraError": ImportError,
    }
    for name, base in built_in.items():
        assert issubclass(getattr(errors, name), base)
        assert issubclass(getattr(errors, name), SentenceTransformersError)
        assert name in errors.__doc__


def test_the_reference_has_every_public_name() -> None:
    """Each name of a package that users import from stands on a page of the package reference."""
    docs = Path(__file__).resolve().parents[1] / "docs"
    spec = importlib.util.spec_from_file_location("hooks", docs / "hooks.py")
    assert spec is not None and spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    pages = [page.read_text(encoding="utf-8") for page in (docs / "reference").glob("*.md")]
    shown = {
        path.rpartition(".")[2] for page in pages for mark in hooks.MARK.findall(page) for path in hooks.members(mark)
    }
    packages = ("losses", "evaluation", "cross_encoder.losses", "cross_encoder.evaluation", "sparse_encoder.losses")
    packages += ("sparse_encoder.evaluation", "sparse_encoder.search_engines", "databases", "cluster", "backend")
    packages += tuple(name for name in _names.PACKAGES if name.startswith("multi_vector_encoder."))
    wanted = {name for package in packages for name in _names.PACKAGES[package].split() if name[0] != "_"}
    assert not wanted - shown
    assert not {name for name in sentence_transformers.__all__ if name[0] != "_"} - shown - {"__version__"}
