"""Whatever the caller overrides, patches or hooks takes effect: extension points × encoders × ways to compute.

Each point changes a model in one of three ways, so that what it must give is known from the plain model:

    extra    " extra" is added to each text         rows of the plain model for those texts
    swap     the token "yes" is read as "no"        rows of the plain model for the other texts
    twice    the output is doubled                  2 · rows of the plain model
    inside   the transformer's output is doubled    the same, but of y = log(1 + relu(x)): log(1 + 2 (exp(y) − 1))
"""

from __future__ import annotations

import contextlib
import functools
import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_modules
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerFast

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder, losses, models
from sentence_transformers.backends.override_detection import extensions, is_untouched
from sentence_transformers.engine import workers
from sentence_transformers.modules.multi_vector_mask import MultiVectorMask
from sentence_transformers.modules.splade_pooling import SpladePooling
from tests.golden import score_models

H, D = score_models.H, 8
TEXTS = ["the river", "yes no yes the quick brown fox", "yes", "a b c d e f g"]
PAIRS = [("yes no", text) for text in TEXTS]


# ---- what the points do


def extra(inputs: Any) -> list[Any]:
    """Inputs, or second texts of pairs, with a word more."""
    return [text + " extra" if isinstance(text, str) else (text[0], text[1] + " extra") for text in inputs]


def swap_words(inputs: Any) -> list[Any]:
    return [
        text.replace("yes", "no") if isinstance(text, str) else tuple(part.replace("yes", "no") for part in text)
        for text in inputs
    ]


def swap_ids(ids: torch.Tensor) -> torch.Tensor:
    yes, no = (list(score_models.KINDS["bert"][0] + score_models.WORDS).index(word) for word in ("yes", "no"))
    return torch.where(ids == yes, no, ids)


def twice(features: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """Features of a padded batch whose result is doubled."""
    assert "packing" not in features
    if "token_embeddings" in features:
        assert features["attention_mask"].shape == features["token_embeddings"].shape[:2]
    names = ("scores", "sentence_embedding", "token_embeddings")
    name = name or next(name for name in names if name in features)
    return features | {name: features[name] * 2}


# ---- subclasses


class Extra:
    """Of an encoder or an input module: another `preprocess`."""

    def preprocess(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().preprocess(extra(inputs), *args, **kwargs)  # type: ignore[misc]


class Tokenizing:
    """`tokenize` alone is called by nobody."""

    def tokenize(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("called")


class Twice:
    """Of anything with features."""

    def forward(self, features: Any, *args: Any, **kwargs: Any) -> Any:
        return twice(super().forward(features, *args, **kwargs), getattr(self, "module_output_name", None))  # type: ignore[misc]


class Decorated:
    """An override inside a decorator of PyTorch's."""

    @torch.autocast("cpu", enabled=False)
    def forward(self, features: Any, *args: Any, **kwargs: Any) -> Any:
        return twice(super().forward(features, *args, **kwargs))  # type: ignore[misc]


class Called:
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return twice(super().__call__(*args, **kwargs))  # type: ignore[misc]


class Encoding:
    """Another `encode`, or `predict`."""

    def encode(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().encode(extra(inputs), *args, **kwargs)  # type: ignore[misc]

    def predict(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().predict(extra(inputs), *args, **kwargs)  # type: ignore[misc]


ENCODERS = (SentenceTransformer, CrossEncoder, SparseEncoder, MultiVectorEncoder)
PARTS = (models.Pooling, models.Normalize, models.Dense, SpladePooling, MultiVectorMask)
MIXINS = (Extra, Tokenizing, Twice, Decorated, Called, Encoding)


def subclass(mixin: type, kind: type) -> Any:
    """The class made of both, by a name that worker processes find it under."""
    return globals()[f"{mixin.__name__}{kind.__name__}"]


for mixin in MIXINS:
    for kind in (*ENCODERS, models.Transformer, *PARTS):
        name = f"{mixin.__name__}{kind.__name__}"
        globals()[name] = type(name, (mixin, kind), {"__module__": __name__})


class Doubling(nn.Module):
    """A module of the caller's in a model."""

    def forward(self, features: Any) -> Any:
        return twice(features)


# ---- kinds of models


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        encoder: its class.
        parts: the modules that a test may take, by a folder with a checkpoint.
        inputs: what it takes.
    """

    encoder: type[Any]
    parts: Callable[[str], list[nn.Module]]
    inputs: list[Any]

    def model(self, parts: list[nn.Module], encoder: type[Any] | None = None) -> Any:
        return (encoder or self.encoder)(modules=parts, device="cpu")

    def rows(self, model: Any, inputs: list[Any] | None = None, **kwargs: Any) -> list[np.ndarray]:
        """One array per input."""
        inputs = self.inputs if inputs is None else inputs
        if self.encoder is CrossEncoder:
            return list(model.predict(inputs, activation_fn=nn.Identity(), convert_to_numpy=True, **kwargs))
        if self.encoder is SparseEncoder:
            return list(model.encode(inputs, convert_to_sparse_tensor=False, **kwargs).numpy())
        return list(model.encode(inputs, convert_to_numpy=True, **kwargs))

    def loss(self, model: Any, folder: Path) -> float:
        """The loss that the trainer computes of a batch of all inputs."""
        from datasets import Dataset

        from tests.training.runs import trainer_of

        model.transformers_model  # noqa: B018
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        count = len(TEXTS)
        trainers = {
            SentenceTransformer: ("SentenceTransformerTrainer", losses.MSELoss, {"sentence": TEXTS}),
            SparseEncoder: ("SparseEncoderTrainer", losses.SparseMSELoss, {"sentence": TEXTS}),
            CrossEncoder: ("CrossEncoderTrainer", losses.MSELoss, {"a": [pair[0] for pair in PAIRS], "b": TEXTS}),
            MultiVectorEncoder: (
                "MultiVectorEncoderTrainer",
                losses.MultiVectorMarginMSELoss,
                dict(zip("abc", (TEXTS, TEXTS[::-1], TEXTS[1:] + TEXTS[:1]), strict=True)),
            ),
        }
        trainer, loss, columns = trainers[self.encoder]
        width = model.get_embedding_dimension() if "sentence" in columns else 0
        label: list[Any] = [[0.0] * width] * count if width else [0.0] * count
        import sentence_transformers

        settings = {"per_device_train_batch_size": count, "dataloader_num_workers": 0, "use_cpu": True}
        made = trainer_of(
            getattr(sentence_transformers, trainer), model, folder, Dataset.from_dict(columns | {"label": label}),
            loss(model), settings,
        )  # fmt: skip
        model.train()
        (batch,) = made.get_train_dataloader()
        with torch.no_grad():
            return float(made.compute_loss(model, batch))

    def loss_by_hand(self, rows_of: Callable[..., list[np.ndarray]]) -> float:
        """The same of the rows of each input: mean square, of vectors, scores, or margins of MaxSim."""
        if self.encoder is not MultiVectorEncoder:
            return float(np.mean(np.stack(rows_of(self.inputs)) ** 2))

        def scores(documents: list[np.ndarray]) -> np.ndarray:
            return np.array([(q @ d.T).max(1).sum() for q, d in zip(queries, documents, strict=True)])

        queries = rows_of(TEXTS, task="query")
        positives, negatives = (rows_of(column, task="document") for column in (TEXTS[::-1], TEXTS[1:] + TEXTS[:1]))
        return float(np.mean((scores(positives) - scores(negatives)) ** 2))


def weighted(layer: models.Dense) -> models.Dense:
    with torch.no_grad():
        layer.linear.weight.copy_(score_models.numbers(3)(*layer.linear.weight.shape))
    return layer


def dense_parts(folder: str, transformer: Any = models.Transformer) -> list[nn.Module]:
    dense = weighted(models.Dense(H, D, bias=False, activation_function=nn.Identity()))
    return [transformer(folder), models.Pooling(H), models.Normalize(), dense]


def token_parts(folder: str, transformer: Any = models.Transformer) -> list[nn.Module]:
    names = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    dense = weighted(models.Dense(H, D, bias=False, activation_function=nn.Identity(), **names))
    return [transformer(folder), dense, MultiVectorMask(["fox"])]


def sparse_parts(folder: str, transformer: Any = models.Transformer) -> list[nn.Module]:
    pooling = SpladePooling("max", activation_function="relu")
    return [transformer(folder, transformer_task="fill-mask"), pooling]


def cross_parts(folder: str, transformer: Any = models.Transformer) -> list[nn.Module]:
    return [transformer(folder, transformer_task="sequence-classification")]


KINDS = {
    "dense": Kind(SentenceTransformer, dense_parts, TEXTS),
    "cross": Kind(CrossEncoder, cross_parts, PAIRS),
    "sparse": Kind(SparseEncoder, sparse_parts, TEXTS),
    "tokens": Kind(MultiVectorEncoder, token_parts, TEXTS),
}
HEADS = {"dense": "", "cross": "ForSequenceClassification", "sparse": "ForMaskedLM", "tokens": ""}
FAMILIES = ("Bert", "ModernBert")
KINDS_WITH_PARTS = ("dense", "sparse", "tokens")
CASES = [(kind, family) for family in FAMILIES for kind in KINDS]


@dataclass
class Case:
    """One kind of model on one checkpoint."""

    kind: Kind
    folder: str

    def parts(self) -> list[nn.Module]:
        return self.kind.parts(self.folder)

    @functools.cached_property
    def plain(self) -> Any:
        return self.kind.model(self.parts())


# what takes long runs for the one family that has a forward pass of its own; `make test-slow` has both
with_slow_cases = pytest.mark.parametrize(
    "case",
    [pytest.param(case, id="-".join(case), marks=[] if case[1] == "Bert" else pytest.mark.slow) for case in CASES],
    indirect=True,
)


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def case(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    kind, family = request.param
    folder = tmp_path_factory.mktemp(kind)
    labels = {"num_labels": 1} if kind == "cross" else {}
    score_models.checkpoint(folder, family, HEADS[kind], **labels)
    return Case(KINDS[kind], str(folder))


# ---- the points

Make = Callable[[Case, Any], Any]


@dataclass(frozen=True)
class Point:
    """One way to step in.

    Attributes:
        make: case, monkeypatch -> the changed model.
        does: "extra", "swap", "twice", "inside", or "" for nothing.
        upto: how many modules the plain model has; None for all.
        workers: whether it travels to worker processes, which import the library afresh.
        trains: whether the trainer meets it.
        kinds: those that have it.
    """

    make: Make
    does: str
    upto: int | None = None
    workers: bool = True
    trains: bool = True
    kinds: tuple[str, ...] = tuple(KINDS)


POINTS: dict[str, Point] = {}


def point(does: str, **settings: Any) -> Callable[[Make], Make]:
    """Register a function that makes a changed model."""

    def register(make: Make) -> Make:
        POINTS[make.__name__] = Point(make, does, **settings)
        return make

    return register


# overridden by a subclass


def encoder_of_class(mixin: type, case: Case, monkeypatch: Any) -> Any:
    return case.kind.model(case.parts(), subclass(mixin, case.kind.encoder))


def transformer_of_class(mixin: type, case: Case, monkeypatch: Any) -> Any:
    parts = case.kind.parts(case.folder, subclass(mixin, models.Transformer))
    return case.kind.model(parts[:2] if mixin in OUTPUT else parts)


def part_of_class(mixin: type, place: int, case: Case, monkeypatch: Any) -> Any:
    """The model up to a module, which is of another class."""
    parts = case.parts()[: place + 1]
    settings = {name: getattr(parts[place], name) for name in parts[place].config_keys}
    changed = subclass(mixin, type(parts[place]))(**settings)
    changed.load_state_dict(parts[place].state_dict())
    return case.kind.model([*parts[:place], changed])


OUTPUT = (Twice, Decorated, Called)
for mixin, does in ((Extra, "extra"), (Tokenizing, ""), (Twice, "twice"), (Decorated, "twice"), (Called, "twice")):
    POINTS[f"encoder, {mixin.__name__}"] = Point(functools.partial(encoder_of_class, mixin), does)
    upto = 2 if does == "twice" else None  # normalising undoes it
    inside = "inside" if does == "twice" else does
    POINTS[f"transformer, {mixin.__name__}"] = Point(functools.partial(transformer_of_class, mixin), inside, upto)
POINTS["encoder, encode"] = Point(functools.partial(encoder_of_class, Encoding), "extra", trains=False)
for place, kinds in ((1, ("dense", "sparse", "tokens")), (2, ("dense", "tokens")), (3, ("dense",))):
    for mixin in OUTPUT:
        make = functools.partial(part_of_class, mixin, place)
        POINTS[f"module {place}, {mixin.__name__}"] = Point(make, "twice", place + 1, kinds=kinds)


# patched, on the instance and on the class


def call_extra(kind: type, self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    return kind.preprocess(self, extra(inputs), *args, **kwargs)  # type: ignore[attr-defined]


def call_twice(kind: type, self: Any, *args: Any, **kwargs: Any) -> Any:
    return twice(kind.forward(self, *args, **kwargs), getattr(self, "module_output_name", None))  # type: ignore[attr-defined]


def patched(name: str, place: int | None, case: Case, monkeypatch: Any) -> Any:
    """A method of a model, or of one of its modules, replaced on the instance."""
    parts = case.parts()
    model = case.kind.model(parts if place is None or name == "preprocess" else parts[: max(place + 1, 2)])
    part = model if place is None else model[place]
    change = call_extra if name == "preprocess" else call_twice
    setattr(part, name, functools.partial(change, type(part), part))
    return model


def patched_class(name: str, kind: Any, case: Case, monkeypatch: Any) -> Any:
    """A method of a class replaced by one that looks like it (`functools.wraps`)."""
    kind = kind or case.kind.encoder
    original = getattr(kind, name)

    @functools.wraps(original)
    def changed(self: Any, first: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "preprocess":
            return original(self, extra(first), *args, **kwargs)
        return twice(original(self, first, *args, **kwargs), getattr(self, "module_output_name", None))

    case.plain  # noqa: B018  # loads what is loaded on first use
    monkeypatch.setattr(kind, name, changed)
    return case.kind.model(case.parts()[: 2 if name == "forward" and kind is not case.kind.encoder else None])


for name, does in (("preprocess", "extra"), ("forward", "twice")):
    upto = 2 if does == "twice" else None
    POINTS[f"encoder.{name} ="] = Point(functools.partial(patched, name, None), does)
    inside = "inside" if does == "twice" else does
    POINTS[f"transformer.{name} ="] = Point(functools.partial(patched, name, 0), inside, upto)
    of_class = functools.partial(patched_class, name)
    POINTS[f"Encoder.{name} ="] = Point(functools.partial(of_class, None), does, workers=False)
    POINTS[f"Transformer.{name} ="] = Point(
        functools.partial(of_class, models.Transformer), inside, upto, workers=False
    )
POINTS["module 1.forward ="] = Point(functools.partial(patched, "forward", 1), "twice", 2, kinds=KINDS_WITH_PARTS)


# hooks


def swap_before(module: nn.Module, args: Any) -> Any:
    """Of a table of words or of anything with features."""
    if isinstance(args[0], dict):
        assert args[0]["input_ids"].shape == args[0]["attention_mask"].shape
        return (args[0] | {"input_ids": swap_ids(args[0]["input_ids"])}, *args[1:])
    return (swap_ids(args[0]), *args[1:])


def twice_after(module: nn.Module, args: Any, output: Any) -> Any:
    return twice(output, getattr(module, "module_output_name", None))


def twice_of_network(module: nn.Module, args: Any, output: Any) -> Any:
    assert output[0].shape[0] > 1
    name = "logits" if "logits" in output else "last_hidden_state"
    output[name] = output[name] * 2
    return output


def with_hook(register: str, hook: Any, of: Callable[[Any], nn.Module], upto: int | None) -> Make:
    def make(case: Case, monkeypatch: Any) -> Any:
        model = case.kind.model(case.parts()[:upto])
        getattr(of(model), register)(hook)
        return model

    return make


def words(model: Any) -> nn.Module:
    return model.transformers_model.get_input_embeddings()


for label, register, hook, of, does, upto in (
    ("encoder", "register_forward_pre_hook", swap_before, lambda model: model, "swap", None),
    ("encoder", "register_forward_hook", twice_after, lambda model: model, "twice", None),
    ("transformer", "register_forward_pre_hook", swap_before, lambda model: model[0], "swap", None),
    ("transformer", "register_forward_hook", twice_after, lambda model: model[0], "inside", 2),
    ("network", "register_forward_hook", twice_of_network, lambda model: model.transformers_model, "inside", 2),
    ("words", "register_forward_pre_hook", swap_before, words, "swap", None),
):
    POINTS[f"{label}.{register}"] = Point(with_hook(register, hook, of, upto), does, upto)


@point("swap", workers=False)
def hook_before_all_modules(case: Case, monkeypatch: Any) -> Any:
    case.plain  # noqa: B018
    model = case.kind.model(case.parts())
    table = words(model)
    hook = lambda module, args: swap_before(module, args) if module is table else None  # noqa: E731
    monkeypatch.setitem(torch_modules._global_forward_pre_hooks, -1, hook)
    return model


@point("twice", workers=False)
def hook_after_all_modules(case: Case, monkeypatch: Any) -> Any:
    case.plain  # noqa: B018
    model = case.kind.model(case.parts())
    hook = lambda module, args, output: twice(output) if module is model else None  # noqa: E731
    monkeypatch.setitem(torch_modules._global_forward_hooks, -1, hook)
    return model


# other parts


@point("twice")
def a_module_of_ones_own(case: Case, monkeypatch: Any) -> Any:
    return case.kind.model([*case.parts(), Doubling()])


@point("twice", upto=2, kinds=("dense", "tokens"))
def a_module_of_ones_own_in_the_middle(case: Case, monkeypatch: Any) -> Any:
    first, second, *_ = case.parts()
    return case.kind.model([first, Doubling(), second])


class Tokenizer:
    """Wraps a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return self.tokenizer(extra(inputs), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "tokenizer":
            raise AttributeError(name)
        return getattr(self.tokenizer, name)


def with_tokenizer(changed: Callable[[Any], Any]) -> Make:
    def make(case: Case, monkeypatch: Any) -> Any:
        model = case.kind.model(case.parts())
        model.tokenizer = changed(model.tokenizer)
        return model

    return make


class CallingTwice(PreTrainedTokenizerFast):
    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(extra(inputs), *args, **kwargs)


class EncodingPlus(PreTrainedTokenizerFast):
    """The step behind the call is overridden."""

    def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._encode_plus(extra(text) if isinstance(text, list) else text, *args, **kwargs)


def again(kind: Any, tokenizer: Any) -> Any:
    return kind(tokenizer_object=tokenizer.backend_tokenizer, **tokenizer.init_kwargs)


POINTS["tokenizer in a wrapper"] = Point(with_tokenizer(Tokenizer), "extra")
for kind in (CallingTwice, EncodingPlus):
    POINTS[f"tokenizer, {kind.__name__}"] = Point(with_tokenizer(functools.partial(again, kind)), "extra")


@point("extra", workers=False)
def tokenizer_call_of_the_class(case: Case, monkeypatch: Any) -> Any:
    case.plain  # noqa: B018
    model = case.kind.model(case.parts())
    kind = type(model.tokenizer)
    original = kind.__call__

    @functools.wraps(original)
    def changed(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, extra(inputs), *args, **kwargs)

    monkeypatch.setattr(kind, "__call__", changed)
    return model


# ---- the laws

INPUTS: dict[str, Callable[[Any], Any]] = {"extra": extra, "swap": swap_words}


def changed_rows(case: Case, point: Point, rows: list[np.ndarray]) -> list[np.ndarray]:
    """What becomes of the rows of the plain model."""
    if point.does == "inside" and case.kind is KINDS["sparse"]:
        return [np.log1p(2 * np.expm1(row)) for row in rows]
    return [2 * row for row in rows] if point.does in ("twice", "inside") else rows


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for row, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(row, other, rtol=1e-4, atol=2e-5)


def plain_of(case: Case, point: Point) -> Any:
    return case.plain if point.upto is None else case.kind.model(case.parts()[: point.upto])


def expected_rows(case: Case, point: Point) -> list[np.ndarray]:
    inputs = INPUTS.get(point.does, list)(case.kind.inputs)
    return changed_rows(case, point, case.kind.rows(plain_of(case, point), inputs))


def chosen(case: Case, name: str) -> Point:
    found = POINTS[name]
    if next(kind for kind in KINDS if KINDS[kind] is case.kind) not in found.kinds:
        pytest.skip("this kind does not have it")
    return found


@pytest.mark.parametrize("name", POINTS)
def test_encode_and_predict(case: Case, monkeypatch: Any, name: str) -> None:
    found = chosen(case, name)
    expected = expected_rows(case, found)
    if found.does:
        plain = case.kind.rows(plain_of(case, found))
        assert any(a.shape != b.shape or np.abs(a - b).max() > 1e-3 for a, b in zip(plain, expected, strict=True))
    model = found.make(case, monkeypatch)
    same(case.kind.rows(model), expected)
    monkeypatch.undo()


@with_slow_cases
@pytest.mark.parametrize("name", [name for name, found in POINTS.items() if found.trains])
def test_training(case: Case, monkeypatch: Any, tmp_path: Path, name: str) -> None:
    """The first loss of a trainer is that of the changed texts, or of doubled outputs."""
    found = chosen(case, name)
    plain, change = plain_of(case, found), INPUTS.get(found.does, list)
    expected = case.kind.loss_by_hand(
        lambda inputs, **kwargs: changed_rows(case, found, case.kind.rows(plain, change(inputs), **kwargs))
    )
    assert case.kind.loss(found.make(case, monkeypatch), tmp_path) == pytest.approx(expected, rel=1e-4)


class Several(nn.Module):
    """Models of which the prompt of a call names one: a single worker process has them all."""

    def __init__(self, models: dict[str, Any]) -> None:
        super().__init__()
        self.models = nn.ModuleDict(models)

    def compute_rows(self, inputs: Any, request: Any) -> Any:
        return self.models[request.prompt].compute_rows(inputs, replace(request, prompt=None))  # type: ignore[operator]


@with_slow_cases
def test_worker_processes(case: Case, monkeypatch: Any, forked_workers: None) -> None:
    kind = next(kind for kind in KINDS if KINDS[kind] is case.kind)
    points = [name for name, found in POINTS.items() if found.workers and kind in found.kinds]
    for few in (points[start : start + 4] for start in range(0, len(points), 4)):  # a fork takes 250 tensors at most
        made = {name: POINTS[name].make(case, monkeypatch) for name in few}
        pool = workers.start(Several({str(i): model for i, model in enumerate(made.values())}), ["cpu"])
        try:
            for i, (name, model) in enumerate(made.items()):
                found = case.kind.rows(model, pool=pool, prompt=str(i), chunk_size=9)
                same(found, expected_rows(case, POINTS[name]))
        finally:
            workers.stop(pool)


def test_late_chunking_refuses_code_of_the_callers(case: Case) -> None:
    if case.kind is not KINDS["dense"]:
        pytest.skip("dense models have it")
    model = case.kind.model(case.parts(), subclass(Extra, SentenceTransformer))
    with pytest.raises(ValueError, match="preprocess of ExtraSentenceTransformer is not this library's"):
        model.encode_passages(TEXTS, late=True)
    hooked = case.kind.model(case.parts())
    hooked[1].register_forward_hook(twice_after)
    with pytest.raises(ValueError, match="a Pooling has hooks"):
        hooked.encode_passages(TEXTS, late=True)


# ---- hooks see each forward pass once, on padded batches


@pytest.mark.parametrize("place", ["network", "layer"])
def test_hooks_of_a_fresh_model_see_one_call(case: Case, place: str) -> None:
    """No trial of what the model can do runs through them."""
    model = case.kind.model(case.parts())
    network, seen = model.transformers_model, []
    layers = [part for part in network.modules() if isinstance(part, nn.ModuleList) and len(part) >= 2]
    part = network if place == "network" else layers[0][1]
    part.register_forward_hook(lambda module, args, kwargs, output: seen.append((args, kwargs)), with_kwargs=True)
    model.preprocess(case.kind.inputs)
    rows = case.kind.rows(model)
    assert len(seen) == 1
    args, kwargs = seen[0]
    length = case.plain.preprocess(case.kind.inputs)["input_ids"].shape[1]
    assert (args[0] if args else kwargs["input_ids"]).shape[:2] == (len(TEXTS), length)
    same(rows, case.kind.rows(case.plain))


# ---- similarity


class Negated:
    """A similarity of the caller's."""

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        return -super().similarity(embeddings1, embeddings2)  # type: ignore[misc]


@pytest.mark.parametrize("way", ["subclass", "instance", "class"])
def test_similarity_of_ones_own(case: Case, monkeypatch: Any, way: str) -> None:
    """Retrieval with a negated similarity ranks the other way round."""
    from sentence_transformers import evaluation
    from sentence_transformers.evaluation import multi_vector, sparse

    if case.kind is KINDS["cross"]:
        pytest.skip("scores are no similarities")
    kind = case.kind.encoder
    model = case.kind.model(case.parts(), type("Own", (Negated, kind), {}) if way == "subclass" else None)
    original = kind.similarity
    if way == "instance":
        model.similarity = lambda a, b: -original(model, a, b)
    if way == "class":
        monkeypatch.setattr(kind, "similarity", functools.wraps(original)(lambda self, a, b: -original(self, a, b)))
    corpus = {str(i): text for i, text in enumerate(TEXTS)}
    queries = {"q": TEXTS[1]}
    scores = -np.array(
        original(case.plain, case.plain.encode_query(TEXTS[1:2]), case.plain.encode_document(TEXTS))
    )[0]  # fmt: skip
    make = {
        "tokens": multi_vector.MultiVectorInformationRetrievalEvaluator,
        "sparse": sparse.SparseInformationRetrievalEvaluator,
        "dense": evaluation.InformationRetrievalEvaluator,
    }[next(name for name in KINDS if KINDS[name] is case.kind)]
    for place in range(len(TEXTS)):
        evaluator: Any = make(
            queries, corpus, {"q": {str(place)}}, mrr_at_k=[len(TEXTS)], accuracy_at_k=[1], precision_recall_at_k=[1],
            ndcg_at_k=[1], map_at_k=[1], show_progress_bar=False, write_csv=False,
        )  # fmt: skip
        found = evaluator(model)
        rank = int((scores > scores[place]).sum()) + 1
        (value,) = (value for key, value in found.items() if f"mrr@{len(TEXTS)}" in key)
        assert value == pytest.approx(1 / rank)


# ---- attention


def recording(calls: list[Any]) -> Any:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(module: nn.Module, query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(tuple(query.shape))
        return sdpa_attention_forward(module, query, *args, **kwargs)

    return attend


@pytest.fixture
def registered(monkeypatch: Any) -> Iterator[list[Any]]:
    """Calls of an attention function of the caller's, called "recording"."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    calls: list[Any] = []
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "recording", recording(calls))
    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping, "recording", sdpa_mask)
    return calls


def named(case: Case, **kwargs: Any) -> Any:
    return case.kind.model(case.kind.parts(case.folder, functools.partial(models.Transformer, **kwargs)))


@pytest.mark.parametrize("way", ["model_kwargs", "config_kwargs", "later", "sdpa"])
def test_an_attention_function_of_ones_own(case: Case, registered: list[Any], monkeypatch: Any, way: str) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    expected = case.kind.rows(case.plain)
    model = named(case, **({way: {"attn_implementation": "recording"}} if "kwargs" in way else {}))
    if way == "later":
        case.kind.rows(model)
        model.transformers_model.set_attn_implementation("recording")
    if way == "sdpa":
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", recording(registered))
    same(case.kind.rows(model), expected)
    assert registered


@pytest.mark.parametrize("name", ["eager", "sdpa"])
@pytest.mark.parametrize("way", ["model_kwargs", "config_kwargs"])
def test_the_attention_function_that_is_named_stays(case: Case, name: str, way: str) -> None:
    model = named(case, **{way: {"attn_implementation": name}})
    config = model.transformers_model.config
    same(case.kind.rows(model), case.kind.rows(case.plain))
    assert config._attn_implementation == name
    features = model.preprocess(case.kind.inputs)
    if name == "sdpa":
        with pytest.raises(ValueError, match=r"not supported when using .* sdpa"):
            config.output_attentions = True
        return
    config.output_attentions = config.output_hidden_states = True
    with torch.no_grad():
        given = {key: features[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in features}
        weights = model.transformers_model(**given).attentions
        layers = model(dict(features))["all_layer_embeddings"]
    count, length = features["input_ids"].shape
    assert weights[0].shape == (count, 2, length, length)
    torch.testing.assert_close(weights[-1].sum(-1), torch.ones(count, 2, length))
    assert len(layers) == len(weights) + 1 and layers[0].shape == (count, length, H)
    same(case.kind.rows(model), case.kind.rows(case.plain))


# ---- whose code it is


def test_wrappers_of_libraries_are_no_extensions(case: Case) -> None:
    from accelerate.utils.operations import convert_outputs_to_fp32

    model = case.kind.model(case.parts())
    assert is_untouched(model) and is_untouched(nn.DataParallel(model))
    own = type(model).forward
    model.forward = functools.partial(convert_outputs_to_fp32(torch.autocast("cpu")(own)), model)
    assert is_untouched(model)
    model.forward = functools.partial(convert_outputs_to_fp32(lambda self, features: own(self, features)), model)
    assert not is_untouched(model)


CUSTOM = """
from sentence_transformers.models import Transformer

class Own(Transformer):
    def preprocess(self, inputs, *args, **kwargs):
        return super().preprocess([text + " and more" for text in inputs], *args, **kwargs)

    def forward(self, features, **kwargs):
        features = super().forward(features, **kwargs)
        assert features["token_embeddings"].shape[:2] == features["attention_mask"].shape
        return features | {"token_embeddings": features["token_embeddings"] * 2}
"""


def test_modules_that_come_with_a_model(case: Case, tmp_path: Path) -> None:
    """Code of a repository sees padded batches, as any other that is not this library's."""
    if case.kind is not KINDS["dense"]:
        pytest.skip("one kind tells it")
    plain = case.kind.model(case.parts()[:2])
    plain.save_pretrained(str(tmp_path))
    (tmp_path / "own_module.py").write_text(CUSTOM, encoding="utf-8")
    entries = (tmp_path / "modules.json").read_text(encoding="utf-8")
    name = "sentence_transformers.base.modules.transformer.Transformer"
    assert name in entries
    (tmp_path / "modules.json").write_text(entries.replace(name, "own_module.Own"), encoding="utf-8")
    model = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    model.eval()
    assert "preprocess of Own is not this library's" in extensions(model)
    texts = [f"{text} and more" for text in TEXTS]
    same(list(model.encode(TEXTS)), list(2 * plain.encode(texts)))
    columns = [model.preprocess(TEXTS[:2]), model.preprocess(TEXTS[2:])]
    for column, part in zip(losses.CoSENTLoss(model).embed(columns), (texts[:2], texts[2:]), strict=True):
        same(list(column.detach().numpy()), list(2 * plain.encode(part)))


# ---- losses


def padded_only(features: Any) -> None:
    assert features["input_ids"].shape == features["attention_mask"].shape


class Embedding(losses.MultipleNegativesRankingLoss):
    def embed(self, sentence_features: Any) -> Any:
        for features in sentence_features:
            padded_only(features)
        return [2 * column for column in super().embed(sentence_features)]


class Step(losses.CachedMultipleNegativesRankingLoss):
    def embed_minibatch(self, sentence_feature: Any, *args: Any, **kwargs: Any) -> Any:
        padded_only(sentence_feature)
        found = super().embed_minibatch(sentence_feature, *args, **kwargs)
        return 2 * found[0], *found[1:]


class Whole(losses.CachedMultipleNegativesRankingLoss):
    def forward_cached(self, sentence_features: Any, labels: Any = None) -> Any:
        padded_only(sentence_features[0])
        return 2 * super().forward_cached(sentence_features, labels)


def hooked_loss(model: Any, **settings: Any) -> Any:
    loss = losses.MultipleNegativesRankingLoss(model, **settings)
    loss.register_forward_pre_hook(lambda module, args: padded_only(args[0][0]))
    loss.register_forward_hook(lambda module, args, output: 2 * output)
    return loss


def patched_loss(model: Any, **settings: Any) -> Any:
    loss = losses.MultipleNegativesRankingLoss(model, **settings)
    original = loss.embed
    loss.embed = functools.wraps(original)(lambda features: [2 * column for column in original(features)])
    return loss


@pytest.mark.parametrize(
    ("make", "inside"), [(Embedding, True), (Step, True), (patched_loss, True), (Whole, False), (hooked_loss, False)]
)
def test_steps_of_losses(case: Case, tmp_path: Path, make: Any, inside: bool) -> None:
    """Doubled vectors have four times the product; a doubled loss is twice the loss."""
    if case.kind is not KINDS["dense"]:
        pytest.skip("one kind tells it")
    from datasets import Dataset

    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers.util import dot_score
    from tests.training.runs import trainer_of

    model = case.kind.model(case.parts()[:2])
    model.transformers_model  # noqa: B018
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    data = Dataset.from_dict({"a": TEXTS, "b": TEXTS[::-1]})
    settings = {"per_device_train_batch_size": len(TEXTS), "use_cpu": True}
    loss = make(model, similarity_fct=dot_score, scale=0.1)
    made = trainer_of(SentenceTransformerTrainer, model, tmp_path, data, loss, settings)
    model.train()
    (batch,) = made.get_train_dataloader()
    found = float(made.compute_loss(model, batch).detach())
    vectors = [torch.from_numpy(model.encode(texts)) for texts in (TEXTS, TEXTS[::-1])]
    scores = 0.1 * vectors[0] @ vectors[1].T * (4 if inside else 1)
    columns = {key.partition("_")[0]: value for key, value in batch.items() if key.endswith("_input_ids")}
    order = [TEXTS.index(text) for text in text_order(model, columns["a"])]
    expected = nn.functional.cross_entropy(scores[order][:, order], torch.arange(len(order))) * (1 if inside else 2)
    assert found == pytest.approx(float(expected), rel=1e-4)


def text_order(model: Any, ids: torch.Tensor) -> list[str]:
    """The texts of a batch, in its order."""
    known = {tuple(model.preprocess([text])["input_ids"][0].tolist()): text for text in TEXTS}
    return [known[tuple(token for token in row if token != model.tokenizer.pad_token_id)] for row in ids.tolist()]


def doubled_by_child(model: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(model._modules, str(len(model)), Doubling())


def swapped_by_class_of_layers(model: Any, monkeypatch: Any) -> None:
    forward = nn.Embedding.forward
    table = words(model)
    changed = lambda self, ids: forward(self, swap_ids(ids) if self is table else ids)  # noqa: E731
    monkeypatch.setattr(nn.Embedding, "forward", changed)


def doubled_by_class(model: Any, monkeypatch: Any) -> None:
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda *args, **kwargs: twice(forward(*args, **kwargs)))


def swapped_by_forward_of_layer(model: Any, monkeypatch: Any) -> None:
    table = words(model)
    monkeypatch.setitem(vars(table), "forward", lambda ids: nn.Embedding.forward(table, swap_ids(ids)))


def swapped_by_own_class(model: Any, monkeypatch: Any) -> None:
    class Other(nn.Embedding):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(swap_ids(ids))

    monkeypatch.setattr(words(model), "__class__", Other)


@pytest.mark.parametrize(
    ("change", "does"),
    [
        (doubled_by_child, "twice"),
        (doubled_by_class, "twice"),
        (
            lambda model, patch: patch.setattr(model, "forward", functools.partial(call_twice, type(model), model)),
            "twice",
        ),
        (lambda model, patch: patch.setitem(model._forward_hooks, -1, twice_after), "twice"),
        (lambda model, patch: patch.setattr(model, "_forward_hooks", {-1: twice_after}), "twice"),
        (lambda model, patch: patch.setitem(words(model)._forward_pre_hooks, -1, swap_before), "swap"),
        (swapped_by_class_of_layers, "swap"),
        (swapped_by_forward_of_layer, "swap"),
        (swapped_by_own_class, "swap"),
    ],
    ids=["child", "class", "method", "hook", "hooks", "layer's hook", "layer's class", "layer's method", "other class"],
)
def test_changes_of_a_model_in_use_come_and_go(case: Case, monkeypatch: Any, change: Any, does: str) -> None:
    model = case.kind.model(case.parts())
    plain, point = case.kind.rows(model), Point(change, does)
    expected = expected_rows(case, point)
    for _ in range(2):
        same(case.kind.rows(model), plain)
        with monkeypatch.context() as patch:
            change(model, patch)
            same(case.kind.rows(model), expected)
    same(case.kind.rows(model), plain)


# ---- what sees every layer, or every operation, from outside of the model


SCALE = 1.5
LAYERS: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {  # function, operations
    nn.Linear: ("linear", ("addmm", "mm")),
    nn.LayerNorm: ("layer_norm", ("native_layer_norm",)),
}


def scaled(output: Any) -> Any:
    return (output[0] * SCALE, *output[1:]) if isinstance(output, tuple) else output * SCALE


def by_class(layer: type, patch: Any) -> Any:
    forward = layer.forward  # type: ignore[attr-defined]
    patch.setattr(layer, "forward", lambda self, input: scaled(forward(self, input)))
    return contextlib.nullcontext()


def by_call(name: str, layer: type, patch: Any) -> Any:
    call = getattr(nn.Module, name)

    def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = call(self, *args, **kwargs)
        return scaled(output) if type(self) is layer else output

    patch.setattr(nn.Module, name, changed)
    return contextlib.nullcontext()


def by_function(layer: type, patch: Any) -> Any:
    function = getattr(nn.functional, LAYERS[layer][0])
    patch.setattr(nn.functional, LAYERS[layer][0], lambda *args, **kwargs: scaled(function(*args, **kwargs)))
    return contextlib.nullcontext()


def by_function_mode(layer: type, patch: Any) -> Any:
    function = getattr(nn.functional, LAYERS[layer][0])

    class Mode(TorchFunctionMode):
        def __torch_function__(self, called: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = called(*args, **kwargs or {})
            return scaled(output) if called is function else output

    return Mode()


def by_dispatch_mode(layer: type, patch: Any) -> Any:
    operations = [getattr(torch.ops.aten, name).default for name in LAYERS[layer][1]]

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, called: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = called(*args, **kwargs or {})
            return scaled(output) if called in operations else output

    return Mode()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    "way",
    [
        *(by_class, by_function, by_function_mode, by_dispatch_mode),
        *(functools.partial(by_call, name) for name in ("__call__", "_call_impl")),
    ],
    ids=["class", "function", "function mode", "dispatch mode", "call", "call within"],
)
def test_layers_changed_from_outside(case: Case, monkeypatch: Any, way: Any, layer: Any) -> None:
    """As a model whose weights give what is changed."""
    model, other = (case.kind.model(case.parts()) for _ in range(2))
    tied = other.transformers_model.get_output_embeddings() if case.kind is KINDS["sparse"] else None
    if tied is not None and layer is nn.Linear:
        tied.weight = nn.Parameter(tied.weight.detach().clone())
    for part in other.modules():
        for weight in part.parameters(recurse=False) if type(part) is layer else ():
            weight.data.mul_(SCALE)
    plain, expected = case.kind.rows(model), case.kind.rows(other)
    for _ in range(2):
        with monkeypatch.context() as patch, way(layer, patch):
            same(case.kind.rows(model), expected)
        same(case.kind.rows(model), plain)


def test_operations_are_counted(case: Case) -> None:
    """The products of all linear layers, and those of attention where the kernel has any to count."""
    model, other = (case.kind.model(case.parts()) for _ in range(2))
    products = [0]

    def count(layer: Any, args: Any, output: torch.Tensor) -> None:
        products[0] += 2 * output.numel() * layer.in_features

    for part in other.modules():
        if type(part) is nn.Linear:
            part.register_forward_hook(count)
    case.kind.rows(model)
    case.kind.rows(other)
    with FlopCounterMode(display=False) as counter:
        case.kind.rows(model)
    assert products[0] <= counter.get_total_flops() < 2 * products[0]


def test_a_part_in_training_mode_is_put_back(case: Case) -> None:
    model = case.kind.model(case.parts())
    dropout = next(part for part in model.transformers_model.modules() if type(part) is nn.Dropout)
    dropout.p, plain = 0.5, case.kind.rows(model)
    for part in (model, model[-1], dropout):
        part.train()
        same(case.kind.rows(model), plain)
        assert not any(part.training for part in model.modules())


def test_a_model_in_use_is_freed_with_its_last_reference(case: Case) -> None:
    model = case.kind.model(case.parts())
    case.kind.rows(model)
    parts = [weakref.ref(part) for part in (model, *model)]
    gc.collect()
    gc.disable()
    try:
        del model
        assert not [part() for part in parts if part() is not None]
    finally:
        gc.enable()
