"""What a loaded model is made of: the modules of the transformers model, under its names and in its order, from the
start; and whatever is done to them is what computes.
"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.backends.prepacked_linear import PackedForward, bind_to_replicas
from sentence_transformers.errors import InputError
from sentence_transformers.modules.pooling import Pooling
from sentence_transformers.modules.transformer import Transformer
from sentence_transformers.util.thread_value import ThreadValue
from tests import models

TEXTS = ["a cat sat on the mat", "the quick brown fox", "hi"]
LAYERS = {nn.Linear: 13, nn.Embedding: 3, nn.LayerNorm: 5, nn.Dropout: 7}  # of a BERT of two layers, as 6.2.0 has them
HEADS = {
    "AutoModel": SentenceTransformer,
    "AutoModelForSequenceClassification": CrossEncoder,
    "AutoModelForMaskedLM": SparseEncoder,
}
FAMILY = ["bert", "roberta", "xlm-roberta", "camembert"]


@pytest.fixture
def model(bert_folder):
    return SentenceTransformer(str(bert_folder), device="cpu")


def padded(model, texts=TEXTS):
    """Vectors by `preprocess` and `forward`, each text alone."""
    with torch.no_grad():
        return np.concatenate([model(model.preprocess([text]))["sentence_embedding"].numpy() for text in texts])


def assert_computed(model, before, tmp_path=None):
    """That `encode` gives other vectors than before: those of the modules that are there, and of what they save."""
    found = model.encode(TEXTS)
    assert np.abs(found - before).max() > 1e-3
    np.testing.assert_allclose(found, padded(model), atol=2e-6)
    if tmp_path is not None:
        model.save_pretrained(str(tmp_path / "saved"))
        again = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS)
        np.testing.assert_allclose(found, again, atol=2e-6)


def folder_with_head(folder, head, name):
    """The tiny model `name` with a head of random weights."""
    import transformers

    models.build(name, folder)
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=3)
    torch.manual_seed(1)
    made = getattr(transformers, head).from_config(config)
    made.save_pretrained(folder)
    return made.eval()


def layers_of(network):
    """(name, class, settings) of the layers of torch."""
    kinds = (*LAYERS, nn.Tanh, nn.ModuleList)
    return [(name, type(part), part.extra_repr()) for name, part in network.named_modules() if type(part) in kinds]


def test_the_layers_of_a_loaded_model(model):
    assert Counter(type(part) for part in model.modules() if type(part) in LAYERS) == LAYERS
    held = dict(model.named_modules())
    network = model[0].auto_model
    assert type(network).__name__ == "BertModel" and network is held["0.model"]
    assert dict(model.named_modules()) == held  # the same objects


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", FAMILY)
def test_names_and_order_are_those_of_transformers(tmp_path, name, head):
    expected = folder_with_head(tmp_path, head, name)
    model = HEADS[head](str(tmp_path), device="cpu")
    root = model[0]._modules["model"]
    for _ in range(2):
        assert [key for key, _ in root.named_modules()] == [key for key, _ in expected.named_modules()]
        assert [key for key, _ in root.named_parameters()] == [key for key, _ in expected.named_parameters()]
        assert [key for key, _ in root.named_buffers()] == [key for key, _ in expected.named_buffers()]
        assert layers_of(root) == layers_of(expected)
        state = root.state_dict()
        assert list(state) == list(expected.state_dict())
        for key, tensor in expected.state_dict().items():
            torch.testing.assert_close(state[key], tensor, rtol=0, atol=0)
        assert all(key.startswith("0.model.") for key in model.state_dict() if key.startswith("0."))
        root = model[0].auto_model


@pytest.mark.parametrize("name", ["distilbert", "modernbert", "qwen3"])
def test_other_architectures_keep_their_layers(folder_of, name):
    import transformers

    model = SentenceTransformer(str(folder_of(name)), device="cpu")
    model.encode(TEXTS)
    expected = transformers.AutoModel.from_pretrained(str(folder_of(name)))
    assert layers_of(model[0].auto_model) == layers_of(expected)
    assert list(model[0].auto_model.state_dict()) == list(expected.state_dict())


def test_a_pooler_that_the_file_lacks_is_the_same_at_each_loading(tmp_path):
    import transformers

    models.build("bert", tmp_path)
    network = transformers.AutoModel.from_pretrained(tmp_path, add_pooling_layer=False)
    network.save_pretrained(tmp_path)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (SentenceTransformer(str(tmp_path), device="cpu") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    weight = first.get_parameter("0.model.pooler.dense.weight")
    assert torch.equal(weight, second.get_parameter("0.model.pooler.dense.weight"))
    assert 0.15 < weight.std() < 0.25  # initializer_range of the tiny models is 0.2
    assert not first.get_parameter("0.model.pooler.dense.bias").any()


def test_a_fresh_process_needs_no_transformers(tmp_path):
    models.build("bert", tmp_path)
    code = (
        "import sys, torch; from sentence_transformers import SentenceTransformer as S\n"
        "m = S(sys.argv[1], device='cpu'); m.encode(['a cat', 'the fox'])\nfor part in m.modules():\n  part.p = 0\n"
        "list(m.parameters()), m.state_dict(), m.apply(lambda part: None), m.encode('hi')\n"
        "print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---- what is done to the modules


def test_training_without_dropout(model):
    features = model.preprocess(TEXTS)
    model.train()
    first, second = (model(dict(features))["sentence_embedding"] for _ in range(2))
    assert (first - second).abs().max() > 1e-3
    fresh = copy.deepcopy(model)
    for part in fresh.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    first, second = (fresh(dict(features))["sentence_embedding"] for _ in range(2))
    assert torch.equal(first, second)


def test_dropout_is_off_in_encode_whatever_module_was_left_in_training_mode(model):
    expected = model.encode(TEXTS)
    for _ in range(2):
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.train()
        np.testing.assert_allclose(model.encode(TEXTS), expected, atol=2e-6)
        model[0].auto_model.register_forward_hook(lambda part, args, out: None)  # now by transformers


def test_dynamic_quantisation(model, bert_folder):
    """Each text's vector is that of the quantised transformers model, pooled by hand."""
    import transformers

    before = model.encode(TEXTS)
    made = torch.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    quantised = torch.ao.nn.quantized.dynamic.Linear
    assert Counter(type(part) for part in made.modules())[quantised] == LAYERS[nn.Linear]
    network = transformers.AutoModel.from_pretrained(str(bert_folder)).eval()
    network = torch.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)
    together = torch.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8).encode(TEXTS)
    for text, vector, fresh in zip(TEXTS, before, together, strict=True):
        features = model.preprocess([text])
        inputs = {key: features[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
        with torch.no_grad():
            expected = network(**inputs).last_hidden_state[0].mean(0).numpy()
        found = made.encode(text)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(fresh, expected, atol=1e-5)  # by the first call, with others
        assert np.abs(found - vector).max() > 1e-3
    np.testing.assert_allclose(model.encode(TEXTS), before, atol=1e-6)


def doubled(part):
    if type(part) is nn.Linear:
        nn.init.constant_(part.bias, 0.3)


CHANGES = {
    "apply": lambda model: model.apply(doubled),
    "another layer": lambda model: setattr(
        model.get_submodule("0.model.encoder.layer.1"), "output", model.get_submodule("0.model.encoder.layer.0.output")
    ),
    "fewer layers": lambda model: setattr(model[0].auto_model.encoder, "layer", model[0].auto_model.encoder.layer[:1]),
    "more layers": lambda model: model[0].auto_model.encoder.layer.append(
        copy.deepcopy(model[0].auto_model.encoder.layer[0])
    ),
    "epsilon": lambda model: setattr(model.get_submodule("0.model.encoder.layer.0.output.LayerNorm"), "eps", 0.5),
    "longest word vectors": lambda model: setattr(
        model.get_submodule("0.model.embeddings.word_embeddings"), "max_norm", 0.3
    ),
    "activation": lambda model: setattr(
        model.get_submodule("0.model.encoder.layer.0.intermediate"), "intermediate_act_fn", nn.ReLU()
    ),
    "a layer left out": lambda model: setattr(
        model.get_submodule("0.model.encoder.layer.0.output"), "LayerNorm", nn.Identity()
    ),
    "heads": lambda model: setattr(
        model.get_submodule("0.model.encoder.layer.0.attention.self"), "attention_head_size", 16
    ),
    "pruning": lambda model: prune.l1_unstructured(
        model.get_submodule("0.model.encoder.layer.0.output.dense"), "weight", 0.7
    ),
    "tables": lambda model: setattr(
        model.get_submodule("0.model.embeddings"), "word_embeddings", nn.Embedding(200, models.HIDDEN)
    ),
}


@pytest.mark.parametrize("loaded", ["before", "after"])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_modules_are_computed_with(model, change, loaded):
    before = model.encode(TEXTS)
    if loaded == "after":
        _ = model[0].auto_model
        model.encode(TEXTS)
    torch.manual_seed(0)
    CHANGES[change](model)
    assert_computed(model, before)


@pytest.mark.parametrize("change", ["apply", "fewer layers", "tables"])
def test_changed_modules_are_saved(model, change, tmp_path):
    before = model.encode(TEXTS)
    torch.manual_seed(0)
    CHANGES[change](model)
    if change == "fewer layers":
        model[0].auto_model.config.num_hidden_layers = 1
    assert_computed(model, before, tmp_path)


def test_pruned_for_good(model, tmp_path):
    before = model.encode(TEXTS)
    layer = model.get_submodule("0.model.encoder.layer.0.output.dense")
    prune.l1_unstructured(layer, "weight", 0.7)
    prune.remove(layer, "weight")
    assert float((layer.weight == 0).float().mean()) > 0.6
    assert_computed(model, before, tmp_path)


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_hooks_fire_once_in_each_forward_pass(folder_of, name):
    """From before the first call on, with the module that they were set on; no trial of the architecture is seen."""
    model = SentenceTransformer(str(folder_of(name)), device="cpu")
    expected = SentenceTransformer(str(folder_of(name)), device="cpu").encode(TEXTS)
    names = {part: key for key, part in model.named_modules() if key.startswith("0.model.")}
    seen: Counter[str] = Counter()
    for part in names:
        part.register_forward_hook(lambda part, args, out: seen.update([names[part]]))
    once = calls_in_one_pass(folder_of(name))
    for call in (model.encode, lambda texts: model.train()(model.preprocess(texts)), model.encode):
        seen.clear()
        found = call(TEXTS)
        assert seen == once
    np.testing.assert_allclose(found, expected, atol=2e-6)


def calls_in_one_pass(folder):
    """How often each module of the plain transformers model is called for one batch."""
    import transformers

    network, seen = transformers.AutoModel.from_pretrained(str(folder)), Counter()
    for name, part in network.named_modules():
        if name:
            part.register_forward_hook(lambda part, args, out, name=name: seen.update([f"0.model.{name}"]))
    network(torch.tensor([[2, 7, 3]]))
    return seen


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_a_patched_network_is_called_once(folder_of, name):
    model = SentenceTransformer(str(folder_of(name)), device="cpu")
    expected = SentenceTransformer(str(folder_of(name)), device="cpu").encode(TEXTS)
    network, shapes = model[0].auto_model, []
    own = network.forward
    network.forward = lambda *args, **kwargs: (shapes.append(kwargs["input_ids"].shape[0]), own(*args, **kwargs))[1]
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=2e-6)
    assert shapes == [len(TEXTS)]
    del network.forward
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=2e-6)
    assert model[0].packs and shapes == [len(TEXTS)]


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_another_attention_function_sees_padded_batches(folder_of, name, encoded):
    model = SentenceTransformer(str(folder_of(name)), device="cpu")
    expected = SentenceTransformer(str(folder_of(name)), device="cpu").encode(models.TEXTS)
    if encoded:
        model.encode(TEXTS)
    model[0].auto_model.set_attn_implementation("eager")
    np.testing.assert_allclose(model.encode(models.TEXTS), expected, atol=3e-6)
    assert not model[0].packs


def test_frozen_layers_get_no_gradients(model):
    for name, parameter in model.named_parameters():
        if ".layer.1." not in name:
            parameter.requires_grad_(False)
    model(model.preprocess(TEXTS))["sentence_embedding"].sum().backward()
    with_gradients = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(with_gradients) == 16 and all(".layer.1." in name for name in with_gradients)


def test_an_optimiser_made_before_the_first_step_stays_the_right_one(model, tmp_path):
    before = model.encode(TEXTS)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    names = [name for name, _ in model.named_parameters()]
    for _ in range(2):
        model(model.preprocess(TEXTS))["sentence_embedding"].square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    assert [name for name, _ in model.named_parameters()] == names
    assert [id(parameter) for parameter in optimiser.param_groups[0]["params"]] == [id(p) for p in model.parameters()]
    assert_computed(model, before, tmp_path)


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_copies_are_models_of_their_own(model, loaded):
    if loaded == "after":
        _ = model[0].auto_model
    before = model.encode(TEXTS)
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_allclose(made.encode(TEXTS), before, atol=1e-6)
        for parameter in made.parameters():
            parameter.data.mul_(0.5)
        assert_computed(made, before)
        np.testing.assert_allclose(model.encode(TEXTS), before, atol=1e-6)


def test_asking_for_the_transformers_model_leaves_the_way_of_computing(model, monkeypatch):
    expected = model.encode(TEXTS)
    assert model[0].auto_model.config.model_type == "bert"
    monkeypatch.setattr(Transformer, "run", None)  # what calls the transformers model
    np.testing.assert_array_equal(model.encode(TEXTS), expected)


@pytest.mark.parametrize("setting", ["output_hidden_states", "output_attentions", "attention"])
@pytest.mark.parametrize("loaded", ["before", "after"])
def test_the_config_counts(model, setting, loaded):
    """What is set on the config reaches the transformers model, whenever it is made."""
    expected = model.encode(TEXTS)
    network = model[0].auto_model if loaded == "after" else None
    if setting == "attention":
        model[0].auto_model.set_attn_implementation("eager")
    elif setting == "output_hidden_states":
        model[0].config.output_hidden_states = True
    else:
        model[0].auto_model.set_attn_implementation("eager")
        model[0].config.output_attentions = True
    shapes = []
    model[0].auto_model.encoder.layer[0].attention.register_forward_hook(
        lambda part, args, out: shapes.append(None if out[1] is None else out[1].shape[:2])
    )
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=2e-6)
    assert network is None or model[0].auto_model is network
    if setting != "output_hidden_states":
        assert shapes == [(3, 4)]
    else:
        assert len(model(model.preprocess(TEXTS))["all_layer_embeddings"]) == 3


# ---- other compilers


class Vectors(nn.Module):
    """A model with tensors in and out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]


def inputs(model, texts):
    features = model.preprocess(texts)
    return features["input_ids"], features["attention_mask"]


@pytest.mark.parametrize("name", ["bert", "distilbert"])
@pytest.mark.parametrize("encoded", [False, True])
def test_traced(folder_of, name, encoded):
    model = SentenceTransformer(str(folder_of(name)), device="cpu")
    if encoded:
        model.encode(TEXTS)
    with torch.no_grad():
        traced = torch.jit.trace(Vectors(model), inputs(model, TEXTS))
        found = traced(*inputs(model, models.SENTENCES[:2])).numpy()
    np.testing.assert_allclose(found, model.encode(models.SENTENCES[:2]), atol=2e-6)


def test_exported(model):
    model[1] = Pooling(models.HIDDEN, Pooling.POOLING_MODES)
    sizes = {0: torch.export.Dim("texts", min=2, max=64), 1: torch.export.Dim("tokens", min=2, max=60)}
    shapes = {"input_ids": sizes, "attention_mask": sizes}
    with torch.no_grad():
        made = torch.export.export(Vectors(model), inputs(model, TEXTS), strict=False, dynamic_shapes=shapes)
        found = made.module()(*inputs(model, models.SENTENCES[:4])).numpy()
    np.testing.assert_allclose(found, model.encode(models.SENTENCES[:4]), atol=2e-6)


def test_recorded_word_weights(tmp_path):
    folder_with_head(tmp_path, "AutoModelForMaskedLM", "roberta")
    model = SparseEncoder(str(tmp_path), device="cpu")
    sizes = {0: torch.export.Dim("texts", min=2, max=64), 1: torch.export.Dim("tokens", min=2, max=60)}
    shapes = {"input_ids": sizes, "attention_mask": sizes}
    other = inputs(model, models.SENTENCES[:4])
    with torch.no_grad():
        exported = torch.export.export(Vectors(model), inputs(model, TEXTS), strict=False, dynamic_shapes=shapes)
        found = exported.module()(*other).numpy()
        np.testing.assert_allclose(found, model.encode(models.SENTENCES[:4]).to_dense().numpy(), atol=5e-6)
        model[1].pooling_strategy = "sum"
        found = torch.jit.trace(Vectors(model), inputs(model, TEXTS))(*other).numpy()
        np.testing.assert_allclose(found, model.encode(models.SENTENCES[:4]).to_dense().numpy(), atol=5e-5)


PAIRS = [("a cat sat", "the mat"), ("rain", "a river rose over its banks"), ("hi", "hi there")]


def expected_and_batch(model, rows):
    """What the model's own call gives for texts or pairs, and the tensors of `preprocess`."""
    batch = {key: value for key, value in model.preprocess(rows).items() if isinstance(value, torch.Tensor)}
    if isinstance(model, CrossEncoder):
        return model.predict(rows, activation_fn=nn.Identity(), convert_to_tensor=True), batch
    if isinstance(model, MultiVectorEncoder):
        return torch.cat(model.encode(rows)), batch
    found = model.encode(rows, convert_to_tensor=True)
    return found.to_dense() if found.is_sparse else found, batch


def result(model, features):
    if isinstance(model, CrossEncoder):
        return features["scores"].squeeze(-1)
    if isinstance(model, MultiVectorEncoder):
        return features["token_embeddings"][features["attention_mask"].bool()]
    return features["sentence_embedding"]


@pytest.mark.parametrize("how", ["compile", "export"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in (SentenceTransformer, MultiVectorEncoder) for name in ("bert", "modernbert", "qwen3")]
    + [(SentenceTransformer, "mpnet"), (CrossEncoder, "bert"), (CrossEncoder, "modernbert"), (CrossEncoder, "qwen3")]
    + [(SparseEncoder, "bert")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_one_graph(how, kind, name, folder_of, tmp_path):
    """`torch.compile` and `torch.export` follow the whole forward pass, as in 6.2.0, for other batches as well."""
    torch._dynamo.reset()
    heads = {CrossEncoder: "AutoModelForSequenceClassification", SparseEncoder: "AutoModelForMaskedLM"}
    if kind in heads:
        folder_with_head(tmp_path, heads[kind], name)
    model = kind(str(tmp_path if kind in heads else folder_of(name)), device="cpu").eval()
    first, other = (TEXTS, models.SENTENCES[:4]) if kind is not CrossEncoder else (PAIRS[:2], PAIRS)
    expected, batch = expected_and_batch(model, other)
    with torch.no_grad():
        if how == "compile":
            made = torch.compile(model, fullgraph=True, backend="eager")
            made(expected_and_batch(model, first)[1])
        else:
            sizes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
            given = expected_and_batch(model, first)[1]
            made = torch.export.export(model, (given,), dynamic_shapes=(dict.fromkeys(given, sizes),), strict=True)
            made = made.module()
        found = result(model, made(batch))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["bert", "modernbert"])
@pytest.mark.parametrize("head", ["AutoModel", "AutoModelForSequenceClassification"])
@pytest.mark.parametrize("how", ["compiled", "compiled in place", "wrapped"])
def test_a_compiled_network_computes_packed_and_padded_batches(name, head, how, tmp_path):
    torch._dynamo.reset()
    folder_with_head(tmp_path, head, name)
    model = HEADS[head](str(tmp_path), device="cpu").eval()
    rows = TEXTS if head == "AutoModel" else PAIRS
    expected, batch = expected_and_batch(model, rows)
    network = model[0].auto_model
    if how == "compiled in place":
        network.compile(backend="eager")
    else:
        model[0].auto_model = Wrapped(network) if how == "wrapped" else torch.compile(network, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(expected_and_batch(model, rows)[0], expected, atol=2e-5, rtol=1e-4)
        with torch.no_grad():
            torch.testing.assert_close(result(model, model(dict(batch))), expected, atol=2e-5, rtol=1e-4)


class Wrapped(nn.Module):
    """A network in another that names no arguments."""

    def __init__(self, network):
        super().__init__()
        self.network, self.config = network, network.config

    def forward(self, **kwargs):
        return self.network(**kwargs)


def test_a_value_of_each_thread():
    value, seen = ThreadValue("first"), []
    with pytest.raises(KeyError), value.set_to("here"):
        thread = threading.Thread(target=lambda: seen.append(value.value))
        thread.start()
        thread.join()
        seen.append(value.value)
        raise KeyError
    assert (*seen, value.value) == ("first", "here", "first")


# ---- another model in its place


@pytest.mark.parametrize("task", [None, "FEATURE_EXTRACTION"])
@pytest.mark.parametrize(("name", "target"), [("bert", "query"), ("distilbert", "q_lin")])
def test_an_assigned_peft_model_computes_and_is_saved(folder_of, tmp_path, name, target, task):
    peft = pytest.importorskip("peft")
    model = SentenceTransformer(str(folder_of(name)), device="cpu")
    before = model.encode(TEXTS)
    torch.manual_seed(0)
    settings = peft.LoraConfig(r=4, target_modules=[target], init_lora_weights=False, task_type=task)
    model._modules["0"].auto_model = peft.get_peft_model(model._modules["0"].auto_model, settings)
    assert_computed(model, before, tmp_path)
    merged = model[0].auto_model.merge_and_unload()
    expected = model.encode(TEXTS)
    model[0].model = merged
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("form", [{}, {"use_dora": True}, {"use_rslora": True}])
@pytest.mark.parametrize(("name", "target"), [("bert", "query"), ("modernbert", "Wqkv"), ("t5", "q")])
def test_an_added_adapter_is_loaded_as_it_was_saved(folder_of, tmp_path, name, target, form):
    peft = pytest.importorskip("peft")
    plain, model = (SentenceTransformer(str(folder_of(name)), device="cpu") for _ in range(2))
    torch.manual_seed(0)
    model.add_adapter(peft.LoraConfig(r=4, target_modules=[target], init_lora_weights=False, **form))
    for key, weight in model.named_parameters():
        if "magnitude" in key:
            weight.data.mul_(1.5)
    model.eval()
    assert_computed(model, plain.encode(TEXTS), tmp_path)
    plain.load_adapter(str(tmp_path / "saved"), "mine")
    np.testing.assert_allclose(plain.encode(TEXTS), model.encode(TEXTS), atol=2e-6)


@pytest.mark.filterwarnings("ignore:(Position|Token type) ids are not supported:UserWarning")
@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PromptEncoderConfig", "PrefixTuningConfig"])
@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "t5"])
def test_a_learned_prompt(folder_of, tmp_path, name, kind):
    """Its tokens count as those of the text do, whatever texts go together; saved, it is loaded as it was."""
    peft = pytest.importorskip("peft")
    if kind == "PrefixTuningConfig" and name in ("modernbert", "t5"):
        pytest.skip("keys and values from elsewhere are not known to this architecture")
    model = SentenceTransformer(str(folder_of(name)), device="cpu")
    before = model.encode(TEXTS)
    settings = getattr(peft, kind)(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3)
    model[0].auto_model = network = peft.get_peft_model(model[0].auto_model, settings).eval()
    with torch.no_grad():
        batches = [model.preprocess([text]) for text in TEXTS]
        given = [{key: batch[key] for key in ("input_ids", "attention_mask")} for batch in batches]
        expected = torch.stack([network(**batch).last_hidden_state[0].mean(0) for batch in given])
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=2e-6)
    assert_computed(model, before, tmp_path)
    rows = model.encode(TEXTS, output_value=None)
    assert all(len(row["token_embeddings"]) == len(row["input_ids"]) for row in rows)


def test_an_assigned_model_computes_and_is_saved(model, tmp_path):
    import transformers

    before, own = model.encode(TEXTS), model[0].auto_model
    torch.manual_seed(1)
    model[0].auto_model = other = transformers.AutoModel.from_config(own.config).eval()
    assert model[0].auto_model is other and next(model.parameters()) is next(other.parameters())
    assert_computed(model, before, tmp_path)
    model[0].model = own
    np.testing.assert_allclose(model.encode(TEXTS), before, atol=1e-6)
    with pytest.raises(InputError, match="must be a transformers model, got 'name' of type str"):
        model[0].auto_model = "name"


# ---- the forward pass of linear layers


def test_a_packed_layer_and_its_copies():
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 4).eval(), torch.randn(3, 8)
    layer.forward = PackedForward(layer)
    replica = layer._replicate_for_data_parallel()  # what nn.DataParallel calls with copies on other devices
    replica.weight, replica.bias = layer.weight.detach() * 2, layer.bias.detach()
    bind_to_replicas(replica)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    for made in copies:
        made.weight.data.mul_(2)
    with torch.no_grad():
        for made in (*copies, replica):
            torch.testing.assert_close(made(x), x @ layer.weight.T * 2 + layer.bias)
        torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias)
