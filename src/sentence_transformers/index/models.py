"""Texts to vectors, and whether a model is the one that an index was made with.

An index remembers its models by kind, name, dimension and the beginning of one vector: of `PROBE`, when the first
documents were added. A model of another dimension is refused when the index is opened; one that gives `PROBE` another
vector, when it first encodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sentence_transformers.errors import InputError
from sentence_transformers.protocols import SearchEncoder
from sentence_transformers.storage.fingerprint import cosine, of_vector

DENSE, SPARSE = "SentenceTransformer", "SparseEncoder"
PROBE = "The quick brown fox jumps over the lazy dog."
SETTINGS = ("truncate_dim",)
"""Arguments of the model's class without which it gives vectors of another dimension."""
LEAST_COSINE = 0.9
"""Of the vectors of `PROBE` by the model of an index and by the same in another backend or precision."""


def kind_of(model: SearchEncoder) -> str:
    """Whether a model gives dense or sparse vectors.

    Raises:
        InputError: if it is neither a SentenceTransformer nor a SparseEncoder.
    """
    kind = getattr(model, "model_type", None)
    if kind not in (DENSE, SPARSE):
        raise InputError(f"An index takes a SentenceTransformer or a SparseEncoder, got {type(model).__name__}.")
    return kind


class Encoders:
    """The models of an index, at most one of each kind.

    Args:
        models: None among them is passed over.

    Raises:
        InputError: if one is of no kind that an index takes, or two are of one kind.
    """

    def __init__(self, models: Iterable[Any] = ()) -> None:
        self.models: dict[str, Any] = {}
        self._proven: set[str] = set()
        for model in models:
            if model is None:
                continue
            if kind_of(model) in self.models:
                raise InputError(f"An index takes one {kind_of(model)}, got two.")
            self.models[kind_of(model)] = model

    def describe(self) -> dict[str, Any]:
        """What is remembered of them in a new index."""
        return {kind: describe(model) for kind, model in self.models.items()}

    def check(self, known: Mapping[str, Any], dimensions: Mapping[str, int | None]) -> None:
        """`InputError` if they cannot be the models that an index was made with, by kind and dimension."""
        for kind, model in self.models.items():
            if dimensions[kind] is None and any(dimensions.values()):
                raise InputError(f"The index has no vectors of a {kind}; it was made without one.")
            if dimensions[kind] not in (None, model.get_embedding_dimension()):
                name = known.get(kind, {}).get("name")
                raise InputError(
                    f"The model gives vectors of dimension {model.get_embedding_dimension()}, the index has "
                    f"{dimensions[kind]}{f' and was made with {name}' if name else ''}. Open it with that model."
                )

    def encode(self, kind: str, texts: list[str], side: str, known: Mapping[str, Any], progress: bool | None) -> Any:
        """Vectors of texts. The first time, the model is compared with what is known of it.

        Args:
            side: "query" or "document".
        """
        model = self.models[kind]
        if kind not in self._proven and known.get(kind, {}).get("probe"):
            check(model, known[kind])
            self._proven.add(kind)
        return encode(model, texts, side, show_progress_bar=progress)

    def learned(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of models, and of these that gave vectors for the first time."""
        new = {kind: model for kind, model in self.models.items() if not known.get(kind, {}).get("probe")}
        self._proven |= set(new)
        return {**known, **{kind: describe(model) | {"probe": probe(model)} for kind, model in new.items()}}


def encode(model: SearchEncoder, texts: list[str], side: str, **kwargs: Any) -> Any:
    """Vectors of texts, on the CPU.

    Args:
        side: "query" or "document".
    """
    encode_side = model.encode_query if side == "query" else model.encode_document
    if kind_of(model) == SPARSE:
        return encode_side(texts, convert_to_tensor=True, save_to_cpu=True, **kwargs)
    return encode_side(texts, convert_to_numpy=True, **kwargs)


def probe(model: SearchEncoder) -> list[float]:
    """The fingerprint of the vector of `PROBE`."""
    return of_vector(encode(model, [PROBE], "document", show_progress_bar=False)[0])


def describe(model: SearchEncoder) -> dict[str, Any]:
    """What an index remembers of a model."""
    name, revision = origin_of(model)
    return {
        "kind": kind_of(model),
        "name": name,
        "revision": revision,
        "settings": {key: value for key in SETTINGS if (value := getattr(model, key, None)) is not None},
        "dimension": model.get_embedding_dimension(),
        "probe": None,
    }


def origin_of(model: SearchEncoder) -> tuple[str | None, str | None]:
    """By what the model can be loaded again: the folder that it was loaded from, or its name on the hub and its
    revision there. What a model card says is something else: the model that this one was trained from.
    """
    if made_from := getattr(model, "_made_from", None):
        return made_from
    if folder := getattr(model, "came_from", None):
        return str(folder), None
    return getattr(getattr(model, "model_card_data", None), "model_id", None), None


def check(model: SearchEncoder, known: Mapping[str, Any]) -> None:
    """`InputError` if a model gives `PROBE` another vector than the index remembers."""
    likeness = cosine(probe(model), known["probe"], kind_of(model) == SPARSE)
    if not likeness >= LEAST_COSINE:
        raise InputError(
            f"This is not the model that the index was built with ({known['name'] or 'unnamed'}): it has the same "
            f"dimension, but a known text gets another vector (cosine {likeness:.3f}). "
            "Open the index with that model, or build a new one."
        )
