"""What a model card tells of a training run, in Markdown: data, losses, settings, results, citations.

Plain data in, text out; nothing here loads torch or datasets. Of a data set the first rows are looked at, a stream is
not touched.
"""

from __future__ import annotations

import functools
import html
import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

if TYPE_CHECKING:
    from sentence_transformers.protocols import AnyDataset
    from sentence_transformers.storage.base_model_card import BaseModelCardData

FIRST_ROWS = 1000
CURVE_FILE = "training_curve.svg"
LIBRARY_CITATION = """@inproceedings{reimers-2019-sentence-bert,
    title = "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    author = "Reimers, Nils and Gurevych, Iryna",
    booktitle = "Proceedings of the 2019 Conference on Empirical Methods in Natural Language Processing",
    month = "11",
    year = "2019",
    publisher = "Association for Computational Linguistics",
    url = "https://arxiv.org/abs/1908.10084",
}"""


def cell(value: object, width: int = 120) -> str:
    """A value as the cell of a Markdown table."""
    text = str(value) if not isinstance(value, float) else f"{value:.4g}"
    text = text if len(text) <= width else text[: width - 1] + "…"
    return html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;")


def table(headers: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(map(cell, headers))} |", f"|{'|'.join(' --- ' for _ in headers)}|"]
    return "\n".join(lines + [f"| {' | '.join(map(cell, row))} |" for row in rows])


def column_statistics(values: list[Any]) -> str:
    """What the values of a column are like, in a few words."""
    if all(isinstance(value, str) for value in values):
        lengths = [len(value) for value in values]
        return f"text, {min(lengths)} to {max(lengths)} characters, mean {sum(lengths) / len(lengths):.0f}"
    if all(isinstance(value, bool | int) for value in values) and len(set(values)) <= 20:
        shares = Counter(values)
        return "class, " + ", ".join(f"{key}: {shares[key] / len(values):.1%}" for key in sorted(shares))
    if all(isinstance(value, int | float) for value in values):
        return f"number, {min(values):.4g} to {max(values):.4g}, mean {sum(values) / len(values):.4g}"
    if all(isinstance(value, list | tuple) for value in values):
        return f"list of {min(map(len, values))} to {max(map(len, values))} values"
    return type(values[0]).__name__


def describe_dataset(dataset: AnyDataset) -> dict[str, Any]:
    """Size, columns, what their values are like, and three rows of a data set."""
    columns = list(dataset.column_names or [])
    described: dict[str, Any] = {"columns": columns}
    if not hasattr(dataset, "__len__"):
        return described
    described["size"] = len(dataset)
    first = dataset.with_format(None)[: min(FIRST_ROWS, len(dataset))]
    described["stats"] = {name: column_statistics(first[name]) for name in columns if first[name]}
    described["examples"] = [[first[name][i] for name in columns] for i in range(min(3, len(dataset)))]
    return described


def dataset_section(entry: dict[str, Any]) -> str:
    """The paragraph of one data set."""
    title = entry.get("name") or entry.get("id") or "Unnamed data set"
    lines = [f"### {cell(title)}", ""]
    if "size" in entry:
        lines.append(f"- **Size:** {entry['size']:,} rows")
    if entry.get("columns"):
        lines.append(f"- **Columns, in order:** {', '.join(f'`{name}`' for name in entry['columns'])}")
    if entry.get("loss"):
        lines.append(f"- **Loss:** `{entry['loss']}` with `{json.dumps(entry.get('loss_config') or {}, default=str)}`")
    if entry.get("router_mapping"):
        lines.append(f"- **Routes:** `{json.dumps(entry['router_mapping'], default=str)}`")
    if entry.get("stats"):
        count = min(FIRST_ROWS, entry["size"])
        rows = [[name, text] for name, text in entry["stats"].items()]
        lines += ["", f"The first {count:,} rows:", "", table(["column", "values"], rows)]
    if entry.get("examples"):
        lines += ["", "Samples:", "", table(entry["columns"], entry["examples"])]
    return "\n".join(lines)


def logs_section(logs: list[dict[str, Any]], best_step: int | None) -> str:
    """The table of losses and metrics over time; the best step in bold."""
    keys = list(dict.fromkeys(key for entry in logs for key in entry if key not in ("Epoch", "Step")))
    rows = []
    for entry in logs:
        row: list[Any] = [f"{entry['Epoch']:.4g}", entry["Step"], *(entry.get(key, "-") for key in keys)]
        best = best_step is not None and entry["Step"] == best_step
        rows.append([f"**{cell(value)}**" for value in row] if best else row)
    return table(["Epoch", "Step", *keys], rows)


def has_curve(logs: list[dict[str, Any]]) -> bool:
    """Whether a curve is drawn: something was logged at several steps, and matplotlib is installed."""
    if find_spec("matplotlib") is None:
        return False
    names = Counter(name for entry in logs for name in entry)
    return any(count > 1 for name, count in names.items() if name not in ("Epoch", "Step"))


def write_curve(card: BaseModelCardData, folder: Path) -> bool:
    """Draw the curve that the report shows; False if it shows none."""
    if not has_curve(card.training_logs):
        return False
    from sentence_transformers import plots

    panels = plots.curves(card.training_logs)
    plots.save(functools.partial(plots.draw_curves, panels=panels, best=card.best_model_step), folder / CURVE_FILE)
    return True


def metrics_section(results: list[dict[str, Any]]) -> str:
    """The metrics of each evaluator, as `format_eval_metrics` of the card gives them."""
    parts = []
    for one in results:
        name, config = one["dataset_name"], one["config"]
        parts += [f"### {cell(one['description'])}{f': {cell(name)}' if name else ''}", ""]
        settings = f" with `{json.dumps(config, default=str)}`" if config else ""
        parts += [f"By `{one['class_name']}`{settings}:", "", one["table"], ""]
    return "\n".join(parts).rstrip()


def label_table(examples: list[dict[str, str]]) -> str:
    """Examples of labels as a table; "" for none."""
    return table(list(examples[0]), [list(row.values()) for row in examples]) if examples else ""


def shown(value: object) -> Any:
    """A value as it is shown: numbers with four decimals."""
    return round(float(value), 4) if isinstance(value, SupportsFloat) else value


def training_report(card: BaseModelCardData) -> str:
    """All sections that a card's data have something for; "" for a model that was not trained here."""
    parts: list[str] = []
    results = card.format_eval_metrics()["eval_metrics"]
    if results:
        parts += ["## Evaluation", metrics_section(results)]
    for title, entries in (("Training data", card.train_datasets), ("Evaluation data", card.eval_datasets)):
        if any("columns" in entry for entry in entries):
            parts += [f"## {title}", *(dataset_section(entry) for entry in entries)]
    if card.non_default_hyperparameters or card.all_hyperparameters:
        parts.append("## Settings")
        parts.append(
            "\n".join(f"- `{k}`: {cell(v)}" for k, v in card.non_default_hyperparameters.items()) or "Defaults."
        )
        every = "\n".join(f"- `{key}`: {cell(value)}" for key, value in card.all_hyperparameters.items())
        parts.append(f"<details><summary>All settings</summary>\n\n{every}\n\n</details>")
    if card.training_logs:
        parts.append("## Training log")
        if has_curve(card.training_logs):
            parts.append(f"![Losses and metrics by step]({CURVE_FILE})")
        parts.append(logs_section(card.training_logs, card.best_model_step))
    if not parts:
        return ""
    citations = {"Sentence Transformers": LIBRARY_CITATION, **card.citations}
    parts.append("## Citation")
    parts += [f"{name}:\n\n```bibtex\n{text}\n```" for name, text in citations.items()]
    return "\n\n".join(parts) + "\n\n"
