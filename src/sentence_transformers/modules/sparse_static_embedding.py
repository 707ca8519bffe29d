"""SparseStaticEmbedding: a text's weights are looked up, one per word it contains; no transformer runs.

    w_v = weight_v if token v occurs in the text, else 0

However often it occurs, and without special tokens. This is the query side of inference-free sparse retrieval: the
weights are inverse document frequencies, or learned. Geng et al. 2024, https://arxiv.org/abs/2411.04403.

    input_ids (T,), packing  ->  sentence_embedding (B, V), sparse COO; dense while gradients are recorded
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sentence_transformers.engine.tokenization import Tokens
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.features import Features, Packing
from sentence_transformers.modules.lookup_input import LookupInput
from sentence_transformers.storage import weights
from sentence_transformers.storage.files import Source
from sentence_transformers.util.csr import coo

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sentence_transformers.protocols import AnyTokenizer

logger = logging.getLogger(__name__)

ENTRIES = ("input_ids", "token_type_ids", "attention_mask", "modality")  # of features, in their order


class SparseStaticEmbedding(LookupInput):
    """One weight per token of the vocabulary.

    Args:
        tokenizer: a transformers tokenizer.
        weight: float of shape (V,); default: ones.
        frozen: whether training leaves the weights as they are.

    Raises:
        InputError: if there is not one weight per token.
    """

    config_keys: ClassVar[list[str]] = ["frozen"]
    token_budget = 1 << 16

    def __init__(self, tokenizer: AnyTokenizer, weight: Tensor | None = None, frozen: bool = False) -> None:
        super().__init__()
        size = len(tokenizer) if hasattr(tokenizer, "__len__") else tokenizer.get_vocab_size()
        weight = torch.ones(size) if weight is None else torch.as_tensor(weight)
        if weight.ndim != 1 or len(weight) < 1:
            raise InputError(f"Expected one weight per token, of shape ({size},); got {tuple(weight.shape)}.")
        self.weight = nn.Parameter(weight.float(), requires_grad=not frozen)
        self.tokenizer = tokenizer
        self.frozen = frozen

    def __repr__(self) -> str:
        tokenizer = type(self.tokenizer).__name__
        return f"SparseStaticEmbedding({self.get_config_dict()}, dim={len(self.weight)}, tokenizer={tokenizer})"

    @property
    def num_dimensions(self) -> int:
        """V."""
        return len(self.weight)

    def get_embedding_dimension(self) -> int:
        """V."""
        return len(self.weight)

    @property
    def max_seq_length(self) -> int | None:
        """Most tokens per text; longer texts are cut. May be set."""
        limit = getattr(self.tokenizer, "model_max_length", None)
        return int(limit) if limit is not None and limit < 10**20 else None

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self.tokenizer.model_max_length = int(1e30) if value is None else value

    # ---- texts -> features -> vectors

    def limit(self) -> int | None:
        return self.max_seq_length

    def features(self, tokens: Tokens, packed: bool = True, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Tokens as a packed or padded batch on `device`."""
        ids = torch.from_numpy(tokens.ids).to(device)
        features = {"input_ids": ids, "packing": Packing(tokens.lengths, device), "modality": "text"}
        return features if packed else Features.of(features).pad()

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **kwargs) -> dict[str, Any]:
        """Texts as a padded batch: input_ids, attention_mask and, if the tokenizer gives them, token_type_ids, int64 of
        shape (B, L).
        """
        features = self.features(self.tokens(inputs, prompt), packed=False)
        if "token_type_ids" in getattr(self.tokenizer, "model_input_names", ()):
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        return Features({name: features[name] for name in ENTRIES if name in features})

    def forward(self, features: dict[str, Any], **kwargs) -> dict[str, Any]:
        """Add `sentence_embedding`; a text without tokens gives zeros."""
        size = len(self.weight)
        if (packing := features.get("packing")) is not None:
            texts, count, ids = packing.sequence_ids, len(packing), features["input_ids"]
        else:
            mask = features["attention_mask"].bool()
            texts, count = mask.nonzero()[:, 0], len(mask)
            ids = features["input_ids"][mask]
        places = torch.unique(texts * size + ids)
        rows, columns = places // size, places % size
        values = self.weight[columns]
        if torch.is_grad_enabled():
            embedding = values.new_zeros(count, size).index_put((rows, columns), values)
        else:
            embedding = coo(torch.stack([rows, columns]), values, (count, size))
        features["sentence_embedding"] = embedding
        return features

    # ---- disk

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization)
        self.save_tokenizer(output_path)

    @classmethod
    def from_json(
        cls,
        json_path: str,
        tokenizer: PreTrainedTokenizerBase,
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **config,
    ) -> Self:
        """Weights from a JSON file {token: weight}, e.g. inverse document frequencies.

        Tokens of the vocabulary that the file does not name get 0; names that the vocabulary does not have are left out
        with a warning.

        Args:
            json_path: a file, or "owner/model/file.json" on the hub.
            config: further settings, e.g. frozen=True.

        Raises:
            ModelFormatError: if there is no such file, or it is not a JSON object of numbers.
        """
        path = Path(json_path)
        found: Any = None
        if path.is_file():
            found = read_weights(path)
        elif json_path.count("/") >= 2:
            owner, model, file = json_path.split("/", 2)
            source = Source(f"{owner}/{model}", "", token, cache_folder, revision, local_files_only)
            found = source.json(file)
        if not isinstance(found, dict) or not all(isinstance(value, (int, float)) for value in found.values()):
            raise ModelFormatError(f"{json_path} must be a JSON file that maps tokens to weights.")
        return cls(tokenizer, weights_of(found, tokenizer, json_path), **config)

    @classmethod
    def from_source(cls, source: Source, init_defaults: dict[str, Any] | None = None, **kwargs: Any) -> Self:
        """Load a saved module; older ones whose settings name a JSON file of weights too."""
        from transformers import AutoTokenizer

        config = cls.load_config(source.name, source.subfolder, **source.hub_kwargs)
        hub = source.hub_kwargs
        hub["cache_dir"] = hub.pop("cache_folder")
        tokenizer = AutoTokenizer.from_pretrained(source.name, subfolder=source.subfolder, **hub)
        frozen = bool(config.get("frozen", False))
        older = config.get("path")
        if older and str(older).endswith(".json"):
            found = source.json(Path(older).name)
            if not isinstance(found, dict):
                raise ModelFormatError(f"{source.name}/{source.subfolder} names {older}, which is not there.")
            return cls(tokenizer, weights_of(found, tokenizer, source.name), frozen=frozen)
        tensors = weights.read_tensors(source)
        if "weight" not in tensors:
            raise ModelFormatError(f"{source.name}/{source.subfolder} has no tensor 'weight', only {sorted(tensors)}.")
        return cls(tokenizer, tensors["weight"], frozen=frozen)


def read_weights(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFormatError(f"{path} is not JSON: {error}") from error


def weights_of(found: dict[str, float], tokenizer: PreTrainedTokenizerBase, where: str) -> Tensor:
    """Weights by token id, (V,)."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    weight = torch.zeros(max(len(tokenizer), max(vocabulary.values(), default=-1) + 1))
    unknown = [name for name in found if name not in vocabulary]
    for name, value in found.items():
        if name in vocabulary:
            weight[vocabulary[name]] = value
    if unknown:
        logger.warning(
            "%d tokens of %s are not in the vocabulary and are left out, e.g. %r.", len(unknown), where, unknown[0]
        )
    return weight
