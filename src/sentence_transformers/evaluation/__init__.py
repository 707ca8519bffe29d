"""Evaluators: how good a model is, in numbers with names; see `evaluation.base` for what they share."""

from sentence_transformers import _names

_names.open_door(__name__)
