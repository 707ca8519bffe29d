"""Damaged copies of model folders give the same vectors or a `ModelFormatError` that names the file.

Each case takes one folder and does one thing to one file, by its seed: removes, empties or cuts it, changes a byte, or
takes away or replaces a value in its JSON.

What cannot be told from another model is no damage, and `legal` leaves it out of the comparison of vectors (an error
must still be a `ModelFormatError`):

    a byte of the weights      safetensors has no check sum; another finite number is another model
    tokenizer.json             another word, step or id within the table of the weights is another tokenizer
    settings of the whole      prompts, default prompt, truncate_dim, similarity: other valid values, or none at all,
                               as in folders from before they existed
    valid values               a number such as an epsilon or a length, a mode or a name that the module knows
    entries of modules.json    a module that is named no more: such folders exist. Without Pooling a model loads, for
                               its token vectors; its `encode` says what is missing
"""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.errors import InputError, ModelFormatError
from tests import models
from tests.golden.layouts import GOLDEN

CLASSES: dict[str, Any] = {
    "out_ce": CrossEncoder,
    "out_splade": SparseEncoder,
    "out_csr": SparseEncoder,
    "out_mv": MultiVectorEncoder,
}
KINDS = ("out_ce", "out_csr", "out_mv", "out_router", "out_splade", "out_st", "out_st2", "out_static")
TOKENIZERS = ("roberta", "mpnet", "qwen3", "gemma3", "t5", "xlnet")
TEXTS = ["the cat sat on the mat", "water", "rain fell all night and [SEP] more"]
VALUES = [None, -1, 10**12, "x", "", [], {}, True, 3.5, 0, ["x"], "a\\b"]
HOW = ["remove", "empty", "cut", "byte", "value", "value", "value", "drop"]
QUICK, SLOW = 300, 10_000


def vectors(kind: str, folder: Path) -> np.ndarray:
    model = CLASSES.get(kind, SentenceTransformer)(str(folder), device="cpu")
    if isinstance(model, CrossEncoder):
        return model.predict([(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[2])])
    if isinstance(model, SparseEncoder):
        return model.encode(TEXTS).to_dense().numpy()
    if isinstance(model, MultiVectorEncoder):
        return np.concatenate(model.encode(TEXTS, convert_to_numpy=True))
    return model.encode(TEXTS)


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Path of every value in a JSON file, four levels deep."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        if len(path) < 4:
            yield from places(value, (*path, key))


def damage(chance: random.Random, folder: Path) -> tuple[Path, str, tuple[Any, ...]]:
    """Change one file: which (relative), how, and the place of a JSON value."""
    file = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.md"))
    how, content, place = chance.choice(HOW), file.read_bytes(), ()
    if how == "remove":
        file.unlink()
    elif how in ("empty", "cut"):
        file.write_bytes(content[: chance.randrange(len(content)) if how == "cut" else 0])
    elif how == "byte" or file.suffix != ".json" or not (found := list(places(json.loads(content)))):
        how, at = "byte", chance.randrange(len(content))
        file.write_bytes(content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :])
    else:
        whole = inner = json.loads(content)
        place = chance.choice(found)
        for key in place[:-1]:
            inner = inner[key]
        if how == "drop":
            del inner[place[-1]]
        else:
            inner[place[-1]] = chance.choice(VALUES)
        file.write_text(json.dumps(whole), encoding="utf-8")
    return file.relative_to(folder), how, place


def legal(file: Path, how: str) -> bool:
    """Whether a model that loads with this change may be another one; see the module's docstring."""
    if how in ("remove", "empty", "cut"):
        return file.name == "config_sentence_transformers.json" and how == "remove"
    return how == "byte" or file.suffix != ".json" or file.name in MAY_DIFFER


MAY_DIFFER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "config_sentence_transformers.json",
    "config.json",
    "modules.json",
    "router_config.json",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """The golden folders, and tiny models for further kinds of tokenizers, one of them with a `Dense` and a pickle."""
    root = tmp_path_factory.mktemp("whole")
    found = {kind: GOLDEN / kind for kind in KINDS}
    for name in TOKENIZERS:
        models.build(name, root / "plain" / name)
        model = SentenceTransformer(str(root / "plain" / name), device="cpu")
        model.save_pretrained(str(root / name), safe_serialization=name != "mpnet")
        found[name] = root / name
    return found


@pytest.fixture(scope="module")
def expected(folders) -> dict[str, np.ndarray]:
    return {kind: vectors(kind, folder) for kind, folder in folders.items()}


def check(seed: int, folders: dict[str, Path], expected: dict[str, np.ndarray], root: Path) -> str | None:
    """What is wrong with one case; None if nothing is."""
    chance = random.Random(seed)
    kind = chance.choice([*KINDS * 3, *TOKENIZERS])
    folder = root / "model"
    shutil.copytree(folders[kind], folder)
    try:
        file, how, place = damage(chance, folder)
        case = f"seed {seed}: {kind}/{file} {how} {place}"
        try:
            got = vectors(kind, folder)
        except ModelFormatError as error:
            named = str(folder) in str(error) or "modules.json" in str(error)
            return None if named else f"{case}: names no file: {error}"
        except InputError as error:
            return None if "truncate_dim" in str(error) else f"{case}: {error}"
        except Exception as error:
            return f"{case}: {type(error).__name__}: {error}"
        same = got.shape == expected[kind].shape and np.allclose(got, expected[kind], atol=1e-5)
        return None if same or legal(file, how) else f"{case}: other vectors"
    finally:
        shutil.rmtree(folder)


def run(seeds: range, folders: dict[str, Path], expected: dict[str, np.ndarray], root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about settings it does not know
        wrong = [found for seed in seeds if (found := check(seed, folders, expected, root))]
    assert not wrong, "\n".join(wrong)


def test_some_damaged_folders(folders, expected, tmp_path):
    run(range(QUICK), folders, expected, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(QUICK, SLOW, SLOW // 20))
def test_many_damaged_folders(start, folders, expected, tmp_path):
    run(range(start, start + SLOW // 20), folders, expected, tmp_path)


# ---- faults by name


@pytest.fixture
def folder(tmp_path) -> Path:
    shutil.copytree(GOLDEN / "out_st", tmp_path / "model")
    return tmp_path / "model"


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize("others", [(), ("tokenizer_config.json",)])
def test_a_missing_tokenizer(others, folder):
    for name in ("tokenizer.json", *others):
        (folder / name).unlink()
    said = r"lacks the vocabulary of its BertTokenizer: expected tokenizer\.json|Missing or damaged: .*tokenizer\.json"
    with pytest.raises(ModelFormatError, match=said):
        SentenceTransformer(str(folder), device="cpu").encode("a")


def test_a_missing_module_folder(folder):
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(ModelFormatError, match=r"1_Pooling/config\.json lacks \['embedding_dimension'\]"):
        SentenceTransformer(str(folder), device="cpu")


def test_a_missing_modules_file(folder):
    (folder / "modules.json").unlink()
    with pytest.raises(ModelFormatError, match=r"modules\.json is missing, but there are the modules \['1_Pooling'"):
        SentenceTransformer(str(folder), device="cpu")


def test_windows_separators_and_null_prompts(folder, expected):
    """A path `parts\\1_Pooling` and `"prompts": null`: harmless, so that the model loads."""
    (folder / "parts").mkdir()
    (folder / "1_Pooling").rename(folder / "parts" / "1_Pooling")
    entries = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    entries[1]["path"] = "parts\\1_Pooling"
    (folder / "modules.json").write_text(json.dumps(entries), encoding="utf-8")
    rewrite(folder / "config_sentence_transformers.json", prompts=None)
    np.testing.assert_array_equal(SentenceTransformer(str(folder), device="cpu").encode(TEXTS), expected["out_st"])


@pytest.mark.parametrize(
    ("file", "key", "value", "words"),
    [
        ("1_Pooling/config.json", "embedding_dimension", 17, "embedding_dimension is 17; expected 16"),
        ("1_Pooling/config.json", "pooling_mode", "mood", "pooling_mode is 'mood'; expected one of 'cls'"),
        ("1_Pooling/config.json", "include_prompt", "yes", "include_prompt is 'yes'; expected true or false"),
        ("config_sentence_transformers.json", "prompts", ["q"], "prompts is .'q'.; expected an object or null"),
        ("config_sentence_transformers.json", "default_prompt_name", "zoo", "default_prompt_name is 'zoo'"),
        ("sentence_bert_config.json", "transformer_task", "cook", "transformer_task is 'cook'; expected one of"),
        ("sentence_bert_config.json", "max_seq_length", -3, "max_seq_length is -3; expected a whole number"),
        ("config.json", "num_hidden_layers", 40, "lack .* tensors that its config.json asks for"),
        ("config.json", "num_hidden_layers", 10**12, "num_hidden_layers is 1000000000000, more than the weights hold"),
        ("config.json", "hidden_size", "16", "config.json.*hidden_size"),
        (
            "sentence_bert_config.json",
            "modality_config",
            {"text": {"method": "forward", "method_output_name": -1}},
            "-1",
        ),
    ],
)
def test_a_wrong_setting_is_named(file, key, value, words, folder):
    rewrite(folder / file, **{key: value})
    with pytest.raises(ModelFormatError, match=words) as caught:
        SentenceTransformer(str(folder), device="cpu")
    assert str(folder) in str(caught.value)


def test_too_many_layers_of_a_model_of_transformers(tmp_path):
    models.build("qwen3", tmp_path / "model")
    rewrite(tmp_path / "model" / "config.json", num_hidden_layers=10**12)
    with pytest.raises(ModelFormatError, match="num_hidden_layers is 1000000000000, more than"):
        SentenceTransformer(str(tmp_path / "model"), device="cpu")


def test_a_path_into_an_output_that_is_not_there(folder):
    entry = {"method": "forward", "method_output_name": ["hidden_states", 7]}
    rewrite(folder / "sentence_bert_config.json", modality_config={"text": entry})
    with pytest.raises(ModelFormatError, match=r"names the output \['hidden_states', 7\] of a BertModel"):
        SentenceTransformer(str(folder), device="cpu").encode("a")


def test_token_ids_beyond_the_weights(folder):
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["cat"] = 5_000
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    model = SentenceTransformer(str(folder), device="cpu")
    with pytest.raises(ModelFormatError, match=r"gives the token id 5000, but the weights have rows for \d+ tokens"):
        model.encode("cat")


def test_an_adapter_takes_the_tokenizer_of_its_base(tmp_path):
    """A folder as peft saves it holds the adapter's weights and no tokenizer."""
    peft = pytest.importorskip("peft")
    import transformers

    base = models.build("bert", tmp_path / "base")
    adapted = peft.get_peft_model(
        transformers.AutoModel.from_pretrained(base), peft.LoraConfig(target_modules=["query"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "tokenizer.json").exists()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    inputs = tokenizer(["Rain fell all night"], return_tensors="pt")
    expected = adapted.eval()(**inputs).last_hidden_state[0].mean(0).detach().numpy()
    model = SentenceTransformer(str(tmp_path / "adapter"), device="cpu")
    np.testing.assert_allclose(model.encode("Rain fell all night"), expected, atol=2e-6)
