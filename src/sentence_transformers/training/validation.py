"""Do the data fit the loss? Asked before the first step, answered with the whole situation.

A loss says which columns it takes (`losses.base.Accepts`); a data set says which it has. Where they disagree the error
shows the loss's table of accepted columns, the columns there are, and the first row. Losses of other people that say
nothing are not checked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from sentence_transformers.errors import InputError, NonFiniteLossError
from sentence_transformers.losses.base import Accepts, LabelKind, list_problem
from sentence_transformers.training.collator import LABEL_COLUMNS, RESERVED
from sentence_transformers.util.misc import column_values

if TYPE_CHECKING:
    from transformers import TrainerState

    from sentence_transformers.protocols import AnyDataset, LossOrLosses
    from sentence_transformers.training.arguments import BaseTrainingArguments

logger = logging.getLogger(__name__)

LABELS = {
    "none": "no label",
    "score": "a float",
    "class": "an integer",
    "embedding": "a list of floats: the teacher's embedding",
    "scores": "a list of floats",
}
BLOCK_ROWS = 10_000
LIST_KINDS = ("List", "Sequence", "LargeList", "Array2D")


def check_dataset(
    dataset: AnyDataset, loss: nn.Module | None, name: str | None = None, label_columns: Sequence[str] = LABEL_COLUMNS
) -> None:
    """Raise `InputError` if a data set is empty, has missing values, reserved names, or does not fit the loss.

    Args:
        dataset: a `datasets.Dataset` or `IterableDataset`.
        loss: the loss it goes to.
        name: which of several data sets it is.
    """
    called = f"Data set {name!r}" if name else "The data set"
    columns = list(dataset.column_names or [])
    if reserved := [column for column in columns if column in RESERVED]:
        raise InputError(f"{called} has columns named {reserved}, which are reserved. Rename them.")
    if hasattr(dataset, "__len__") and len(dataset) == 0:
        raise InputError(f"{called} is empty: it has no rows to train on. Its columns are {columns}.")
    check_missing(dataset, called)
    label = next((column for column in label_columns if column in columns), None)
    inputs = [column for column in columns if column != label]
    accepts: tuple[Accepts, ...] = tuple(getattr(loss, "accepts", ()) or ())
    if not columns or not accepts:
        return
    kinds, lists = kinds_of(dataset, label), holds_lists(dataset, inputs)
    fitting = [row for row in accepts if any(row.fits(len(inputs), cast(LabelKind, kind)) for kind in kinds)]
    if not any(row.lists == lists or lists is None for row in fitting):
        raise InputError(disagreement(called, type(loss).__name__, accepts, dataset, inputs, label))
    if label is not None:
        check_labels(dataset, loss, called, label)
        if any(row.lists for row in fitting):
            check_lists(dataset, called, inputs[1], label)


def holds_lists(dataset: AnyDataset, inputs: list[str]) -> bool | None:
    """Whether the last text column holds lists of texts; None if that is not known."""
    feature = (dataset.features or {}).get(inputs[-1]) if dataset.features is not None and inputs else None
    return None if feature is None else is_list(feature)


def is_list(feature: object) -> bool:
    return isinstance(feature, list) or type(feature).__name__ in LIST_KINDS


def check_labels(dataset: AnyDataset, loss: nn.Module | None, called: str, label: str) -> None:
    """Raise `InputError` naming the first row whose label is outside of what the loss takes."""
    bounds = getattr(loss, "label_range", None)
    if bounds is None or not hasattr(dataset, "__len__"):
        return
    low, high = bounds
    for i, (value,) in enumerate(values_of(dataset, label)):
        if not low <= value <= high and value != getattr(loss, "ignored_label", None):
            raise InputError(
                f"{called} has the label {value!r} in row {i}, column {label!r}. {type(loss).__name__} takes labels "
                f"from {low} to {high}{getattr(loss, 'range_reason', '')}."
            )


def check_lists(dataset: AnyDataset, called: str, documents: str, label: str) -> None:
    """Raise `InputError` naming the first row without documents, or with another number of labels than documents."""
    if not hasattr(dataset, "__len__"):
        return
    for i, (texts, labels) in enumerate(values_of(dataset, documents, label)):
        if problem := list_problem(texts, labels):
            raise InputError(f"{called}: row {i} {problem} (columns {documents!r} and {label!r}).")


def values_of(dataset: AnyDataset, *columns: str) -> Iterator[tuple[Any, ...]]:
    """The values of some columns, row by row, read in blocks."""
    plain = dataset.with_format(None).select_columns(list(columns))
    for start in range(0, len(plain), BLOCK_ROWS):
        block = plain[start : start + BLOCK_ROWS]
        yield from zip(*(block[column] for column in columns), strict=True)


def check_missing(dataset: AnyDataset, called: str) -> None:
    """Raise `InputError` naming the first row that holds None."""
    table = getattr(dataset, "data", None)
    if table is None or not hasattr(table, "column"):
        return
    for column in dataset.column_names:
        if not table.column(column).null_count:
            continue
        for i, value in enumerate(column_values(dataset, column)):
            if value is None:
                raise InputError(
                    f"{called} holds None in row {i}, column {column!r}. Drop such rows first: "
                    f"dataset.filter(lambda row: row[{column!r}] is not None)."
                )


def kinds_of(dataset: AnyDataset, label: str | None) -> set[str]:
    """The kinds of label that a label column may be meant as."""
    if label is None:
        return {"none"}
    feature = (dataset.features or {}).get(label) if dataset.features is not None else None
    if feature is None:
        return set(LABELS) - {"none"}
    kind = type(feature).__name__
    dtype = str(getattr(feature, "dtype", ""))
    if kind == "ClassLabel":
        return {"class"}
    if kind == "Value" and dtype.startswith(("int", "uint", "bool")):
        return {"class", "score"} if is_binary(dataset, label) else {"class"}
    if kind == "Value" and "float" in dtype:
        return {"score", "class"} if is_whole(dataset, label) else {"score"}
    if is_list(feature):
        return {"embedding", "scores"}
    return set()


def sample(dataset: AnyDataset, label: str) -> list[Any]:
    """Labels of the first rows; none of a stream."""
    if not hasattr(dataset, "__len__"):
        return []
    return list(dataset.with_format(None)[:1000][label])


def is_binary(dataset: AnyDataset, label: str) -> bool:
    return all(value in (0, 1) for value in sample(dataset, label))


def is_whole(dataset: AnyDataset, label: str) -> bool:
    return all(float(value).is_integer() for value in sample(dataset, label))


def disagreement(
    called: str, loss: str, accepts: tuple[Accepts, ...], dataset: AnyDataset, inputs: list[str], label: str | None
) -> str:
    """The error text: what the loss takes, what there is, what to do."""
    lines = [f"{called} does not fit {loss}.", f"{loss} takes"]
    for row in accepts:
        more = ", …" if row.most is None else ""
        lists = ", where every row has a list of documents" if row.lists else ""
        lines.append(f"    texts ({', '.join(row.inputs)}{more}) and {LABELS[row.label]}{lists}")
    feature = (dataset.features or {}).get(label) if label and dataset.features is not None else None
    has = f"label column {label!r}: {feature}" if label else f"no label column (none of {', '.join(LABEL_COLUMNS)})"
    lines += ["but there are", f"    texts ({', '.join(inputs)}) and {has}"]
    first = next(iter(dataset), None) if hasattr(dataset, "__len__") else None
    if first is not None:
        lines += ["First row:", *(f"    {key}: {shortened(value)}" for key, value in first.items())]
    holding = [name for name in inputs if is_list((dataset.features or {}).get(name))]
    if holding and not any(row.lists for row in accepts):
        lines.append(
            f"The columns {holding} hold lists, where {loss} takes one text. Make a column of each entry, negative_1, "
            "negative_2, …, or a row of each."
        )
    else:
        lines.append(advice(accepts, len(inputs), label, feature))
    return "\n".join(lines)


def advice(accepts: tuple[Accepts, ...], inputs: int, label: str | None, feature: object) -> str:
    """What to do about it."""
    right_count = [row for row in accepts if row.least <= inputs and (row.most is None or inputs <= row.most)]
    wanted = {row.label for row in right_count}
    if any(row.lists for row in accepts):
        return "Give each row a query, a list of documents and a list of as many labels."
    if not right_count:
        return "Choose the text columns, in their order, with dataset.select_columns([...])."
    if label is None:
        return "Name the label column 'label': dataset.rename_column(old, 'label')."
    if wanted == {"none"}:
        return f"Remove the label: dataset.remove_columns({label!r})."
    if "score" in wanted:
        return (
            "Make the label a float, for most losses between 0 and 1: scale it where needed and "
            f"dataset.cast_column({label!r}, Value('float32'))."
        )
    return f"Change the label, which is {feature}."


def shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_loss_names(loss: LossOrLosses, **data: Any) -> None:
    """Raise `InputError` where losses are named after data sets that do not match those of an argument."""
    for argument, dataset in data.items():
        if not isinstance(loss, Mapping) or dataset is None:
            continue
        if not isinstance(dataset, Mapping):
            raise InputError(f"loss has one loss per data set, but {argument} is a single data set. Give a dictionary.")
        if missing := sorted(set(dataset) - set(loss)):
            raise InputError(f"{argument} has {missing}, for which there is no loss; losses are for {sorted(loss)}.")


def check_mappings(model: nn.Module, args: BaseTrainingArguments, data: Sequence[Any], must_be_mapped: bool) -> None:
    """Raise `InputError` if a `Router` is not told which column goes where; warn of settings for other columns."""
    if must_be_mapped and not args.router_mapping and needs_mapping(model):
        raise InputError(
            "The model has a Router, but the training arguments have no router_mapping, so that all columns would "
            "go one way. Name the route of each: router_mapping={'question': 'query', 'answer': 'document'}."
        )
    names = names_in(data)
    for setting in ("prompts", "router_mapping"):
        given = getattr(args, setting)
        if names and isinstance(given, dict) and (unknown := unknown_names(given, names)):
            logger.warning(
                "%s names %s, but there is no such column or data set; there are %s.", setting, unknown, names
            )


def needs_mapping(model: nn.Module) -> bool:
    """Whether texts can go several ways through the model, and only their task says which."""
    routers: list[Any] = [
        part for part in model.modules() if hasattr(part, "sub_modules") and hasattr(part, "route_mappings")
    ]
    return any(len(router.sub_modules) > 1 and not router.route_mappings for router in routers)


def names_in(data: Sequence[Any]) -> list[str]:
    """Names of data sets and of their columns."""
    parts = [dict(one) if isinstance(one, Mapping) else {None: one} for one in data if one is not None]
    found = [[name, *(getattr(part, "column_names", None) or ())] for some in parts for name, part in some.items()]
    return sorted({name for names in found for name in names if name is not None})


def unknown_names(setting: Mapping[str, Any], names: list[str]) -> list[str]:
    """Keys of a setting by column, or by data set and column, that are among no names."""
    keys = [*setting, *(key for part in setting.values() if isinstance(part, Mapping) for key in part)]
    return [key for key in keys if key not in names]


def check_finite(
    value: Tensor, loss: nn.Module, dataset: str | None, inputs: Mapping[str, Any], state: TrainerState
) -> None:
    """Raise `NonFiniteLossError` for a loss that is no number, before the weights are spoiled."""
    if bool(torch.isfinite(value).all()):
        return
    columns = sorted({key.removesuffix("_lengths") for key in inputs if stands_for_column(key, inputs[key])})
    where = f" of data set {dataset!r}" if dataset else ""
    raise NonFiniteLossError(
        f"{type(loss).__name__} is {value.item()} at step {state.global_step}{where}, for a batch with the "
        f"columns {columns} and labels {inputs.get('label')}. The weights are as they were after step "
        f"{state.global_step}. Look at the labels, lower the learning rate, or train in a wider type."
    )


def stands_for_column(key: str, value: object) -> bool:
    """Whether an entry of a batch stands for a column: its lengths, or its texts as they are."""
    return key.endswith("_lengths") or isinstance(value, list | tuple)
