"""Saving loses nothing: files of the user's stay, and killed at any moment, the old model or the new one loads."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from sentence_transformers import SentenceTransformer, models
from tests.models import build

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


def test_killed_at_any_write_the_old_or_the_new_model_loads(old_and_new, tmp_path, monkeypatch):
    old, new = old_and_new
    expected = [old.encode(TEXTS), new.encode(TEXTS)]
    outcomes = []
    for step in range(60):
        folder = tmp_path / str(step)
        old.save_pretrained(str(folder))
        counts = {"done": 0}

        def counted(self, *args, name, own, step=step, counts=counts, **kwargs):
            if counts["done"] == step:
                raise Killed
            counts["done"] += 1
            return own(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            for name in ("replace", "rename", "unlink"):
                own = getattr(Path, name)
                patch.setattr(
                    Path, name, lambda self, *a, name=name, own=own, **k: counted(self, *a, name=name, own=own, **k)
                )
            try:
                new.save_pretrained(str(folder))
                finished = True
            except Killed:
                finished = False
        found = vectors(folder)
        matches = [bool(np.allclose(found, one, atol=1e-6)) for one in expected]
        assert sum(matches) == 1, step
        outcomes.append(matches.index(True))
        if finished:
            break
    assert finished and outcomes == sorted(outcomes) and outcomes[0] == 0 and outcomes[-1] == 1


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
