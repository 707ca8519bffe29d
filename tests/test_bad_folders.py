"""Folders that are damaged, malformed or hostile give a clear error before anything is computed; saving cannot harm."""

from __future__ import annotations

import functools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sentence_transformers import SentenceTransformer
from sentence_transformers.errors import InputError, ModelFormatError, SentenceTransformersError, UntrustedCodeError
from sentence_transformers.modules.dropout import Dropout
from sentence_transformers.storage.files import Source
from sentence_transformers.storage.folder import Entry, check_names
from sentence_transformers.storage.settings import construct
from tests.golden import layouts
from tests.golden.layouts import GOLDEN, TEXTS

ENTRY = {"idx": 3, "name": "3", "path": "3_More", "type": "sentence_transformers.models.Dropout"}


@pytest.fixture
def folder(tmp_path) -> Path:
    layouts.copy(tmp_path / "model", "out_st")
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch, request):
    """In tests marked by the fixture `broken`, a forward pass is a failure in itself."""
    if "broken" in request.fixturenames:
        monkeypatch.setattr(SentenceTransformer, "forward", lambda *_, **__: pytest.fail("a forward pass was run"))


@pytest.fixture
def broken(folder):
    """Load the folder; the error must be ours and of the given class, and say the given words."""

    def check(error: type[Exception], *words: str, **kwargs) -> str:
        with pytest.raises(error) as caught:
            SentenceTransformer(str(folder), device="cpu", **kwargs)
        assert isinstance(caught.value, SentenceTransformersError)
        for word in words:
            assert word in str(caught.value)
        return str(caught.value)

    return check


def add_entry(folder: Path, **changes) -> None:
    entries = layouts.read(folder / "modules.json")
    layouts.write(folder / "modules.json", [*entries, {**ENTRY, **changes}])


# ---- weights


@pytest.mark.parametrize("kind", ["out_st", "out_static", "dense_with_old_keys", "router_with_two_ways"])
@pytest.mark.parametrize("size", [0, 7, 1000, -1])
def test_a_truncated_weight_file_is_named(kind, size, folder, broken):
    shutil.rmtree(folder)
    layouts.LAYOUTS[kind](folder)
    path = min(folder.rglob("model.safetensors"), key=lambda path: path.stat().st_size)
    content = path.read_bytes()
    path.write_bytes(content[:size])
    broken(ModelFormatError, str(path.parent))


@pytest.mark.parametrize("kind", ["out_st", "out_static", "dense_with_unknown_keys", "router_with_two_ways"])
def test_a_missing_weight_file_is_named(kind, folder, broken):
    shutil.rmtree(folder)
    layouts.LAYOUTS[kind](folder)
    path = min(folder.rglob("model.safetensors"), key=lambda path: path.stat().st_size)
    path.unlink()
    broken(ModelFormatError, str(path.parent), "model.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["out_st", "out_static", "dense_with_unknown_keys", "plain_causal"])
def test_weights_that_are_no_numbers_are_named(kind, value, folder, broken):
    shutil.rmtree(folder)
    layouts.LAYOUTS[kind](folder)
    path = min(folder.rglob("model.safetensors"), key=lambda path: path.stat().st_size)
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if "pooler" not in name and "lm_head" not in name)
    tensors[name].view(-1)[3] = value
    save_file(tensors, path, {"format": "pt"})
    message = broken(ModelFormatError, "NaN")
    assert name.split(".", 1)[-1] in message


@pytest.mark.parametrize("change", ["missing", "surplus", "shape"])
def test_weights_that_do_not_fit_a_module_are_named(change, folder, broken):
    shutil.rmtree(folder)
    layouts.LAYOUTS["dense_with_unknown_keys"](folder)
    path = folder / "2_Dense" / "model.safetensors"
    tensors = load_file(path)
    if change == "missing":
        del tensors["linear.bias"]
    elif change == "surplus":
        tensors["colour"] = torch.ones(2)
    else:
        tensors["linear.weight"] = torch.ones(5, 15)
    save_file(tensors, path)
    words = {"missing": ["linear.bias"], "surplus": ["colour"], "shape": ["linear.weight", "(5, 15)", "(5, 16)"]}
    broken(ModelFormatError, "2_Dense", *words[change])


class Harm:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("where", ["root", "2_Dense", "StaticEmbedding"])
def test_code_in_a_pickle_is_refused_and_not_run(where, folder, broken, tmp_path):
    shutil.rmtree(folder)
    layouts.LAYOUTS["out_static" if where == "StaticEmbedding" else "dense_with_unknown_keys"](folder)
    part = folder / "2_Dense" if where == "2_Dense" else folder
    (part / "model.safetensors").unlink()
    harm = tmp_path / "harm"
    for write in (lambda file: torch.save({"linear.weight": Harm(harm)}, file), lambda file: plain_pickle(harm, file)):
        write(part / "pytorch_model.bin")
        broken(ModelFormatError, "pytorch_model.bin", "weights_only")
        assert not harm.exists()


def plain_pickle(harm: Path, file: Path) -> None:
    file.write_bytes(pickle.dumps(Harm(harm), protocol=2))


# ---- modules.json and the other settings


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["modules.json", "not valid JSON", "line 1"]),
        ("", ["modules.json", "not valid JSON"]),
        (b"\xff\xfe\x00", ["modules.json", "not valid JSON"]),
        ("{}", ["modules.json", "list of modules"]),
        ("[]", ["modules.json", "list of modules"]),
        ('["Transformer"]', ["modules.json", "list of modules"]),
        ("null", ["modules.json", "list of modules"]),
        ('[{"idx": 0, "name": "0", "path": ""}]', ["Module 0", "'type'"]),
        ('[{"idx": 0, "name": "0", "type": "sentence_transformers.models.Pooling"}]', ["Module 0", "'path'"]),
        ('[{"name": "0", "path": "", "type": 5}]', ["module type 5", "dotted"]),
        ('[{"name": "0", "path": "", "type": "Pooling"}]', ["module type 'Pooling'", "dotted"]),
        ('[{"name": "0", "path": 5, "type": "sentence_transformers.models.Pooling"}]', ["path of module 0", "5"]),
    ],
)
def test_a_malformed_modules_file(content, words, folder, broken):
    (folder / "modules.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    broken(ModelFormatError, *words)


@pytest.mark.parametrize(
    "name",
    [
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
        "2_Normalize/config.json",
    ],
)
@pytest.mark.parametrize("content", ["{", "[1]", "5"])
def test_a_malformed_settings_file_is_named(name, content, folder, broken):
    (folder / name).write_text(content, encoding="utf-8")
    broken(ModelFormatError, name)


@pytest.mark.parametrize(
    "dotted",
    [
        "sentence_transformers.models.Telepathy",
        "sentence_transformers.nowhere.Pooling",
        "sentence_transformers.Pooling.Pooling.Pooling",
        "sentence_transformers.util.cos_sim",
        "sentence_transformers.errors.InputError",
        "sentence_transformers.models.tokenizer",
    ],
)
def test_a_type_of_this_library_that_is_no_module_class(dotted, folder, broken):
    add_entry(folder, type=dotted)
    broken(ModelFormatError, dotted)
    add_entry(folder, type=dotted)
    broken(ModelFormatError, dotted, trust_remote_code=True)


@pytest.mark.parametrize(
    "dotted", ["os.system", "subprocess.Popen", "custom.Scale", "torch.nn.Identity", "owner/repo--custom.Scale"]
)
def test_a_class_from_outside_needs_trust(dotted, folder, broken):
    add_entry(folder, type=dotted)
    broken(UntrustedCodeError, dotted, "trust_remote_code=True")


def test_trust_is_asked_for_before_any_weight_is_read(folder, broken):
    add_entry(folder, type="custom.Scale")
    (folder / "model.safetensors").write_bytes(b"")
    broken(UntrustedCodeError, "custom.Scale")


@pytest.mark.parametrize(
    "path", ["../other", "1_Pooling/../../other", "/tmp", "C:\\models", "C:other", "\\\\host\\x", "..\\other"]
)
@pytest.mark.parametrize("where", ["modules.json", "router_config.json"])
def test_a_path_out_of_the_folder_is_refused(path, where, folder, broken, tmp_path):
    shutil.copytree(folder / "1_Pooling", tmp_path / "other")
    if where == "modules.json":
        add_entry(folder, path=path, type="sentence_transformers.models.Pooling")
    else:
        shutil.rmtree(folder)
        layouts.copy(folder, "out_router")
        content = (folder / where).read_text(encoding="utf-8")
        (folder / where).write_text(content.replace('"query_0_Transformer"', json.dumps(path)), encoding="utf-8")
    broken(ModelFormatError, path.replace("\\", "\\\\"), "outside")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("out_st", "1_Pooling"),
        ("out_st", "1_Pooling/config.json"),
        ("out_st", "model.safetensors"),
        ("out_st", "tokenizer.json"),
        ("out_st", "modules.json"),
        ("out_st", "config_sentence_transformers.json"),
        ("version_1", "0_Transformer"),
        ("version_1", "0_Transformer/pytorch_model.bin"),
        ("out_static", "model.safetensors"),
        ("out_router", "query_0_Transformer/config.json"),
        ("plain_causal", "model.safetensors"),
        ("plain_causal", "tokenizer.json"),
    ],
)
def test_a_link_out_of_the_folder_is_refused(kind, what, folder, broken, tmp_path):
    shutil.rmtree(folder)
    layouts.LAYOUTS[kind](folder)
    outside = tmp_path / "outside"
    shutil.move(folder / what, outside)
    (folder / what).symlink_to(outside)
    broken(ModelFormatError, str(outside), "outside")


def test_a_link_within_the_folder_is_followed(folder):
    (folder / "pooling").mkdir()
    shutil.move(folder / "1_Pooling" / "config.json", folder / "pooling" / "config.json")
    (folder / "1_Pooling" / "config.json").symlink_to(folder / "pooling" / "config.json")
    expected = SentenceTransformer(str(GOLDEN / "out_st"), device="cpu").encode(TEXTS)
    np.testing.assert_array_equal(SentenceTransformer(str(folder), device="cpu").encode(TEXTS), expected)


def test_the_model_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert SentenceTransformer(str(tmp_path / "link"), device="cpu").encode("a").shape == (16,)


# ---- arguments


@pytest.mark.parametrize("dim", [17, 0, -1])
def test_a_dimension_the_model_does_not_have(dim, folder, broken):
    broken(InputError, f"truncate_dim={dim}", "16", truncate_dim=dim)
    layouts.update(folder / "config_sentence_transformers.json", truncate_dim=dim)
    broken(InputError, f"truncate_dim={dim}", "16")


def test_truncation_beyond_the_model_at_encode(folder, monkeypatch):
    model = SentenceTransformer(str(folder), device="cpu")
    monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("a forward pass was run"))
    with pytest.raises(InputError, match=r"truncate_dim=17.*16"):
        model.encode(["a"], truncate_dim=17)
    with pytest.raises(InputError, match=r"truncate_dim=17.*16"), model.truncate_embeddings(17):
        pass


def test_an_unknown_prompt_name_lists_the_known(folder, broken, monkeypatch):
    layouts.update(folder / "config_sentence_transformers.json", prompts={"query": "q: ", "passage": "d: "})
    message = broken(InputError, "'zoo'", default_prompt_name="zoo")
    assert "'passage'" in message and "'query'" in message
    monkeypatch.undo()
    model = SentenceTransformer(str(folder), device="cpu")
    monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("a forward pass was run"))
    for call in (model.encode, model.encode_query, model.encode_document):
        with pytest.raises(InputError, match=r"'zoo'.*'passage'.*'query'"):
            call(["a"], prompt_name="zoo")


# ---- code that comes with a model

CUSTOM = '''
import json
from pathlib import Path
from sentence_transformers.models import Module


class Scale(Module):
    """Multiply vectors by a number."""

    config_keys = ["factor"]

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, features, **kwargs):
        features["sentence_embedding"] = self.factor * features["sentence_embedding"]
        return features
'''

OLD_CUSTOM = '''
import json
import os
from torch import nn


class Scale(nn.Module):
    """As people wrote modules before version 5: `load` and `save` take a folder and nothing else."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, features):
        features["sentence_embedding"] = self.factor * features["sentence_embedding"]
        return features

    def save(self, output_path):
        with open(os.path.join(output_path, "config.json"), "w") as file:
            json.dump({"factor": self.factor}, file)

    @staticmethod
    def load(input_path):
        with open(os.path.join(input_path, "config.json")) as file:
            return Scale(**json.load(file))
'''


@pytest.mark.parametrize("code", [CUSTOM, OLD_CUSTOM], ids=["today", "before version 5"])
def test_a_trusted_module_works_and_travels_with_the_model(code, folder, tmp_path, monkeypatch):
    """A class in a file of the folder: loaded with trust, saved along with its file, loaded again from there."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    (folder / "scaling.py").write_text(code, encoding="utf-8")
    add_entry(folder, type="scaling.Scale", path="3_Scale")
    layouts.write(folder / "3_Scale" / "config.json", {"factor": 2.5})
    expected = 2.5 * SentenceTransformer(str(GOLDEN / "out_st"), device="cpu").encode(TEXTS)

    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-6)
    model.save_pretrained(str(tmp_path / "again"))
    shutil.rmtree(folder)
    with pytest.raises(UntrustedCodeError, match=r"scaling\.Scale"):
        SentenceTransformer(str(tmp_path / "again"), device="cpu")
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(again.encode(TEXTS), expected, atol=1e-6)


# ---- saving

SLOW_SAVE = """
import sys, time
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize

def slow(self, path, *args, **kwargs):
    print("half-way", flush=True)
    time.sleep(60)

Normalize.save = slow
table = SentenceTransformer(sys.argv[1], device="cpu")[0]
SentenceTransformer(modules=[table, Normalize()], device="cpu").save_pretrained(sys.argv[2])
"""


def test_killed_half_way_the_old_folder_is_intact(folder, tmp_path):
    """A process killed with SIGKILL while it saves over a model: the old one still loads; the next save succeeds."""
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    source = str(GOLDEN / "out_st2")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_SAVE, str(GOLDEN / "out_static"), str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "half-way\n"
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    np.testing.assert_array_equal(SentenceTransformer(str(folder), device="cpu").encode(TEXTS), expected)

    other = SentenceTransformer(source, device="cpu")
    other.save_pretrained(str(folder))
    again = SentenceTransformer(str(folder), device="cpu")
    assert again.prompts == other.prompts
    np.testing.assert_array_equal(again.encode(TEXTS), other.encode(TEXTS))


def test_files_of_the_user_are_kept_and_nothing_is_left_over(folder, tmp_path):
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "1.pt").write_bytes(b"1")
    SentenceTransformer(str(GOLDEN / "out_st2"), device="cpu").save_pretrained(str(folder))
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert (folder / "checkpoints" / "1.pt").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_save_leaves_no_trace(folder, tmp_path, monkeypatch):
    model = SentenceTransformer(str(GOLDEN / "out_st2"), device="cpu")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(type(model[1]), "save", lambda *_, **__: 1 / 0)
    for target in (folder, tmp_path / "new"):
        with pytest.raises(ZeroDivisionError):
            model.save_pretrained(str(target))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_model_may_be_saved_over_the_folder_it_came_from(folder):
    """And then once more: nothing is read from the old files later."""
    model = SentenceTransformer(str(folder), device="cpu")
    expected = model.encode(TEXTS)
    for _ in range(2):
        model.save_pretrained(str(folder))
        np.testing.assert_array_equal(model.encode(TEXTS), expected)
        np.testing.assert_array_equal(SentenceTransformer(str(folder), device="cpu").encode(TEXTS), expected)


@pytest.mark.parametrize("kind", ["out_st", "out_static", "out_router", "plain_causal"])
def test_a_loaded_model_does_not_need_its_folder_any_more(kind, folder, tmp_path):
    shutil.rmtree(folder)
    layouts.LAYOUTS[kind](folder)
    model = SentenceTransformer(str(folder), device="cpu")
    shutil.rmtree(folder)
    expected = model.encode(TEXTS)
    model.save_pretrained(str(tmp_path / "saved"))
    np.testing.assert_array_equal(SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS), expected)


def test_a_new_folder_has_the_usual_permissions(folder, tmp_path):
    mask = os.umask(0o022)
    try:
        SentenceTransformer(str(folder), device="cpu").save_pretrained(str(tmp_path / "new"))
    finally:
        os.umask(mask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755


def test_parents_of_a_new_folder_are_made(folder, tmp_path):
    started = time.perf_counter()
    SentenceTransformer(str(folder), device="cpu").save_pretrained(str(tmp_path / "a" / "b" / "model"))
    assert (tmp_path / "a" / "b" / "model" / "modules.json").is_file()
    assert time.perf_counter() - started < 30


# ---- whose a class is, its code says, not a `__module__` that was copied


class Copied(Dropout):
    """A class of one's own whose constructor is wrapped as this library's."""

    @functools.wraps(Dropout.__init__)
    def __init__(self, dropout="a lot"):
        super().__init__(0.5)
        self.given = dropout

    @functools.wraps(Dropout.forward)
    def forward(self, features, **kwargs):
        return super().forward(features) | {self.module_output_name: 1}


Copied.__module__ = Dropout.__module__


def test_settings_of_a_class_of_ones_own():
    assert construct(Copied, {"dropout": "a little"}, "config.json").given == "a little"
    with pytest.raises(ModelFormatError, match=r"config\.json: dropout is 'a little'"):
        construct(Dropout, {"dropout": "a little"}, "config.json")


@pytest.mark.parametrize("key", ["module_output_name", "module_input_name"])
@pytest.mark.parametrize("kind", [Copied, Dropout])
def test_names_of_features_between_modules_of_ones_own(kind, key, tmp_path):
    module = kind()
    setattr(module, key, "mine")
    entries = [Entry("0", "0_Mine", kind, [])]
    if kind is Copied:
        check_names(entries, [module], Source(str(tmp_path)))
    else:
        with pytest.raises(ModelFormatError, match=f"0_Mine: {key} is 'mine'"):
            check_names(entries, [module], Source(str(tmp_path)))
