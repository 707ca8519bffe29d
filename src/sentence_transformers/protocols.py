"""What this library's functions ask of the models, losses and evaluators that they are given.

A class need not inherit from anything here: having the methods is enough. Further arguments are those of the classes of
this library: `SentenceTransformer.encode`, `CrossEncoder.predict`, `losses`, `evaluation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias, Union

    import datasets
    from torch import Tensor, nn

    AnyDataset: TypeAlias = Union[datasets.Dataset, datasets.IterableDataset]  # noqa: UP007
    Data: TypeAlias = Union[AnyDataset, Mapping[str, AnyDataset]]  # noqa: UP007
    LossOrMaker: TypeAlias = nn.Module | Callable[[Any], nn.Module]
    LossOrLosses: TypeAlias = LossOrMaker | Mapping[str, LossOrMaker]


class Encoder(Protocol):
    """Texts -> embeddings: an array or tensor (B, H), a sparse tensor (B, V), or a list of B arrays (tokens, H)."""

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """Embeddings of inputs."""


class SearchEncoder(Encoder, Protocol):
    """An encoder that tells queries from documents, and compares them by a similarity of its own."""

    @property
    def similarity_fn_name(self) -> Any:
        """Name of the similarity: "cosine"."""

    def encode_query(self, *args: Any, **kwargs: Any) -> Any:
        """Embeddings of queries."""

    def encode_document(self, *args: Any, **kwargs: Any) -> Any:
        """Embeddings of documents."""

    def get_embedding_dimension(self) -> int | None:
        """H, where it is known."""

    def similarity(self, *args: Any, **kwargs: Any) -> Tensor:
        """Of Q queries and D documents: (Q, D)."""

    def similarity_pairwise(self, *args: Any, **kwargs: Any) -> Tensor:
        """Of N pairs: (N,)."""


class Reranker(Protocol):
    """Pairs of texts -> scores (B,) or (B, labels)."""

    @property
    def num_labels(self) -> int:
        """Scores of a pair."""

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Scores of pairs."""


class Loss(Protocol):
    """One batch -> a scalar, or a dictionary of terms to be summed."""

    def __call__(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None, /) -> Any:
        """Loss of features, one dictionary per column, and labels."""


class Evaluator(Protocol):
    """Measures a model: a number, or metrics by name."""

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: Any = -1, steps: Any = -1
    ) -> float | dict[str, float]:
        """Metrics of a model; files go into `output_path`."""


class Example(Protocol):
    """Texts and what is known of them: `InputExample`."""

    texts: Any
    label: Any


Texts = Sequence[Any]
"""Inputs of a model: texts, or whatever else it takes."""
