"""StaticEmbedding: a text's vector is the mean of its tokens' vectors, looked up in one table.

No transformer runs: tokenising is nearly all of the work. Tokens are one flat run, and `embedding_bag` gathers and
averages in one step:

    input_ids (T,), offsets (B,)  ->  sentence_embedding (B, H)

Tables come from training, from Model2Vec models, or by distilling a transformer's token vectors (both through the
`model2vec` package).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from sentence_transformers.engine.tokenization import Tokens, check_rows
from sentence_transformers.errors import InputError, MissingExtraError, ModelFormatError
from sentence_transformers.modules.lookup_input import LookupInput
from sentence_transformers.storage import weights
from sentence_transformers.storage.files import Source, reading

if TYPE_CHECKING:
    from model2vec import StaticModel

    from sentence_transformers.protocols import AnyTokenizer


class StaticEmbedding(LookupInput):
    """Mean of static token vectors.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, or a transformers tokenizer with one inside.
        embedding_weights: float of shape (V, H).
        embedding_dim: H for a new random table, instead of `embedding_weights`.
        base_model: name of the model that the table was made from; for the model card.

    Raises:
        InputError: if neither or both of weights and dimension are given, or the tokenizer has no Rust backend.
    """

    token_budget = 1 << 18
    max_seq_length: float = float("inf")
    position_offset = 0

    def __init__(
        self,
        tokenizer: AnyTokenizer,
        embedding_weights: np.ndarray | Tensor | None = None,
        embedding_dim: int | None = None,
        *,
        base_model: str | None = None,
    ) -> None:
        super().__init__()
        from tokenizers import Tokenizer

        rust = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(rust, Tokenizer):
            raise InputError(
                f"StaticEmbedding needs a tokenizers.Tokenizer or a fast tokenizer, got {type(tokenizer)}."
            )
        if embedding_weights is not None:
            tensor = torch.as_tensor(embedding_weights)
            table = nn.EmbeddingBag.from_pretrained(tensor, freeze=False)
        elif embedding_dim is not None:
            table = nn.EmbeddingBag(rust.get_vocab_size(), embedding_dim)
        else:
            raise InputError("Give embedding_weights of shape (V, H), or embedding_dim for a new random table.")
        self.embedding = table
        self.tokenizer: Any = rust
        self.base_model = base_model

    @property
    def embedding_dim(self) -> int:
        """H."""
        return self.embedding.embedding_dim

    @property
    def num_embeddings(self) -> int:
        """V."""
        return self.embedding.num_embeddings

    def get_embedding_dimension(self) -> int:
        """H."""
        return self.embedding_dim

    def limit(self) -> int | None:
        """Most tokens of a text: the tokenizer's own setting."""
        truncation = getattr(self.tokenizer, "truncation", None)
        return None if truncation is None else truncation["max_length"]

    def features(self, tokens: Tokens, packed: bool = True, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Tokens as `input_ids` (T,) and `offsets` (B,) on `device`."""
        ids, offsets = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.offsets[:-1].copy())
        return {"input_ids": ids.to(device), "offsets": offsets.to(device), "modality": "text"}

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **kwargs) -> dict[str, Tensor]:
        return self.features(self.tokens(inputs, prompt))

    def forward(self, features: dict[str, Any], **kwargs) -> dict[str, Any]:
        """Add `sentence_embedding` (B, H); a text without tokens gives zeros."""
        features["sentence_embedding"] = self.embedding(features["input_ids"], features["offsets"])
        return features

    # ---- disk

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        self.save_torch_weights(output_path, safe_serialization)
        self.save_tokenizer(output_path)

    @classmethod
    def from_source(cls, source: Source, init_defaults: dict[str, Any] | None = None, **kwargs: Any) -> Self:
        """Load a saved table; Model2Vec folders too, whose `mapping` and `weights` are folded into the table."""
        from tokenizers import Tokenizer

        path = source.path("tokenizer.json")
        if path is None:
            raise ModelFormatError(f"{source.name}/{source.subfolder} has no tokenizer.json.")
        table = fold(weights.read_tensors(source), source.name)
        with reading(path):
            tokenizer = Tokenizer.from_file(path)
        check_rows(tokenizer, len(table), path)
        return cls(tokenizer, embedding_weights=table)

    @classmethod
    def from_model2vec(cls, model_id_or_path: str) -> StaticEmbedding:
        """Load a Model2Vec model.

        Raises:
            MissingExtraError: if the `model2vec` package is not installed.
        """
        try:
            from model2vec import StaticModel
        except ImportError as error:
            raise MissingExtraError("model2vec", "model2vec", "StaticEmbedding.from_model2vec") from error
        return cls._of_static_model(StaticModel.from_pretrained(model_id_or_path), model_id_or_path)

    @classmethod
    def from_distillation(
        cls,
        model_name: str,
        vocabulary: list[str] | None = None,
        device: str | None = None,
        pca_dims: int | None = 256,
        apply_zipf: bool = True,
        sif_coefficient: float | None = 1e-4,
        token_remove_pattern: str | None = r"\[unused\d+\]",
        quantize_to: str = "float32",
        use_subword: bool = True,
        **kwargs: Any,
    ) -> StaticEmbedding:
        """Distil a transformer into a table of static token vectors, with the `model2vec` package.

        Args:
            model_name: folder or hub id of the transformer.
            vocabulary: words to add to the transformer's own tokens.
            pca_dims: H of the table; None keeps the transformer's.
            apply_zipf, sif_coefficient: down-weighting of frequent tokens (smooth inverse frequency).

        Raises:
            MissingExtraError: if `model2vec[distill]` is not installed.
        """
        try:
            from model2vec.distill import distill
        except ImportError as error:
            raise MissingExtraError("model2vec[distill]", "distill", "StaticEmbedding.from_distillation") from error
        from inspect import signature

        settings = {
            "vocabulary": vocabulary,
            "device": device,
            "pca_dims": pca_dims,
            "apply_zipf": apply_zipf,
            "sif_coefficient": sif_coefficient,
            "token_remove_pattern": token_remove_pattern,
            "quantize_to": quantize_to,
            "use_subword": use_subword,
            **kwargs,
        }
        known = signature(distill).parameters  # newer versions of model2vec dropped some settings
        return cls._of_static_model(
            distill(model_name, **{k: v for k, v in settings.items() if k in known}), model_name
        )

    @classmethod
    def _of_static_model(cls, static: StaticModel, name: str) -> StaticEmbedding:
        tensors = {"embeddings": torch.as_tensor(np.asarray(static.embedding))}
        for source, target in (("token_mapping", "mapping"), ("weights", "weights")):
            if (value := getattr(static, source, None)) is not None:
                tensors[target] = torch.as_tensor(np.asarray(value))
        return cls(static.tokenizer, embedding_weights=fold(tensors, name), base_model=name)


def fold(tensors: dict[str, Tensor], name: str) -> Tensor:
    """The (V, H) table of a file: `embedding.weight`, or Model2Vec's embeddings[mapping] · weights."""
    if "embedding.weight" in tensors:
        return tensors["embedding.weight"]
    if "embeddings" not in tensors:
        raise ModelFormatError(f"{name} has no static embeddings; its tensors are {sorted(tensors)}.")
    table = tensors["embeddings"]
    if "mapping" in tensors:
        table = table[tensors["mapping"].long()]
    if "weights" in tensors:
        table = table * tensors["weights"][:, None].to(table.dtype)
    return table.float() if table.dtype == torch.float64 else table
