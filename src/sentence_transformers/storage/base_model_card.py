"""What is known about a model of any kind, as metadata for the hub and as values of the text of its card.

`BaseModelCardData` holds what the user says of a model (language, license, data, base model), and what a training run
tells of itself; `to_dict` adds what the model itself tells: modules, dimension, lengths, similarity. With these values
the Jinja template `template_path` is filled.
"""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, SupportsFloat

from huggingface_hub import CardData

from sentence_transformers.storage import usage_snippets as snippets
from sentence_transformers.storage.training_report import (
    describe_dataset,
    label_table,
    logs_section,
    shown,
    table,
    training_report,
)
from sentence_transformers.util.environment import get_installed_version

if TYPE_CHECKING:
    from torch import nn

    from sentence_transformers.encoders.base import BaseModel
    from sentence_transformers.protocols import AnyDataset, Evaluator

TEMPLATE = Path(__file__).parent / "model_card_template.md"
ALSO_SAID = (  # besides the arguments
    "base_model", "pipeline_tag", "datasets", "widget", "usage_examples", "label_example_list", "similarities",
    "template_path",
)  # fmt: skip
WIDGET_EXAMPLES = 5
LABEL_COLUMNS = ("label", "labels", "score", "scores")


def get_versions() -> dict[str, str]:
    """Versions of Python and of the packages that make a model's results."""
    import platform

    packages = ("sentence-transformers", "transformers", "torch", "accelerate", "datasets", "tokenizers")
    found = {package.replace("-", "_"): installed_version(package) for package in packages}
    return {"python": platform.python_version()} | {name: version for name, version in found.items() if version}


installed_version = cache(get_installed_version)
"""Read from disk once per package: it takes some milliseconds."""


@dataclass(frozen=True)
class Evaluated:
    """Which evaluator metrics are of; not the evaluator itself, which may hold a whole corpus.

    Attributes:
        class_name: of the evaluator.
        name: of the data.
        description: the evaluator's kind in words.
        primary_metric: the one that says which model is best.
        config: settings that the card shows.
    """

    class_name: str
    name: str
    description: str = field(compare=False)
    primary_metric: str | None = field(default=None, compare=False)
    config: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass
class BaseModelCardData(CardData):
    """What a model card says beyond what the model itself tells.

    Args:
        language: language code or codes, e.g. "en".
        license: e.g. "apache-2.0".
        model_name: the model's title.
        model_id: the hub id by which the code in the card loads the model.
        train_datasets, eval_datasets: [{"name": …, "id": …}], in the order of the data sets of a training run; "id" is
            a hub id.
        task_name: what the model is for, in words.
        tags: hub tags.
        local_files_only: never ask the hub about the base model; it is never asked here.
        generate_widget_examples: whether the metadata has examples from the training data for the hub's widget.

    Attributes:
        base_model, base_model_revision: hub id and revision of the model that was trained.
        widget: inputs for the hub's widget.
        usage_examples: inputs in the code of the card.
        ir_model: whether that code encodes queries and documents, instead of one kind of texts.
        label_example_list: examples of the labels, as rows of a table.
        code_carbon_callback: the callback that measures the emissions of a run.
        datasets: hub ids of data sets, beside those of `train_datasets`.
        similarities: output of the code in the card, as comments; see `run_usage_snippet`.
        training_duration, evaluation_duration: seconds of the run, and of the evaluations in it.
        template_path: the Jinja template of the card; it gets the values of `to_dict`.
    """

    language: str | list[str] | None = field(default_factory=list)
    license: str | None = None
    model_name: str | None = None
    model_id: str | None = None
    train_datasets: list[dict[str, Any]] = field(default_factory=list)
    eval_datasets: list[dict[str, Any]] = field(default_factory=list)
    task_name: str | None = "retrieval"
    tags: list[str] = field(
        default_factory=lambda: ["sentence-transformers", "sentence-similarity", "feature-extraction"]
    )
    local_files_only: bool = False
    generate_widget_examples: bool = True
    base_model: str | None = field(default=None, init=False)
    base_model_revision: str | None = field(default=None, init=False)
    non_default_hyperparameters: dict[str, Any] = field(default_factory=dict, init=False)
    all_hyperparameters: dict[str, Any] = field(default_factory=dict, init=False)
    eval_results_dict: dict[Evaluated, dict[str, Any]] = field(default_factory=dict, init=False)
    training_logs: list[dict[str, Any]] = field(default_factory=list, init=False)
    widget: list[dict[str, Any]] = field(default_factory=list, init=False)
    usage_examples: list[Any] | None = field(default=None, init=False)
    label_example_list: list[dict[str, str]] = field(default_factory=list, init=False)
    code_carbon_callback: Any = field(default=None, init=False)
    training_duration: float = field(default=0.0, init=False)
    evaluation_duration: float = field(default=0.0, init=False)
    citations: dict[str, str] = field(default_factory=dict, init=False)
    best_model_step: int | None = field(default=None, init=False)
    ir_model: bool | None = field(default=None, init=False)
    datasets: list[str] = field(default_factory=list, init=False)
    similarities: str | None = field(default=None, init=False)
    pipeline_tag: str | None = field(default="sentence-similarity", init=False)
    library_name: str = field(default="sentence-transformers", init=False)
    version: dict[str, str] = field(default_factory=get_versions, init=False)
    template_path: Path = field(default=TEMPLATE, init=False)
    model: Any = field(default=None, init=False, repr=False)
    _found: dict[str, Any] | None = field(default=None, init=False, repr=False)  # said by a run alone

    HEADER: ClassVar[tuple[str, ...]] = (
        "language",
        "license",
        "tags",
        "base_model",
        "datasets",
        "widget",
        "pipeline_tag",
        "library_name",
        "metrics",
        "co2_eq_emissions",
        "model-index",
    )
    PLACEHOLDER: ClassVar[str] = "sentence_transformers_model_id"  # in the code of a card that was saved without a name
    model_type: ClassVar[str] = "Sentence Transformer"
    TRIAL: ClassVar[str] = snippets.TRY_ENCODE

    def __post_init__(self) -> None:
        self.language = as_list(self.language)

    def __getstate__(self) -> dict[str, Any]:
        """Without the callback, which has threads of its own."""
        return self.__dict__ | {"code_carbon_callback": None}

    def register_model(self, model: BaseModel) -> None:
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

    def try_to_set_base_model(self) -> None:
        """Note the hub model that the registered model was loaded from, if no other is noted."""
        if self.base_model is None and (made_from := getattr(self.model, "_made_from", None)):
            self.set_base_model(*made_from)

    def set_language(self, language: str | list[str]) -> None:
        self.language = as_list(language)

    def set_license(self, license: str) -> None:
        self.license = license

    def add_tags(self, tags: str | list[str]) -> None:
        """Add hub tags that are not there yet."""
        for tag in as_list(tags):
            if tag not in self.tags:
                self.tags.append(tag)

    def said(self) -> dict[str, Any]:
        """What may be said of the model by its user."""
        names = [entry.name for entry in fields(self) if entry.init and entry.name != "model_id"]
        return deepcopy({name: getattr(self, name) for name in (*names, *ALSO_SAID)})

    def is_changed(self) -> bool:
        """Whether anything was said of the model that it, or a training run, does not tell itself."""
        if self._found is None:
            fresh = type(self)()
            if self.model is not None:
                fresh.register_model(self.model)
                fresh.try_to_set_base_model()
            return self.said() != fresh.said()
        return self.said() != self._found

    # ---- a training run

    def start_run(
        self,
        losses: list[Any],
        loss: nn.Module | dict[str, nn.Module],
        train_dataset: AnyDataset,
        eval_dataset: AnyDataset,
        router_mapping: dict[str, Any] | None = None,
    ) -> None:
        """Note what a run trains on, and with what; that alone is no change of the card (`is_changed`)."""
        changed = self.is_changed()
        self.add_tags("generated_from_trainer")
        for kind, dataset in (("train", train_dataset), ("eval", eval_dataset)):
            if hasattr(dataset, "column_names") or isinstance(dataset, dict):
                known = getattr(self, f"{kind}_datasets")
                setattr(
                    self, f"{kind}_datasets", self.extract_dataset_metadata(dataset, known, loss, kind, router_mapping)
                )
        examples = next((one for one in (train_dataset, eval_dataset) if row_count(one)), None)
        if examples is not None:
            self.set_widget_examples(examples)
        self.set_losses(losses)
        self._found = None if changed else self.said()

    def set_losses(self, losses: list[Any]) -> None:
        """Note the losses that are trained with and those inside them, as tags, and their papers."""
        inner = [part for loss in losses for part in list(loss.modules())[1:] if is_loss(part)]
        names = list(dict.fromkeys(type(loss).__name__ for loss in [*losses, *inner]))
        self.tags = [tag for tag in self.tags if not tag.startswith("loss:")]
        self.add_tags([f"loss:{name}" for name in names])
        for loss in losses:
            for part in loss.modules():
                if citation := getattr(part, "citation", ""):
                    self.citations[type(part).__name__] = citation

    def set_best_model_step(self, step: int) -> None:
        """The step whose weights the model has."""
        self.best_model_step = step

    def set_evaluation_metrics(
        self, evaluator: Evaluator, metrics: dict[str, Any], epoch: int = 0, step: int = 0
    ) -> None:
        """Note the last metrics of an evaluator."""
        name = str(getattr(evaluator, "name", "") or "")
        kind = type(evaluator).__name__
        key = Evaluated(
            kind,
            name,
            getattr(evaluator, "description", kind.removesuffix("Evaluator")),
            getattr(evaluator, "primary_metric", None),
            dict(evaluator.get_config_dict()) if hasattr(evaluator, "get_config_dict") else {},
        )
        self.eval_results_dict.pop(key, None)
        self.eval_results_dict[key] = {name: number(value) for name, value in metrics.items()}
        self.try_to_set_ir_model_from_evaluators()

    def try_to_set_ir_model_from_evaluators(self) -> None:
        """Let the code of the card search, if nothing was said of it and the model was evaluated by searching."""
        kinds = ("InformationRetrievalEvaluator", "NanoBEIREvaluator", "RerankingEvaluator")
        if self.ir_model is None and any(one.class_name.endswith(kinds) for one in self.eval_results_dict):
            self.ir_model = True

    def add_log(self, epoch: float, step: int, values: dict[str, Any]) -> None:
        """Note values of a step; those of one step share a line."""
        if not self.training_logs or self.training_logs[-1]["Step"] != step:
            self.training_logs.append({"Epoch": epoch, "Step": step})
        self.training_logs[-1].update({name: shown(value) for name, value in values.items()})

    def extract_dataset_metadata(
        self,
        dataset: AnyDataset,
        dataset_metadata: list[dict[str, Any]],
        loss: nn.Module | dict[str, nn.Module],
        dataset_type: str = "train",
        router_mapping: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """What the card says of the data sets of a run; for training, their size becomes a tag.

        Args:
            dataset: one data set, or several by name.
            dataset_metadata: what the user says of them, in the same order: name, id, …
            loss: the loss, or one for each by name.
            router_mapping: column -> route, or one for each data set by name; shown where it is given.
        """
        parts = dict(dataset) if isinstance(dataset, dict) else {"": dataset}
        described = []
        for i, (name, part) in enumerate(parts.items()):
            given = dataset_metadata[i] if i < len(dataset_metadata) else {}
            info = {key: value for key, value in self.infer_datasets(part, name)[0].items() if value} | given
            described.append(self.compute_dataset_metrics(part, info, loss[name] if isinstance(loss, dict) else loss))
            if router_mapping:
                described[-1]["router_mapping"] = router_mapping.get(name, router_mapping)
        if dataset_type == "train":
            self.tags = [tag for tag in self.tags if not tag.startswith("dataset_size:")]
            if size := sum(map(row_count, parts.values())):
                self.add_tags(f"dataset_size:{size}")
        return described

    def infer_datasets(self, dataset: AnyDataset, dataset_name: str | None = None) -> list[dict[str, Any]]:
        """Name, split and hub id of a data set, or of several by name, as far as they tell.

        Args:
            dataset_name: instead of the name that the data set gives itself.
        """
        if isinstance(dataset, dict):
            return [found for name, part in dataset.items() for found in self.infer_datasets(part, name)]
        info, split = getattr(dataset, "info", None), getattr(dataset, "split", None)
        own = getattr(info, "dataset_name", None)  # that of a file's format if it was read from a file
        own = None if own == getattr(info, "builder_name", None) else own
        found = {"name": dataset_name or own, "split": None if split is None else str(split)}
        files = " ".join(getattr(info, "download_checksums", None) or {})
        hub = re.search(r"hf://datasets/([^/@\s]+/[^/@\s]+)@", files)
        return [found | ({"id": hub[1]} if hub else {})]

    def compute_dataset_metrics(
        self,
        dataset: AnyDataset,
        dataset_info: dict[str, Any],
        loss: nn.Module | None = None,
        router_mapping: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """What is known of one data set: size, columns, the kinds of their values, rows, and its loss.

        Args:
            dataset_info: what the user says of it; it wins.
            router_mapping: column -> route.
        """
        config_of = getattr(loss, "get_config_dict", dict)
        known: dict[str, Any] = {} if loss is None else {"loss": type(loss).__name__, "loss_config": config_of()}
        routes = {"router_mapping": router_mapping} if router_mapping else {}
        return known | routes | (describe_dataset(dataset) if hasattr(dataset, "column_names") else {}) | dataset_info

    def set_widget_examples(self, dataset: AnyDataset) -> None:
        """Take examples for the hub's widget, and for the code of the card, from a data set or several by name."""
        rows = example_rows(dataset)
        if not rows:
            return
        pool = list(dict.fromkeys(text for row in rows for text in row[1:]))
        if self.generate_widget_examples:
            self.widget = self._widget_of(rows, pool)
        self.usage_examples = self._examples_of(rows, pool)

    def _widget_of(self, rows: list[list[str]], pool: list[str]) -> list[dict[str, Any]]:
        """The widget's inputs from rows of texts; `pool` has the texts of all columns but the first."""
        if self.pipeline_tag != "sentence-similarity":
            return [{"text": row[-1]} for row in rows]
        return [{"source_sentence": row[0], "sentences": filled(row, pool)[1:]} for row in rows if len(row) > 1]

    def _examples_of(self, rows: list[list[str]], pool: list[str]) -> list[Any]:
        """The inputs in the code of the card."""
        return filled(rows[-1], pool)

    def set_label_examples(self, dataset: AnyDataset) -> None:
        """Take up to three texts of each label from a data set with the columns "text" and "label"."""
        found: dict[Any, list[str]] = {}
        for row in dataset:
            found.setdefault(row["label"], []).append(row["text"])
        self.label_example_list = [
            {"Label": str(label), "Examples": ", ".join(map(repr, texts[:3]))} for label, texts in sorted(found.items())
        ]

    def get_codecarbon_data(self) -> dict[str, Any]:
        """{"co2_eq_emissions": …} as the hub reads it, from the callback of CodeCarbon; {} without one."""
        tracker = getattr(self.code_carbon_callback, "tracker", None)
        if tracker is None:
            return {}
        data = tracker._prepare_emissions_data()
        found = {
            "emissions": float(data.emissions) * 1000,  # g
            "energy_consumed": float(data.energy_consumed),  # kWh
            "source": "codecarbon",
            "training_type": "fine-tuning",
            "on_cloud": data.on_cloud == "Y",
            "cpu_model": data.cpu_model,
            "ram_total_size": data.ram_total_size,
            "hours_used": round(data.duration / 3600, 3),
        }
        return {"co2_eq_emissions": found | ({"hardware_used": data.gpu_model} if data.gpu_model else {})}

    def get_training_duration_data(self) -> dict[str, str | None]:
        """Times of a run in words; None where nothing was measured."""
        alone = max(self.training_duration - self.evaluation_duration, 0.0)
        evaluated = bool(self.evaluation_duration)
        return {
            "training_time": in_words(alone) if self.training_duration else None,
            "evaluation_time": in_words(self.evaluation_duration) if evaluated else None,
            "total_time": in_words(self.training_duration) if evaluated else None,
        }

    # ---- what the card says

    def get_default_model_name(self) -> str:
        base = f" based on {self.base_model}" if self.base_model else ""
        return f"{type(self.model).__name__}{base}"

    def format_eval_metrics(self) -> dict[str, Any]:
        """The evaluations: "eval_metrics" for the text, "metrics" and "model-index" for the hub."""
        found, results, names = [], [], []
        for one, values in self.eval_results_dict.items():
            plain = without_prefix(values, one.name)
            best = (one.primary_metric or "").removeprefix(f"{one.name}_")
            bold = {key: f"**{key}**" if key == best else key for key in plain}
            found.append(
                {
                    "class_name": one.class_name,
                    "description": one.description,
                    "dataset_name": one.name,
                    "config": one.config,
                    "table": table(["Metric", "Value"], [[bold[key], shown(value)] for key, value in plain.items()]),
                }
            )
            metrics = [
                {"type": key, "value": value, "name": key.replace("_", " ").title()}
                for key, value in plain.items()
                if isinstance(value, float)
            ]
            results.append(
                {
                    "task": {"type": one.description.lower().replace(" ", "-"), "name": one.description},
                    "dataset": {"name": one.name or "Unknown", "type": re.sub(r"\s", "-", one.name) or "unknown"},
                    "metrics": metrics,
                }
            )
            names += [key["type"] for key in metrics]
        index = [{"name": self.model_name or self.get_default_model_name(), "results": results}] if results else []
        return {"eval_metrics": found, "metrics": list(dict.fromkeys(names)), "model-index": index}

    def format_training_logs(self) -> dict[str, Any]:
        """The table of losses and metrics over time: "eval_lines"; "" without any."""
        return {"eval_lines": logs_section(self.training_logs, self.best_model_step) if self.training_logs else ""}

    def usage_texts(self) -> list[Any]:
        """The inputs in the code of the card."""
        return self.usage_examples or (snippets.RETRIEVAL if self.ir_model else snippets.SENTENCES)

    def usage_calls(self) -> str:
        """Python that computes with `model` on the inputs."""
        texts = self.usage_texts()
        return snippets.search(texts) if self.ir_model else snippets.encode(texts)

    def generate_usage_snippet(self) -> str:
        """The code of the card, as Markdown."""
        calls = self.usage_calls() + (f"\n{self.similarities}" if self.similarities else "")
        return snippets.whole(type(self.model).__name__, self.model_id or self.PLACEHOLDER, calls)

    def run_usage_snippet(self) -> None:
        """Compute what the code of the card prints last, to be shown in it."""
        texts = self.usage_texts()
        queries, documents = (texts[:1], texts[1:]) if self.ir_model else (texts, texts)
        rows = (self.model.encode_query(queries), self.model.encode_document(documents)) if self.ir_model else None
        first, second = rows or (self.model.encode(texts),) * 2
        self.similarities = snippets.commented(self.model.similarity(first, second))

    def facts(self) -> dict[str, Any]:
        """What a reader wants to know of a model of this kind."""
        return {"Output": f"{self.model.get_embedding_dimension()} dimensions"} | (
            {"Similarity": self.model.similarity_fn_name} if hasattr(self.model, "similarity_fn_name") else {}
        )

    def get_model_specific_metadata(self) -> dict[str, Any]:
        """Values for the template that the model tells of itself."""
        model = self.model
        dimension = {}
        if hasattr(model, "similarity_fn_name"):
            dimension["similarity_fn_name"] = model.similarity_fn_name
            dimension["output_dimensionality"] = model.get_embedding_dimension()
        return dimension | {
            "model_max_length": model.max_seq_length,
            "model_string": repr(model),
            "supported_modalities": [name.title() for name in model.modalities if isinstance(name, str)],
            "class_name": type(model).__name__,
            "facts": self.facts(),
            "prompts": {name: repr(text) for name, text in model.prompts.items() if text},
        }

    def to_dict(self) -> dict[str, Any]:
        """All values that the template may use: the attributes, and what is made of them and of the model."""
        data = {
            entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in ("model", "_found")
        }
        titles = [entry.get("name") or entry.get("id") for entry in self.train_datasets]
        data |= {
            "language": as_list(self.language),
            "datasets": list(
                dict.fromkeys(self.datasets + [one["id"] for one in self.train_datasets if one.get("id")])
            ),
            "training_data": list(dict.fromkeys([title for title in titles if title] + self.datasets)),
            "model_type": self.model_type,
            "co2_eq_emissions": None,
            **self.get_codecarbon_data(),
            **self.get_training_duration_data(),
            **self.format_training_logs(),
            "training_report": training_report(self),
            "label_table": label_table(self.label_example_list),
            **self.format_eval_metrics(),
        }
        if self.model is not None:
            data |= self.get_model_specific_metadata() | {
                "model_name": self.model_name or self.get_default_model_name(),
                "usage_snippet": self.generate_usage_snippet(),
            }
        return data

    def to_yaml(self, line_break: str | None = None, **kwargs: Any) -> str:
        """The metadata of the card."""
        from huggingface_hub.repocard_data import yaml_dump

        data = self.to_dict()
        header = {key: data[key] for key in self.HEADER if data[key] not in (None, [], "")}
        return yaml_dump(header, sort_keys=False, line_break=line_break).strip()


def as_list(value: str | list[str] | None) -> list[str]:
    """One string, several or none as a list."""
    return [value] if isinstance(value, str) else list(value or [])


def distinct(values: list[str | None]) -> list[str]:
    """The strings among the values, each once, in their order."""
    return list(dict.fromkeys(filter(None, values)))


def is_loss(module: object) -> bool:
    """Whether a module inside a loss is a loss itself, rather than a part of the model or of torch."""
    return type(module).__name__.endswith("Loss") and not type(module).__module__.startswith("torch.")


def row_count(dataset: AnyDataset) -> int:
    """Rows of a data set, or of several by name; 0 for streams, whose length is not known."""
    if isinstance(dataset, dict):
        return sum(map(row_count, dataset.values()))
    return len(dataset) if hasattr(dataset, "column_names") and hasattr(dataset, "__len__") else 0


def example_rows(dataset: AnyDataset) -> list[list[str]]:
    """Texts of up to `WIDGET_EXAMPLES` rows, evenly spaced, of a data set or several by name."""
    parts = list(dataset.values()) if isinstance(dataset, dict) else [dataset]
    parts = [part for part in parts if row_count(part)]
    rows = []
    for i, part in enumerate(parts):
        share = len(range(i, WIDGET_EXAMPLES, len(parts)))
        step = max(len(part) // max(share, 1), 1)
        for place in range(0, len(part), step)[:share]:
            texts = [value for name, value in part.with_format(None)[place].items() if name not in LABEL_COLUMNS]
            rows.append([value for value in texts if isinstance(value, str) and value])
    return [row for row in rows if row]


def filled(row: list[str], pool: list[str], size: int = 4) -> list[str]:
    """A row of texts with others behind it, up to `size`."""
    others = [text for text in pool if text not in row]
    return row + others[: max(size - len(row), 0)]


def number(value: object) -> Any:
    """A metric as a plain float where it is a number."""
    return float(value) if isinstance(value, SupportsFloat) else value


def without_prefix(metrics: dict[str, Any], name: str) -> dict[str, Any]:
    """Metrics under their own names, if all begin with the name of the evaluator."""
    if name and all(key.startswith(f"{name}_") for key in metrics):
        return {key.removeprefix(f"{name}_"): value for key, value in metrics.items()}
    return metrics


def in_words(seconds: float) -> str:
    """A time as "12.0 seconds", "3.5 minutes" or "2.1 hours"."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
