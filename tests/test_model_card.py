"""The README.md of a saved model, and publishing with a hub that only takes notes."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard
from sentence_transformers.cross_encoder import losses as of_pairs
from sentence_transformers.multi_vector_encoder import losses as of_tokens
from sentence_transformers.sparse_encoder import losses as of_sparse
from transformers.integrations import CodeCarbonCallback
from transformers.trainer_utils import IntervalStrategy

from sentence_transformers import (
    CrossEncoder,
    CrossEncoderModelCardData,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    MultiVectorEncoder,
    MultiVectorEncoderModelCardData,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerModelCardData,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    SparseEncoder,
    SparseEncoderModelCardData,
    SparseEncoderTrainer,
    SparseEncoderTrainingArguments,
    evaluation,
    losses,
)
from sentence_transformers.storage import readme
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
    assert header["language"] == ["en"]
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


def test_datasets_given_at_saving(tmp_path):
    model_of().save_pretrained(str(tmp_path), train_datasets=["org/one", "org/two"])
    card = card_of(tmp_path)
    assert "org/one, org/two" in card.text and card.data.to_dict()["datasets"] == ["org/one", "org/two"]


def test_the_name_given_at_saving_is_the_one_the_code_loads(tmp_path):
    """As in 6.2.0: a placeholder without a name, which a later save with a name replaces; the title stays."""
    kinds = {"out_st": SentenceTransformer, "splade": SparseEncoder, "judge": CrossEncoder}
    score_models.SPARSE["splade_settings"](tmp_path / "splade")
    score_models.SCORERS["causal"](tmp_path / "judge")
    for name, kind in kinds.items():
        source = GOLDEN / name if kind is SentenceTransformer else tmp_path / name
        model = kind(modules=list(kind(str(source), device="cpu")), device="cpu")
        model.save_pretrained(str(tmp_path / name / "saved"))
        text = (tmp_path / name / "saved" / "README.md").read_text()
        placeholder = {"out_st": "sentence_transformers", "splade": "sparse_encoder", "judge": "cross_encoder"}[name]
        title = "# SPLADE Sparse Encoder\n" if kind is SparseEncoder else f"# {kind.__name__}\n"
        assert f'model = {kind.__name__}("{placeholder}_model_id")' in text and title in text
        again = kind(str(tmp_path / name / "saved"), device="cpu")
        again.save_pretrained(str(tmp_path / name / "named"), model_name="me/mine")
        named = (tmp_path / name / "named" / "README.md").read_text()
        assert f'model = {kind.__name__}("me/mine")' in named and title in named
        assert readme.is_generated(text) and readme.is_generated(named)


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


# ---- a training run

PAIRS = Dataset.from_dict(
    {"anchor": [f"a cat {i}" for i in range(12)], "positive": [f"the cat {i}" for i in range(12)]}
)
SCORED = PAIRS.add_column("score", [i / 12 for i in range(12)])


def train(model, folder: Path, data, loss, **kwargs):
    args = SentenceTransformerTrainingArguments(
        str(folder), max_steps=2, per_device_train_batch_size=4, save_strategy="no", report_to=[], disable_tqdm=True
    )
    trainer = SentenceTransformerTrainer(model, args, train_dataset=data, loss=loss, **kwargs)
    trainer.train()
    return trainer


def several(model) -> dict:
    inner = losses.MultipleNegativesRankingLoss(model)
    return {"one": losses.MatryoshkaLoss(model, inner, [16, 8]), "two": losses.CoSENTLoss(model)}


@pytest.mark.parametrize(
    ("data", "loss", "tags", "sources"),
    [
        (PAIRS, losses.MultipleNegativesRankingLoss, ["dataset_size:12", "loss:MultipleNegativesRankingLoss"], 5),
        (PAIRS.to_iterable_dataset(), losses.MultipleNegativesRankingLoss, ["loss:MultipleNegativesRankingLoss"], 0),
        (
            {"one": PAIRS, "two": SCORED},
            several,
            ["dataset_size:24", "loss:MatryoshkaLoss", "loss:CoSENTLoss", "loss:MultipleNegativesRankingLoss"],
            5,
        ),
    ],
    ids=["one", "stream", "several"],
)
def test_metadata_of_a_training_run(data, loss, tags, sources, tmp_path):
    """Tags as 6.2.0 writes them; the widget's sentences have the text that belongs to the source among them."""
    model = model_of("out_st")
    train(model, tmp_path / "run", data, loss(model))
    model.save_pretrained(str(tmp_path / "saved"))
    header = card_of(tmp_path / "saved").data.to_dict()
    kind = ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense"]
    assert header["tags"] == [*kind, "generated_from_trainer", *tags]
    widget = header.get("widget", [])
    assert str(tmp_path) not in card_of(tmp_path / "saved").text
    assert len(widget) == sources
    for example in widget:
        assert example["source_sentence"].replace("a cat", "the cat") in example["sentences"]
        assert len(example["sentences"]) == 3
    if widget:
        assert repr(widget[-1]["source_sentence"]) in card_of(tmp_path / "saved").text


def test_results_as_the_hub_reads_them(tmp_path):
    """Names, types and values as 6.2.0 writes them: metrics without the evaluator's name, and not rounded."""
    model = model_of("out_st")
    tail = {"accuracy@1": 1.0, "precision@3": 1 / 3}
    named = evaluation.EmbeddingSimilarityEvaluator(["a"] * 3, ["b"] * 3, [0.1, 0.2, 0.3], name="nice data")
    model.model_card_data.set_evaluation_metrics(named, {f"nice data_cosine_{key}": x for key, x in tail.items()})
    model.model_card_data.set_evaluation_metrics(evaluation.TripletEvaluator(["a"], ["b"], ["c"]), {"cosine_x": 0.25})
    model.model_card_data.training_logs = [{"Epoch": 1, "Step": 1, "Training Loss": 1.0}]
    model.save_pretrained(str(tmp_path))
    header, text = yaml.safe_load((tmp_path / "README.md").read_text().split("---")[1]), card_of(tmp_path).text
    assert header["metrics"] == ["cosine_accuracy@1", "cosine_precision@3", "cosine_x"]
    (index,) = header["model-index"]
    assert index["name"] == "SentenceTransformer"
    assert index["results"] == [
        {
            "task": {"type": "semantic-similarity", "name": "Semantic Similarity"},
            "dataset": {"name": "nice data", "type": "nice-data"},
            "metrics": [
                {"type": "cosine_accuracy@1", "value": 1.0, "name": "Cosine Accuracy@1"},
                {"type": "cosine_precision@3", "value": 1 / 3, "name": "Cosine Precision@3"},
            ],
        },
        {
            "task": {"type": "triplet", "name": "Triplet"},
            "dataset": {"name": "Unknown", "type": "unknown"},
            "metrics": [{"type": "cosine_x", "value": 0.25, "name": "Cosine X"}],
        },
    ]
    assert "| cosine_precision@3 | 0.3333 |" in text and "model.encode(sentences)" in text
    searched = evaluation.InformationRetrievalEvaluator({"q": "a"}, {"d": "b"}, {"q": {"d"}})
    model.model_card_data.set_evaluation_metrics(searched, {"cosine_map@100": 1.0})
    assert "model.encode_query(queries)" in model.model_card_data.generate_usage_snippet()


def test_times_and_emissions_of_a_run(tmp_path):
    """The emissions of a callback that measured 12.3 g in two hours; values as 6.2.0 makes them."""
    measured = SimpleNamespace(
        emissions=0.0123456, energy_consumed=0.05, on_cloud="N", cpu_model="A CPU", ram_total_size=15.5,
        duration=7200.0, gpu_model="1 x GPU",
    )  # fmt: skip
    carbon = object.__new__(CodeCarbonCallback)  # without the package
    tracker = {"_prepare_emissions_data": lambda: measured, "start": lambda: None, "stop": lambda: None}
    carbon.tracker = SimpleNamespace(**tracker)
    model = model_of("out_st")
    train(model, tmp_path / "run", PAIRS, losses.MultipleNegativesRankingLoss(model), callbacks=[carbon])
    assert model.model_card_data.code_carbon_callback is carbon
    data = model.model_card_data
    assert 0 < data.training_duration < 60
    data.training_duration, data.evaluation_duration = 7500.0, 90.0
    model.save_pretrained(str(tmp_path / "saved"))
    card = card_of(tmp_path / "saved")
    assert yaml.safe_load(card.content.split("---")[1])["co2_eq_emissions"] == {
        "emissions": 12.3456,
        "energy_consumed": 0.05,
        "source": "codecarbon",
        "training_type": "fine-tuning",
        "on_cloud": False,
        "cpu_model": "A CPU",
        "ram_total_size": 15.5,
        "hours_used": 2.0,
        "hardware_used": "1 x GPU",
    }
    for line in ("- Training: 2.1 hours", "- Evaluation: 1.5 minutes", "- Total: 2.1 hours", "0.012 kg of CO2"):
        assert line in card.text, line
    assert pickle.loads(pickle.dumps(data)).code_carbon_callback is None  # it has threads


def test_evaluations_in_a_run_are_timed(tmp_path):
    model = model_of("out_st")
    evaluator = evaluation.TripletEvaluator(["a"], ["b"], ["c"])
    trainer = train(model, tmp_path, PAIRS, losses.MultipleNegativesRankingLoss(model), evaluator=evaluator)
    assert model.model_card_data.evaluation_duration == 0
    trainer.args.eval_strategy, trainer.args.eval_steps = IntervalStrategy.STEPS, 1
    trainer.train()
    timed = model.model_card_data.evaluation_duration
    assert 0 < timed < model.model_card_data.training_duration
    trainer.evaluate()  # no part of the training
    assert model.model_card_data.evaluation_duration == timed


def test_what_is_said_of_a_model_is_in_its_card(tmp_path):
    data = SentenceTransformerModelCardData(
        train_datasets=[{"name": "Felines", "id": "org/cats"}],
        task_name="finding cats",
        model_id="me/cats",
        generate_widget_examples=False,
    )
    model = model_of("out_st", model_card_data=data)
    train(model, tmp_path / "run", PAIRS, losses.MultipleNegativesRankingLoss(model))
    data.set_label_examples(Dataset.from_dict({"text": ["purr", "woof", "meow"], "label": [0, 1, 0]}))
    data.ir_model = True
    data.run_usage_snippet()
    model.save_pretrained(str(tmp_path / "saved"))
    card = card_of(tmp_path / "saved")
    assert card.data.to_dict()["datasets"] == ["org/cats"] and "widget" not in card.data.to_dict()
    similarity = model.similarity(model.encode_query(["a cat 8"]), model.encode_document(["the cat 8"]))
    for part in ("for finding cats.", "### Felines", "| 0 | 'purr', 'meow' |",
                 'SentenceTransformer("me/cats")', "model.encode_query(queries)", "    'a cat 8',",
                 f"# tensor([[{similarity.item():.4f}"):  # fmt: skip
        assert part in card.text, part


def test_data_sets_that_tell_where_they_come_from(tmp_path):
    """Found as 6.2.0 finds them; the name of a file's format is no name of the data."""
    cats, file = (Dataset.from_dict(PAIRS.to_dict()) for _ in range(2))
    cats.info.dataset_name, cats.info.builder_name = "cats", "parquet"
    cats.info.download_checksums = {"hf://datasets/org/cats@12ab/data/train.parquet": {}}
    file.info.dataset_name = file.info.builder_name = "csv"
    model = model_of("out_st")
    data = model.model_card_data
    assert data.infer_datasets(cats) == [{"name": "cats", "split": None, "id": "org/cats"}]
    assert data.infer_datasets({"a": cats, "b": file}, dataset_name=None) == [
        {"name": "a", "split": None, "id": "org/cats"},
        {"name": "b", "split": None},
    ]
    assert data.infer_datasets(file) == [{"name": None, "split": None}]
    train(model, tmp_path / "run", cats, losses.MultipleNegativesRankingLoss(model))
    model.save_pretrained(str(tmp_path / "saved"))
    card = card_of(tmp_path / "saved")
    assert card.data.to_dict()["datasets"] == ["org/cats"] and "### cats\n" in card.text


def test_a_template_of_ones_own(tmp_path):
    """Its values have the names that 6.2.0 gives them."""
    (tmp_path / "own.md").write_text(
        "---\n{{ card_data }}\n---\n# {{ model_name }} {{ model_max_length }} {{ tags[3] }}"
    )
    model = model_of("out_st")
    model.model_card_data.template_path = tmp_path / "own.md"
    model.save_pretrained(str(tmp_path / "saved"))
    assert card_of(tmp_path / "saved").text.startswith("# SentenceTransformer 64 dense\n")


def test_the_trainers_card_has_what_it_is_given(tmp_path):
    model = model_of("out_st")
    trainer = train(model, tmp_path, PAIRS, losses.MultipleNegativesRankingLoss(model))
    trainer.create_model_card(
        language="en", license="mit", tags="cats", model_name="Cats", finetuned_from="org/base", tasks="retrieval",
        dataset=["Felines", "Tigers"], dataset_tags=["org/cats"], dataset_args=["small"],
    )  # fmt: skip
    card = card_of(tmp_path)
    header = card.data.to_dict()
    given = {"language": ["en"], "license": "mit", "base_model": "org/base", "datasets": ["org/cats"]}
    assert given.items() <= header.items() and {"cats", "retrieval"} <= set(header["tags"])
    assert "# Cats\n" in card.text and "Felines (small), Tigers" in card.text


# ---- the README that is there

MINE = "---\nlicense: mit\ntags: [mine, dataset_size:3]\nmy_key: {a: 1}\n---\r\n# Mine\r\n\n---\nNot for X.  \n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with this library's card, and a model loaded from it and trained since."""
    folder = tmp_path_factory.mktemp("trained")
    SentenceTransformer(modules=list(model_of("out_st"))).save_pretrained(str(folder / "made"))
    model = SentenceTransformer(str(folder / "made"), device="cpu")
    train(model, folder / "run", PAIRS, losses.MultipleNegativesRankingLoss(model))
    return model


@pytest.mark.parametrize("mine", [MINE, f"\ufeff{MINE}", "# Mine\n"], ids=["metadata", "byte order mark", "none"])
def test_a_trained_model_keeps_the_text_and_updates_the_metadata(trained, mine, tmp_path):
    (tmp_path / "README.md").write_bytes(mine.encode())
    for _ in range(2):
        trained.save_pretrained(str(tmp_path))
        written = (tmp_path / "README.md").read_bytes().decode()
        header, text = re.fullmatch(r"---\n(.*?)\n---(.*)", written, re.DOTALL).groups()
        assert text == (mine.split("---", 2)[2] if MINE in mine else f"\n\n{mine}")
        found = yaml.safe_load(header)
        assert {"generated_from_trainer", "dataset_size:12"} <= set(found["tags"]) and len(found["widget"]) == 5
        if MINE in mine:
            assert found["license"] == "mit" and found["my_key"] == {"a": 1} and found["tags"][0] == "mine"
            assert "dataset_size:3" not in found["tags"]


@pytest.mark.parametrize("mine", [b"---\nlicense: [mit\n---\n# Mine\n", b"---\n- a\n---\n"], ids=["broken", "list"])
def test_metadata_that_cannot_be_read_is_left_alone(trained, mine, tmp_path, caplog):
    (tmp_path / "README.md").write_bytes(mine)
    trained.save_pretrained(str(tmp_path))
    assert (tmp_path / "README.md").read_bytes() == mine and "is kept as it is" in caplog.text


def test_text_in_another_encoding_is_kept(trained, tmp_path):
    (tmp_path / "README.md").write_bytes("# Größe\n".encode("latin-1"))
    trained.save_pretrained(str(tmp_path))
    assert (tmp_path / "README.md").read_bytes().endswith("\n\n# Größe\n".encode("latin-1"))


def test_which_readme_is_written(trained, tmp_path):
    """A card of this library's, and a copy of the one that the model came with, give way; everything else stays."""
    loaded = SentenceTransformer(str(trained.came_from), device="cpu")
    own = (trained.came_from / "README.md").read_text()
    for before, model, after in (
        (None, loaded, own),
        (own, loaded, own),
        (own, trained, "new"),
        ("# Mine\n", loaded, "# Mine\n"),
        (own + "Changed.\n", loaded, own + "Changed.\n"),
        (own + "Changed.\n", trained, "Changed.\n"),
    ):
        file = tmp_path / "README.md"
        file.unlink(missing_ok=True)
        if before is not None:
            file.write_text(before)
        model.save_pretrained(str(tmp_path))
        found = file.read_text()
        if after == "new":
            assert readme.is_generated(found) and "generated_from_trainer" in found and "## Training data" in found
        elif after == "Changed.\n":
            assert found.endswith(after) and "generated_from_trainer" in found and "## Training data" not in found
        else:
            assert found == after


def test_a_trainer_alone_is_no_change_of_the_card(tmp_path):
    """A model that was given to a trainer, but not trained, has the card that it came with."""
    text = "---\nlicense: mit\n---\n# Acme\n"
    SentenceTransformer(modules=list(model_of("out_st"))).save_pretrained(str(tmp_path / "a"))
    (tmp_path / "a" / "README.md").write_text(text)
    model = SentenceTransformer(str(tmp_path / "a"), device="cpu")
    args = SentenceTransformerTrainingArguments(str(tmp_path / "run"), report_to=[])
    SentenceTransformerTrainer(model, args, train_dataset=PAIRS, loss=losses.MultipleNegativesRankingLoss(model))
    model.save_pretrained(str(tmp_path / "b"))
    assert (tmp_path / "b" / "README.md").read_text() == text
    model.model_card_data.add_tags("cats")
    model.save_pretrained(str(tmp_path / "c"))
    assert "- cats" in (tmp_path / "c" / "README.md").read_text()


def test_the_trainers_card_keeps_the_text_of_a_readme(trained, tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n")
    args = SentenceTransformerTrainingArguments(str(tmp_path), report_to=[])
    loss = losses.MultipleNegativesRankingLoss(trained)
    SentenceTransformerTrainer(trained, args, train_dataset=PAIRS, loss=loss).create_model_card(license="mit")
    found = (tmp_path / "README.md").read_text()
    assert found.endswith("\n\n# Mine\n") and "license: mit" in found


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


def test_a_card_that_a_model_came_with_is_pushed(notes, tmp_path):
    SentenceTransformer(modules=list(model_of("out_st"))).save_pretrained(str(tmp_path))
    (tmp_path / "README.md").write_text("# Acme\n")
    SentenceTransformer(str(tmp_path), device="cpu").push_to_hub("org/name")
    assert notes[0].card == "# Acme\n"


@pytest.mark.parametrize(("exist_ok", "sent"), [(False, True), (True, False)], ids=["new", "there"])
def test_a_readme_on_the_hub_that_cannot_be_seen_stops_no_push(notes, monkeypatch, caplog, exist_ok, sent):
    """A new repository has none to lose; one that was there keeps its own."""

    def unseen(self, repo_id, filename, **kwargs):
        raise OSError("offline")

    monkeypatch.setattr(Notes, "file_exists", unseen)
    model_of("out_static").push_to_hub("org/name", exist_ok=exist_ok)
    assert ("README.md" in notes[0].files) is sent
    assert ("offline" in caplog.text) is exist_ok


@pytest.mark.parametrize(
    ("args", "kwargs", "made"),
    [
        (("name",), {"organization": "org"}, {}),
        (("org/name",), {"organization": "org"}, {}),
        ((), {"repo_name": "org/name"}, {}),
        (("name", "org", True), {}, {"private": True}),
        (("name", "org", "secret", True), {}, {"private": True, "token": "secret"}),
    ],
)
def test_the_older_name_in_all_its_forms(notes, args, kwargs, made, caplog):
    model_of("out_static").save_to_hub(*args, **kwargs)
    sent = notes[0].arguments("create_repo") | {"token": notes[0].made_with["token"]}
    assert {"repo_id": "org/name", "private": None, "token": None} | made == {
        key: sent[key] for key in ("repo_id", "private", "token")
    }
    assert "push_to_hub" in caplog.text


def test_two_organizations_are_an_error(notes):
    with pytest.raises(ValueError, match="organization='one', but repo_id='two/name'"):
        model_of("out_static").save_to_hub("two/name", organization="one")
    assert not notes


def test_a_pull_request_says_what_it_is_for(notes, tmp_path):
    score_models.SCORERS["causal"](tmp_path)
    for model, calls in (
        (model_of("out_static"), ["model.encode(", "model.similarity("]),
        (CrossEncoder(str(tmp_path), device="cpu"), ["model.predict(", "model.rank("]),
    ):
        notes.clear()
        model.push_to_hub("org/name", create_pr=True)
        text = notes[0].arguments("upload_folder")["commit_description"]
        name = type(model).__name__
        loads = [f"model = {name}(", '"org/name",', 'revision=f"refs/pr/{pr_number}",', 'backend="torch",']
        for part in (repr(model), *loads, *calls):
            assert part in text, part
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        given = {name: lambda *args, found=model, **kwargs: found}
        printed = []
        exec(re.sub("from .*", "", code), given | {"print": printed.append})
        assert len(printed) == 2
    model_of("out_static").push_to_hub("org/name")
    assert notes[-1].arguments("upload_folder")["commit_description"] is None


@pytest.mark.parametrize(
    ("model_class", "write", "tag", "words"),
    [
        (CrossEncoder, score_models.SCORERS["causal"], "text-ranking", ["model.rank(", "one score per pair"]),
        (CrossEncoder, score_models.SCORERS["saved_settings"], "text-", ["CrossEncoder(", "per pair"]),
        (SparseEncoder, score_models.SPARSE["splade_settings"], "feature-extraction", ["- splade", "model.decode("]),
        (
            SparseEncoder,
            score_models.SPARSE["inference_free"],
            "feature-extraction",
            ["- inference-free", "# Asymmetric Inference-free SPLADE Sparse Encoder\n"],
        ),
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


@pytest.mark.parametrize("searches", [None, True], ids=["as it is", "search"])
@pytest.mark.parametrize(
    ("model_class", "write"),
    [
        (SentenceTransformer, layouts.LAYOUTS["out_st"]),
        (CrossEncoder, score_models.SCORERS["causal"]),
        (CrossEncoder, score_models.SCORERS["saved_settings"]),
        (SparseEncoder, score_models.SPARSE["splade_settings"]),
        (MultiVectorEncoder, lambda folder: layouts.copy(folder, "out_mv")),
    ],
    ids=["dense", "judge", "classifier", "sparse", "multi-vector"],
)
def test_the_code_in_the_card_runs_and_prints_what_the_card_says(model_class, write, searches, tmp_path):
    """Run as a reader would; the last thing that it prints, but for decoded tokens, is the output in the card."""
    write(tmp_path)
    model = model_class(str(tmp_path), device="cpu")
    data = model.model_card_data
    data.ir_model = data.ir_model or searches
    data.run_usage_snippet()
    model.save_pretrained(str(tmp_path / "saved"), model_name=str(tmp_path))
    (code,) = re.findall(r"```python\n(.*?)```", card_of(tmp_path / "saved").text, re.DOTALL)
    printed = []
    exec(code, {"print": lambda value, *more: printed.append(str(value))})
    said = "\n".join(line.removeprefix("# ") for line in code.splitlines() if line.startswith("# "))
    assert said and said in printed
    assert len(printed) == {"CrossEncoder": 1 if getattr(model, "num_labels", 0) > 1 else 2}.get(
        model_class.__name__, 3 if model_class is SparseEncoder else 2
    )


def splade_loss(model):
    return of_sparse.SpladeLoss(model, of_sparse.SparseMultipleNegativesRankingLoss(model), 3e-5)


CARDS = {  # kind -> encoder, card data, trainer, arguments, loss, folder, whether the hub has a widget for it
    "dense": (SentenceTransformer, SentenceTransformerModelCardData, SentenceTransformerTrainer,
              SentenceTransformerTrainingArguments, losses.MultipleNegativesRankingLoss, "out_st", True),
    "sparse": (SparseEncoder, SparseEncoderModelCardData, SparseEncoderTrainer, SparseEncoderTrainingArguments,
               splade_loss, "out_splade", True),
    "tokens": (MultiVectorEncoder, MultiVectorEncoderModelCardData, MultiVectorEncoderTrainer,
               MultiVectorEncoderTrainingArguments, of_tokens.MultiVectorMultipleNegativesRankingLoss, "out_mv", True),
    "pairs": (CrossEncoder, CrossEncoderModelCardData, CrossEncoderTrainer, CrossEncoderTrainingArguments,
              of_pairs.MultipleNegativesRankingLoss, "out_ce", False),
}  # fmt: skip


@pytest.mark.parametrize("examples", [True, False])
@pytest.mark.parametrize("kind", CARDS)
def test_what_is_said_of_each_kind_of_model(kind, examples, tmp_path):
    encoder, card_data, trainer, arguments, loss, folder, has_widget = CARDS[kind]
    data = card_data(
        language=["de", "fr"],
        license="mit",
        model_name="A model of mine",
        model_id="me/mine",
        train_datasets=[{"name": "First rows", "id": "org/first"}],
        eval_datasets=[{"name": "Other rows", "id": "org/other"}],
        task_name="finding cats",
        tags=["mine", "cats"],
        generate_widget_examples=examples,
    )
    model = encoder(str(GOLDEN / folder), device="cpu", model_card_data=data)
    args = arguments(str(tmp_path / "run"), max_steps=1, per_device_train_batch_size=4, save_strategy="no",
                     report_to=[], disable_tqdm=True, use_cpu=True)  # fmt: skip
    trainer(model, args, train_dataset=PAIRS, eval_dataset=PAIRS.select(range(4)), loss=loss(model)).train()
    model.save_pretrained(str(tmp_path / "saved"))
    card = card_of(tmp_path / "saved")
    header = card.data.to_dict()
    assert (header["language"], header["license"]) == (["de", "fr"], "mit")
    assert header["datasets"] == ["org/first"] and header["tags"][:2] == ["mine", "cats"]
    assert bool(header.get("widget")) == (has_widget and examples)
    for part in ("# A model of mine\n", "for finding cats.", f'{encoder.__name__}("me/mine")', "### First rows\n",
                 "## Evaluation data\n\n### Other rows\n"):  # fmt: skip
        assert part in card.text, part
