"""What this library's functions ask of the models, losses and evaluators that they are given.

A class need not inherit from anything here: having the methods is enough. Further arguments are those of the classes of
this library: `SentenceTransformer.encode`, `CrossEncoder.predict`, `losses`, `evaluation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias, Union

    import datasets
    import tokenizers
    import transformers
    from torch import Tensor, nn

    AnyDataset: TypeAlias = Union[datasets.Dataset, datasets.IterableDataset]  # noqa: UP007
    Data: TypeAlias = Union[AnyDataset, Mapping[str, AnyDataset]]  # noqa: UP007
    AnyTokenizer: TypeAlias = tokenizers.Tokenizer | transformers.PreTrainedTokenizerBase
    AnyProcessor: TypeAlias = (
        transformers.PreTrainedTokenizerBase
        | transformers.BaseImageProcessor
        | transformers.FeatureExtractionMixin
        | transformers.ProcessorMixin
    )
    LossOrMaker: TypeAlias = nn.Module | Callable[[Any], nn.Module]
    LossOrLosses: TypeAlias = LossOrMaker | Mapping[str, LossOrMaker]

Measured = TypeVar("Measured", contravariant=True)


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


class WithPrompts(Protocol):
    """A model that knows texts to put before its inputs."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Name -> text."""


class Evaluator(Protocol[Measured]):
    """Measures a model, of the kind that it is for: a number, or metrics by name."""

    def __call__(
        self, model: Measured, output_path: str | None = None, epoch: Any = -1, steps: Any = -1
    ) -> float | dict[str, float]:
        """Metrics of a model; files go into `output_path`."""


class EmbeddingLoss(Protocol):
    """A loss that can be part of another one, which embeds the batch for it."""

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Any, /) -> Tensor | Mapping[str, Tensor]:
        """Of (B, H) for each column, and the labels."""


class Example(Protocol):
    """Texts and what is known of them: `InputExample`."""

    texts: Any
    label: Any


Texts = Sequence[Any]
"""Inputs of a model: texts, or whatever else it takes."""
