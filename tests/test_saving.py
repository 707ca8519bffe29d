"""Saving loses nothing: files of the user's stay, and killed at any moment, the old model or the new one loads."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from sentence_transformers import SentenceTransformer, models
from sentence_transformers.backends.graph import Graph
from sentence_transformers.backends.graph_quantize import derive
from sentence_transformers.storage import saving
from sentence_transformers.storage.files import Source
from sentence_transformers.storage.resolve import resolve
from sentence_transformers.util.atomic import replacing
from tests.models import build, peft_for_adapters

TEXTS = ["a cat sat on the mat", "hi"]


@pytest.fixture(scope="module")
def old_and_new(tmp_path_factory):
    """Two models whose folders have files of the same names."""
    folder = tmp_path_factory.mktemp("models")
    made = []
    for name, mode in (("old", "mean"), ("new", "cls")):
        build("bert", folder / name)
        transformer = models.Transformer(str(folder / name))
        model = SentenceTransformer(modules=[transformer, models.Pooling(32, mode)], device="cpu")
        if name == "new":
            for parameter in model.parameters():
                parameter.data.mul_(0.8)
        made.append(model)
    return made


def vectors(folder):
    return SentenceTransformer(str(folder), device="cpu").encode(TEXTS)


def test_other_files_links_and_permissions_stay(old_and_new, tmp_path, monkeypatch):
    old, new = old_and_new
    old.save_pretrained(str(tmp_path / "data"))
    own = {"notes.txt": "mine", "checkpoint-5/state": "x", "1_Pooling/notes": "y", "README.md": "# Mine\n"}
    for name, text in own.items():
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_text(text)
    (tmp_path / "data" / "model.safetensors").chmod(0o640)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    new.save_pretrained(str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert {name: (tmp_path / "data" / name).read_text() for name in own} == own
    assert stat.S_IMODE((tmp_path / "data" / "model.safetensors").stat().st_mode) == 0o640
    np.testing.assert_array_equal(vectors(tmp_path / "data"), new.encode(TEXTS))
    monkeypatch.chdir(tmp_path / "data")
    old.save_pretrained(".")
    assert {path.name for path in Path().iterdir()} >= {"notes.txt", "modules.json", "checkpoint-5"}
    np.testing.assert_array_equal(vectors("."), old.encode(TEXTS))
    assert not list(tmp_path.rglob(".*"))


def test_weights_of_another_format_are_not_left_beside(old_and_new, tmp_path):
    old, new = old_and_new
    old.save_pretrained(str(tmp_path))
    new.save_pretrained(str(tmp_path), safe_serialization=False)
    assert not (tmp_path / "model.safetensors").exists()
    np.testing.assert_allclose(vectors(tmp_path), new.encode(TEXTS), atol=1e-6)


class Killed(BaseException):
    """In the place of a signal."""


def states_after_kills(monkeypatch, prepare, action, state):
    """`state(folder)` after `action(folder)` was killed at its first write, its second, …; the last one is finished."""
    for step in range(60):
        folder = prepare(step)
        done = [0]

        def counted(self, *args, own, step=step, done=done, **kwargs):
            if done[0] == step:
                raise Killed
            done[0] += 1
            return own(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            for name in ("replace", "rename", "unlink"):
                own = getattr(Path, name)
                patch.setattr(Path, name, lambda self, *a, own=own, **k: counted(self, *a, own=own, **k))
            try:
                action(folder)
                finished = True
            except Killed:
                finished = False
        yield state(folder)
        if finished:
            return
    raise AssertionError("never finished")


def test_killed_at_any_write_the_old_or_the_new_model_loads(old_and_new, tmp_path, monkeypatch):
    old, new = old_and_new
    expected = [old.encode(TEXTS), new.encode(TEXTS)]

    def prepare(step):
        old.save_pretrained(str(tmp_path / str(step)))
        return tmp_path / str(step)

    outcomes = []
    for found in states_after_kills(monkeypatch, prepare, lambda folder: new.save_pretrained(str(folder)), vectors):
        matches = [bool(np.allclose(found, one, atol=1e-6)) for one in expected]
        assert sum(matches) == 1
        outcomes.append(matches.index(True))
    assert outcomes == sorted(outcomes) and outcomes[0] == 0 and outcomes[-1] == 1


class TwoFiles(Graph):
    """A graph whose weights lie in a second file."""

    folder = "onnx"
    on_cpu: ClassVar[dict[str, str]] = {}

    def __init__(self, path, config=None, task="", options=None):
        torch.nn.Module.__init__(self)
        self.path, self.config, self.task = Path(path), config, task

    @staticmethod
    def companions(name):
        return [f"{name}_data"]


def test_an_export_killed_at_any_write_leaves_files_that_belong_together(tmp_path, monkeypatch):
    def export(folder, state="new"):
        def write(path):
            for file in (path, path.with_name("model.onnx_data")):
                file.write_text(state)

        derive(TwoFiles("model.onnx"), write, "model.onnx", str(folder), False, False)

    def prepare(step):
        export(tmp_path / str(step), "old")
        (tmp_path / str(step) / "onnx" / "notes").write_text("mine")
        return tmp_path / str(step)

    def state(folder):
        resolve(Source(str(folder)))
        assert (folder / "onnx" / "notes").read_text() == "mine"
        return tuple((folder / "onnx" / name).read_text() for name in ("model.onnx", "model.onnx_data"))

    outcomes = list(states_after_kills(monkeypatch, prepare, export, state))
    assert set(outcomes) == {("old", "old"), ("new", "new")} and outcomes[-1] == ("new", "new")


def test_two_processes_may_finish_a_save_at_once(old_and_new, tmp_path, monkeypatch):
    """Another one finishes it while this one is about to move a file, at each of the files."""
    old, new = old_and_new
    for step in range(4):
        old.save_pretrained(str(tmp_path / str(step)))
        own, moved = Path.replace, [0]

        def replace(self, target, own=own, moved=moved, step=step):
            moved[0] += 1
            if moved[0] == step + 1:
                saving.finish_save(tmp_path / str(step))
            return own(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            new.save_pretrained(str(tmp_path / str(step)))
        assert not (tmp_path / str(step) / saving.PENDING).exists()
        np.testing.assert_array_equal(vectors(tmp_path / str(step)), new.encode(TEXTS))


def test_several_saves_into_one_folder_at_once(old_and_new, tmp_path):
    """As the processes of a training run do. One of the models is there in the end."""
    expected = [model.encode(TEXTS) for model in old_and_new]
    with ThreadPoolExecutor(4) as pool:
        for saved in [pool.submit(old_and_new[i % 2].save_pretrained, str(tmp_path / "out")) for i in range(12)]:
            saved.result()
    found = vectors(tmp_path / "out")
    assert sum(np.allclose(found, one, atol=1e-6) for one in expected) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not list((tmp_path / "out").glob(".*"))


def test_new_files_have_the_permissions_of_new_files(old_and_new, tmp_path):
    before = os.umask(0o027)
    try:
        old_and_new[0].save_pretrained(str(tmp_path / "out"))
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == ({0o640} if os.name != "nt" else modes)


def test_a_file_in_the_place_of_the_folder_is_an_error(old_and_new, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        old_and_new[0].save_pretrained(str(tmp_path / "out"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "mine")]


def test_a_folder_is_found_under_the_name_it_was_saved_by(old_and_new, tmp_path, monkeypatch):
    """Saving takes "~" for the name of a folder, as 6.2.0 does; only where there is none it is the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    old, new = old_and_new
    new.save_pretrained(str(tmp_path / "home" / "mine"))
    np.testing.assert_array_equal(vectors("~/mine"), new.encode(TEXTS))
    old.save_pretrained("~/mine")
    np.testing.assert_array_equal(vectors("~/mine"), old.encode(TEXTS))


OTHER_WEIGHTS = {"pytorch_model.bin", "model.safetensors.index.json", "model-00001-of-00002.safetensors"}
ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize(
    ("new", "own", "removed"),
    [
        ({"config.json", "model.safetensors"}, False, OTHER_WEIGHTS | ADAPTER | {"added_tokens.json"}),
        ({"config.json", "model.safetensors"}, True, OTHER_WEIGHTS | ADAPTER | {"added_tokens.json"}),
        ({"adapter_config.json", "adapter_model.bin"}, False, {"adapter_model.safetensors", "added_tokens.json"}),
        ({"adapter_config.json", "adapter_model.bin"}, True, {"adapter_model.safetensors", "added_tokens.json"}),
        ({"config.json", "onnx/model.onnx"}, True, {"added_tokens.json"}),
        (
            {"config.json", "onnx/model.onnx"},
            False,
            OTHER_WEIGHTS | ADAPTER | {"model.safetensors", "added_tokens.json"},
        ),
        ({"onnx/model_O3.onnx"}, False, set()),
    ],
    ids=["weights", "own weights", "adapter", "own adapter", "own graph", "graph", "derived"],
)
def test_what_a_save_removes(tmp_path, new, own, removed):
    """What would be read in the place of the new files, but never weights that they need."""
    there = OTHER_WEIGHTS | ADAPTER | {"model.safetensors", "added_tokens.json", "notes.txt", "config.json"}
    for name in (*there, "modules.json"):
        (tmp_path / name).write_text("[]")
    with saving.atomic_folder(tmp_path, tmp_path if own else None) as fresh:
        for name in (*new, "modules.json") if new != {"onnx/model_O3.onnx"} else new:
            (fresh / name).parent.mkdir(exist_ok=True)
            (fresh / name).write_text("new")
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert there - left == removed - new and new <= left


def test_an_adapter_saved_where_its_base_lies(old_and_new, tmp_path):
    """The weights that the adapter belongs to stay; once it is merged they are replaced, and it is gone."""
    peft = peft_for_adapters()
    old_and_new[0].save_pretrained(str(tmp_path))
    model = SentenceTransformer(str(tmp_path), device="cpu")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))
    expected = model.encode(TEXTS)
    assert abs(expected - old_and_new[0].encode(TEXTS)).max() > 1e-3
    model.save_pretrained(str(tmp_path))
    np.testing.assert_allclose(vectors(tmp_path), expected, atol=1e-5)
    old_and_new[1].save_pretrained(str(tmp_path))
    np.testing.assert_array_equal(vectors(tmp_path), old_and_new[1].encode(TEXTS))


def test_a_mounted_folder(old_and_new, tmp_path, monkeypatch):
    """Files cannot be moved into it from the folder around it, nor into a folder inside it that is mounted too, and
    permissions cannot be changed.
    """
    old, new = old_and_new
    old.save_pretrained(str(tmp_path / "out"))
    volumes = [tmp_path / "out" / "1_Pooling", tmp_path / "out", tmp_path]

    def moved(self, target, own):
        places = [next(volume for volume in volumes if volume in path.parents) for path in (self, Path(target))]
        if places[0] != places[1]:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return own(self, target)

    def denied(*args):
        raise PermissionError

    monkeypatch.setattr(shutil, "copymode", denied)
    for name in ("rename", "replace"):
        own = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda self, target, own=own: moved(self, target, own))
    new.save_pretrained(str(tmp_path / "out"))
    monkeypatch.undo()
    assert not list(tmp_path.rglob(".*"))
    np.testing.assert_array_equal(vectors(tmp_path / "out"), new.encode(TEXTS))


@pytest.mark.parametrize(
    ("there", "safe"), [("adapter_config.json", True), ("model.safetensors", False)], ids=["adapter", "weights"]
)
def test_weights_of_others_that_would_be_read_with_the_model_are_an_error(old_and_new, tmp_path, there, safe):
    (tmp_path / there).write_text("{}")
    with pytest.raises(FileExistsError, match=there):
        old_and_new[0].save_pretrained(str(tmp_path), safe_serialization=safe)
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    file, link = tmp_path / "file.csv", tmp_path / "link.csv"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    with pytest.raises(ZeroDivisionError), replacing(link) as fresh:
        fresh.write_text("half")
        raise ZeroDivisionError
    assert file.read_text() == "old"
    with replacing(link) as fresh:
        fresh.write_text("new")
        assert file.read_text() == "old"
    assert link.is_symlink() and file.read_text() == "new" and stat.S_IMODE(file.stat().st_mode) == 0o640
    assert {path.name for path in tmp_path.iterdir()} == {"file.csv", "link.csv"}


def test_a_folder_in_the_place_of_a_file_is_an_error_before_anything_changes(old_and_new, tmp_path):
    old, new = old_and_new
    old.save_pretrained(str(tmp_path))
    (tmp_path / "README.md").unlink()
    (tmp_path / "config.json").rename(tmp_path / "kept.json")
    (tmp_path / "config.json").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(IsADirectoryError, match=r"config\.json"):
        new.save_pretrained(str(tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_card_that_came_with_a_model_is_kept(old_and_new, tmp_path):
    old, _ = old_and_new
    old.save_pretrained(str(tmp_path / "mine"))
    text = "---\nlicense: mit\n---\n# Acme model\nDo not use for X.\n"
    (tmp_path / "mine" / "README.md").write_text(text)
    model = SentenceTransformer(str(tmp_path / "mine"), device="cpu")
    for name in ("copy", "mine"):
        model.save_pretrained(str(tmp_path / name))
        assert (tmp_path / name / "README.md").read_text() == text


def test_a_path_of_none_writes_nothing_and_no_modules_are_an_error(old_and_new, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert old_and_new[0].save(None) is None and not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="at least one module"):
        SentenceTransformer(modules=[])


# ---- what an interrupted save leaves


@pytest.fixture
def interrupted(old_and_new, tmp_path, monkeypatch):
    """A folder of the old model, where saving the new one was killed when all was written but its first file moved."""
    old, new = old_and_new
    old.save_pretrained(str(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(saving, "finish_save", raise_killed)
        new.save_pretrained(str(tmp_path))
    assert (tmp_path / saving.PENDING).is_dir()
    return tmp_path


def raise_killed(target):
    if (target / saving.PENDING).exists():
        raise Killed


@pytest.mark.parametrize("load", [models.Transformer, models.Transformer.load])
def test_a_transformer_alone_finishes_a_save(load, interrupted, old_and_new):
    found, expected = (model.auto_model.state_dict() for model in (load(str(interrupted)), old_and_new[1][0]))
    assert not (interrupted / saving.PENDING).exists()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight)


def test_another_module_alone_finishes_a_save(interrupted):
    assert models.Pooling.load(str(interrupted / "1_Pooling")).pooling_mode == "cls"


def test_a_module_saved_alone_is_not_replaced_by_an_older_save(interrupted):
    models.Pooling(32, "max").save(str(interrupted / "1_Pooling"))
    assert SentenceTransformer(str(interrupted), device="cpu")[1].pooling_mode == "max"


@pytest.mark.parametrize("new_folder", [True, False])
def test_folders_of_killed_processes_are_removed(new_folder, old_and_new, tmp_path):
    """Not those of others, of processes that live, nor of one that has just begun."""
    pytest.importorskip("fcntl")
    model, place = old_and_new[0], tmp_path / "models"
    (place / ".model-backup1").mkdir(parents=True)
    if not new_folder:
        (place / "model").mkdir()
    program = (
        "import os, pathlib, signal, sys\n"
        "from sentence_transformers.storage.saving import working_folder\n"
        "with working_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'part').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(place)]).returncode == -signal.SIGKILL
    (dead,) = place.glob(f"{saving.PENDING}-*")
    model.save_pretrained(str(place / "model"))
    assert dead.exists()  # it could be a folder that is not locked yet
    with saving.working_folder(place) as alive:
        for folder in (dead, alive, place / ".model-backup1"):
            os.utime(folder, (0, 0))
        model.save_pretrained(str(place / "model"))
        assert {path.name for path in place.iterdir()} == {"model", ".model-backup1", alive.name}
    assert {path.name for path in place.iterdir()} == {"model", ".model-backup1"}
    assert not list((place / "model").glob(".*"))
