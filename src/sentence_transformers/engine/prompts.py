"""The two sides of a search: which prompt and route the texts of a query, or of a document, get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentence_transformers.protocols import WithPrompts

QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


PLAIN = "plain"


def chosen_side(model: WithPrompts, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `encode` for the side that `task` names: "document" (default), "query", or PLAIN for neither."""
    task = given.get("task", "document")
    if task == PLAIN:
        return {name: value for name, value in given.items() if name != "task"}
    prompts = QUERY_PROMPTS if task == "query" else DOCUMENT_PROMPTS
    return {**given, "task": task, "prompt_name": side_prompt(model, prompts, given)}


def document_side(model: WithPrompts, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by which `encode` does what `encode_document` does; those that are given win."""
    return {"task": "document", **given, "prompt_name": side_prompt(model, DOCUMENT_PROMPTS, given)}


def side_prompt(model: WithPrompts, prompts: Sequence[str], given: Mapping[str, Any]) -> str | None:
    """Name of the first of `prompts` that the model has, unless another prompt is given."""
    if given.get("prompt") is not None or given.get("prompt_name") is not None:
        return given.get("prompt_name")
    return next((name for name in prompts if name in model.prompts), None)
