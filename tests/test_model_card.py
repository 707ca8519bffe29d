"""The README.md of a saved model, and publishing with a hub that only takes notes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from sentence_transformers import CrossEncoder, SentenceTransformer, SentenceTransformerModelCardData, SparseEncoder
from tests.golden import layouts, score_models
from tests.golden.layouts import GOLDEN


def card_of(folder: Path) -> ModelCard:
    return ModelCard.load(folder / "README.md")


def model_of(kind: str = "out_st2", **kwargs) -> SentenceTransformer:
    return SentenceTransformer(str(GOLDEN / kind), device="cpu", **kwargs)


def test_the_card_is_valid_and_tells_the_facts(tmp_path):
    data = SentenceTransformerModelCardData(
        language="en",
        license="apache-2.0",
        model_name="A model of two colours",
        train_datasets=[{"name": "Colours", "id": "org/colours"}, {"name": "Shapes"}],
    )
    model = model_of(model_card_data=data)
    model.model_card_data.add_tags(["colour", "dense"])
    model.save_pretrained(str(tmp_path))
    card = card_of(tmp_path)
    header = card.data.to_dict()
    assert header["library_name"] == "sentence-transformers"
    assert header["pipeline_tag"] == "sentence-similarity"
    assert header["license"] == "apache-2.0"
    assert header["language"] == "en"
    assert header["datasets"] == ["org/colours"]
    assert header["tags"] == ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense", "colour"]
    text = card.text
    for words in (
        "# A model of two colours",
        "64 tokens",  # max_seq_length
        "8 dimensions",  # truncate_dim
        "dot",  # similarity
        "Colours, Shapes",
        "apache-2.0",
        "`query`: 'q: '",
        "`document`: 'd: '",
        "Pooling(",
    ):
        assert words in text, words
    assert "$" not in text


def test_the_example_in_the_card_runs(tmp_path, monkeypatch):
    """The code block of the card, with the hub id replaced by the folder."""
    model = model_of("out_st")
    model.model_card_data.set_model_id(str(tmp_path / "model"))
    model.save_pretrained(str(tmp_path / "model"))
    (code,) = re.findall(r"```python\n(.*?)```", card_of(tmp_path / "model").text, re.DOTALL)
    printed = []
    exec(code, {"print": printed.append})
    assert printed[0] == (3, 16)
    assert printed[1].shape == (3, 3)


def test_names_and_datasets_given_at_saving(tmp_path):
    model_of().save_pretrained(str(tmp_path), model_name="org/name", train_datasets=["org/one", "org/two"])
    card = card_of(tmp_path)
    assert "# org/name" in card.text
    assert "org/one, org/two" in card.text


def test_no_card_if_none_is_wanted(tmp_path):
    model_of().save_pretrained(str(tmp_path), create_model_card=False)
    assert not (tmp_path / "README.md").exists()


def test_a_card_of_the_user_is_kept_if_none_is_wanted(tmp_path):
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    model_of().save_pretrained(str(tmp_path), create_model_card=False)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("kind", ["out_st", "out_static", "out_router", "bag_of_words", "words_and_lstm"])
def test_every_kind_of_model_has_a_card(kind, tmp_path):
    layouts.LAYOUTS[kind](tmp_path / "old")
    SentenceTransformer(str(tmp_path / "old"), device="cpu").save_pretrained(str(tmp_path / "new"))
    card = card_of(tmp_path / "new")
    assert card.data.to_dict()["library_name"] == "sentence-transformers"
    assert "base_model" not in card.data.to_dict()  # a folder is nobody else's base


def test_the_base_model_is_named_if_it_has_a_hub_id():
    data = SentenceTransformerModelCardData()
    assert data.set_base_model("org/base", "v1")
    assert data.to_dict()["base_model"] == "org/base"
    assert not SentenceTransformerModelCardData().set_base_model(str(GOLDEN / "out_st"))


def test_text_that_yaml_and_templates_would_trip_over(tmp_path):
    data = SentenceTransformerModelCardData(model_name="Costs $5: a 'quoted' #name", language=["en", "no"])
    model = model_of("out_st", model_card_data=data, prompts={"query": "find: $x `y` {z}\n"})
    model.save_pretrained(str(tmp_path))
    card = card_of(tmp_path)
    assert "# Costs $5: a 'quoted' #name" in card.text
    assert "find: $x `y` {z}" in card.text
    assert card.data.to_dict()["language"] == ["en", "no"]


# ---- the hub


class Notes:
    """Stands for HfApi: writes down what it is asked for and what lies in the folder at that moment."""

    has_card = False

    def __init__(self, **kwargs) -> None:
        self.made_with = kwargs
        self.calls: list[tuple[str, dict]] = []
        self.files: set[str] = set()
        self.card = ""

    def create_repo(self, repo_id, **kwargs):
        self.calls.append(("create_repo", {"repo_id": repo_id, **kwargs}))
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def create_branch(self, repo_id, **kwargs):
        self.calls.append(("create_branch", {"repo_id": repo_id, **kwargs}))

    def file_exists(self, repo_id, filename, **kwargs):
        return self.has_card

    def upload_folder(self, folder_path, **kwargs):
        self.calls.append(("upload_folder", {"folder_path": folder_path, **kwargs}))
        root = Path(folder_path)
        self.files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        self.card = (root / "README.md").read_text(encoding="utf-8") if "README.md" in self.files else ""
        return SimpleNamespace(commit_url="https://hub/commit/1", pr_url="https://hub/pr/1")

    def arguments(self, name: str) -> dict:
        return next(kwargs for called, kwargs in self.calls if called == name)


@pytest.fixture
def notes(monkeypatch) -> list[Notes]:
    made: list[Notes] = []

    def make(*args, **kwargs) -> Notes:
        made.append(Notes(**kwargs))
        return made[-1]

    monkeypatch.setattr(huggingface_hub, "HfApi", make)
    return made


def test_push_to_hub_uploads_the_folder_and_returns_its_address(notes):
    model = model_of("out_st")
    assert model.push_to_hub("name", token="secret", private=True) == "https://hub/commit/1"
    (api,) = notes
    assert api.made_with["token"] == "secret"
    made = api.arguments("create_repo")
    assert (made["repo_id"], made["private"], made["exist_ok"]) == ("name", True, False)
    sent = api.arguments("upload_folder")
    assert sent["repo_id"] == "me/name"
    assert "SentenceTransformer" in sent["commit_message"]
    assert not Path(sent["folder_path"]).exists()
    golden = {
        path.relative_to(GOLDEN / "out_st").as_posix() for path in (GOLDEN / "out_st").rglob("*") if path.is_file()
    }
    assert api.files == golden
    assert 'SentenceTransformer("me/name")' in api.card
    assert [name for name, _ in api.calls] == ["create_repo", "upload_folder"]


def test_push_to_hub_as_a_pull_request_on_a_branch(notes):
    model = model_of("out_static")
    address = model.push_to_hub(
        "org/name", revision="dev", create_pr=True, commit_message="Better", safe_serialization=False
    )
    assert address == "https://hub/pr/1"
    (api,) = notes
    assert api.arguments("create_repo")["exist_ok"] is True
    assert api.arguments("create_branch") == {"repo_id": "org/name", "branch": "dev", "exist_ok": True}
    sent = api.arguments("upload_folder")
    assert (sent["revision"], sent["create_pr"], sent["commit_message"]) == ("dev", True, "Better")
    assert "pytorch_model.bin" in api.files
    assert "model.safetensors" not in api.files


@pytest.mark.parametrize(("replace", "written"), [(False, False), (True, True)])
def test_a_card_on_the_hub_is_replaced_only_if_asked(notes, monkeypatch, replace, written):
    monkeypatch.setattr(Notes, "has_card", True)
    model_of("out_static").push_to_hub("org/name", exist_ok=True, replace_model_card=replace)
    assert ("README.md" in notes[0].files) is written


def test_a_local_folder_is_uploaded_as_it_is(notes):
    model_of("out_static").push_to_hub("org/name", local_model_path=str(GOLDEN / "out_st2"))
    assert notes[0].arguments("upload_folder")["folder_path"] == str(GOLDEN / "out_st2")


def test_the_older_name_takes_an_organization(notes):
    model_of("out_static").save_to_hub("name", organization="org")
    assert notes[0].arguments("create_repo")["repo_id"] == "org/name"


@pytest.mark.parametrize(
    ("model_class", "write", "tag", "words"),
    [
        (CrossEncoder, score_models.SCORERS["causal"], "text-ranking", ["model.rank(query", "one score per pair"]),
        (CrossEncoder, score_models.SCORERS["saved_settings"], "text-", ["CrossEncoder(", "per pair"]),
        (SparseEncoder, score_models.SPARSE["splade_settings"], "feature-extraction", ["- splade", "model.decode("]),
        (SparseEncoder, score_models.SPARSE["inference_free"], "feature-extraction", ["- inference-free"]),
    ],
    ids=["judge", "classifier", "splade", "inference-free"],
)
def test_cards_of_other_kinds(model_class, write, tag, words, tmp_path):
    """Each kind's card has its tags, shows its own calls and says what comes out."""
    write(tmp_path)
    model_class(str(tmp_path), device="cpu").save_pretrained(str(tmp_path / "saved"))
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert f"pipeline_tag: {tag}" in card and "$" not in card
    assert f"from sentence_transformers import {model_class.__name__}" in card
    for word in words:
        assert word in card, word
