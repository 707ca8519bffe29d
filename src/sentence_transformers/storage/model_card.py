"""Model cards: those of each kind of model, and their text (`storage.readme` puts it in place).

`BaseModelCardData` (`storage.base_model_card`) holds what all have in common.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from huggingface_hub import ModelCard

from sentence_transformers.storage import usage_snippets as snippets
from sentence_transformers.storage.base_model_card import BaseModelCardData
from sentence_transformers.storage.base_model_card import get_versions as get_versions

if TYPE_CHECKING:
    from sentence_transformers.encoders.base import BaseModel

SPARSE_KINDS = {"asymmetric": "Asymmetric", "inference-free": "Inference-free", "splade": "SPLADE", "csr": "CSR"}


@dataclass
class SentenceTransformerModelCardData(BaseModelCardData):
    """Card of a SentenceTransformer."""

    task_name: str | None = (
        "semantic textual similarity, semantic search, paraphrase mining, classification, clustering, and more"
    )
    tags: list[str] = field(
        default_factory=lambda: ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense"]
    )


@dataclass
class CrossEncoderModelCardData(BaseModelCardData):
    """Card of a CrossEncoder."""

    task_name: str | None = None
    tags: list[str] = field(default_factory=lambda: ["sentence-transformers", "cross-encoder", "reranker"])
    pipeline_tag: str | None = field(default=None, init=False)
    ir_model: bool | None = field(default=True, init=False)

    PLACEHOLDER: ClassVar[str] = "cross_encoder_model_id"
    model_type: ClassVar[str] = "Cross Encoder"
    TRIAL: ClassVar[str] = snippets.TRY_PREDICT

    def register_model(self, model: BaseModel) -> None:
        super().register_model(model)
        ranks = model.num_labels == 1
        self.pipeline_tag = self.pipeline_tag or ("text-ranking" if ranks else "text-classification")
        self.task_name = self.task_name or (
            "text reranking and semantic search" if ranks else "text pair classification"
        )

    def _widget_of(self, rows: list[list[str]], pool: list[str]) -> list[dict[str, Any]]:
        """None: the hub has no widget for pairs."""
        return []

    def _examples_of(self, rows: list[list[str]], pool: list[str]) -> list[Any]:
        """Pairs of texts."""
        return [row[:2] for row in rows if len(row) > 1]

    def usage_texts(self) -> list[Any]:
        return self.usage_examples or snippets.PAIRS

    def usage_calls(self) -> str:
        calls = snippets.predict(self.usage_texts())
        return calls if self.model.num_labels > 1 else f"{calls}\n\n{snippets.rank(self.usage_texts())}"

    def run_usage_snippet(self) -> None:
        if self.model.num_labels > 1:
            self.similarities = snippets.commented(self.model.predict(self.usage_texts()))
            return
        pairs = self.usage_texts()
        self.similarities = snippets.commented(self.model.rank(pairs[0][0], [second for _, second in pairs]))

    def facts(self) -> dict[str, Any]:
        count = "one score" if self.model.num_labels == 1 else f"{self.model.num_labels} scores"
        return {"Output": f"{count} per pair", "Activation": repr(self.model.activation_fn)}

    def get_model_specific_metadata(self) -> dict[str, Any]:
        return super().get_model_specific_metadata() | {"model_num_labels": self.model.num_labels}


@dataclass
class SparseEncoderModelCardData(BaseModelCardData):
    """Card of a SparseEncoder."""

    task_name: str | None = None
    tags: list[str] = field(default_factory=lambda: ["sentence-transformers", "sparse-encoder", "sparse"])
    pipeline_tag: str | None = field(default=None, init=False)

    PLACEHOLDER: ClassVar[str] = "sparse_encoder_model_id"

    @property
    def model_type(self) -> str:  # type: ignore[override]  # a fixed text for the other kinds
        """The kind of model in words, by its tags: "Asymmetric Inference-free SPLADE Sparse Encoder"."""
        return " ".join([word for tag, word in SPARSE_KINDS.items() if tag in self.tags] + ["Sparse Encoder"])

    def get_default_model_name(self) -> str:
        return self.model_type

    def register_model(self, model: BaseModel) -> None:
        """The model that the card describes; what it is made of becomes tags."""
        super().register_model(model)
        self.pipeline_tag = self.pipeline_tag or "feature-extraction"
        self.task_name = self.task_name or "semantic search and sparse retrieval"
        parts = {type(module).__name__ for module in model.modules()}
        if "Router" in parts:
            self.add_tags("asymmetric")
        if "SparseStaticEmbedding" in parts:
            self.add_tags("inference-free")
        if "SpladePooling" in parts:
            self.add_tags("splade")
        if "SparseAutoEncoder" in parts:
            self.add_tags("csr")

    def usage_calls(self) -> str:
        rows = "document_embeddings" if self.ir_model else "embeddings"
        return f"{super().usage_calls()}\nprint(model.decode({rows}[0], top_k=5))"


@dataclass
class MultiVectorEncoderModelCardData(BaseModelCardData):
    """Card of a MultiVectorEncoder.

    Attributes:
        usage_query_shape, usage_document_shape: of the first query and document in the code; see `run_usage_snippet`.
    """

    task_name: str | None = "semantic search with late interaction"
    tags: list[str] = field(
        default_factory=lambda: ["sentence-transformers", "multi-vector", "colbert", "late-interaction"]
    )
    pipeline_tag: str | None = field(default="feature-extraction", init=False)
    ir_model: bool | None = field(default=True, init=False)
    usage_query_shape: tuple[int, ...] | None = field(default=None, init=False)
    usage_document_shape: tuple[int, ...] | None = field(default=None, init=False)

    PLACEHOLDER: ClassVar[str] = "multi_vector_encoder_model_id"
    model_type: ClassVar[str] = "Multi-Vector Encoder"
    TRIAL: ClassVar[str] = snippets.TRY_SEARCH

    def get_default_model_name(self) -> str:
        return self.model_type

    def usage_calls(self) -> str:
        return snippets.search(self.usage_texts(), first="[0]")

    def run_usage_snippet(self) -> None:
        texts = self.usage_texts()
        queries, documents = self.model.encode_query(texts[:1]), self.model.encode_document(texts[1:])
        self.usage_query_shape, self.usage_document_shape = tuple(queries[0].shape), tuple(documents[0].shape)
        self.similarities = snippets.commented(self.model.similarity(queries, documents))

    def facts(self) -> dict[str, Any]:
        """Dimension, similarity, and what is special to queries and documents."""
        dimension = self.model.get_embedding_dimension()
        first = self.model[0]
        sides = {
            "Query length": getattr(first, "query_length", None),
            "Document length": getattr(first, "document_length", None),
            "Query expansion": getattr(first, "query_expansion", None),
        }
        known = {name: value for name, value in sides.items() if value}
        return {"Output": f"one vector of {dimension} dimensions per token"} | {
            "Similarity": self.model.similarity_fn_name,
            **known,
        }


def generate_model_card(
    model: BaseModel, model_name: str | None = None, train_datasets: list[str] | None = None
) -> str:
    """The README.md of a model, metadata included.

    Args:
        model_name: the hub id by which the code loads the model, instead of the one in the model's card data.
        train_datasets: hub ids of data sets to name beside those of the card data.
    """
    data: BaseModelCardData = model.model_card_data
    data.register_model(model)
    given: Any = copy(data)
    given.code_carbon_callback = data.code_carbon_callback
    given.model_id = model_name or data.model_id
    given.datasets = [*data.datasets, *(train_datasets or [])]
    return str(ModelCard.from_template(given, template_path=str(data.template_path)))
