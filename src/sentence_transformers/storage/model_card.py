"""Model cards: the README.md of a saved model.

`BaseModelCardData` holds what is known about a model (language, license, data, base model); `generate_model_card` fills
the template beside this file with it and with what the model itself tells: modules, dimension, lengths, similarity.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Template
from typing import Any, ClassVar

from huggingface_hub import CardData, ModelCard

from sentence_transformers.storage.training_report import describe_dataset, training_report

PLACEHOLDER = "sentence_transformers_model_id"  # in the card of a model that was saved without a name
TEMPLATE = Path(__file__).parent / "model_card_template.md"

ENCODE = """\
from sentence_transformers import $class_name

model = $class_name("$model_id")
embeddings = model.encode(
    [
        "The weather is lovely today.",
        "It is sunny outside.",
        "He drove to the stadium.",
    ]
)
print(embeddings.shape)
print(model.similarity(embeddings, embeddings))"""

SPARSE = (
    ENCODE
    + """
print(model.decode(embeddings[0], top_k=5))"""
)

LATE = """\
from sentence_transformers import $class_name

model = $class_name("$model_id")
queries = model.encode_query(["How is the weather today?"])
documents = model.encode_document(
    [
        "The weather is lovely today.",
        "It is sunny outside.",
        "He drove to the stadium.",
    ]
)
print(queries[0].shape)
print(model.similarity(queries, documents))"""

RANK = """\
from sentence_transformers import CrossEncoder

model = CrossEncoder("$model_id")
query = "How is the weather today?"
documents = [
    "The weather is lovely today.",
    "It is sunny outside.",
    "He drove to the stadium.",
]
print(model.predict([(query, document) for document in documents]))
print(model.rank(query, documents))"""

PREDICT = """\
from sentence_transformers import CrossEncoder

model = CrossEncoder("$model_id")
scores = model.predict(
    [
        ("He drove to the stadium.", "He is at the stadium."),
        ("The weather is lovely today.", "It is raining."),
    ]
)
print(scores.shape)"""


def get_versions() -> dict[str, str]:
    """Versions of Python and of the packages that make a model's results."""
    import platform
    from importlib import metadata

    versions = {"python": platform.python_version()}
    for package in ("sentence-transformers", "transformers", "torch", "accelerate", "datasets", "tokenizers"):
        try:
            versions[package.replace("-", "_")] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


@dataclass
class BaseModelCardData(CardData):
    """What a model card says beyond what the model itself tells.

    Args:
        language: language code or codes, e.g. "en".
        license: e.g. "apache-2.0".
        model_name: the model's title.
        model_id: its hub id.
        train_datasets, eval_datasets: [{"name": …, "id": …}].
        task_name: what the model is for, in words.
        tags: hub tags.
        local_files_only: never ask the hub about the base model.
        generate_widget_examples: kept for compatibility.
    """

    language: str | list[str] | None = field(default_factory=list)
    license: str | None = None
    model_name: str | None = None
    model_id: str | None = None
    train_datasets: list[dict[str, str]] = field(default_factory=list)
    eval_datasets: list[dict[str, str]] = field(default_factory=list)
    task_name: str | None = "retrieval"
    tags: list[str] = field(
        default_factory=lambda: ["sentence-transformers", "sentence-similarity", "feature-extraction"]
    )
    local_files_only: bool = False
    generate_widget_examples: bool = True
    base_model: str | None = field(default=None, init=False)
    base_model_revision: str | None = field(default=None, init=False)
    pipeline_tag: str | None = field(default="sentence-similarity", init=False)
    library_name: str = field(default="sentence-transformers", init=False)
    version: dict[str, str] = field(default_factory=get_versions, init=False)
    non_default_hyperparameters: dict[str, Any] = field(default_factory=dict, init=False)
    all_hyperparameters: dict[str, Any] = field(default_factory=dict, init=False)
    eval_results_dict: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict, init=False)
    training_logs: list[dict[str, Any]] = field(default_factory=list, init=False)
    citations: dict[str, str] = field(default_factory=dict, init=False)
    best_model_step: int | None = field(default=None, init=False)
    model: Any = field(default=None, init=False, repr=False)

    USAGE: ClassVar[str] = ENCODE
    HEADER: ClassVar[tuple[str, ...]] = ("language", "license", "tags", "base_model", "pipeline_tag", "library_name")

    def register_model(self, model: Any) -> None:
        """The model that the card describes."""
        self.model = model

    def set_model_id(self, model_id: str) -> None:
        self.model_id = model_id

    def set_base_model(self, model_id: str, revision: str | None = None) -> bool:
        """Note the hub model this one was made from; local folders are not noted."""
        if Path(model_id).exists():
            return False
        self.base_model, self.base_model_revision = model_id, revision
        return True

    def set_language(self, language: str | list[str]) -> None:
        self.language = language

    def set_license(self, license: str) -> None:
        self.license = license

    def add_tags(self, tags: str | list[str]) -> None:
        """Add hub tags that are not there yet."""
        for tag in [tags] if isinstance(tags, str) else tags:
            if tag not in self.tags:
                self.tags.append(tag)

    # ---- a training run

    def set_losses(self, losses: list[Any]) -> None:
        """Note the papers of the losses that are trained with, and of those inside them."""
        for loss in losses:
            for part in loss.modules():
                if citation := getattr(part, "citation", ""):
                    self.citations[type(part).__name__] = citation

    def set_best_model_step(self, step: int) -> None:
        """The step whose weights the model has."""
        self.best_model_step = step

    def set_evaluation_metrics(self, evaluator: Any, metrics: dict[str, Any], epoch: int = 0, step: int = 0) -> None:
        """Note the last metrics of an evaluator."""
        key = (type(evaluator).__name__, str(getattr(evaluator, "name", "") or ""))
        self.eval_results_dict[key] = {name: round_metric(value) for name, value in metrics.items()}

    def add_log(self, epoch: float, step: int, values: dict[str, Any]) -> None:
        """Note values of a step; those of one step share a line."""
        if not self.training_logs or self.training_logs[-1]["Step"] != step:
            self.training_logs.append({"Epoch": epoch, "Step": step})
        self.training_logs[-1].update({name: round_metric(value) for name, value in values.items()})

    def extract_dataset_metadata(
        self, dataset: Any, dataset_metadata: list[dict[str, Any]], loss: Any, dataset_type: str = "train"
    ) -> list[dict[str, Any]]:
        """What the card says of the data sets of a run.

        Args:
            dataset: one data set, or several by name.
            dataset_metadata: what the user says of them, in the same order: name, id, …
            loss: the loss, or one for each by name.
        """
        parts = dict(dataset) if isinstance(dataset, dict) else {"": dataset}
        described = []
        for i, (name, part) in enumerate(parts.items()):
            given = dataset_metadata[i] if i < len(dataset_metadata) else {}
            own = loss[name] if isinstance(loss, dict) else loss
            config = own.get_config_dict() if hasattr(own, "get_config_dict") else {}
            known = {"loss": type(own).__name__, "loss_config": config} | ({"name": name} if name else {})
            described.append(known | (describe_dataset(part) if hasattr(part, "column_names") else {}) | given)
        return described

    def get_default_model_name(self) -> str:
        base = f" based on {self.base_model}" if self.base_model else ""
        return f"{type(self.model).__name__}{base}"

    def to_dict(self) -> dict[str, Any]:
        """The header of the card."""
        data = {key: getattr(self, key) for key in self.HEADER}
        data["datasets"] = [entry["id"] for entry in self.train_datasets if "id" in entry]
        data["model-index"] = self.model_index()
        return {key: value for key, value in data.items() if value not in (None, [], "")}

    def to_yaml(self, line_break: str | None = None, **kwargs: Any) -> str:
        from huggingface_hub.repocard_data import yaml_dump

        return yaml_dump(self.to_dict(), sort_keys=False, line_break=line_break).strip()

    def model_index(self) -> list[dict[str, Any]]:
        """The evaluation results as the hub reads them; [] without any."""
        results = [
            {
                "task": {"type": kind.removesuffix("Evaluator"), "name": kind.removesuffix("Evaluator")},
                "dataset": {"name": name or "unknown", "type": "unknown"},
                "metrics": [{"type": key, "value": value, "name": key} for key, value in metrics.items()],
            }
            for (kind, name), metrics in self.eval_results_dict.items()
        ]
        return [{"name": self.model_name or self.get_default_model_name(), "results": results}] if results else []

    def usage(self) -> str:
        """Lines of Python that use the model, with the fields of the template."""
        return self.USAGE

    def facts(self) -> dict[str, Any]:
        """What a reader wants to know of a model of this kind."""
        return {"Output": f"{self.model.get_embedding_dimension()} dimensions"} | (
            {"Similarity": self.model.similarity_fn_name} if hasattr(self.model, "similarity_fn_name") else {}
        )

    def get_model_specific_metadata(self) -> dict[str, Any]:
        """Values that fill the template: what the model tells of itself."""
        model = self.model
        return {
            "model_name": self.model_name or self.get_default_model_name(),
            "kind": model.model_type,
            "class_name": type(model).__name__,
            "task": self.task_name or "embedding",
            "model_id": self.model_id or "path/to/model",
            "base_model": f"[{self.base_model}](https://huggingface.co/{self.base_model})" if self.base_model else "-",
            "max_seq_length": model.max_seq_length or "unlimited",
            "language": ", ".join([self.language] if isinstance(self.language, str) else self.language or []) or "-",
            "license": self.license or "-",
            "datasets": ", ".join(entry.get("name", entry.get("id", "?")) for entry in self.train_datasets) or "-",
            "facts": "\n".join(f"- **{name}:** {value}" for name, value in self.facts().items()),
            "prompts": "\n".join(f"- `{name}`: {text!r}" for name, text in model.prompts.items() if text) or "none",
            "architecture": repr(model),
            "training": training_report(self),
            "versions": "\n".join(f"- {name}: {version}" for name, version in self.version.items()),
        }


def round_metric(value: Any) -> Any:
    """A value as it is shown: numbers with four decimals."""
    return round(float(value), 4) if isinstance(value, int | float) or hasattr(value, "item") else value


@dataclass
class SentenceTransformerModelCardData(BaseModelCardData):
    """Card of a SentenceTransformer."""

    task_name: str | None = (
        "semantic textual similarity, semantic search, paraphrase mining, classification, clustering, and more"
    )
    tags: list[str] = field(
        default_factory=lambda: ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense"]
    )


@dataclass
class CrossEncoderModelCardData(BaseModelCardData):
    """Card of a CrossEncoder."""

    task_name: str | None = None
    tags: list[str] = field(default_factory=lambda: ["sentence-transformers", "cross-encoder", "reranker"])
    pipeline_tag: str | None = field(default=None, init=False)

    USAGE: ClassVar[str] = RANK

    def register_model(self, model: Any) -> None:
        super().register_model(model)
        ranks = model.num_labels == 1
        self.pipeline_tag = self.pipeline_tag or ("text-ranking" if ranks else "text-classification")
        self.task_name = self.task_name or ("reranking and semantic search" if ranks else "classification of pairs")

    def facts(self) -> dict[str, Any]:
        count = "one score" if self.model.num_labels == 1 else f"{self.model.num_labels} scores"
        return {"Output": f"{count} per pair", "Activation": repr(self.model.activation_fn)}

    def usage(self) -> str:
        return RANK if self.model.num_labels == 1 else PREDICT


@dataclass
class SparseEncoderModelCardData(BaseModelCardData):
    """Card of a SparseEncoder."""

    task_name: str | None = None
    tags: list[str] = field(default_factory=lambda: ["sentence-transformers", "sparse-encoder", "sparse"])
    pipeline_tag: str | None = field(default=None, init=False)

    USAGE: ClassVar[str] = SPARSE

    def register_model(self, model: Any) -> None:
        """The model that the card describes; what it is made of becomes tags."""
        super().register_model(model)
        self.pipeline_tag = self.pipeline_tag or "feature-extraction"
        self.task_name = self.task_name or "semantic search and sparse retrieval"
        parts = {type(module).__name__ for module in model.modules()}
        if "Router" in parts:
            self.add_tags("asymmetric")
        if "SparseStaticEmbedding" in parts:
            self.add_tags("inference-free")
        if "SpladePooling" in parts:
            self.add_tags("splade")
        if "SparseAutoEncoder" in parts:
            self.add_tags("csr")


@dataclass
class MultiVectorEncoderModelCardData(BaseModelCardData):
    """Card of a MultiVectorEncoder."""

    task_name: str | None = "semantic search by late interaction"
    tags: list[str] = field(
        default_factory=lambda: ["sentence-transformers", "multi-vector", "colbert", "late-interaction"]
    )
    pipeline_tag: str | None = field(default="feature-extraction", init=False)

    USAGE: ClassVar[str] = LATE

    def facts(self) -> dict[str, Any]:
        """Dimension, similarity, and what is special to queries and documents."""
        dimension = self.model.get_embedding_dimension()
        first = self.model[0]
        sides = {
            "Query length": getattr(first, "query_length", None),
            "Document length": getattr(first, "document_length", None),
            "Query expansion": getattr(first, "query_expansion", None),
        }
        known = {name: value for name, value in sides.items() if value}
        return {"Output": f"one vector of {dimension} dimensions per token"} | {
            "Similarity": self.model.similarity_fn_name,
            **known,
        }


def write_card(model: Any, fresh: Path, target: Path, model_name: str | None, train_datasets: list[str] | None) -> None:
    """Write a model's card into `fresh`, which is to become `target`; the card that came with the model, or that stands
    in `target`, is kept unless the model was trained since it was loaded, or its card data was given or changed.
    """
    from sentence_transformers.storage.training_report import write_curve

    data: BaseModelCardData = model.model_card_data
    readme = "README.md"
    kept = next((place / readme for place in (model.came_from, target) if place and (place / readme).is_file()), None)
    trained = data.training_logs or data.all_hyperparameters
    if kept is not None and not trained and not is_changed(data, model):
        text = kept.read_text(encoding="utf-8")
        named = text.replace(PLACEHOLDER, model_name) if model_name else text
        if kept != target / readme or named != text:
            (fresh / readme).write_text(named, encoding="utf-8")
        return
    (fresh / readme).write_text(generate_model_card(model, model_name, train_datasets), encoding="utf-8")
    write_curve(data, fresh)


def is_changed(data: BaseModelCardData, model: Any) -> bool:
    """Whether card data says anything that was not found out from the model."""
    fresh = type(data)()
    fresh.register_model(model)
    names = [entry.name for entry in fields(data) if entry.init and not entry.name.startswith("base_model")]
    return any(getattr(data, name) != getattr(fresh, name) for name in names)


def generate_model_card(model: Any, model_name: str | None = None, train_datasets: list[str] | None = None) -> str:
    """The README.md of a model, header included.

    Args:
        model_name: title, instead of the one in the model's card data.
        train_datasets: hub ids of data sets to name.
    """
    data: BaseModelCardData = model.model_card_data
    data.register_model(model)
    values = data.get_model_specific_metadata()
    if model_name:
        values["model_name"] = model_name
    if train_datasets:
        values["datasets"] = ", ".join(train_datasets)
    values["usage"] = Template(data.usage()).substitute(values)
    body = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def __getattr__(name: str) -> Any:
    """The callbacks that keep a card up to date in training; they live there, and are imported from here too."""
    from sentence_transformers import _names

    if name.endswith("ModelCardCallback") and name in _names.HOME:
        return _names.home(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
