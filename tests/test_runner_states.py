"""How a model computes after anything that may happen to it: states × events, and the vectors stay what they were.

No event changes a weight by value, so the vectors are those of the loaded model after any two of them, whichever way
computes; `explain_runner` says which way that is, and why not another.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sentence_transformers import SentenceTransformer, models
from tests.models import TEXTS, build, peft_for_adapters

FAST = "by BertCpuRunner, without transformers, packed batches"
Event = Callable[[SentenceTransformer, Path], SentenceTransformer]


def note(*args: Any) -> None:
    """A hook that changes nothing."""


def read(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    assert model[0].auto_model.config.model_type == "bert"
    return model


def train_and_evaluate(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    return model.train().eval()


def leave_in_training(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    return model.train()


def write_weights(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    for weight in model.parameters():
        weight.data.mul_(1)
    return model


def load_state(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
    return model


def move(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    return model.to("cpu")


def double(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    return model.double()


def hook(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    list(model.modules())[-1].register_forward_hook(note)
    return model


def add_adapter(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    peft = peft_for_adapters()
    name = f"new_{len(getattr(model[0].auto_model, 'peft_config', {}))}"
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["query"]), adapter_name=name)  # its product begins at 0
    return model


def compile_network(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    model[0].auto_model = torch.compile(model[0].auto_model, backend="eager")
    return model


def copied(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    return copy.deepcopy(model)


def pickled(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    return pickle.loads(pickle.dumps(model))


def saved(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    model.save_pretrained(str(folder))
    return SentenceTransformer(str(folder), device="cpu")


LEAVES: dict[Event, str] = {  # event -> what `explain_runner` says from then on
    read: FAST,
    train_and_evaluate: FAST,
    leave_in_training: FAST,
    write_weights: FAST,
    load_state: FAST,
    move: FAST,
    double: "weights are torch.float64",
    hook: "has hooks",
    add_adapter: "a layer was changed",
    compile_network: "auto_model was replaced",
    copied: FAST,
    pickled: FAST,
    saved: FAST,
}
BY_WEIGHT = ("has hooks", "the folder holds an adapter", "auto_model was replaced", "weights are torch.float64")
"""Of several reasons the first of these is said."""


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformer = models.Transformer(str(build("bert", tmp_path_factory.mktemp("bert"))))
    folder = tmp_path_factory.mktemp("model")
    modules = [transformer, models.Pooling(transformer.get_embedding_dimension()), models.Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder))
    return folder


def said(events: tuple[Event, ...]) -> str:
    """What `explain_runner` is to say after events."""
    reasons = {LEAVES[event] for event in events} - {FAST}
    if events[-1] is saved and "has hooks" in reasons:
        reasons -= {"has hooks"}
    if events == (compile_network, saved):
        reasons -= {"auto_model was replaced"}
    if events == (add_adapter, saved):
        reasons = {"the folder holds an adapter"}
    return next((reason for reason in BY_WEIGHT if reason in reasons), next(iter(reasons), FAST))


@pytest.mark.parametrize(
    "events",
    [events for n in (1, 2) for events in itertools.product(LEAVES, repeat=n) if events != (compile_network,) * 2],
    ids=lambda events: " then ".join(event.__name__ for event in events),
)
def test_vectors_and_runner_after(events, bert, tmp_path):
    model = SentenceTransformer(str(bert), device="cpu")
    expected = model.encode(TEXTS)
    for number, event in enumerate(events):
        model = event(model, tmp_path / str(number))
        found = model.encode(TEXTS)
        assert found.shape == expected.shape and abs(found - expected).max() < 2e-6
    assert said(events) in model.explain_runner()
