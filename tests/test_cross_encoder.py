"""CrossEncoder: the scores that version 6.2.0 recorded, the law packed = padded = alone, every argument of `predict`
and `rank`.

`golden/score_models.py` makes the folders, `golden/record_scores.py` recorded the scores (`golden/scores.npz`). The
second reference is transformers itself, one pair at a time:

    classifier      logits = model(tokens of the pair)
    language model  score = l_yes − l_no, l the logits after the last token of the pair
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers.cross_encoder.modules import LogitScore

from sentence_transformers import CrossEncoder
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.features import Features
from tests.golden import score_models
from tests.golden.score_models import LENGTH, PAIRS, PROMPT, SCORERS
from tests.oracle import oracle_python, run_oracle

pytestmark = pytest.mark.usefixtures("forked_workers")

RECORDED = dict(np.load(Path(score_models.__file__).with_name("scores.npz")))
FACTS = {name: json.loads(str(RECORDED[f"{name}/facts"])) for name in SCORERS}
CLASSIFIERS = [name for name in SCORERS if name.endswith(("_1", "_3"))]
CHATS = [name for name in SCORERS if name.startswith("causal_")]
PLAIN = torch.nn.Identity()
QUERY, DOCUMENTS = PAIRS[2][0], [document for _, document in PAIRS]


def close(actual: Any, expected: Any, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-5, atol=atol)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


class Alone:
    """Pair -> logits (labels,), by transformers alone."""

    def __init__(self, folder: Path) -> None:
        architecture = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = getattr(transformers, architecture).from_pretrained(folder, attn_implementation="eager").eval()

    @torch.no_grad()
    def __call__(self, pair: tuple[str, str], prompt: str = "", max_length: int = LENGTH) -> np.ndarray:
        texts = [prompt + pair[0]], [pair[1]]
        tokens = self.tokenizer(*texts, truncation=True, max_length=max_length, return_tensors="pt")
        logits = self.model(**tokens).logits[0]
        if logits.ndim == 2:
            yes, no = self.tokenizer.convert_tokens_to_ids(["yes", "no"])
            logits = logits[-1, yes : yes + 1] - logits[-1, no]
        return logits.numpy()


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name -> folder, built when first asked for."""
    built: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in built:
            built[name] = tmp_path_factory.mktemp(name)
            SCORERS[name](built[name])
        return built[name]

    return folder


@pytest.fixture(scope="module")
def model_of(folder_of: Callable[[str], Path]) -> Callable[[str], CrossEncoder]:
    """Name -> model that is left as it is."""
    loaded: dict[str, CrossEncoder] = {}

    def model(name: str) -> CrossEncoder:
        if name not in loaded:
            loaded[name] = CrossEncoder(str(folder_of(name)), device="cpu")
        return loaded[name]

    return model


@pytest.fixture(scope="module")
def model(model_of: Callable[[str], CrossEncoder]) -> CrossEncoder:
    """One score per pair."""
    return model_of("bert_1")


@pytest.fixture(scope="module")
def labelled(model_of: Callable[[str], CrossEncoder]) -> CrossEncoder:
    """Three scores per pair."""
    return model_of("bert_3")


@pytest.fixture(scope="module")
def alone(folder_of: Callable[[str], Path]) -> Alone:
    """The reference of `model`."""
    return Alone(folder_of("bert_1"))


@pytest.fixture
def fresh(folder_of: Callable[[str], Path]) -> Callable[..., CrossEncoder]:
    """A model of the test's own, with settings of its own."""
    return lambda name="bert_1", **settings: CrossEncoder(str(folder_of(name)), device="cpu", **settings)


@pytest.fixture
def no_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any forward pass fails the test."""

    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("computed something")

    monkeypatch.setattr(CrossEncoder, "forward", forbidden)


# ---- as recorded


def test_the_recording_tells_models_apart():
    """The golden scores would notice: pairs, prompts, order, activation and the way of asking all matter."""
    for name in SCORERS:
        logits = RECORDED[f"{name}/logits"].reshape(len(PAIRS), -1)
        different = np.abs(logits[:, None] - logits).max(-1) + np.eye(len(PAIRS))
        assert different.min() > 1e-4, name
        if name != "saved_settings":
            assert np.abs(RECORDED[f"{name}/prompt"] - RECORDED[f"{name}/logits"]).max() > 1e-3, name
    for one, other in (
        ("causal", "causal_chat"),
        ("causal_chat", "causal_generation"),
        ("causal_chat", "causal_document_first"),
        ("saved_settings", "bert_1"),
    ):
        assert np.abs(RECORDED[f"{one}/logits"] - RECORDED[f"{other}/logits"]).max() > 1e-2, (one, other)


@pytest.mark.parametrize("name", SCORERS)
def test_a_folder_gives_the_recorded_scores_and_settings(model_of, name):
    model, facts = model_of(name), FACTS[name]
    assert [type(module).__name__ for module in model] == facts["modules"]
    assert type(model.activation_fn).__name__ == facts["activation_fn"]
    for setting in ("num_labels", "max_seq_length", "prompts", "default_prompt_name"):
        assert getattr(model, setting) == facts[setting], setting
    close(model.predict(PAIRS, activation_fn=PLAIN), RECORDED[f"{name}/logits"])
    close(model.predict(PAIRS), RECORDED[f"{name}/scores"])
    close(model.predict(PAIRS, activation_fn=PLAIN, prompt=PROMPT), RECORDED[f"{name}/prompt"])


@pytest.mark.parametrize("name", SCORERS)
def test_preprocess_gives_the_recorded_tokens(model_of, name):
    """Special tokens, token types' places, the chat template, truncation and padding."""
    model = model_of(name)
    for pair, ids in zip(PAIRS, FACTS[name]["ids"], strict=True):
        features = model.preprocess([pair])
        assert features["input_ids"][0].tolist() == ids
        assert features["attention_mask"].all()


@pytest.mark.parametrize("name", [name for name in SCORERS if FACTS[name]["ranking"]])
def test_rank_gives_the_recorded_ranking(model_of, name):
    ranking = model_of(name).rank(QUERY, DOCUMENTS)
    expected = FACTS[name]["ranking"]
    assert [result["corpus_id"] for result in ranking] == [result["corpus_id"] for result in expected]
    close([result["score"] for result in ranking], [result["score"] for result in expected])


@pytest.mark.parametrize("name", SCORERS)
def test_saved_and_loaded_it_gives_the_same_scores(model_of, name, tmp_path):
    model = model_of(name)
    model.save_pretrained(str(tmp_path))
    again = CrossEncoder(str(tmp_path), device="cpu")
    np.testing.assert_allclose(again.predict(PAIRS), model.predict(PAIRS), rtol=1e-5)  # the last digits may differ
    assert type(again.activation_fn) is type(model.activation_fn)
    assert again.tokenizer.padding_side == model.tokenizer.padding_side
    for setting in ("num_labels", "max_seq_length", "prompts", "default_prompt_name"):
        assert getattr(again, setting) == getattr(model, setting), setting


READ_BY_6_2_0 = """
import json, sys
import numpy as np
import torch
from sentence_transformers import CrossEncoder
pairs, prompt, result, *folders = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3], *sys.argv[4:]
arrays = {}
for folder in folders:
    model = CrossEncoder(folder, device="cpu")
    arrays[folder + "/scores"] = model.predict(pairs)
    arrays[folder + "/prompt"] = model.predict(pairs, prompt=prompt, activation_fn=torch.nn.Identity())
np.savez(result, **arrays)
"""


@pytest.mark.slow
@pytest.mark.skipif(oracle_python() is None, reason="needs version 6.2.0")
def test_version_6_2_0_reads_our_folders(model_of, tmp_path):
    for name in SCORERS:
        model_of(name).save_pretrained(str(tmp_path / name))
    result = tmp_path / "scores.npz"
    run_oracle(READ_BY_6_2_0, json.dumps(PAIRS), PROMPT, result, *(tmp_path / name for name in SCORERS))
    theirs = np.load(result)
    for name in SCORERS:
        for call in ("scores", "prompt"):
            close(theirs[f"{tmp_path / name}/{call}"], RECORDED[f"{name}/{call}"])


# ---- together = alone = reference


@pytest.mark.parametrize("name", [*CLASSIFIERS, "causal"])
def test_together_is_alone_is_reference(model_of, folder_of, name):
    """A pair's score is transformers' own, whatever the neighbours, the batch size and the order."""
    model, reference = model_of(name), Alone(folder_of(name))
    expected = np.stack([reference(pair) for pair in PAIRS])
    expected = expected[:, 0] if model.num_labels == 1 else expected
    close(model.predict(PAIRS, activation_fn=PLAIN), expected)
    close([model.predict(pair, activation_fn=PLAIN) for pair in PAIRS], expected)
    close(model.predict(PAIRS[::-1], activation_fn=PLAIN, batch_size=1)[::-1], expected)
    close(model.predict(PAIRS * 3, activation_fn=PLAIN, batch_size=3), np.concatenate([expected] * 3))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_packed_is_padded(model_of, folder_of, name):
    """Either layout of a batch gives the reference's logits, and so does `model(preprocess(pairs))`."""
    model, reference = model_of(name), Alone(folder_of(name))
    expected = np.stack([reference(pair) for pair in PAIRS])
    tokens = model[0].tokens(PAIRS)
    for packed in [True, False] if model[0].packs else [False]:
        features = model[0].features(tokens, packed=packed)
        assert (Features.of(features).layout == "packed") is packed
        with torch.no_grad():
            close(model(features)["scores"], expected)
    features = model.preprocess(PAIRS)
    assert features["attention_mask"].shape == (len(PAIRS), LENGTH) and not features["attention_mask"].all()
    with torch.no_grad():
        close(model(features)["scores"], expected)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_run_packed(model_of, name):
    """No classifier of this table pays for padding."""
    assert model_of(name)[0].packs is True


@pytest.mark.parametrize("name", CHATS)
def test_chat_models_read_the_rendered_template(model_of, folder_of, name):
    """System, query and document are messages; nothing is put before the template's text or behind it."""
    model, reference = model_of(name), Alone(folder_of(name))
    generation = name == "causal_generation"
    yes, no = reference.tokenizer.convert_tokens_to_ids(["yes", "no"])
    pairs = PAIRS[:2]
    for prompt in (None, PROMPT):
        expected = []
        for query, document in pairs:
            messages = [{"role": "system", "content": prompt}] if prompt else []
            messages += [{"role": "query", "content": query}, {"role": "document", "content": document}]
            text = reference.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
            tokens = reference.tokenizer(text, add_special_tokens=False, return_tensors="pt")
            with torch.no_grad():
                logits = reference.model(**tokens).logits[0, -1]
            expected.append(float(logits[yes] if generation else logits[yes] - logits[no]))
        close(model.predict(pairs, activation_fn=PLAIN, prompt=prompt), expected)


@pytest.mark.parametrize("name", ["causal_chat", "causal_generation"])
def test_long_chats_keep_the_end_of_the_template(model_of, name):
    """The end of the template, where the model answers, is not cut off."""
    model = model_of(name)
    ending = "</s>Is it?" + "<assistant>" * (name == "causal_generation")
    for pair in PAIRS:
        ids = model.preprocess([pair])["input_ids"][0]
        assert len(ids) <= model.max_seq_length
        assert model.tokenizer.decode(ids).endswith(ending)


def test_a_chat_template_without_documents_is_refused(fresh):
    model = fresh("causal")
    model.tokenizer.chat_template = "{% for m in messages if m.role == 'query' %}{{ m.content }}{% endfor %}"
    with pytest.raises(InputError, match="document"):
        fresh("causal", processor_kwargs={"chat_template": model.tokenizer.chat_template}).predict(PAIRS)


def test_yes_and_no_must_be_tokens(folder_of, tmp_path):
    """A language model whose tokenizer has no such tokens is refused."""
    SCORERS["causal"](tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["model"]["vocab"] = {
        {"yes": "yeah", "ye": "ya"}.get(word, word): i for word, i in content["model"]["vocab"].items()
    }
    content["model"]["merges"] = [["n", "o"]]
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelFormatError, match="yes"):
        CrossEncoder(str(tmp_path), device="cpu")


@pytest.mark.parametrize(("true", "false"), [(2, 0), (1, None)])
def test_logit_score(true, false):
    """score = l_true − l_false at the last token; l_true where there is no false token."""
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    features = LogitScore(true, false)({"causal_logits": logits, "attention_mask": torch.ones(3, 5)})
    expected = [[float(row[-1, true] - (row[-1, false] if false is not None else 0))] for row in logits]
    close(features["scores"], expected)
    other = LogitScore(true, false, module_input_name="logits")({"logits": logits})
    close(other["scores"], expected)


# ---- what comes out


@pytest.mark.parametrize(
    ("numpy", "tensor", "kind"),
    [(True, False, np.ndarray), (False, False, list), (False, True, torch.Tensor), (True, True, torch.Tensor)],
)
@pytest.mark.parametrize("name", ["bert_1", "bert_3"])
def test_conversions(model_of, name, numpy, tensor, kind):
    """convert_to_tensor wins over convert_to_numpy; neither gives a list of tensors. One pair: one row less."""
    model, expected = model_of(name), RECORDED[f"{name}/scores"]
    flags = {"convert_to_numpy": numpy, "convert_to_tensor": tensor}
    several, one, none = (model.predict(inputs, **flags) for inputs in (PAIRS, PAIRS[0], []))
    assert type(several) is kind and type(none) is kind and len(none) == 0
    if kind is list:
        assert all(type(row) is torch.Tensor and row.shape == expected.shape[1:] for row in several)
        several = torch.stack(several)
    assert one.shape == expected.shape[1:] and several.shape == expected.shape
    assert str(one.dtype).endswith("float32") and str(several.dtype).endswith("float32")
    close(several, expected)
    close(one, expected[0])


def test_one_score_is_a_number(model):
    """One pair and one label give a numpy float32, or a tensor without dimensions."""
    score = model.predict(PAIRS[0])
    assert type(score) is np.float32 and 0 < float(score) < 1
    assert model.predict(PAIRS[0], convert_to_tensor=True).shape == ()
    assert model.predict([]).shape == (0,)


@pytest.mark.parametrize("name", ["bert_1", "bert_3"])
def test_activations(model_of, name):
    """Argument over the model's own over the default; softmax afterwards, and only over several labels."""
    model, logits = model_of(name), RECORDED[f"{name}/logits"]
    own = sigmoid(logits) if name == "bert_1" else logits
    close(model.predict(PAIRS), own)
    close(model.predict(PAIRS, activation_fn=torch.nn.Sigmoid()), sigmoid(logits))
    close(model.predict(PAIRS, activation_fn=lambda x: 2 * x), 2 * logits)
    close(model.predict(PAIRS, apply_softmax=True), own if name == "bert_1" else softmax(logits))
    both = model.predict(PAIRS, activation_fn=torch.tanh, apply_softmax=True)
    close(both, np.tanh(logits) if name == "bert_1" else softmax(np.tanh(logits)))
    shapes: list[Any] = []
    model.predict(PAIRS, activation_fn=lambda x: shapes.append((x.shape[1:], x.dtype)) or x)
    assert set(shapes) == {((model.num_labels,), torch.float32)}


def test_activation_of_the_model(fresh, tmp_path):
    """It can be given, set, saved by its class and loaded; one that has no class of torch's is not loaded."""
    logits = RECORDED["bert_3/logits"]
    model = fresh("bert_3", activation_fn=torch.nn.Tanh())
    close(model.predict(PAIRS), np.tanh(logits))
    model.save_pretrained(str(tmp_path / "tanh"))
    close(CrossEncoder(str(tmp_path / "tanh"), device="cpu").predict(PAIRS), np.tanh(logits))
    model.activation_fn = torch.nn.Sigmoid()
    close(model.predict(PAIRS), sigmoid(logits))
    assert len(model) == 1 and len(list(model.children())) == 1
    assert isinstance(model.get_default_activation_fn(), torch.nn.Identity)


def test_an_activation_from_elsewhere_is_not_imported(folder_of, tmp_path, caplog):
    """Its name is in the warning; the default is used."""
    SCORERS["saved_settings"](tmp_path)
    file = tmp_path / "config_sentence_transformers.json"
    settings = json.loads(file.read_text(encoding="utf-8")) | {"activation_fn": "os.system"}
    file.write_text(json.dumps(settings), encoding="utf-8")
    model = CrossEncoder(str(tmp_path), device="cpu")
    assert "os.system" in caplog.text
    close(model.predict(PAIRS, prompt=""), RECORDED["bert_1/scores"])


def test_gradients_reach_the_weights(fresh):
    """The sum of squared logits of pairs together has the gradient of the pairs alone."""
    model = fresh("bert_3")

    def gradient(batches: list[list[tuple[str, str]]]) -> dict[str, np.ndarray]:
        model.zero_grad()
        for batch in batches:
            model(model[0].features(model[0].tokens(batch), packed=model[0].packs))["scores"].square().sum().backward()
        return {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}

    few = PAIRS[:4]
    together, apart = gradient([few]), gradient([[pair] for pair in few])
    assert together.keys() == apart.keys() and any("embeddings" in name for name in together)
    for name, expected in apart.items():
        close(together[name], expected, atol=1e-4)


# ---- what goes in


@pytest.mark.parametrize(
    "inputs",
    [
        tuple(PAIRS),
        [list(pair) for pair in PAIRS],
        np.array(PAIRS),
        np.array(PAIRS, dtype=object),
        (pair for pair in PAIRS),
        zip(*zip(*PAIRS, strict=True), strict=True),
    ],
    ids=["tuple", "lists", "string array", "object array", "generator", "zip"],
)
def test_any_iterable_of_pairs(model, inputs):
    """Whatever gives pairs is taken."""
    close(model.predict(inputs), RECORDED["bert_1/scores"])


@pytest.mark.parametrize("pair", [PAIRS[2], list(PAIRS[2]), np.array(PAIRS[2])], ids=["tuple", "list", "array"])
def test_one_pair_or_several(model, pair):
    """Two texts are one pair; two pairs are two."""
    assert model.is_singular_input(pair) and not model.is_singular_input([pair, pair])
    close(model.predict(pair), RECORDED["bert_1/scores"][2])
    close(model.predict([pair, pair]), RECORDED["bert_1/scores"][[2, 2]])
    assert model.predict([pair]).shape == (1,)


def test_a_pair_has_a_direction(model):
    """(a, b) is not (b, a), and no text is mistaken for its partner's."""
    first, second = model.predict([PAIRS[2], PAIRS[2][::-1]])
    assert abs(first - second) > 1e-4


@pytest.mark.parametrize("text", ["", " ", "🏳️‍🌈 naïve ﬁ", "\ud800", "a \udfff b", "\x00"], ids=ascii)
def test_odd_texts(model, alone, text):
    """Empty, white, emoji, control characters; lone surrogates count as U+FFFD. Neighbours are not disturbed."""
    clean = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    pairs, clean_pairs = [("yes", text), PAIRS[2], (text, "no")], [("yes", clean), PAIRS[2], (clean, "no")]
    close(model.predict(pairs, activation_fn=PLAIN), [alone(pair)[0] for pair in clean_pairs])


def test_identical_pairs_are_computed_once(model, monkeypatch):
    """As many rows go through the model as there are different pairs."""
    rows: list[int] = []
    forward = CrossEncoder.forward

    def counted(self: CrossEncoder, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        result = forward(self, features, **kwargs)
        rows.append(len(result["scores"]))
        return result

    monkeypatch.setattr(CrossEncoder, "forward", counted)
    scores = model.predict(PAIRS * 4 + PAIRS[::-1])
    close(scores, np.concatenate([*[RECORDED["bert_1/scores"]] * 4, RECORDED["bert_1/scores"][::-1]]))
    assert sum(rows) == len(PAIRS)


BAD_INPUTS = {
    "none": (None, 0, "None"),
    "number": (3, 0, "3"),
    "one text in a pair": ([("a", "b"), ("a",)], 1, "'a'"),
    "three texts": ([("a", "b"), ("a", "b"), ("x", "y", "z")], 2, "'z'"),
    "none in a pair": ([("a", None)], 0, "None"),
    "number in a pair": ([("a", "b"), ("a", 3)], 1, "3"),
    "none in the list": ([("a", "b"), None], 1, "None"),
    "text in the list": ([("a", "b"), "ab"], 1, "'ab'"),
    "bytes in a pair": ([("a", b"b")], 0, "b'b'"),
    "list in a pair": ([("a", ["b"])], 0, "['b']"),
    "three texts alone": (("a", "b", "c"), 0, "'c'"),
    "last of many": ([*[("a", "b")] * 3000, ("a", 7.5)], 3000, "7.5"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_inputs(model, no_computing, name):
    """What is not a pair of texts is refused, by position and value, before anything is computed."""
    inputs, position, value = BAD_INPUTS[name]
    with pytest.raises(InputError, match=rf"\b{position}\b") as caught:
        model.predict(inputs)
    assert value in str(caught.value) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"prompt_name": "questions"}, ["questions"]),
        ({"batch_size": 0}, ["batch_size", "0"]),
        ({"batch_size": -1}, ["batch_size", "-1"]),
        ({"chunk_size": 0, "device": ["cpu", "cpu"]}, ["chunk_size", "0"]),
    ],
    ids=str,
)
def test_bad_arguments(model, no_computing, kwargs, words):
    """Arguments that cannot be meant are refused, naming what was given."""
    for call in (lambda: model.predict(PAIRS, **kwargs), lambda: model.rank(QUERY, DOCUMENTS, **kwargs)):
        with pytest.raises(InputError) as caught:
            call()
        assert all(word in str(caught.value) for word in words)


# ---- prompts


def test_prompts(fresh, alone):
    """The prompt stands before the first text of each pair: given, named, or the model's default."""
    model = fresh(prompts={"ask": PROMPT, "none": ""}, default_prompt_name="ask")
    with_prompt = [alone(pair, PROMPT)[0] for pair in PAIRS]
    without = [alone(pair)[0] for pair in PAIRS]
    for kwargs, expected in (
        ({}, with_prompt),
        ({"prompt_name": "ask"}, with_prompt),
        ({"prompt": PROMPT, "prompt_name": "none"}, with_prompt),
        ({"prompt_name": "none"}, without),
        ({"prompt": ""}, without),
    ):
        close(model.predict(PAIRS, activation_fn=PLAIN, **kwargs), expected)
    ranking = model.rank(QUERY, DOCUMENTS, activation_fn=PLAIN)
    scores = [alone((QUERY, document), PROMPT)[0] for document in DOCUMENTS]
    assert [result["corpus_id"] for result in ranking] == np.argsort(-np.array(scores), kind="stable").tolist()
    with pytest.raises(InputError, match="nothing"):
        fresh(default_prompt_name="nothing")


# ---- rank


def test_rank_sorts_the_scores(model):
    """Best first, with python's own types; top_k results at most; the document beside its score if asked for."""
    scores = model.predict([(QUERY, document) for document in DOCUMENTS])
    order = sorted(range(len(DOCUMENTS)), key=lambda i: (-scores[i], i))
    full = [{"corpus_id": i, "score": float(scores[i])} for i in order]
    for kwargs, expected in (
        ({}, full),
        ({"top_k": 3}, full[:3]),
        ({"top_k": 100}, full),
        ({"top_k": 0}, []),
        ({"return_documents": True}, [result | {"text": DOCUMENTS[result["corpus_id"]]} for result in full]),
        ({"activation_fn": PLAIN}, [{**r, "score": float(np.log(r["score"] / (1 - r["score"])))} for r in full]),
    ):
        ranking = model.rank(QUERY, DOCUMENTS, **kwargs)
        assert [result["corpus_id"] for result in ranking] == [result["corpus_id"] for result in expected]
        assert [result.keys() for result in ranking] == [result.keys() for result in expected]
        assert [result.get("text") for result in ranking] == [result.get("text") for result in expected]
        close([result["score"] for result in ranking], [result["score"] for result in expected])
        assert all(type(result["corpus_id"]) is int and type(result["score"]) is float for result in ranking)
    assert model.rank(QUERY, DOCUMENTS, 2, True) == model.rank(QUERY, DOCUMENTS, top_k=2, return_documents=True)
    assert model.rank(QUERY, []) == []


def test_equal_scores_stay_in_order(model):
    """Documents that occur several times, and scores that a coarse activation makes equal."""
    documents = [["yes", "no", "brown fox"][i % 3] for i in range(12)]
    ranking = model.rank(QUERY, documents)
    groups = [[r["corpus_id"] for r in ranking if documents[r["corpus_id"]] == d] for d in ("yes", "no", "brown fox")]
    assert groups == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    flat = model.rank(QUERY, documents, activation_fn=torch.zeros_like)
    assert [result["corpus_id"] for result in flat] == list(range(12))


def test_several_queries_are_ranked_as_each_alone(model):
    """One list of documents per query, of any lengths; one ranking per query."""
    queries, lists = ["yes", QUERY, "no", "fox"], [DOCUMENTS, DOCUMENTS[::-1], [], DOCUMENTS[1:3]]
    for kwargs in ({}, {"top_k": 2, "return_documents": True}):
        rankings = model.rank(queries, lists, **kwargs)
        assert len(rankings) == len(queries)
        for ranking, query, documents in zip(rankings, queries, lists, strict=True):
            expected = model.rank(query, documents, **kwargs)
            assert [r["corpus_id"] for r in ranking] == [r["corpus_id"] for r in expected]
            assert [r.get("text") for r in ranking] == [r.get("text") for r in expected]
            close([r["score"] for r in ranking], [r["score"] for r in expected])
    assert model.rank([], []) == []


@pytest.mark.parametrize(
    ("query", "documents", "word"),
    [
        (None, ["a"], "None"),
        ("a", [None], "None"),
        ("a", "one text", "one text"),
        ("a", None, "None"),
        (["a", "b"], [["c"]], "2"),
        (["a", "b"], ["c", "d"], "'c'"),
        ("a", ["b", 3], "3"),
    ],
    ids=str,
)
def test_rank_of_what_is_no_text(model, no_computing, query, documents, word):
    with pytest.raises(InputError, match=word):
        model.rank(query, documents)


def test_rank_needs_one_label(labelled, no_computing):
    for documents in (DOCUMENTS, []):
        with pytest.raises(InputError, match="num_labels"):
            labelled.rank(QUERY, documents)


# ---- settings


def test_max_seq_length(fresh, alone):
    """Pairs are cut, longest text first, at the new length from the next call on."""
    model = fresh(max_length=12)
    assert model.max_seq_length == model.tokenizer.model_max_length == 12
    close(model.predict(PAIRS, activation_fn=PLAIN), [alone(pair, max_length=12)[0] for pair in PAIRS])
    model.max_seq_length = 20
    close(model.predict(PAIRS, activation_fn=PLAIN), [alone(pair, max_length=20)[0] for pair in PAIRS])


def test_weights_can_change(fresh):
    """A trained or loaded weight is seen by the next call; nothing is random in `predict`."""
    model = fresh("bert_3")
    before = model.predict(PAIRS)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.train()
    close(model.predict(PAIRS), before)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    assert abs(model.predict(PAIRS) - before).max() > 1e-3
    model.load_state_dict(weights)
    close(model.predict(PAIRS), before)


def test_number_of_labels(fresh, folder_of, tmp_path):
    """It is the checkpoint's; an encoder without a head gets a random one of as many labels as asked for."""
    assert fresh("bert_3").num_labels == 3 and fresh("bert_3", num_labels=3).num_labels == 3
    with pytest.raises((RuntimeError, ValueError), match=r"size|label|mismatch"):
        fresh("bert_3", num_labels=2)
    score_models.checkpoint(tmp_path, "Bert")
    for labels, activation in ((None, torch.nn.Sigmoid), (1, torch.nn.Sigmoid), (4, torch.nn.Identity)):
        model = CrossEncoder(str(tmp_path), device="cpu", num_labels=labels)
        assert model.num_labels == model.config.num_labels == (labels or 1)
        assert type(model.activation_fn) is activation
        assert model.predict(PAIRS).shape == ((len(PAIRS),) if labels in (None, 1) else (len(PAIRS), labels))


def test_half_precision(fresh):
    """Scores are float32, and nearly the same."""
    expected = RECORDED["bert_3/scores"]
    for model in (fresh("bert_3").bfloat16(), fresh("bert_3", model_kwargs={"dtype": torch.bfloat16})):
        scores = model.predict(PAIRS)
        assert scores.dtype == np.float32 and model.dtype == torch.bfloat16
        close(scores, expected, atol=0.1)
        assert (torch.tensor(scores).bfloat16().float().numpy() == scores).all()


def test_layers_kept_in_float32(fresh, tmp_path):
    """The logits of a half precision model are W·x + b in float32, though W and b are stored in half precision."""
    name = "0.model.classifier"
    model = fresh("bert_3", keep_in_fp32_modules=[name]).bfloat16()
    assert model.get_submodule(name).weight.dtype == torch.bfloat16
    seen: list[torch.Tensor] = []
    model.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    score = model.predict(PAIRS[2])
    head = model.get_submodule(name)
    expected = seen[-1].float() @ head.weight.detach().float().T + head.bias.detach().float()
    close(score, expected.numpy().reshape(-1), atol=1e-6)
    assert (torch.tensor(score).bfloat16().float().numpy() != score).any()
    model.save_pretrained(str(tmp_path))
    assert (CrossEncoder(str(tmp_path), device="cpu").predict(PAIRS[2]) == score).all()
    with pytest.raises((InputError, AttributeError), match="nothing"):
        fresh(keep_in_fp32_modules=["nothing"])
    with pytest.raises((InputError, ValueError), match="list"):
        fresh(keep_in_fp32_modules=name)


def test_attributes(labelled):
    """What code on top of a cross-encoder reads."""
    assert isinstance(labelled.model, transformers.PreTrainedModel)
    assert labelled.config.num_labels == labelled.num_labels == 3
    assert labelled.tokenizer.decode(labelled.tokenizer("yes")["input_ids"], skip_special_tokens=True) == "yes"
    assert labelled.prompts == {} and labelled.default_prompt_name is None
    assert labelled.modalities == ["text"] and labelled.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((), {"model_name": ...}, {}),
        ((), {"automodel_args": {"dtype": torch.bfloat16}}, {"dtype": torch.bfloat16}),
        ((), {"tokenizer_args": {"model_max_length": 9}}, {"max_seq_length": 9}),
        ((), {"tokenizer_kwargs": {"model_max_length": 9}}, {"max_seq_length": 9}),
        ((), {"config_args": {"hidden_dropout_prob": 0.5}}, {"config.hidden_dropout_prob": 0.5}),
        ((), {"classifier_dropout": 0.5}, {"config.classifier_dropout": 0.5}),
        ((), {"default_activation_function": torch.tanh}, {"activation_fn": torch.tanh}),
        ((1, 9, torch.tanh, "cpu"), {}, {"max_seq_length": 9, "activation_fn": torch.tanh, "num_labels": 1}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_older_names_of_settings(folder_of, args, kwargs, expected):
    """Older names and positions of arguments work, with a warning."""
    folder = str(folder_of("bert_1"))
    with pytest.warns(DeprecationWarning, match=str(next(iter(kwargs), "position"))):
        model = CrossEncoder(model_name=folder) if "model_name" in kwargs else CrossEncoder(folder, *args, **kwargs)
    for path, value in expected.items():
        owner = model.config if path.startswith("config.") else model
        assert getattr(owner, path.removeprefix("config.")) == value


def test_older_names_of_arguments(model):
    expected = RECORDED["bert_1/logits"]
    for kwargs in ({"activation_fct": PLAIN}, {"activation_fn": PLAIN, "num_workers": 2}):
        with pytest.warns(DeprecationWarning):
            close(model.predict(PAIRS, **kwargs), expected)
        with pytest.warns(DeprecationWarning):
            assert model.rank(QUERY, DOCUMENTS, **kwargs) == model.rank(QUERY, DOCUMENTS, activation_fn=PLAIN)
    with pytest.warns(DeprecationWarning, match="sentences"):
        close(model.predict(sentences=PAIRS, activation_fn=PLAIN), expected)
    with pytest.warns(DeprecationWarning, match="apply_softmax"):
        model.rank(QUERY, DOCUMENTS, apply_softmax=True, convert_to_numpy=False, convert_to_tensor=True)


def test_long_pairs_are_cut_and_said_so_once(fresh, caplog):
    """One warning per model says how many pairs lost tokens."""
    model = fresh()
    with caplog.at_level(logging.WARNING, "sentence_transformers"):
        model.predict([*PAIRS[:4], ("yes " * 50, "no"), ("yes", "no " * 50)])
        model.predict([("yes " * 50, "no")])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1 and "2 of 6" in messages[0] and str(LENGTH) in messages[0]


# ---- threads and worker processes


def test_threads_share_one_model(labelled):
    """Eight threads, each with its own order and batch size, get the scores of their own pairs."""
    orders = [np.random.default_rng(seed).permutation(len(PAIRS)) for seed in range(8)]

    def scores(order: np.ndarray) -> np.ndarray:
        return labelled.predict([PAIRS[i] for i in order], batch_size=int(order[0]) + 1)

    with ThreadPoolExecutor(8) as threads:
        for order, rows in zip(orders, threads.map(scores, orders), strict=True):
            close(rows, RECORDED["bert_3/logits"][order])


@pytest.fixture(scope="module")
def pool(labelled: CrossEncoder) -> Iterator[Any]:
    assert labelled.model is not None  # whoever has looked at the transformers model can have workers all the same
    pool = labelled.start_multi_process_pool(["cpu", "cpu"])
    yield pool
    labelled.stop_multi_process_pool(pool)


def test_pool(labelled, pool):
    """Workers give the scores of one process, in order, of every kind."""
    expected = RECORDED["bert_3/logits"]
    for chunk_size in (None, 1, 3):
        close(labelled.predict(PAIRS, pool=pool, chunk_size=chunk_size), expected)
    close(labelled.predict(PAIRS[0], pool=pool), expected[0])
    close(labelled.predict(PAIRS, pool=pool, apply_softmax=True, convert_to_tensor=True), softmax(expected))
    # a function that no worker could be sent
    close(labelled.predict(PAIRS, pool=pool, activation_fn=lambda logits: logits + 1), expected + 1)
    assert type(labelled.predict(PAIRS, pool=pool, convert_to_numpy=False)) is list
    assert len(labelled.predict([], pool=pool)) == 0
    with pytest.raises(InputError, match=r"\b1\b"):
        labelled.predict([("a", "b"), None], pool=pool)


def test_the_older_name_of_the_activation_warns(fresh):
    model = fresh()
    with pytest.warns(DeprecationWarning, match="default_activation_function is now activation_fn"):
        assert model.default_activation_function is model.activation_fn
    with pytest.warns(DeprecationWarning, match="default_activation_function is now activation_fn"):
        model.default_activation_function = PLAIN
    assert model.activation_fn is PLAIN
