"""Names that other libraries import from deep inside: each does what it says.

Expected values marked 6.2.0 were seen there.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sentence_transformers.base.losses.merged_forward import embed_columns_padded
from sentence_transformers.base.modality import InputFormatter, raise_unsupported_modality_error
from sentence_transformers.base.modules.transformer import (
    TRANSFORMER_TASK_DEFAULTS,
    TRANSFORMER_TASK_TO_AUTO_MODEL,
    Transformer,
)
from sentence_transformers.cross_encoder.losses import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
from sentence_transformers.cross_encoder.util import (
    cross_encoder_init_args_decorator,
    cross_encoder_predict_rank_args_decorator,
)
from sentence_transformers.models import Pooling
from sentence_transformers.util.decorators import deprecated_kwargs, transformer_kwargs_decorator

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer
from tests.golden.layouts import GOLDEN
from tests.models import build


class Calls:
    """Returns what its methods are given, behind the decorators of a cross-encoder and a `Transformer`."""

    @cross_encoder_init_args_decorator
    def __init__(self, *args, **kwargs):
        self.given = args, kwargs

    @cross_encoder_predict_rank_args_decorator
    def predict(self, inputs, convert_to_numpy=True, **kwargs):
        return inputs, convert_to_numpy, kwargs

    @transformer_kwargs_decorator
    def transformer(self, *args, **kwargs):
        return args, kwargs

    @deprecated_kwargs(old="new")
    def other(self, **kwargs):
        return kwargs


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_arguments_are_renamed():
    """6.2.0."""
    assert Calls("m", 1, 2, 3, 4).given == (("m",), {"num_labels": 1, "max_length": 2, "activation_fn": 3, "device": 4})
    renamed = {"model_name": "m", "automodel_args": {"a": 1}, "tokenizer_args": {"b": 1}, "config_args": {"c": 1}}
    assert Calls(**renamed, cache_dir="x", default_activation_function="f", classifier_dropout=0.5).given[1] == {
        "model_name_or_path": "m",
        "model_kwargs": {"a": 1},
        "processor_kwargs": {"b": 1},
        "config_kwargs": {"c": 1, "classifier_dropout": 0.5},
        "cache_folder": "x",
        "activation_fn": "f",
    }
    given = Calls().predict(sentences=1, num_workers=2, apply_softmax=True, convert_to_numpy=False, activation_fct=3)
    assert given == (1, False, {"activation_fn": 3})
    assert Calls().transformer("m", model_args={"a": 1}, cache_dir="x")[1] == {
        "model_kwargs": {"a": 1, "cache_dir": "x"},
        "processor_kwargs": {"cache_dir": "x"},
        "config_kwargs": {"cache_dir": "x"},
    }
    assert Calls().other(old=1) == {"new": 1}


def test_what_is_said_of_older_arguments_and_where():
    with pytest.warns(DeprecationWarning) as caught:
        Calls("m", 1, automodel_args={}, tokenizer_args={}, classifier_dropout=0.5)
        Calls().predict(1, num_workers=2, activation_fct=3)
    assert [str(warning.message) for warning in caught] == [
        "Give ['num_labels'] of Calls.__init__() by name, not by position.",
        "Renamed arguments of Calls.__init__(): 'automodel_args' is now 'model_kwargs', 'tokenizer_args' is now "
        "'processor_kwargs'. The older names will be removed.",
        "Argument 'classifier_dropout' of Calls.__init__() is now an entry of config_kwargs.",
        "Arguments ['num_workers'] of Calls.predict() have no effect any more.",
        "Renamed arguments of Calls.predict(): 'activation_fct' is now 'activation_fn'. The older names will be "
        "removed.",
    ]
    assert {warning.filename for warning in caught} == {__file__}


# ---- backends


EXPORTS = [  # files, model_kwargs, (whether to export, model_kwargs afterwards); 6.2.0
    ([], {}, (True, {})),
    (["model.onnx"], {}, (True, {})),
    (["onnx/model.onnx"], {}, (False, {"subfolder": "onnx", "file_name": "model.onnx"})),
    (["onnx/model.onnx", "onnx/a.onnx"], {}, (False, {"subfolder": "onnx", "file_name": "model.onnx"})),
    (["onnx/a.onnx"], {}, (True, {})),
    (["onnx/a.onnx"], {"file_name": "a.onnx"}, (False, {"subfolder": "onnx", "file_name": "a.onnx"})),
    (["onnx/a.onnx"], {"file_name": "onnx/a.onnx"}, (False, {"subfolder": "onnx", "file_name": "a.onnx"})),
    (["onnx/model.onnx"], {"file_name": "b.onnx"}, (True, {"file_name": "b.onnx"})),
    (["onnx/model.onnx"], {"export": True, "file_name": "onnx/a.onnx"}, (True, {"file_name": "onnx/a.onnx"})),
    ([], {"export": False}, (False, {})),
    (["onnx/sub/model.onnx"], {}, (True, {})),
    (["onnx/sub/a.onnx"], {"file_name": "sub/a.onnx"}, (False, {"subfolder": "onnx/sub", "file_name": "a.onnx"})),
    (["q/onnx/model.onnx"], {"subfolder": "q"}, (False, {"subfolder": "q/onnx", "file_name": "model.onnx"})),
    (["sub/model.onnx"], {"file_name": "sub/model.onnx"}, (True, {"subfolder": "sub", "file_name": "model.onnx"})),
]  # fmt: skip


@pytest.mark.parametrize(("files", "given", "expected"), EXPORTS)
@pytest.mark.parametrize("is_local", [True, False])
def test_whether_a_graph_is_exported(files, given, expected, is_local, tmp_path, monkeypatch):
    from sentence_transformers.backend.utils import backend_should_export

    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda name, revision, token: ["config.json", *files])
    found = backend_should_export(
        load_path=tmp_path,
        is_local=is_local,
        model_kwargs=dict(given),
        target_file_name="model.onnx",
        target_file_glob="onnx/**/*.onnx",
        backend_name="ONNX",
    )
    assert found == expected


@pytest.mark.parametrize(
    ("is_local", "said"), [(True, "model.save_pretrained('m')"), (False, "model.push_to_hub('m', create_pr=True)")]
)
def test_how_an_export_is_kept(is_local, said, caplog):
    from sentence_transformers.backend import backend_warn_to_save

    backend_warn_to_save(model_name_or_path="m", is_local=is_local, backend_name="RKNN")
    assert said in caplog.text and "RKNN" in caplog.text


def test_saving_into_a_sub_folder(tmp_path):
    from sentence_transformers.backend import _save_pretrained_wrapper

    def save(folder, text):
        Path(folder, "file").write_text(text)
        return 5

    wrapped = _save_pretrained_wrapper(_save_pretrained_fn=save, subfolder="rknn")
    assert wrapped(str(tmp_path / "model"), text="x") == 5
    assert (tmp_path / "model" / "rknn" / "file").read_text() == "x"


# ---- training


@pytest.mark.parametrize("package", ["sentence_transformer", "cross_encoder"])
def test_callbacks_of_fit(package, tmp_path):
    """6.2.0."""
    import importlib

    module = importlib.import_module(f"sentence_transformers.{package}.fit_mixin")
    saved, told, written = [], [], []
    model = SimpleNamespace(save=saved.append)
    state = SimpleNamespace(epoch=1.0, global_step=7)
    higher = SimpleNamespace(primary_metric="score", greater_is_better=True)
    lower = SimpleNamespace(primary_metric="score", greater_is_better=False)

    def run(evaluator, best, values=(0.1, 0.1, 0.3, 0.2)):
        callback = module.SaveModelCallback(output_dir="out", evaluator=evaluator, save_best_model=best)
        for value in values:
            callback.on_evaluate(None, state, None, metrics={"eval_score": value}, model=model)
        callback.on_train_end(None, state, None, model=model)
        times = len(saved)
        saved.clear()
        return times, callback

    assert [run(higher, True)[0], run(lower, True)[0], run(higher, False)[0], run(None, True)[0]] == [2, 1, 0, 1]
    assert run(lower, True)[1].is_better(new_metric=0.05) and not run(lower, True)[1].is_better(0.5)
    callback = module.OriginalCallback(callback=lambda *given: told.append(given), evaluator=higher)
    callback.on_evaluate(None, state, None, metrics={"eval_score": 0.3})
    assert told == [(0.3, 1.0, 7)]

    def evaluator(model, output_path, epoch, steps):
        written.append((output_path, epoch, steps))
        return {"score": 0.5}

    follow = module.EvaluatorCallback(evaluator=evaluator, output_path=str(tmp_path))
    heard = []
    follow.trainer = SimpleNamespace(
        callback_handler=SimpleNamespace(on_evaluate=lambda *_, metrics: heard.append(metrics))
    )
    follow.on_epoch_end(None, state, None, model=model)
    assert written == [(str(tmp_path / "eval"), 1.0, 7)] and heard == [{"eval_score": 0.5}]


def test_the_mixins_of_fit_are_bases_of_the_encoders():
    from sentence_transformers.cross_encoder.fit_mixin import FitMixin as OfPairs
    from sentence_transformers.sentence_transformer.fit_mixin import FitMixin

    assert issubclass(SentenceTransformer, FitMixin) and issubclass(CrossEncoder, OfPairs)
    assert not issubclass(SentenceTransformer, OfPairs) and not issubclass(MultiVectorEncoder, FitMixin)
    assert SentenceTransformer.fit is FitMixin.fit


@pytest.mark.parametrize("step", ["predict_minibatch", "predict_minibatch_iter", "calculate_loss_and_cache_gradients"])
def test_steps_of_the_cached_loss_of_pairs_may_be_overridden(step):
    """The value and the gradients are those of the loss that holds the whole batch."""
    model = CrossEncoder(str(GOLDEN / "out_ce"), device="cpu", num_labels=1)
    columns = [["a cat", "rain", "the river rose"], ["a dog", "rain fell all night", "water"]]
    called = []

    def override(self, *args, **kwargs):
        called.append(step)
        return getattr(CachedMultipleNegativesRankingLoss, step)(self, *args, **kwargs)

    kind = type("Mine", (CachedMultipleNegativesRankingLoss,), {step: override})
    found = []
    for loss in (MultipleNegativesRankingLoss(model, None), kind(model, None, mini_batch_size=2)):
        model.zero_grad()
        value = loss(columns)
        value.backward()
        found.append((value.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    assert called
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        assert loss(columns, prompt="about: ").item() != pytest.approx(value.item(), abs=1e-6)


@pytest.mark.parametrize("size", [None, 1])
def test_token_vectors_of_all_columns(size):
    model = MultiVectorEncoder(str(GOLDEN / "out_mv"), device="cpu").eval()
    texts = [["the cat", "a b c d e"], ["rain fell all night", "sun"]]
    sides = ["query", "document"]
    features = [model.preprocess(column, task=task) for column, task in zip(texts, sides, strict=True)]
    with torch.no_grad():
        vectors, masks = embed_columns_padded(model, features, mini_batch_size=size)
    longest = max(column["input_ids"].shape[1] for column in features)
    for column, side, found, mask in zip(texts, sides, vectors, masks, strict=True):
        assert found.shape[:2] == mask.shape == (2, longest)
        encode = model.encode_query if side == "query" else model.encode_document
        for expected, row, counted in zip(encode(column), found, mask, strict=True):
            torch.testing.assert_close(row[counted], expected, atol=1e-5, rtol=1e-4)


def test_a_task_for_columns_that_name_none():
    seen = []

    class Spy(MultiVectorEncoder):
        def forward(self, input, **kwargs):
            seen.append(kwargs.get("task"))
            return super().forward(input, **kwargs)

    model = Spy(str(GOLDEN / "out_mv"), device="cpu")
    features = model.preprocess(["the cat"], task="document")
    embed_columns_padded(model, [features, features | {"task": "query"}], task_default="document")
    assert seen == ["document", "query"]


# ---- models


def test_the_kinds_of_input_may_be_said_by_a_subclass(bert_folder):
    seen = []

    class Second(Transformer):
        def infer_modalities(self, model, processor):
            seen.append((type(model).__name__, type(processor).__name__))
            config, output = super().infer_modalities(model, processor)
            return {"text": config["text"] | {"method_output_name": ["hidden_states", 1]}}, output

    module = Second(str(bert_folder))
    model = SentenceTransformer(modules=[module, Pooling(module.get_embedding_dimension())], device="cpu")
    inputs = module.tokenizer(["rain fell"], return_tensors="pt")
    with torch.no_grad():
        layers = module.auto_model(**inputs, output_hidden_states=True).hidden_states
    torch.testing.assert_close(
        model.encode("rain fell", convert_to_tensor=True), layers[1][0].mean(0), atol=1e-5, rtol=1e-4
    )
    assert seen[0][0] == "BertModel"


def test_what_each_task_gives(tmp_path):
    """6.2.0."""
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    assert TRANSFORMER_TASK_DEFAULTS["feature-extraction"] == ({"text": text}, "token_embeddings")
    assert TRANSFORMER_TASK_DEFAULTS["sequence-classification"][1] == "scores"
    module = Transformer(str(build("bert", tmp_path)))
    assert (module.modality_config, module.module_output_name) == TRANSFORMER_TASK_DEFAULTS["feature-extraction"]


@pytest.mark.parametrize("how", ["save", "save_pretrained", "trainer"])
def test_an_overridden_save_is_what_saves(how, tmp_path, caplog):
    """6.2.0: `save_pretrained` and so the trainer call `save`."""
    caplog.set_level(logging.ERROR)

    class Mine(SentenceTransformer):
        def save(self, path, *args, **kwargs):
            super().save(path, *args, **kwargs)
            Path(path, "mine.txt").touch()

    model = Mine(str(GOLDEN / "out_st"), device="cpu")
    if how == "trainer":
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

        args = SentenceTransformerTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
        from datasets import Dataset

        from sentence_transformers.losses import CoSENTLoss

        rows = Dataset.from_dict({"a": ["x"], "b": ["y"], "score": [1.0]})
        SentenceTransformerTrainer(model, args, rows, loss=CoSENTLoss(model)).save_model(str(tmp_path / "out"))
    else:
        getattr(model, how)(str(tmp_path / "out"))
    assert (tmp_path / "out" / "mine.txt").exists()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("BatchHardTripletLoss", "sentence_embedder"),
        ("MultiVectorMarginMSELoss", "loss_function"),
        ("MultiVectorDistillKLDivLoss", "loss_function"),
        ("ListNetLoss", "cross_entropy_loss"),
    ],
)
def test_parts_of_losses_may_be_replaced(kind, name):
    """The part that is put there is the one that computes, and the only one of that name."""
    from sentence_transformers.cross_encoder import losses as of_pairs
    from sentence_transformers.multi_vector_encoder import losses as of_tokens

    from sentence_transformers import losses

    labels = torch.tensor([0, 1, 0, 1])
    if kind == "ListNetLoss":
        loss = of_pairs.ListNetLoss(CrossEncoder(str(GOLDEN / "out_ce"), device="cpu", num_labels=1))
        columns, labels = [["rain"], [["a", "b"]]], [torch.tensor([1.0, 0.0])]
    else:
        folder, package = ("out_st", losses) if kind[:5] == "Batch" else ("out_mv", of_tokens)
        encoder = SentenceTransformer if kind[:5] == "Batch" else MultiVectorEncoder
        loss = getattr(package, kind)(encoder(str(GOLDEN / folder), device="cpu"))
        width = 1 if kind[:5] == "Batch" else 3
        columns = [loss.model.preprocess(["a cat", "rain", "the river", "water"]) for _ in range(width)]
        labels = labels if width == 1 else torch.rand(4, 2)
    assert getattr(loss, name) is not None
    loss.eval()

    class Replaced(torch.nn.Module):
        def forward(self, *args, **kwargs):
            raise ArithmeticError("called")

    setattr(loss, name, Replaced())
    assert isinstance(getattr(loss, name), Replaced)
    with pytest.raises(ArithmeticError, match="called"):
        loss(columns, labels)


# ---- inputs of modules of one's own

TEXT_PART = [{"type": "text", "text": "a"}]
WAVE = {"array": np.zeros(4), "sampling_rate": 16000}
QUERY, DOCUMENT = ({"role": role, "content": text} for role, text in (("query", "a"), ("document", "b")))
PARSED = [  # inputs, kind, values by kind with flat messages; 6.2.0
    (["a", "b"], "text", {"text": ["a", "b"]}),
    (["a", ["b", "c"]], "text", {"text": ["a", ["b", "c"]]}),
    ([{"text": "a"}], "text", {"text": ["a"]}),
    ([], "text", {"text": []}),
    ([{"role": "user", "content": "x"}], "message", {"message": [[{"role": "user", "content": "x"}]]}),
    ([[QUERY, DOCUMENT]], "message", {"message": [[QUERY, DOCUMENT]]}),
    ([WAVE], "audio", {"audio": [WAVE["array"]]}),
    ([{"text": "q", "audio": WAVE}], ("audio", "text"), {"audio": [WAVE["array"]], "text": ["q"]}),
    (["a", WAVE], "message", {"message": [[{"role": "user", "content": c}] for c in ("a", WAVE["array"])]}),
    (
        [(WAVE["array"], "a")],
        "message",
        {"message": [[{"role": "query", "content": WAVE["array"]}, {"role": "document", "content": "a"}]]},
    ),
]


@pytest.mark.parametrize(("inputs", "kind", "values"), PARSED)
def test_inputs_by_kind(inputs, kind, values):
    formatter = InputFormatter("bert", "flat", None, ["text", "message", "audio"])
    found, parsed, extra = formatter.parse_inputs(inputs)
    np.testing.assert_equal((found, parsed), (kind, values))
    assert extra == ({"audio": {"sampling_rate": 16000}} if "sampling_rate" in str(inputs) else {})


def test_sounds_of_two_rates():
    with pytest.raises(ValueError, match="16000 and 8000"):
        InputFormatter("bert").parse_inputs([WAVE, WAVE | {"sampling_rate": 8000}])


@pytest.mark.parametrize("form", ["flat", "structured"])
def test_messages_of_a_formatter(form):
    """6.2.0."""
    formatter = InputFormatter("bert", form)

    def content(text):
        return text if form == "flat" else [{"type": "text", "text": text}]

    pair = [{"role": "query", "content": content("a")}, {"role": "document", "content": content("b")}]
    assert formatter.pair_to_messages(("a", "b")) == pair
    assert formatter.to_message({"text": "a"}, role="x") == [{"role": "x", "content": content("a")}]
    both = formatter.to_message({"text": ["a", "b"], "audio": 5})[0]["content"]
    assert both == [*TEXT_PART, {"type": "text", "text": "b"}, {"type": "audio", "audio": 5}]
    assert formatter.batch_to_message("text", {"text": ["a", ("a", "b")]}) == (
        "message",
        {"message": [[{"role": "user", "content": content("a")}], pair]},
    )
    given = [{"role": "u", "content": "a", "k": 1}, {"role": "u", "content": TEXT_PART}, {"role": "u", "content": []}]
    expected = [content("a"), content("a"), []]
    normal = formatter.normalize_messages(given)
    assert [message["content"] for message in normal] == expected and normal[0]["k"] == 1
    prompted = formatter.prepend_prompt_to_messages([[QUERY], []], "P")
    assert prompted == [[{"role": "system", "content": content("P")}, *rest] for rest in ([QUERY], [])]
    assert formatter.prepend_prompt_to_texts(["a", ("b", "c")], "P") == ["Pa", ["Pb", "c"]]
    batches = ([], [[QUERY]], [[QUERY, DOCUMENT]], [[QUERY], [DOCUMENT]])
    assert [formatter.has_pair_roles(batch) for batch in batches] == [False, False, True, False]
    assert [formatter.is_text_pair(v) for v in (("a", "b"), ["a", "b"], ("a", 1), "ab")] == [True, True, False, False]
    texts = ([[QUERY]], [[{"role": "u", "content": TEXT_PART}]], [[{"role": "u", "content": [{"type": "image"}]}]])
    assert [formatter.is_text_only_messages(batch) for batch in texts] == [True, True, False]


class Template:
    """A tokenizer that has a chat template and nothing else."""

    def __init__(self, template):
        self.chat_template = template

    def apply_chat_template(self, messages, tokenize, task=""):
        import jinja2

        return jinja2.Template(self.chat_template).render(messages=messages, task=task)


@pytest.mark.parametrize(
    ("template", "model_type", "form", "failure"),
    [
        ("{{ messages[0].content }}", "bert", "flat", "'document'"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", None, "flat", None),
        ("{% for m in messages %}{{ task and m.content }}{% endfor %}", None, "flat", "'query' and 'document'"),
        ("{{ raise() }}", "bert", "flat", "UndefinedError"),
        ("{{ messages[0].content[0].text }}", "bert", "structured", "'document'"),
        ("{{ messages[0].content[0].text }}", "gpt_oss", "flat", "'query' and 'document'"),
        (None, "bert", "structured", "no chat template"),
    ],
)
def test_what_a_chat_template_takes(template, model_type, form, failure):
    """Forms: 6.2.0."""
    formatter = InputFormatter(model_type, processor=Template(template))
    assert formatter.message_format == form
    found = formatter.pair_roles_failure()
    assert found is None if failure is None else failure in found
    if template and "task" in template:
        assert formatter.pair_roles_failure({"task": "x"}) is None


def test_formatter_of_a_module(tmp_path):
    module = Transformer(str(build("bert", tmp_path)))
    formatter = module.input_formatter
    assert (formatter.model_type, formatter.message_format) == ("bert", "structured")
    assert formatter.supported_modalities == ["text"] and formatter.processor is module.processor
    with pytest.raises(ValueError, match="'odd'"):
        InputFormatter("bert", message_format="odd")
    with pytest.raises(ValueError, match=r"Modality 'audio\+text' is not supported by this X.*: image, text\."):
        raise_unsupported_modality_error(["a"], ("audio", "text"), ["image", "text"], source="X")


def test_auto_classes():
    import transformers

    assert TRANSFORMER_TASK_TO_AUTO_MODEL["fill-mask"] is transformers.AutoModelForMaskedLM
    assert TRANSFORMER_TASK_TO_AUTO_MODEL.keys() == TRANSFORMER_TASK_DEFAULTS.keys()


def test_what_the_transformers_model_is_given(tmp_path):
    """6.2.0: every feature that its `forward` takes, of those that `model_forward_params` names."""
    model = SentenceTransformer(str(build("bert", tmp_path)), device="cpu")
    module = model[0]
    assert module.can_flatten_inputs
    batch = model.preprocess(["rain fell all night"])
    first = {"position_ids": torch.zeros_like(batch["input_ids"])}

    def vectors(features):
        with torch.no_grad():
            return module(dict(features))["token_embeddings"]

    def expected(**features):
        with torch.no_grad():
            return module.auto_model(**features).last_hidden_state

    ids = {"input_ids": batch["input_ids"]}
    torch.testing.assert_close(vectors(batch | first), expected(**ids, **first))
    module.model_forward_params = {"input_ids"}
    torch.testing.assert_close(vectors(batch | first), expected(**ids))
    assert not module.can_flatten_inputs
    types = {"token_type_ids": torch.ones_like(batch["input_ids"])}
    torch.testing.assert_close(vectors(batch | types), expected(**ids))
    alone = model.encode("rain fell all night", convert_to_tensor=True)
    torch.testing.assert_close(alone, expected(**ids)[0].mean(0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("push", [False, True])
def test_files_of_an_exporter_of_ones_own(backend, push, tmp_path, monkeypatch):
    """6.2.0."""
    from sentence_transformers.backend import save_or_push_to_hub_model

    written = ["model_s.onnx", "model_s.onnx_data", "config.json"]
    written = written if backend == "onnx" else [f"openvino/openvino_model.{end}" for end in ("bin", "xml")]
    names = [*written[:2]] if backend == "onnx" else [f"openvino_model_s.{end}" for end in ("xml", "bin")]
    commits = []

    def export(folder):
        for name in written:
            Path(folder, name).parent.mkdir(exist_ok=True)
            Path(folder, name).write_text(name)

    def commit(self, repo, adds, **said):
        commits.append((repo, [add.path_in_repo for add in adds], said))

    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", commit)
    target = "user/m" if push else str(tmp_path)
    save_or_push_to_hub_model(
        export_function=export,
        export_function_name="export_mine",
        config={"bits": 3},
        model_name_or_path=target,
        push_to_hub=push,
        create_pr=True,
        file_suffix="s",
        backend=backend,
        model=Template(None),
    )
    if push:
        repo, added, said = commits[0]
        assert (repo, added, said["create_pr"]) == (target, [f"{backend}/{name}" for name in names], True)
        assert all(part in said["commit_description"] for part in ("export_mine", "{'bits': 3}", "import Template"))
    else:
        found = {file.name: file.read_text() for file in (tmp_path / backend).iterdir()}
        assert found == dict(zip(names, sorted(written, key=lambda n: n.endswith(".bin"))[: len(names)], strict=True))
    with pytest.raises(FileNotFoundError, match="export_mine has not written"):
        save_or_push_to_hub_model(lambda folder: None, "export_mine", None, target, file_suffix="s", backend=backend)
