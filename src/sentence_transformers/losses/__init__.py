"""Losses: what a model is trained to make small.

Each is a class that holds settings around a pure function of embeddings; see `losses.base` for what they share.
"""

from sentence_transformers import _names

_names.open_door(__name__)
