"""What an index is made of: fixed when it is made, stored in its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from sentence_transformers.errors import InputError

Similarity = Literal["cosine", "dot", "euclidean"]
Precision = Literal["float32", "int8", "binary"]
Rescore = Literal["float32", "int8"]
Engine = Literal["usearch", "faiss"]


@dataclass(frozen=True)
class Settings:
    """The settings of an index.

    Args:
        dimension: H of the dense vectors; None without them, or as long as nothing was added.
        sparse_dimension: V of the sparse vectors, likewise.
        similarity: how dense vectors are compared. With "cosine" they are stored at length 1.
        sparse_similarity: "dot" or "cosine", for the sparse vectors.
        precision: the form in which dense vectors are searched.
        rescore: the form that is kept beside it to score the candidates again; None to keep nothing.
        approximate: library of the HNSW graphs; None for exact search.
    """

    dimension: int | None = None
    sparse_dimension: int | None = None
    similarity: Similarity = "cosine"
    sparse_similarity: Literal["cosine", "dot"] = "dot"
    precision: Precision = "float32"
    rescore: Rescore | None = None
    approximate: Engine | None = None

    def __post_init__(self) -> None:
        check_choice("similarity", self.similarity, get_args(Similarity))
        check_choice("sparse_similarity", self.sparse_similarity, ("cosine", "dot"))
        check_choice("precision", self.precision, get_args(Precision))
        check_choice("rescore", self.rescore, (None, *get_args(Rescore)))
        check_choice("approximate", self.approximate, (None, *get_args(Engine)))
        for name in ("dimension", "sparse_dimension"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
        if self.rescore == self.precision or (self.precision == "float32" and self.rescore):
            raise InputError(f"Vectors of precision {self.precision!r} cannot be rescored with {self.rescore!r}.")

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms in which each dense vector is stored."""
        return (self.precision, self.rescore) if self.rescore else (self.precision,)

    @property
    def dimensions(self) -> dict[str, int | None]:
        """The dimension of each kind of vectors, by the kind of model that makes them."""
        return {"SentenceTransformer": self.dimension, "SparseEncoder": self.sparse_dimension}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Settings:
        """Settings from a manifest; `InputError` or `TypeError` if they are none."""
        return cls(**{field.name: content[field.name] for field in fields(cls)})


def check_choice(name: str, value: object, choices: tuple[Any, ...]) -> None:
    """`InputError` unless a value is one of those known."""
    if value not in choices:
        raise InputError(f"Unknown {name} {value!r}; known are {', '.join(map(repr, choices))}.")
