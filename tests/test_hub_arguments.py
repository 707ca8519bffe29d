"""Arguments about the hub arrive where files are fetched, from every door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sentence_transformers.base import BaseModel
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

from sentence_transformers import (
    CrossEncoder,
    MultiVectorEncoder,
    SentenceTransformer,
    SparseEncoder,
    models,
    util,
)
from sentence_transformers.errors import ModelNotFoundError, UntrustedCodeError
from tests.golden.layouts import GOLDEN

GIVEN: dict[str, Any] = {"token": "secret", "cache_folder": "there", "revision": "v1", "local_files_only": True}
FETCHED = {"token": "secret", "cache_dir": "there", "revision": "v1", "local_files_only": True}
ENCODERS = [SentenceTransformer, CrossEncoder, SparseEncoder, MultiVectorEncoder, BaseModel]


class Reached(Exception):
    """Raised in the place of a download, with its arguments."""


@pytest.fixture
def hub(monkeypatch) -> list[Reached]:
    """Each download raises `Reached`, and is kept."""
    calls: list[Reached] = []

    def reached(repository, filename=None, **kwargs):
        calls.append(Reached(repository, filename, kwargs))
        raise calls[-1]

    monkeypatch.setattr("huggingface_hub.hf_hub_download", reached)
    monkeypatch.setattr("huggingface_hub.snapshot_download", reached)
    return calls


def check(error: Reached, subfolder: str = "") -> None:
    repository, filename, kwargs = error.args
    assert repository == "user/model"
    assert {key: kwargs[key] for key in FETCHED} == FETCHED
    assert str(filename or kwargs.get("allow_patterns")).startswith(subfolder)


@pytest.mark.parametrize(
    "load",
    [
        models.Dense.load,
        models.Module.load,
        models.Normalize.load,
        models.Router.load,
        models.StaticEmbedding.load,
        models.Transformer.load,
        models.WordEmbeddings.load,
        SparseStaticEmbedding.load,
        models.Module.load_config,
        models.Transformer.load_config,
        models.Module.load_dir_path,
        util.load_dir_path,
    ],
    ids=lambda function: function.__qualname__,
)
def test_parts_of_models(load, hub):
    if load is models.Normalize.load:  # has no files
        assert isinstance(load("user/model", subfolder="part", **GIVEN), models.Normalize)
        return
    with pytest.raises(Reached) as caught:
        load("user/model", subfolder="part", **GIVEN)
    check(caught.value, "part/")


@pytest.mark.parametrize("load", [models.Module.load_file_path, util.load_file_path])
def test_files(load, hub):
    with pytest.raises(Reached) as caught:
        load("user/model", filename="a.txt", subfolder="part", **GIVEN)
    check(caught.value, "part/a.txt")


def test_weights(hub):
    with pytest.raises(Reached) as caught:
        models.Module.load_torch_weights("user/model", subfolder="part", model=models.Dropout(), **GIVEN)
    check(caught.value, "part/")


def test_weights_of_words(hub):
    with pytest.raises(Reached) as caught:
        SparseStaticEmbedding.from_json("user/model/idf.json", tokenizer=None, **GIVEN)
    check(caught.value)


def test_whether_it_is_a_model(hub):
    with pytest.raises(Reached) as caught:
        util.is_sentence_transformer_model("user/model", **GIVEN)
    check(caught.value, "modules.json")


def test_code_of_models(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.get_class_from_dynamic_module",
        lambda name, model, **kwargs: seen.update(kwargs) or models.Dropout,
    )
    found = util.import_module_class("code.Mine", "user/model", trust_remote_code=True, code_revision="main", **GIVEN)
    assert found is models.Dropout
    assert seen == FETCHED | {"code_revision": "main"}


# ---- encoders


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_cache_is_asked_first(encoder, hub):
    with pytest.raises(ModelNotFoundError):
        encoder("user/model", cache_folder="there", revision="v1", token="secret", local_files_only=True)
    _, _, kwargs = hub[0].args
    assert (kwargs["cache_dir"], kwargs["revision"], kwargs["local_files_only"]) == ("there", "v1", True)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_then_the_hub_unless_it_is_forbidden(encoder, monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    calls = []

    def snapshot(repository, local_files_only=False, **kwargs):
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        calls.append(kwargs)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr("sentence_transformers.storage.resolve.offline", lambda: False)
    settings = {"cache_folder": "there", "revision": "v1", "token": "secret"}
    with pytest.raises(ModelNotFoundError, match="no network"):
        encoder("user/model", **settings)
    (kwargs,) = calls
    assert (kwargs["cache_dir"], kwargs["revision"], kwargs["token"]) == ("there", "v1", "secret")
    with pytest.raises(ModelNotFoundError, match="local_files_only is set"):
        encoder("user/model", local_files_only=True, **settings)


FOLDERS = {
    SentenceTransformer: "out_st",
    CrossEncoder: "out_ce",
    SparseEncoder: "out_splade",
    MultiVectorEncoder: "out_mv",
}


@pytest.mark.parametrize("encoder", FOLDERS)
def test_code_is_run_for_those_who_trust_it(encoder, tmp_path):
    """A module of the model's own, which does nothing but say that it was there."""
    folder = Path(tmp_path, "model")
    model = encoder(str(GOLDEN / FOLDERS[encoder]), device="cpu")
    model.save_pretrained(str(folder))
    (folder / "mine.py").write_text(
        "from sentence_transformers.models import Module\n\n"
        "class Mine(Module):\n"
        "    def forward(self, features, **kwargs):\n        return features\n\n"
        "    def save(self, *args, **kwargs):\n        pass\n\n"
        "    @classmethod\n    def load(cls, *args, **kwargs):\n        return cls()\n"
    )
    entries = (folder / "modules.json").read_text().rstrip().rstrip("]").rstrip()
    own = '{"idx": 9, "name": "9", "path": "", "type": "mine.Mine"}'
    (folder / "modules.json").write_text(f"{entries},\n {own}]")
    with pytest.raises(UntrustedCodeError, match=r"mine\.Mine"):
        encoder(str(folder), device="cpu")
    loaded = encoder(str(folder), device="cpu", trust_remote_code=True)
    assert type(loaded[-1]).__name__ == "Mine"
