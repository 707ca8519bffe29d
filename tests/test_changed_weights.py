"""What is seen is what computes, however it was changed: weights, tokenizers, and every attribute that is saved. After
each change `encode` equals that of a model loaded from what is saved now.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import pkgutil
import shutil
import tempfile
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from packaging.version import Version
from torch import nn

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder, models
from sentence_transformers.modules.base import Module
from tests.golden import layouts, multi_vector_cases, score_models
from tests.models import build, peft_for_adapters


def scaled_by_numpy(parameter: nn.Parameter) -> None:
    view = parameter.detach().numpy()
    view *= 0.5


def fused_step(parameter: nn.Parameter) -> None:
    parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW([parameter], lr=0.1, fused=True).step()
    parameter.grad = None


def in_place(parameter: nn.Parameter) -> None:
    with torch.no_grad():
        parameter.mul_(0.5)


def averaged(parameter: nn.Parameter) -> None:
    parameter.data.copy_(parameter.data * 0.9 + 0.01)


CHANGES = {
    "in place": in_place,
    "by data": lambda parameter: parameter.data.mul_(0.5),
    "one number": lambda parameter: parameter.data.view(-1)[3:4].add_(2),
    "other data": lambda parameter: setattr(parameter, "data", parameter.data * 0.5),
    "moving average": averaged,
    "NumPy": scaled_by_numpy,
    "fused optimizer": fused_step,
}


# ---- kinds of models

TEXTS = ["yes no the river.", "the quick brown fox", "hello world text", "a, b! c d e f g h i j k"]
PAIRS = [("yes", text) for text in TEXTS]
H = score_models.H


def written_once(write: Any) -> Any:
    """A function that makes copies of the folder that `write` makes when first asked for."""

    @functools.cache
    def original() -> tempfile.TemporaryDirectory[str]:
        holder = tempfile.TemporaryDirectory()
        write(Path(holder.name, "model"))
        return holder

    return lambda folder: shutil.copytree(Path(original().name, "model"), folder, dirs_exist_ok=True)


def of_folder(encoder: Any, write: Any) -> Any:
    """A model that is loaded from a folder that `write` makes."""
    write = written_once(write)

    def make(folder: Path) -> Any:
        write(folder)
        return encoder(str(folder), device="cpu")

    return make


plain_bert = written_once(lambda folder: score_models.checkpoint(folder, "Bert"))


def of_modules(*tail: Any, **config: Any) -> Any:
    """A dense model: a transformer and what follows it, given the transformer."""

    def make(folder: Path) -> Any:
        plain_bert(folder)
        transformer = models.Transformer(str(folder), config_kwargs=config)
        return SentenceTransformer(modules=[transformer, *(part(transformer) for part in tail)], device="cpu")

    return make


def mean(transformer: Any) -> Any:
    return models.Pooling(H)


MODELS: dict[str, Any] = {
    "bert": of_folder(SentenceTransformer, lambda folder: build("bert", folder)),
    "modernbert": of_folder(SentenceTransformer, lambda folder: build("modernbert", folder)),
    "tail": of_modules(
        mean, lambda _: models.LayerNorm(H), lambda _: models.Dense(H, H), lambda _: models.Dropout(0.3),
        lambda _: models.Normalize(),
    ),
    "layers": of_modules(lambda _: models.WeightedLayerPooling(H, 2, 0), mean, output_hidden_states=True),
    "word weights": of_modules(
        lambda transformer: models.WordWeights(transformer.tokenizer.convert_ids_to_tokens(range(74)), {"yes": 3.0}),
        mean,
    ),
    "static": of_folder(SentenceTransformer, layouts.LAYOUTS["out_static"]),
    "bag of words": of_folder(SentenceTransformer, layouts.LAYOUTS["bag_of_words"]),
    "cnn": of_folder(SentenceTransformer, layouts.LAYOUTS["words_and_cnn"]),
    "lstm": of_folder(SentenceTransformer, layouts.LAYOUTS["words_and_lstm"]),
    "cross": of_folder(CrossEncoder, score_models.SCORERS["bert_1"]),
    "causal": of_folder(CrossEncoder, score_models.SCORERS["causal_generation"]),
    "splade": of_folder(SparseEncoder, score_models.SPARSE["splade_bert_max_relu"]),
    "inference-free": of_folder(SparseEncoder, score_models.SPARSE["inference_free"]),
    "auto-encoder": of_folder(SparseEncoder, score_models.SPARSE["csr"]),
    "tokens": of_folder(MultiVectorEncoder, multi_vector_cases.FOLDERS["pooling_at_the_end"]),
}  # fmt: skip


def rows(model: Any) -> np.ndarray:
    """All that the model computes of the inputs, on both sides of a search."""
    if isinstance(model, CrossEncoder):
        return np.asarray(model.predict(PAIRS))
    form = {"convert_to_sparse_tensor": False} if isinstance(model, SparseEncoder) else {}
    found = [row for encode in (model.encode_query, model.encode_document) for row in encode(TEXTS, **form)]
    return np.concatenate([np.asarray(torch.as_tensor(row).float()).ravel() for row in found])


def assert_computed(model: Any, folder: Path, tolerance: float = 2e-6) -> Any:
    """That the model computes with what it would save; the model that is loaded from there."""
    model.save_pretrained(str(folder))
    again = type(model)(str(folder), device="cpu")
    expected = rows(again)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(rows(model), expected, atol=tolerance * scale)
    return again


@pytest.fixture
def model(request: Any, tmp_path: Path) -> Any:
    """A model that has computed something."""
    made = MODELS[request.param](tmp_path / "model")
    rows(made)
    return made


every_model = pytest.mark.parametrize("model", MODELS, indirect=True)
transformers = pytest.mark.parametrize("model", ["bert", "modernbert", "cross", "splade", "tokens"], indirect=True)


# ---- weights


@every_model
@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_computed_with(model, tmp_path, change):
    before, parameters = rows(model), [weight for weight in model.parameters() if weight.is_floating_point()]
    for parameter in parameters:
        CHANGES[change](parameter)
    assert change == "one number" or not parameters or np.abs(rows(model) - before).max() > 1e-4
    assert_computed(model, tmp_path / "saved")


@every_model
@pytest.mark.parametrize("name", ["half", "bfloat16", "double"])
def test_types_of_weights(model, tmp_path, name):
    assert_computed(getattr(model, name)(), tmp_path / "saved", 2e-6 if name == "double" else 1e-2)


@every_model
def test_replaced_parameters(model, tmp_path):
    for part in model.modules():
        for name, weight in part._parameters.items():
            if weight is not None and weight.is_floating_point():
                setattr(part, name, nn.Parameter(weight.detach() * 0.7))
    if (network := model.transformers_model) is not None and hasattr(network, "tie_weights"):
        network.tie_weights()
    assert_computed(model, tmp_path / "saved")


@every_model
def test_parameters_that_are_parts_of_one_tensor(model, tmp_path):
    parameters = [weight for weight in model.parameters() if weight.is_floating_point()]
    if not parameters:
        return
    before, together = rows(model), nn.utils.parameters_to_vector(parameters)
    nn.utils.vector_to_parameters(together.detach() * 0.7, parameters)
    assert np.abs(rows(model) - before).max() > 1e-4
    assert_computed(model, tmp_path / "saved")


def compile_part(model: Any, place: str) -> None:
    """Wrap a module of a model in what `torch.compile` gives, which computes the same."""
    network = model.transformers_model
    linear = next(name for name, part in network.named_modules() if type(part) is nn.Linear)
    parent, name = {
        "first": (model, "0"),
        "last": (model, str(len(model) - 1)),
        "layer": (network.get_submodule(linear.rpartition(".")[0]), linear.rpartition(".")[2]),
        "layers": (next(part for part in network.modules() if isinstance(part, nn.ModuleList)), "0"),
    }[place]
    setattr(parent, name, torch.compile(getattr(parent, name), backend="eager"))


@pytest.mark.parametrize("model", ["bert", "modernbert", "tail", "cross", "splade"], indirect=True)
@pytest.mark.parametrize("place", ["first", "last", "layer", "layers"])
@pytest.mark.parametrize("safe", [True, False])
def test_compiled_parts_are_saved_as_what_they_wrap(model, tmp_path, place, safe):
    if safe and place.startswith("layer") and Version(accelerate.__version__) < Version("1.13"):
        pytest.skip("accelerate before 1.13, which transformers saves by, does not unwrap a part that was compiled")
    expected = rows(model)
    compile_part(model, place)
    np.testing.assert_allclose(rows(model), expected, atol=5e-6)
    model.save_pretrained(str(tmp_path / "saved"), safe_serialization=safe)
    np.testing.assert_allclose(rows(type(model)(str(tmp_path / "saved"), device="cpu")), expected, atol=5e-6)


@every_model
def test_a_loaded_state_and_a_way_back(model):
    before, state = rows(model), copy.deepcopy(model.state_dict())
    for parameter in model.parameters():
        parameter.data.zero_()
    rows(model)
    model.load_state_dict(state)
    np.testing.assert_allclose(rows(model), before, atol=1e-6)


@every_model
def test_a_held_view_is_no_way_round(model, tmp_path):
    """A NumPy view writes without PyTorch: as long as somebody holds one, nothing is kept of the weight."""
    views = [weight.detach().numpy() for weight in model.parameters() if weight.is_floating_point()]
    rows(model)
    for view in views:
        view *= 0.5
    assert_computed(model, tmp_path / "saved")


@transformers
def test_merged_adapters(model):
    """Adding to the weights what an adapter computes gives the vectors of the adapter."""
    peft = peft_for_adapters()
    names = [name for name, part in model.transformers_model.named_modules() if isinstance(part, nn.Linear)]
    model.add_adapter(peft.LoraConfig(r=2, target_modules=names[:2], init_lora_weights=False))
    model.eval()
    expected = rows(model)
    layers = [part for part in model.modules() if isinstance(part, peft.tuners.lora.LoraLayer)]
    for layer in layers:
        layer.merge()
    np.testing.assert_allclose(rows(model), expected, rtol=1e-5, atol=2e-5)
    for layer in layers:
        layer.unmerge()
    np.testing.assert_allclose(rows(model), expected, rtol=1e-5, atol=2e-5)


# ---- tokenizers


def other_normalizer(model: Any) -> None:
    from tokenizers import normalizers

    rust = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
    rust.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("yes", "no")])


def other_tokenizer(model: Any) -> None:
    """The words in another order."""
    tokenizer = copy.deepcopy(model.tokenizer)
    other_normalizer(type("Holder", (), {"tokenizer": tokenizer}))
    model.tokenizer = tokenizer


def wrapped_tokenizer(model: Any) -> None:
    """A transformers tokenizer in the place of a bare one."""
    from transformers import PreTrainedTokenizerFast

    other_tokenizer(model)
    bare = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
    if bare is model.tokenizer:
        model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare)


def shorter(model: Any) -> None:
    model.max_seq_length = 4


def cut_on_the_left(model: Any) -> None:
    model.tokenizer.truncation_side = "left"
    model.max_seq_length = 5


TOKENIZERS = (other_normalizer, other_tokenizer, wrapped_tokenizer, shorter, cut_on_the_left)
BARE = {"static": TOKENIZERS[3:], "inference-free": TOKENIZERS, "bag of words": TOKENIZERS, "lstm": TOKENIZERS[:3],
        "cnn": TOKENIZERS[:3], "auto-encoder": ()}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "change"),
    [(name, change) for name in MODELS for change in TOKENIZERS if change not in BARE.get(name, ())],
    indirect=["model"],
)
def test_changed_tokenizers(model, tmp_path, change):
    change(model)
    assert_computed(model, tmp_path / "saved")


def test_a_lower_cased_tokenizer(tmp_path):
    model = SentenceTransformer(str(build("roberta", tmp_path / "model")), device="cpu")
    upper = [text.upper() for text in TEXTS]
    lower = model.encode(TEXTS)
    assert np.abs(model.encode(upper) - lower).max() > 1e-3
    model[0].do_lower_case = True
    np.testing.assert_allclose(model.encode(upper), lower, atol=1e-6)
    model.save_pretrained(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(again.encode(upper), lower, atol=1e-6)


# ---- attributes

SIZE = object()
"""Of an attribute that names a size of the weights: another one cannot be loaded, or changes nothing."""

VALUES: dict[str, dict[str, Any]] = {
    "Transformer": {
        "transformer_task": SIZE,
        "module_output_name": SIZE,
        "modality_config": {"text": {"method": "forward", "method_output_name": ["hidden_states", -2]}},
        "processing_kwargs": {"text": {"max_length": 4}},
        "unpad_inputs": False,
        "query_length": 4,
        "document_length": 5,
        "query_expansion": {"strategy": "fixed", "length": 9},
    },
    "Pooling": {"embedding_dimension": SIZE, "pooling_mode": "max", "include_prompt": False},
    "Normalize": {"module_input_name": "token_embeddings", "module_output_name": SIZE},
    "Dense": {
        "in_features": SIZE,
        "out_features": SIZE,
        "bias": SIZE,
        "activation_function": nn.Sigmoid(),
        "module_input_name": SIZE,
        "module_output_name": SIZE,
        "use_residual": True,
    },
    "Dropout": {"dropout": 0.9},
    "LayerNorm": {"dimension": SIZE},
    "WeightedLayerPooling": {"embedding_dimension": SIZE, "layer_start": SIZE, "num_hidden_layers": SIZE},
    "WordWeights": {"vocab": SIZE, "word_weights": {"the": 7.0}, "unknown_word_weight": 5},
    "BoW": {
        "vocab": ["world", "river.", "text"],
        "word_weights": {"hello": 7.0},
        "unknown_word_weight": 5,
        "cumulative_term_frequency": False,
    },
    "CNN": {"in_embedding_dimension": SIZE, "out_channels": SIZE, "kernel_sizes": SIZE, "stride_sizes": [2, 2]},
    "LSTM": {
        "embedding_dimension": SIZE, "hidden_dim": SIZE, "num_layers": SIZE, "bidirectional": SIZE, "dropout": 0.5,
    },
    "WordEmbeddings": {"tokenizer_class": None, "update_embeddings": True, "max_seq_length": 2},
    "LogitScore": {"true_token_id": 7, "false_token_id": 9, "module_input_name": SIZE},
    "SpladePooling": {"pooling_strategy": "sum", "activation_function": "log1p_relu", "embedding_dimension": SIZE},
    "SparseStaticEmbedding": {"frozen": True},
    "Router": {
        "default_route": "query", "allow_empty_key": False, "route_mappings": {("document", "text"): "query"},
    },
    "SparseAutoEncoder": {
        "input_dim": SIZE, "hidden_dim": SIZE, "k": 3, "k_aux": 2, "normalize": True, "dead_threshold": 2,
    },
    "MultiVectorMask": {
        "skiplist_words": ["a", "."], "skiplist_tasks": ["query"], "keep_only_token_ids": [7, 8, 9],
    },
    "HierarchicalTokenPooling": {
        "pool_factor": 3.0, "num_protected_tokens": 3, "normalize_embeddings": False, "tasks": ["query"],
    },
}  # fmt: skip
ENCODERS: dict[str, Any] = {
    "prompts": {"query": "yes ", "document": "no ", "other": "a "},
    "default_prompt_name": "document",
    "similarity_fn_name": {"tokens": "meanmaxsim"}.get,
    "truncate_dim": 3,
    "max_active_dims": 3,
    "activation_fn": nn.Tanh(),
}
NOT_SETTINGS = ("__version__", "model_type", "requirements")


def module_of(model: Any, kind: str) -> Any:
    """The first module of this library that has this class's name; PyTorch has some of the same name."""
    return next((part for part in model.modules() if isinstance(part, Module) and type(part).__name__ == kind), None)


@pytest.fixture(scope="module")
def modules_of(tmp_path_factory: Any) -> dict[str, set[str]]:
    """Name of a model -> the kinds of its modules."""
    made = {name: make(tmp_path_factory.mktemp("kinds")) for name, make in MODELS.items()}
    return {
        name: {type(part).__name__ for part in model.modules() if isinstance(part, Module) and part.config_keys}
        for name, model in made.items()
    }


def test_every_saved_attribute_has_a_value(modules_of):
    """A new module, or a new setting of one, is added above."""
    kinds = {kind for found in modules_of.values() for kind in found}
    assert kinds == set(VALUES)
    from sentence_transformers import modules

    found: dict[str, type[Module]] = {}
    for entry in pkgutil.iter_modules(modules.__path__):
        names = vars(importlib.import_module(f"{modules.__name__}.{entry.name}"))
        for kind in names.values():
            if (
                isinstance(kind, type)
                and issubclass(kind, Module)
                and kind.config_keys
                and not inspect.isabstract(kind)
            ):
                found[kind.__name__] = kind
    elsewhere = {"LambdaTokenPooling", "MLMTransformer"}  # cannot be saved; is saved as a Transformer
    assert found.keys() - kinds <= elsewhere
    for name in kinds & found.keys():
        assert set(found[name].config_keys) == set(VALUES[name]), name


@every_model
def test_attributes_of_modules(model, tmp_path, request):
    name = request.node.callspec.params["model"]
    kinds = [type(part).__name__ for part in model.modules() if isinstance(part, Module)]
    failed = []
    for kind in dict.fromkeys(kinds):
        for i, (key, value) in enumerate(VALUES.get(kind, {}).items()):
            changed = MODELS[name](tmp_path / f"{kind}{i}")
            rows(changed)
            try:
                attribute_is_computed_with(changed, kind, key, value, tmp_path / f"saved {kind}{i}")
            except Exception as error:
                failed.append(f"{kind}.{key}: {type(error).__name__}: {error}")
    assert not failed, "\n\n".join(failed)


def attribute_is_computed_with(model: Any, kind: str, key: str, value: Any, folder: Path) -> None:
    part = module_of(model, kind)
    if value is None or (key == "modality_config" and part.transformer_task != "feature-extraction"):
        return  # cannot be set, or is not for this
    if value is SIZE:
        now = getattr(part, key)
        value = not now if isinstance(now, bool) else now + 1 if isinstance(now, int) else "other"
        setattr(part, key, value)
        try:
            computed = rows(model)
        except Exception:
            return
        model.save_pretrained(str(folder))
        try:
            again = type(model)(str(folder), device="cpu")
        except ValueError:
            return
        np.testing.assert_allclose(computed, rows(again), atol=2e-6)
        return
    setattr(part, key, value)
    try:
        rows(model)
    except (ValueError, AttributeError):  # what cannot go together, as query_expansion and a chat template
        return
    again = module_of(assert_computed(model, folder), kind)
    assert again.get_config_dict()[key] == part.get_config_dict()[key]


@every_model
def test_attributes_of_encoders(model, tmp_path, request):
    name = request.node.callspec.params["model"]
    keys = [key for key in model.get_saved_config() if key not in NOT_SETTINGS]
    assert set(keys) <= set(ENCODERS)
    for i, key in enumerate(keys):
        changed = MODELS[name](tmp_path / f"model{i}")
        rows(changed)
        if key == "default_prompt_name":
            changed.prompts = ENCODERS["prompts"]
        value = ENCODERS[key](name, "euclidean") if key == "similarity_fn_name" else ENCODERS[key]
        setattr(changed, key, value)
        again = assert_computed(changed, tmp_path / f"saved{i}")
        assert again.get_saved_config()[key] == changed.get_saved_config()[key]
        if key == "similarity_fn_name":
            assert again.similarity_fn_name == value
