"""Model folders of every layout: ours gives the vectors that version 6.2.0 recorded, and each library reads the
other's.

`golden/layouts.py` makes the folders, `golden/record_formats.py` recorded the vectors (`golden/formats.npz`).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sentence_transformers import SentenceTransformer
from sentence_transformers.storage.files import Source
from sentence_transformers.storage.folder import MODULES_FILE, read_entries
from tests.golden import layouts
from tests.golden.layouts import GOLDEN, LAYOUTS, PROMPT, TEXTS
from tests.oracle import oracle_python, run_oracle

RECORDED = dict(np.load(Path(layouts.__file__).with_name("formats.npz")))
FACTS = {name: json.loads(str(RECORDED[f"{name}/facts"])) for name in LAYOUTS}
GOOD = [name for name in LAYOUTS if "error" not in FACTS[name]]
CALLS = {
    "encode": lambda model: model.encode(TEXTS),
    "query": lambda model: model.encode_query(TEXTS),
    "document": lambda model: model.encode_document(TEXTS),
    "prompt": lambda model: model.encode(TEXTS, prompt=PROMPT),
}
TOLERANCE = 1e-5


def build(name: str, folder: Path) -> str:
    LAYOUTS[name](folder)
    return str(folder)


def expected(name: str, call: str) -> np.ndarray:
    return RECORDED.get(f"{name}/{call}", RECORDED[f"{name}/encode"])


def check_against_recorded(model: SentenceTransformer, name: str) -> None:
    for call, function in CALLS.items():
        np.testing.assert_allclose(function(model), expected(name, call), rtol=0, atol=TOLERANCE, err_msg=call)


@pytest.mark.parametrize("name", GOOD)
def test_modules_from_their_places_are_those_that_are_loaded(name, tmp_path):
    source = Source(build(name, tmp_path))
    for entry in read_entries(source, False) if source.path(MODULES_FILE) else ():
        place = source.at(entry.path)
        loaded = entry.module_class.load(place.name, place.subfolder)
        found = entry.module_class.from_source(place)
        assert type(found) is type(loaded) is entry.module_class and repr(found) == repr(loaded)
        weights = loaded.state_dict()
        assert weights.keys() == found.state_dict().keys()
        assert all(torch.equal(weights[key], value) for key, value in found.state_dict().items())


def test_the_recording_tells_layouts_apart():
    """The golden vectors would notice: prompts, case, length, white space, pooling and settings all matter."""
    for one, other in (
        ("cased_tokenizer/encode", "lower_cased/encode"),
        ("short_length/encode", "out_st/encode"),
        ("pooling_without_prompt/query", "pooling_no_flag/query"),
        ("pooling_cls/encode", "pooling_no_flag/encode"),
        ("plain_causal/encode", "plain_causal_seen_whole/encode"),
        ("kwargs_names/encode", "out_st/encode"),
    ):
        assert np.abs(RECORDED[one] - RECORDED[other]).max() > 1e-3, (one, other)
    rows = RECORDED["plain_causal_seen_whole/encode"]
    spaces = {text: row for text, row in zip(TEXTS, rows, strict=True) if not text.strip()}
    assert np.abs(spaces["   "] - spaces[""]).max() > 1e-3


@pytest.mark.parametrize("name", GOOD)
def test_a_folder_gives_the_recorded_vectors_and_settings(name, tmp_path):
    model = SentenceTransformer(build(name, tmp_path), device="cpu")
    facts = FACTS[name]
    assert [type(module).__name__ for module in model] == facts["modules"]
    if facts["max_seq_length"] is not None:
        assert model.max_seq_length == facts["max_seq_length"]
    assert model.get_embedding_dimension() == facts["dimension"]
    for setting in ("prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim"):
        assert getattr(model, setting) == facts[setting], setting
    check_against_recorded(model, name)


@pytest.mark.parametrize("name", [name for name in GOOD if not name.startswith("settings_of_")])
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickle"])
def test_saved_and_loaded_it_gives_the_same_vectors(name, safe, tmp_path):
    """Old or new, a folder becomes a folder of today's layout with the same values, in either weight format.

    Pickles are read by transformers, whose attention rounds the last digit otherwise, and so does the attention that
    older settings name, which is not saved.
    """
    model = SentenceTransformer(build(name, tmp_path / "old"), device="cpu")
    model.save_pretrained(str(tmp_path / "new"), safe_serialization=safe)
    suffixes = {path.suffix for path in (tmp_path / "new").rglob("*") if path.suffix in (".bin", ".safetensors")}
    assert suffixes <= {".safetensors" if safe else ".bin"}
    again = SentenceTransformer(str(tmp_path / "new"), device="cpu")
    for encode in ("encode", "encode_query"):
        vectors, expected = getattr(again, encode)(TEXTS), getattr(model, encode)(TEXTS)
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=0 if safe and name != "old_kwargs_names" else 1e-6)
    assert again.max_seq_length == model.max_seq_length
    assert again.prompts == model.prompts
    assert again.similarity_fn_name == model.similarity_fn_name
    assert again.truncate_dim == model.truncate_dim
    assert [module.get_config_dict() for module in again] == [module.get_config_dict() for module in model]


READ_BY_6_2_0 = """
import json, sys
import numpy as np
from sentence_transformers import SentenceTransformer
texts, prompt, result, *folders = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3], *sys.argv[4:]
arrays = {}
for folder in folders:
    model = SentenceTransformer(folder, device="cpu")
    arrays[folder + "/encode"] = model.encode(texts)
    arrays[folder + "/query"] = model.encode_query(texts)
    arrays[folder + "/document"] = model.encode_document(texts)
    arrays[folder + "/prompt"] = model.encode(texts, prompt=prompt)
np.savez(result, **arrays)
"""


@pytest.mark.slow
@pytest.mark.skipif(oracle_python() is None, reason="needs version 6.2.0")
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickle"])
def test_version_6_2_0_reads_our_folders(safe, tmp_path):
    folders = {}
    for name in GOOD:
        model = SentenceTransformer(build(name, tmp_path / "old" / name), device="cpu")
        folders[name] = str(tmp_path / "new" / name)
        model.save_pretrained(folders[name], safe_serialization=safe)
    result = tmp_path / "vectors.npz"
    run_oracle(READ_BY_6_2_0, json.dumps(TEXTS), PROMPT, result, *folders.values())
    theirs = np.load(result)
    for name, folder in folders.items():
        for call in CALLS:
            np.testing.assert_allclose(
                theirs[f"{folder}/{call}"], expected(name, call), rtol=0, atol=TOLERANCE, err_msg=f"{name} {call}"
            )


# ---- what the loader says


def test_unmet_requirements_are_named_before_anything_is_loaded(tmp_path):
    LAYOUTS["unmet_requirements"](tmp_path)
    (tmp_path / "model.safetensors").unlink()  # would be the next error
    with pytest.raises(ImportError, match=r"transformers.*>=99") as caught:
        SentenceTransformer(str(tmp_path))
    assert "it needs the future" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unreadable_requirements", "the newest"),
        ("newer_version", "99.0.0"),
        ("out_ce", "CrossEncoder"),
        ("out_splade", "SparseEncoder"),
        ("out_mv", "MultiVectorEncoder"),
        ("dense_with_unknown_keys", "colour"),
        ("dense_with_foreign_activation", "somewhere.else.Activation"),
    ],
)
def test_doubts_are_logged(name, words, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "sentence_transformers"):
        SentenceTransformer(build(name, tmp_path), device="cpu")
    assert words in caplog.text


def test_unknown_settings_of_the_transformer_are_ignored_with_a_warning(tmp_path, caplog):
    """Version 6.2.0 fails here; a later version's setting should not make a model unusable."""
    build("out_st", tmp_path)
    layouts.update(tmp_path / "sentence_bert_config.json", colour="green")
    model = SentenceTransformer(str(tmp_path), device="cpu")
    assert "colour" in caplog.text
    check_against_recorded(model, "out_st")


def test_arguments_win_over_the_saved_settings(tmp_path):
    model = SentenceTransformer(
        build("out_st2", tmp_path),
        device="cpu",
        prompts={"query": "yes ", "extra": "no ", "document": None},
        default_prompt_name="extra",
        similarity_fn_name="euclidean",
        truncate_dim=4,
        processor_kwargs={"model_max_length": 7},
    )
    saved = layouts.read(GOLDEN / "out_st2" / "config_sentence_transformers.json")["prompts"]
    assert model.prompts == {"query": "yes ", "document": saved["document"], "extra": "no "}
    assert (model.default_prompt_name, model.similarity_fn_name, model.truncate_dim) == ("extra", "euclidean", 4)
    assert model.max_seq_length == 7
    assert model.encode("a").shape == (4,)


def test_trust_remote_code_in_a_settings_file_has_no_effect(tmp_path, monkeypatch):
    import transformers

    seen = {}
    original = transformers.AutoModel.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModel, "from_pretrained", lambda name, **kw: seen.update(kw) or original(name, **kw)
    )
    SentenceTransformer(build("old_kwargs_names", tmp_path), device="cpu")
    assert seen["attn_implementation"] == "eager"
    assert not seen.get("trust_remote_code")


def test_a_saved_folder_has_the_files_that_6_2_0_writes(tmp_path):
    """The same names as in the golden folders, which 6.2.0 wrote."""
    for kind in ("out_st", "out_st2", "out_static", "out_router"):
        SentenceTransformer(str(GOLDEN / kind), device="cpu").save_pretrained(str(tmp_path / kind))
        ours, theirs = (
            {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} - {"README.md"}
            for root in (tmp_path / kind, GOLDEN / kind)
        )
        assert ours == theirs
        for name in ("modules.json", "1_Pooling/config.json", "router_config.json", "sentence_bert_config.json"):
            if name in theirs:
                assert layouts.read(tmp_path / kind / name) == layouts.read(GOLDEN / kind / name)
        settings = [layouts.read(root / kind / "config_sentence_transformers.json") for root in (tmp_path, GOLDEN)]
        assert settings[0].keys() == settings[1].keys()
        assert settings[0].pop("__version__").keys() == settings[1].pop("__version__").keys()
        assert settings[0] == settings[1]
        ours, theirs = (load_file(path) for path in sorted_weights(tmp_path / kind, GOLDEN / kind))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def sorted_weights(*roots: Path) -> list[Path]:
    return [next(root.rglob("model.safetensors")) for root in roots]


def test_a_peft_adapter_folder_adds_the_adapter_to_its_base(tmp_path):
    """Low-rank adapter: W x + (alpha / r) B A x, written out on the base's weights."""
    pytest.importorskip("peft")
    layouts.plain(tmp_path / "base")
    layouts.copy(tmp_path / "adapter", "out_st")
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "adapter" / name).unlink()
    down, up, alpha, rank = layouts.wave(2, 16), layouts.wave(16, 2, step=0.4), 6, 2
    settings = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": str(tmp_path / "base"),
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": ["query"],
        "bias": "none",
        "inference_mode": True,
    }
    layouts.write(tmp_path / "adapter" / "adapter_config.json", settings)
    where = "base_model.model.encoder.layer.0.attention.self.query.lora_"
    save_file({f"{where}A.weight": down, f"{where}B.weight": up}, tmp_path / "adapter" / "adapter_model.safetensors")

    layouts.copy(tmp_path / "merged", "out_st")
    tensors = load_file(tmp_path / "merged" / "model.safetensors")
    key = "encoder.layer.0.attention.self.query.weight"
    tensors[key] = tensors[key] + alpha / rank * up @ down
    save_file(tensors, tmp_path / "merged" / "model.safetensors", {"format": "pt"})

    adapted = SentenceTransformer(str(tmp_path / "adapter"), device="cpu").encode(TEXTS)
    merged = SentenceTransformer(str(tmp_path / "merged"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(adapted, merged, rtol=0, atol=TOLERANCE)
    assert np.abs(merged - RECORDED["out_st/encode"]).max() > 1e-3
