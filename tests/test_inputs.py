"""What stands between a caller's inputs and the tokens: keywords, settings of the tokenizer, kinds of input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.base.modules import InputModule, Router
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding
from transformers import PreTrainedTokenizerFast

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder, models
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.training.collator import Preprocess
from tests.golden.input_cases import CASES, CHECKPOINTS, LONG_PAIRS, PAIRS, TEXT_SETTINGS
from tests.golden.input_models import load, values_of

RECORDED = json.loads(Path(__file__).with_name("golden").joinpath("inputs.json").read_text(encoding="utf-8"))
FORMATS = Path(__file__).resolve().parent / "golden_formats"
SIDES = ("encode_query", "encode_document")
COMMON = {"prompt": None, "batch_size": 32, "show_progress_bar": None, "device": None, "pool": None, "chunk_size": None}
DENSE = {
    "output_value": "sentence_embedding",
    "precision": "float32",
    "convert_to_numpy": True,
    "convert_to_tensor": False,
    "normalize_embeddings": False,
    "truncate_dim": None,
}
SPARSE = {"convert_to_tensor": True, "convert_to_sparse_tensor": True, "save_to_cpu": False, "max_active_dims": None}
TOKENS = {
    "output_value": "token_embeddings",
    "convert_to_numpy": False,
    "normalize_embeddings": False,
    "token_pooling": None,
}
EMBEDDERS = {
    "dense": (SentenceTransformer, "out_st", DENSE),
    "sparse": (SparseEncoder, "out_splade", SPARSE),
    "multi-vector": (MultiVectorEncoder, "out_mv", TOKENS),
}


class Spy:
    """A function that remembers its calls and gives one answer."""

    def __init__(self, answer: Any = None) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.answer = answer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        return self.answer


# ---- one call by keywords


@pytest.mark.parametrize("kind", EMBEDDERS)
@pytest.mark.parametrize("method", SIDES)
def test_the_sides_of_a_search_call_encode_once_and_by_name(kind, method):
    """What version 6.2.0 passes on, no more and no less; spies and wrappers read it by name."""
    model_class, folder, own = EMBEDDERS[kind]
    model = model_class(str(FORMATS / folder), device="cpu")
    model.prompts = {"query": "q: ", "passage": "p: "}
    model.encode = spy = Spy("answer")
    task, prompt_name = method.removeprefix("encode_"), {"encode_query": "query", "encode_document": "passage"}[method]
    side = {"prompt_name": prompt_name, "task": task}
    assert getattr(model, method)(["a"]) == "answer"
    assert getattr(model, method)("a", None, "x: ", 4, processing_kwargs={}) == "answer"
    given = {"inputs": "a", "prompt": "x: ", "prompt_name": None, "batch_size": 4, "processing_kwargs": {}}
    assert spy.calls == [
        ((), COMMON | own | side | {"inputs": ["a"]}),
        ((), COMMON | own | side | given),
    ]


@pytest.mark.parametrize("kind", EMBEDDERS)
@pytest.mark.parametrize("method", SIDES)
def test_an_encode_of_ones_own_takes_keywords(kind, method):
    model_class, folder, _ = EMBEDDERS[kind]

    class Shouting(model_class):  # type: ignore[misc, valid-type]
        def encode(self, inputs: Any, **kwargs: Any) -> Any:
            return super().encode([text.upper() + "?" for text in inputs], **kwargs)

    own, plain = Shouting(str(FORMATS / folder), device="cpu"), model_class(str(FORMATS / folder), device="cpu")
    expected = getattr(plain, method)(["YES?", "NO?"])
    found = getattr(own, method)(["yes", "no"])
    for row, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(dense(row), dense(right))


def dense(row: Any) -> np.ndarray:
    row = row.to_dense() if getattr(row, "is_sparse", False) else row
    return np.asarray(row)


@pytest.mark.parametrize("answer", [np.array([0.1, 0.3, 0.2]), [0.1, 0.3, 0.2]])
def test_rank_calls_predict_once_and_by_name(answer):
    model = CrossEncoder(str(FORMATS / "out_ce"), device="cpu")
    model.predict = spy = Spy(answer)
    ranking = model.rank("q", ["a", "b", "c"], top_k=2, batch_size=4, prompt="p: ")
    assert [result["corpus_id"] for result in ranking] == [1, 2]
    pairs = [["q", "a"], ["q", "b"], ["q", "c"]]
    own = {"inputs": pairs, "prompt_name": None, "activation_fn": None, "convert_to_tensor": True}
    assert spy.calls == [((), COMMON | own | {"prompt": "p: ", "batch_size": 4})]


# ---- as recorded


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name in `CHECKPOINTS` -> its folder, written when first asked for."""
    root = tmp_path_factory.mktemp("inputs")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            CHECKPOINTS[name](root / name)
        return root / name

    return folder


@pytest.mark.parametrize("name", CASES)
def test_inputs_become_the_recorded_features_and_values(checkpoint_of, name):
    """Chat templates, settings of the tokenizer, saved or of the call, pairs among texts: as version 6.2.0 does it."""
    case, recorded = CASES[name], RECORDED[name]
    model = load(case, checkpoint_of(case.checkpoint))
    model[0].processing_kwargs = case.saved
    settings = {"processing_kwargs": case.settings} if case.settings else {}
    features = model.preprocess(case.inputs, **case.others, **settings)
    assert {k: v.tolist() if torch.is_tensor(v) else v for k, v in features.items()} == recorded["features"]
    values = values_of(model, case.inputs, **case.others, **settings)
    np.testing.assert_allclose(values, recorded["values"], rtol=1e-4, atol=3e-5)
    with torch.no_grad():
        final = model(features)
    last = final["scores"][:, 0] if "scores" in final else final["sentence_embedding"]
    np.testing.assert_allclose(dense(last), recorded["values"], rtol=1e-4, atol=3e-5)


def test_the_recording_tells_settings_apart():
    """Each setting, template and prompt shows in the values, so that one that is ignored would be noticed."""
    plain = {case.encoder: name for name, case in CASES.items() if name.endswith("texts with a prompt")}
    for name in CASES:
        encoder, _, setting = name.partition("/")
        if setting.split(",")[0] in TEXT_SETTINGS and "padding" not in setting and setting.split(",")[0] != "no types":
            one, other = RECORDED[name]["values"], RECORDED[f"{encoder}/pairs and texts with a prompt"]["values"]
            assert np.abs(np.array(one) - np.array(other)).max() > 1e-3, name
    assert plain


def test_settings_are_saved_with_the_model(checkpoint_of, tmp_path):
    """The template, the way of messages and `processing_kwargs` come back; a folder from before them stays plain."""
    case = CASES["SentenceTransformer/llama/texts with a prompt"]
    model = load(case, checkpoint_of("llama"))
    assert model.modalities == ["text", "message"]
    assert model.supports("message") and not model.supports("image") and not model.supports(("image", "text"))
    model[0].processing_kwargs = {"text": {"max_length": 20}, "chat_template": {"restore_suffix": False}}
    expected = model.encode(LONG_PAIRS, prompt="fox ")
    model.save_pretrained(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), device="cpu")
    assert again[0].modality_config == model[0].modality_config
    assert again[0].modality_config["message"]["format"] == "flat"
    assert again[0].processing_kwargs == model[0].processing_kwargs
    np.testing.assert_array_equal(again.encode(LONG_PAIRS, prompt="fox "), expected)
    settings = tmp_path / "sentence_bert_config.json"
    settings.write_text('{"max_seq_length": 30}', encoding="utf-8")
    older = SentenceTransformer(str(tmp_path), device="cpu")
    assert older.modalities == ["text"]
    assert older.tokenizer.decode(older.preprocess(["yes no"])["input_ids"][0]) == "<s>yes no"


def test_a_template_of_the_callers_own(checkpoint_of, tmp_path):
    """Given when a checkpoint is loaded it makes a chat model of it; the settings of a saved model win over it."""
    given = {"processor_kwargs": {"chat_template": "the {{ messages[-1].content }} !"}, "device": "cpu"}
    chat = SentenceTransformer(str(checkpoint_of("plain")), **given)
    plain = SentenceTransformer(str(checkpoint_of("plain")), device="cpu")
    assert chat.modalities == ["text", "message"] and plain.modalities == ["text"]
    without = {"text": {"add_special_tokens": False}}
    np.testing.assert_allclose(chat.encode("river"), plain.encode("the river !", processing_kwargs=without), atol=1e-6)
    plain.save_pretrained(str(tmp_path))
    saved = SentenceTransformer(str(tmp_path), **given)
    np.testing.assert_array_equal(saved.encode("river"), plain.encode("river"))


def test_conversations_are_inputs(checkpoint_of):
    """One list of messages is one input; the same messages give the same vector in any batch and form."""
    model = load(CASES["SentenceTransformer/llama/texts"], checkpoint_of("llama"))
    structured = load(CASES["SentenceTransformer/bert_structured/texts"], checkpoint_of("bert_structured"))
    message = {"role": "user", "content": "yes no"}
    parts = {"role": "user", "content": [{"type": "text", "text": "yes no"}]}
    for own in (model, structured):
        expected = own.encode("yes no")
        assert [len(rows) for rows in own.encode_stream(iter([message, message, message]), chunk_size=2)] == [2, 1]
        for form in ([message], [parts], message, parts, {"text": "yes no"}):
            np.testing.assert_allclose(own.encode(form), expected, atol=1e-6)
        mixed = own.encode([[message], "fox", ("yes", "no"), [parts]])
        np.testing.assert_allclose(mixed[[0, 3]], np.stack([expected, expected]), atol=1e-6)
        np.testing.assert_allclose(mixed[1], own.encode("fox"), atol=1e-6)
    with pytest.raises(InputError, match=r"Message 1 of input 0 .* 'role' and 'content'"):
        model.encode([message, {"role": "user"}])


def test_a_pair_may_be_a_conversation(checkpoint_of):
    model = load(CASES["CrossEncoder/llama/pairs"], checkpoint_of("llama"))
    pair = [{"role": "query", "content": "yes"}, {"role": "document", "content": "no"}]
    np.testing.assert_allclose(model.predict([pair]), model.predict([("yes", "no")]), atol=1e-6)
    np.testing.assert_allclose(model.predict(pair), model.predict(("yes", "no")), atol=1e-6)


def test_templates_that_lose_a_text_are_refused(checkpoint_of):
    """By their result, with the template's arguments; one that is set later counts."""
    model = load(CASES["CrossEncoder/bert_classifier/pairs"], checkpoint_of("bert_classifier"))
    good, expected = model.tokenizer.chat_template, model.predict(PAIRS)
    lossy = "{% for m in messages if m.role == 'query' or all %}{{ m.content }} {% endfor %}"
    for template, words in ((lossy, "document"), ("{{ raise_exception('no such role') }}", "no such role")):
        model.tokenizer.chat_template = template
        with pytest.raises(InputError, match=words):
            model.predict(PAIRS)
    model.tokenizer.chat_template = lossy
    assert len(model.predict(PAIRS, processing_kwargs={"chat_template": {"all": True}})) == len(PAIRS)
    model.tokenizer.chat_template = good
    np.testing.assert_array_equal(model.predict(PAIRS), expected)


def test_queries_filled_with_tokens_have_no_chat_template(checkpoint_of):
    model = MultiVectorEncoder(str(checkpoint_of("bert")), device="cpu")
    model[0].query_expansion = {"strategy": "fixed", "length": 12}
    with pytest.raises(InputError, match=r"query_expansion .* chat template"):
        model.encode_query(["yes"])
    assert model.encode_document(["yes"])[0].shape == (16, 128)


def test_the_template_sees_the_task(checkpoint_of):
    model = load(CASES["SentenceTransformer/llama/texts"], checkpoint_of("llama"))
    model.tokenizer.chat_template = "{{ task }}|{{ messages[0].content }}"
    ids = [model.preprocess(["yes"], task="query")["input_ids"], model.preprocess(["yes"])["input_ids"]]
    assert [model.tokenizer.decode(row[0]) for row in ids] == ["query|yes", "|yes"]
    direct = model.encode_query("yes")
    model.tokenizer.chat_template = "query|{{ messages[0].content }}"
    np.testing.assert_allclose(direct, model.encode("yes"), atol=1e-6)


def test_documents_leave_room_for_the_template(checkpoint_of):
    """No passage of a chat model is cut: rendered, each has at most as many tokens as the model reads."""
    model = load(CASES["SentenceTransformer/llama/texts"], checkpoint_of("llama"))
    pieces, vectors = model.encode_passages("the river yes no " * 20, prompt="fox ")
    assert len(pieces) == len(vectors) > 1
    for piece in pieces:
        rendered = model.preprocess([piece.text], prompt="fox ", processing_kwargs={"text": {"truncation": False}})
        assert rendered["input_ids"].shape[1] <= model.max_seq_length
    with pytest.raises(InputError, match="chat template"):
        model.encode_passages("the river " * 20, late=True)


# ---- settings of the tokenizer's call


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("text", "must be a dictionary"),
        ({"text": 3}, "'text'"),
        ({"text": {"max_length": 0}}, "max_length"),
        ({"text": {"max_length": "3"}}, "max_length"),
        ({"text": {"max_lenght": 3}}, "max_lenght"),
        ({"text": {"return_tensors": "np"}}, "return_tensors"),
    ],
)
@pytest.mark.parametrize("call", ["encode", "predict"])
def test_settings_that_cannot_be_meant(checkpoint_of, call, settings, words):
    kind, name = {"encode": (SentenceTransformer, "plain"), "predict": (CrossEncoder, "plain_classifier")}[call]
    model = kind(str(checkpoint_of(name)), device="cpu")
    with pytest.raises(InputError, match=words):
        getattr(model, call)([("a b c d e", "f g h i")], processing_kwargs=settings)


def test_there_is_one_row_for_each_input(checkpoint_of):
    """`preprocess` may cut a text into several rows; `encode` has no place for them."""
    model = SentenceTransformer(str(checkpoint_of("plain")), device="cpu")
    given = {"text": {"return_overflowing_tokens": True, "max_length": 4}}
    assert model.preprocess(["a b c d e", "f"], processing_kwargs=given)["input_ids"].shape == (4, 4)
    with pytest.raises(InputError, match=r"return_overflowing_tokens.*4 rows of 2 inputs"):
        model.encode(["a b c d e", "f"], processing_kwargs=given)


def test_settings_of_unknown_kinds_are_named(checkpoint_of, caplog):
    model = SentenceTransformer(str(checkpoint_of("plain")), device="cpu")
    expected = model.encode("a b c")
    np.testing.assert_array_equal(model.encode("a b c", processing_kwargs={"txt": {"max_length": 3}}), expected)
    assert "txt" in caplog.text and "per-call" in caplog.text


def test_settings_without_effect_are_refused():
    model = SentenceTransformer(str(FORMATS / "out_static"), device="cpu")
    with pytest.raises(InputError, match="StaticEmbedding"):
        model.encode(["a b"], processing_kwargs={"text": {"max_length": 1}})


def test_further_arguments_of_the_tokenizer_show_among_the_features(checkpoint_of):
    model = SentenceTransformer(str(checkpoint_of("plain")), device="cpu")
    given = {"text": {"return_offsets_mapping": True, "return_special_tokens_mask": True}}
    features = model.preprocess(["yes no", "the"], processing_kwargs=given)
    assert features["offset_mapping"].tolist() == [[[0, 0], [0, 3], [4, 6], [0, 0]], [[0, 0], [0, 3], [0, 0], [0, 0]]]
    assert features["special_tokens_mask"].tolist() == [[1, 0, 0, 1], [1, 0, 1, 1]]
    np.testing.assert_allclose(
        model.encode(["yes no", "the"], processing_kwargs=given), model.encode(["yes no", "the"]), atol=1e-6
    )


def test_settings_of_the_module_count_in_training(checkpoint_of):
    """What the trainer's collator makes of a text is what `preprocess` makes of it."""
    model = SentenceTransformer(str(checkpoint_of("plain")), device="cpu")
    for settings in ({"text": {"max_length": 4}}, {"text": {"padding": "max_length", "max_length": 9}}):
        model[0].processing_kwargs = settings
        features = Preprocess(model)(["a b c d e f", "no"])
        expected = model.encode(["a b c d e f", "no"])
        np.testing.assert_allclose(model(features)["sentence_embedding"].detach(), expected, atol=1e-6)
    assert features["input_ids"].shape == (2, 9)


class Loud(PreTrainedTokenizerFast):
    """A tokenizer of the caller's own: a call reads every text with an exclamation mark."""

    def __call__(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        louder = [part + "!" if isinstance(part, str) else (part[0] + "!", part[1]) for part in text]
        return super().__call__(louder, *args, **kwargs)


class Wrapped:
    """An object around a tokenizer, which passes everything on but the call."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: Any, **kwargs: Any) -> Any:
        return self.tokenizer([part + "!" for part in text], **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["tokenizer"], name)


@pytest.mark.parametrize("how", ["subclass", "wrapper", "patched class"])
def test_a_tokenizers_own_call_is_made(checkpoint_of, monkeypatch, how):
    model = SentenceTransformer(str(checkpoint_of("plain")), device="cpu")
    texts = ["yes", "the river"]
    expected = model.encode(["yes!", "the river!"])
    if how == "subclass":
        model.tokenizer = Loud.from_pretrained(checkpoint_of("plain"), model_max_length=40)
    elif how == "wrapper":
        model.tokenizer = Wrapped(model.tokenizer)
    else:
        call, kind = Loud.__call__, type(model.tokenizer)
        original = kind.__call__
        monkeypatch.setattr(kind, "__call__", lambda self, text, **kw: original(self, [t + "!" for t in text], **kw))
        assert call
    np.testing.assert_allclose(model.encode(texts), expected, atol=1e-6)
    np.testing.assert_allclose(model(model.preprocess(texts))["sentence_embedding"].detach(), expected, atol=1e-6)


# ---- forms of inputs


PAIR_FORMS = {
    "tuples": [("yes", "no"), ("fox", "the river")],
    "lists": [["yes", "no"], ["fox", "the river"]],
    "array": np.array([["yes", "no"], ["fox", "the river"]]),
    "objects": np.array([["yes", "no"], ["fox", "the river"]], dtype=object),
    "dictionaries": [({"text": "yes"}, "no"), ({"text": "fox"}, {"text": "the river"})],
}


@pytest.mark.parametrize("form", PAIR_FORMS)
@pytest.mark.parametrize("kind", ["dense", "sparse", "cross"])
def test_pairs_are_inputs(checkpoint_of, form, kind):
    """[CLS] a [SEP] b [SEP] of types 0 and 1, one row per pair; two plain strings are two texts."""
    kinds = {"dense": SentenceTransformer, "sparse": SparseEncoder, "cross": CrossEncoder}
    folder = {"dense": "plain", "sparse": "plain_masked", "cross": "plain_classifier"}[kind]
    model = kinds[kind](str(checkpoint_of(folder)), device="cpu")
    features = model.tokenizer(
        ["yes", "fox"], ["no", "the river"], padding=True, return_tensors="pt"
    )  # by transformers itself
    assert features["token_type_ids"].tolist()[0] == [0, 0, 0, 1, 1] + [0] * (features["input_ids"].shape[1] - 5)
    with torch.no_grad():
        out = model({**features, "modality": "text"})
    right = dense(out["scores"][:, 0].sigmoid() if kind == "cross" else out["sentence_embedding"])
    found = model.predict(list(PAIR_FORMS[form])) if kind == "cross" else model.encode(PAIR_FORMS[form])
    np.testing.assert_allclose(dense(found), right, atol=1e-5)
    for key, value in model.preprocess(PAIR_FORMS[form]).items():
        if key != "modality":
            np.testing.assert_array_equal(value, features[key])
    if kind != "cross":
        assert model.encode(["yes", "no"]).shape[0] == 2


def test_texts_in_dictionaries_are_texts(checkpoint_of):
    model = SentenceTransformer(str(checkpoint_of("plain")), device="cpu")
    expected = model.encode(["yes", "no"])
    np.testing.assert_array_equal(model.encode([{"text": "yes"}, {"text": "no"}]), expected)
    np.testing.assert_array_equal(model.encode({"text": "yes"}), model.encode("yes"))
    ranker = CrossEncoder(str(checkpoint_of("plain_classifier")), device="cpu")
    given = ranker.rank({"text": "yes"}, [{"text": "no"}, "fox"], return_documents=True)
    plain = ranker.rank("yes", ["no", "fox"])
    assert [(hit["corpus_id"], hit["score"]) for hit in given] == [(hit["corpus_id"], hit["score"]) for hit in plain]
    assert {hit["corpus_id"]: hit["text"] for hit in given} == {0: {"text": "no"}, 1: "fox"}


@pytest.mark.parametrize(
    "value", [None, 3, 2.5, True, b"x", ["a", "b", "c"], ("a", 1), {}, {"text": 3}, {"image": "x"}]
)
@pytest.mark.parametrize("kind", ["plain", "static", "bag of words"])
def test_preprocess_names_what_is_no_text(checkpoint_of, kind, value):
    """Position, value and type, from every input module."""
    if kind == "bag of words":
        model = SentenceTransformer(modules=[models.BoW(["yes", "no"])], device="cpu")
    else:
        folder = checkpoint_of("plain") if kind == "plain" else FORMATS / "out_static"
        model = SentenceTransformer(str(folder), device="cpu")
    with pytest.raises(InputError, match=rf"Input 1 .*{type(value).__name__}"):
        model.preprocess(["yes", value])
    with pytest.raises(InputError, match=rf"Input 1 .*{type(value).__name__}"):
        model.encode(["yes", value])


def test_a_bare_text_is_one_input_of_preprocess(checkpoint_of):
    """Not as many as it has letters."""
    plain = SentenceTransformer(str(checkpoint_of("plain")), device="cpu")
    assert plain.preprocess("yes no")["input_ids"].shape == (1, 4)
    static = SparseStaticEmbedding(plain.tokenizer)
    features = static.preprocess("the river ?")
    assert features["input_ids"].tolist() == [plain.tokenizer.convert_tokens_to_ids(["the", "river", "?"])]
    assert {"token_type_ids", "attention_mask"} <= features.keys()
    assert models.BoW(["yes", "no"]).preprocess("yes no yes")["sentence_embedding"].tolist() == [[2.0, 1.0]]
    routed = Router({"query": [static], "document": [plain[0]]}, default_route="document")
    assert routed.preprocess("yes no", task="query")["input_ids"].shape == (1, 2)


def test_no_precision_is_float32(checkpoint_of):
    model = SentenceTransformer(str(checkpoint_of("plain")), device="cpu")
    expected = model.encode(["yes", "no"])
    np.testing.assert_array_equal(model.encode(["yes", "no"], precision=None), expected)
    found = model.encode(["yes", "no"], precision=None, convert_to_tensor=True)
    np.testing.assert_array_equal(found, expected)
    assert model.encode([], precision=None).shape == (0, 16)


def test_all_features_of_a_text(checkpoint_of):
    """As version 6.2.0 names them, each as long as the text."""
    model = SentenceTransformer(str(checkpoint_of("plain")), device="cpu")
    names = {"input_ids", "token_type_ids", "attention_mask", "token_embeddings", "sentence_embedding", "modality"}
    first, second = model.encode(["yes", ("fox", "the river")], output_value=None)
    assert first.keys() == second.keys() == names
    assert first["token_type_ids"].tolist() == [0, 0, 0] and second["token_type_ids"].tolist() == [0, 0, 0, 1, 1, 1]
    assert model.encode("yes", prompt="fox ", output_value=None).keys() == names | {"prompt_length"}


def test_inputs_of_modules_of_ones_own_are_theirs():
    """What an input is, a module of the caller's own decides: no value is refused on its way there."""

    class Numbers(InputModule):
        def preprocess(self, inputs: Any, prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
            return {"sentence_embedding": torch.tensor([[float(value), 1.0] for value in inputs])}

        def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
            return features

        def save(self, output_path: str, *args: Any, **kwargs: Any) -> None: ...

    model = SentenceTransformer(modules=[Numbers()], device="cpu")
    np.testing.assert_array_equal(model.encode([3, 1, 1.5, True]), [[3, 1], [1, 1], [1.5, 1], [1, 1]])


def test_a_preprocess_of_ones_own_sees_the_arguments_of_the_call(checkpoint_of):
    """Those that it takes, and no others; without one, arguments that nobody takes are refused."""
    seen: list[dict[str, Any]] = []

    class Own(CrossEncoder):
        def preprocess(self, inputs: Any, prompt: str | None = None, flag: bool = False, **kwargs: Any) -> Any:
            seen.append({"flag": flag, **kwargs})
            settings = kwargs.get("processing_kwargs")
            return super().preprocess([(q + " fox" * flag, d) for q, d in inputs], prompt, processing_kwargs=settings)

    class Strict(InputModule):
        def preprocess(self, inputs: Any, prompt: str | None = None) -> dict[str, Any]:
            return {"sentence_embedding": torch.ones(len(inputs), 2)}

        def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
            return features

        def save(self, output_path: str, *args: Any, **kwargs: Any) -> None: ...

    folder = str(checkpoint_of("plain_classifier"))
    own, plain = Own(folder, device="cpu"), CrossEncoder(folder, device="cpu")
    padded = {"text": {"pad_to_multiple_of": 8}}  # which `preprocess` alone can do
    found = own.predict([("yes", "no")], flag=True, other=2, processing_kwargs=padded)
    assert seen == [{"flag": True, "other": 2, "processing_kwargs": padded}]
    np.testing.assert_allclose(found, plain.predict([("yes fox", "no")]), atol=1e-6)
    with pytest.raises(InputError, match="other"):
        plain.predict([("yes", "no")], other=2)
    assert SentenceTransformer(modules=[Strict()], device="cpu").encode_query(["a", "b"]).shape == (2, 2)


# ---- routes


@pytest.fixture
def towers(checkpoint_of) -> SentenceTransformer:
    """Queries by mean, documents by the first token."""
    transformer = models.Transformer(str(checkpoint_of("plain")))
    routes = {"query": [transformer, models.Pooling(16, "mean")], "document": [transformer, models.Pooling(16, "cls")]}
    return SentenceTransformer(modules=[Router(routes, default_route="document")], device="cpu")


def test_inputs_name_their_route(towers):
    """The form of `Asym`: {route: input}, all of one route."""
    queries, documents = (towers.encode(["yes", "no"], task=task) for task in ("query", "document"))
    assert np.abs(queries - documents).max() > 1e-2
    np.testing.assert_array_equal(towers.encode([{"query": "yes"}, {"query": "no"}]), queries)
    np.testing.assert_array_equal(towers.encode_query([{"query": "yes"}, {"query": "no"}]), queries)
    np.testing.assert_array_equal(towers.encode({"document": "yes"}), documents[0])
    found = towers(towers.preprocess([{"query": "yes"}, {"query": "no"}]))["sentence_embedding"]
    np.testing.assert_allclose(found.detach(), queries, atol=1e-6)
    for inputs, words in (
        ([{"query": "yes"}, {"document": "no"}], r"\['document', 'query'\]"),
        ([{"query": "yes"}, "no"], "name none"),
        ([{"answer": "yes"}], "'answer'"),
    ):
        for call in (towers.encode, towers.preprocess):
            with pytest.raises(InputError, match=words):
                call(inputs)
    with pytest.raises(InputError, match="task='document'"):
        towers.encode_document([{"query": "yes"}])


def test_features_remember_their_route(towers):
    """`model(model.preprocess(texts, task=…))` is `encode(texts, task=…)`; the call's own task wins."""
    features = towers.preprocess(["yes", "no"], task="query")
    assert features["task"] == "query" and features["modality"] == "text"
    queries, documents = (towers.encode(["yes", "no"], task=task) for task in ("query", "document"))
    np.testing.assert_allclose(towers(dict(features))["sentence_embedding"].detach(), queries, atol=1e-6)
    found = towers(dict(features), task="document")["sentence_embedding"].detach()
    np.testing.assert_allclose(found, documents, atol=1e-6)


def test_texts_are_routed_by_their_modality(towers):
    """(task, modality), (task, any), (any, modality), (any, any), the task's name, the modality's, the default."""
    query, document = (list(towers[0].sub_modules[route]) for route in ("query", "document"))
    parts = {"a": query, "b": document, "c": query, "text": document}
    every = {("query", "text"): "a", ("query", None): "b", (None, "text"): "c", (None, None): "b"}
    for mappings, task, expected in (
        (every, "query", "a"),
        (every, "other", "c"),
        (every, None, "c"),
        ({("query", None): "b", (None, None): "a"}, "query", "b"),
        ({("query", None): "b", (None, None): "a"}, "other", "a"),
        ({(None, ("text", "image")): "a"}, None, "text"),
    ):
        router = Router(parts, allow_empty_key=False, route_mappings=mappings)
        assert router.route(task, "text") == expected
        model = SentenceTransformer(modules=[router], device="cpu")
        right = towers.encode("yes", task="query" if parts[expected] is query else "document")
        np.testing.assert_allclose(model.encode("yes", task=task), right, atol=1e-6)
        found = model(model.preprocess(["yes"], task=task))["sentence_embedding"][0]
        np.testing.assert_allclose(found.detach(), right, atol=1e-6)
    assert Router(parts, route_mappings={(None, ("text", "image")): "a"}).route(None, ("image", "text")) == "a"
    with pytest.raises(InputError, match="'sound'"):
        towers.encode("yes", modality="sound")


# ---- older ways


def test_tokenize_says_that_it_is_deprecated(checkpoint_of, caplog):
    model = SentenceTransformer(str(checkpoint_of("plain")), device="cpu")
    assert model.tokenize(["yes no"])["input_ids"].shape == (1, 4)
    assert "tokenize" in caplog.text and "preprocess" in caplog.text


def test_two_names_of_one_argument_may_both_be_unset(checkpoint_of):
    with pytest.warns(DeprecationWarning, match="use_auth_token"):
        model = SentenceTransformer(str(checkpoint_of("plain")), device="cpu", token=None, use_auth_token=None)
    assert model.encode("a").shape == (16,)
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match="two names"):
        SentenceTransformer(str(checkpoint_of("plain")), device="cpu", token="a", use_auth_token="b")


# ---- where the output is


def test_the_output_may_be_any_hidden_state(checkpoint_of, tmp_path):
    """A path of keys and indices, saved with the model; computed by transformers itself."""
    settings = {"modality_config": {"text": {"method": "forward", "method_output_name": ["hidden_states", 1]}}}
    layer = models.Transformer(str(checkpoint_of("plain")), **settings, module_output_name="token_embeddings")
    model = SentenceTransformer(modules=[layer, models.Pooling(16, "mean")], device="cpu")
    features = layer.tokenizer(["yes no"], return_tensors="pt")
    with torch.no_grad():
        states = layer.auto_model(**features, output_hidden_states=True).hidden_states
    assert len(states) == 3
    np.testing.assert_allclose(model.encode(["yes no"]), states[1].mean(1), atol=1e-5)
    np.testing.assert_allclose(model.encode(["yes no", "fox"])[:1], states[1].mean(1), atol=1e-5)
    model.save_pretrained(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(again.encode(["yes no"]), states[1].mean(1), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"modality_config": {"text": {"method": "forward", "method_output_name": "logits"}}}, "module_output_name"),
        ({"modality_config": {"text": {"method": "forward"}}, "module_output_name": "x"}, "method_output_name"),
        (
            {
                "modality_config": {"text": {"method": "get_text_features", "method_output_name": None}},
                "module_output_name": "sentence_embedding",
            },
            "get_text_features",
        ),
    ],
)
def test_an_incomplete_modality_config(checkpoint_of, settings, words, tmp_path):
    with pytest.raises(InputError, match=words):
        models.Transformer(str(checkpoint_of("plain")), **settings)
    models.Transformer(str(checkpoint_of("plain"))).save(str(tmp_path))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelFormatError, match=rf"sentence_bert_config\.json.*{words}"):
        models.Transformer.load(str(tmp_path))


def test_the_last_logits_alone(checkpoint_of):
    """`logits_to_keep` last positions have logits; 0 means all. The score is that of the last in any case."""
    model = CrossEncoder(str(checkpoint_of("llama")), device="cpu")
    with torch.no_grad():
        full = model[0].auto_model(**model.tokenizer.apply_chat_template(
            [[{"role": "query", "content": q}, {"role": "document", "content": d}] for q, d in PAIRS],
            padding=True, return_dict=True, return_tensors="pt",
        )).logits  # fmt: skip
    usual = model.preprocess(PAIRS)
    assert usual["logits_to_keep"] == 1
    torch.testing.assert_close(model[0](usual)["causal_logits"], full[:, -1:])
    for keep, kept in ((3, full[:, -3:]), (0, full)):
        features = model.preprocess(PAIRS, processing_kwargs={"text": {"logits_to_keep": keep}})
        assert features["logits_to_keep"] == keep
        torch.testing.assert_close(model[0](features)["causal_logits"], kept)
        torch.testing.assert_close(model(features)["scores"], model(model.preprocess(PAIRS))["scores"])
        found = model.predict(PAIRS, processing_kwargs={"text": {"logits_to_keep": keep}})
        np.testing.assert_allclose(found, model.predict(PAIRS), atol=1e-6)
    expected = model.predict(PAIRS)
    model.tokenizer.padding_side = "right"
    assert "logits_to_keep" not in model.preprocess(PAIRS)
    np.testing.assert_allclose(model(model.preprocess(PAIRS))["scores"][:, 0].sigmoid().detach(), expected, atol=1e-6)
    for keep, words in ((-1, "non-negative"), (2, "padding_side")):
        with pytest.raises(InputError, match=words):
            model.predict(PAIRS, processing_kwargs={"text": {"logits_to_keep": keep}})


def test_worker_processes_see_the_settings(checkpoint_of):
    model = SentenceTransformer(str(checkpoint_of("llama")), device="cpu")
    given = {"processing_kwargs": {"text": {"max_length": 20}}, "prompt": "fox "}
    np.testing.assert_allclose(
        model.encode(LONG_PAIRS, num_workers=1, **given), model.encode(LONG_PAIRS, **given), atol=1e-6
    )


def test_queries_are_filled_with_the_end_token_where_there_is_no_mask(checkpoint_of):
    own = models.Transformer(str(checkpoint_of("llama")), query_expansion={"strategy": "fixed", "length": 12})
    own.modality_config.pop("message")
    ids = own.preprocess(["yes"], task="query")["input_ids"][0].tolist()
    assert len(ids) == 12 and set(ids[2:]) == {own.tokenizer.eos_token_id}


@pytest.mark.parametrize("kind", ["dense", "sparse", "cross"])
def test_features_move_and_are_attributes_and_grow(checkpoint_of: Any, kind: str) -> None:
    """As the BatchEncoding of 6.2.0, with its order of entries; `forward` adds to the dictionary that it is given."""
    encoder = {"dense": SentenceTransformer, "sparse": SparseEncoder, "cross": CrossEncoder}[kind]
    name = {"dense": "plain", "sparse": "plain_masked", "cross": "plain_classifier"}[kind]
    model = encoder(str(checkpoint_of(name)), device="cpu")
    features = model.preprocess(
        [("yes", "no"), ("the", "river")] if kind == "cross" else ["yes no", "the"], prompt="fox "
    )
    names = ["input_ids", "token_type_ids", "attention_mask", "modality", "prompt_length"]
    assert list(features) == names
    assert features.input_ids is features["input_ids"]
    assert features.to("meta") is features
    assert {features[name].device.type for name in names[:3]} == {"meta"}
    with pytest.raises(AttributeError, match="no entry 'input_idx'; they have input_ids, token_type_ids"):
        features.input_idx  # noqa: B018
    padded = model.preprocess([("yes", "no")] if kind == "cross" else ["yes no", "the"]).to("cpu")
    assert model(padded) is padded
    added = {"dense": ["token_embeddings", "sentence_embedding"], "cross": ["scores"]}
    assert list(padded)[4:] == added.get(kind, ["token_embeddings", "sentence_embedding"])
