"""WordEmbeddings: a table with one vector for each word, such as GloVe or word2vec.

    token_embeddings_t = E[input_ids_t]        E (V, H)

`preprocess` cuts texts into words and pads: `input_ids`, `attention_mask` (B, L), L at least 1. Padding has id 0.
`forward` looks up `token_embeddings` (B, L, H), or (T, H) if the ids are packed. The table is kept as it is unless
`update_embeddings` is set. A `Pooling` module follows to make one vector of each text.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TextIO, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sentence_transformers._names import find_class, saved_type
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.modules.base import InputModule
from sentence_transformers.modules.tokenizer import (
    TransformersTokenizerWrapper,
    WhitespaceTokenizer,
    WordTokenizer,
)
from sentence_transformers.modules.tokenizer.word import prompted
from sentence_transformers.storage import files, weights
from sentence_transformers.storage.files import Source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

PADDING_WORD = "PADDING_TOKEN"


class WordEmbeddings(InputModule):
    """A table of word vectors.

    Args:
        tokenizer: cuts texts into words; a word's id is its row in the table.
        embedding_weights: E (V, H).
        update_embeddings: train the table with the model.
        max_seq_length: words of a text beyond this are left out.
    """

    config_keys: ClassVar[list[str]] = ["tokenizer_class", "update_embeddings", "max_seq_length"]
    config_file_name = "wordembedding_config.json"
    takes_packed = True

    def __init__(
        self,
        tokenizer: WordTokenizer | PreTrainedTokenizerBase,
        embedding_weights: ArrayLike | Tensor,
        update_embeddings: bool = False,
        max_seq_length: int = 1_000_000,
    ) -> None:
        super().__init__()
        if not isinstance(tokenizer, WordTokenizer):
            tokenizer = TransformersTokenizerWrapper(tokenizer)
        self.tokenizer: WordTokenizer = tokenizer
        self.update_embeddings = update_embeddings
        self.max_seq_length = max_seq_length
        table = torch.as_tensor(embedding_weights, dtype=torch.float32).clone()
        self.emb_layer = nn.Embedding.from_pretrained(table, freeze=not update_embeddings)

    @property
    def embeddings_dimension(self) -> int:
        """H."""
        return self.emb_layer.embedding_dim

    @property
    def tokenizer_class(self) -> str:
        """Dotted name of the tokenizer's class as it is saved."""
        return saved_type(type(self.tokenizer))

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs) -> dict[str, Tensor | Any]:
        """Texts -> `input_ids`, `attention_mask` (B, L)."""
        texts = prompted(inputs, prompt)
        sequences = [self.tokenizer.tokenize(text)[: self.max_seq_length] for text in texts]
        length = max(1, *map(len, sequences)) if sequences else 1
        return {
            "input_ids": torch.tensor(
                [ids + [0] * (length - len(ids)) for ids in sequences], dtype=torch.int64, device="cpu"
            ),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids in sequences]),
        }

    def forward(self, features: dict[str, Tensor | Any], **kwargs) -> dict[str, Tensor | Any]:
        features["token_embeddings"] = self.emb_layer(features["input_ids"])
        return features

    def get_embedding_dimension(self) -> int:
        return self.emb_layer.embedding_dim

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        super().save(output_path, safe_serialization=safe_serialization)
        self.tokenizer.save(output_path)

    @classmethod
    def from_source(
        cls,
        source: Source,
        init_defaults: dict[str, Any] | None = None,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Like `Module.from_source`, with the tokenizer and the table from their own files.

        Args:
            trust_remote_code: load the tokenizer even if its class is not part of this library.
        """
        config = (init_defaults or {}) | cls.load_config(source.name, source.subfolder, **source.hub_kwargs)
        folder = files.load_dir_path(source.name, source.subfolder, **source.hub_kwargs)
        if folder is None or "tokenizer_class" not in config:
            raise ModelFormatError(
                f"{source.name}/{source.subfolder} holds no {cls.config_file_name} that names a tokenizer."
            )
        tokenizer_class = find_class(config.pop("tokenizer_class"), source, trust_remote_code)
        if not issubclass(tokenizer_class, WordTokenizer):
            raise ModelFormatError(
                f"{source.name}/{source.subfolder} names {tokenizer_class} as its tokenizer: not a WordTokenizer."
            )
        tensors = weights.read_tensors(source)
        if set(tensors) != {"emb_layer.weight"}:
            raise ModelFormatError(
                f"{source.name}/{source.subfolder}: expected emb_layer.weight alone, got {sorted(tensors)}."
            )
        return cls(tokenizer_class.load(folder), tensors["emb_layer.weight"], **config)

    @classmethod
    def from_text_file(
        cls,
        embeddings_file_path: str,
        update_embeddings: bool = False,
        item_separator: str = " ",
        tokenizer: WordTokenizer | None = None,
        max_vocab_size: int | None = None,
    ) -> Self:
        """Read a text file with one word and its H numbers on each line, as GloVe and word2vec write it.

        A row of zeros for padding comes first. Lines with another number of items than the first are left out with a
        warning, and so is a first line that only counts words and dimensions.

        Args:
            embeddings_file_path: the file; with the ending .gz it is unpacked while reading.
            update_embeddings: train the table with the model.
            item_separator: what stands between the items of a line.
            tokenizer: gets the words as its vocabulary; a `WhitespaceTokenizer` if None.
            max_vocab_size: read only so many words.
        """
        with open_text(embeddings_file_path) as file:
            words, rows = read_vectors(file, item_separator, max_vocab_size)
        if not rows:
            raise InputError(
                f"{embeddings_file_path} holds no line with a word and numbers between {item_separator!r}."
            )
        tokenizer = WhitespaceTokenizer() if tokenizer is None else tokenizer
        tokenizer.set_vocab([PADDING_WORD, *words])
        return cls(tokenizer, np.stack([np.zeros_like(rows[0]), *rows]), update_embeddings)


def open_text(path: str) -> TextIO:
    if Path(path).suffix == ".gz":
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8"))
    return Path(path).open(encoding="utf-8")


def read_vectors(lines: Iterable[str], separator: str, limit: int | None) -> tuple[list[str], list[np.ndarray]]:
    """Words and their vectors (H,) from lines of text."""
    words: list[str] = []
    rows: list[np.ndarray] = []
    for number, (word, *items) in items_of(lines, separator):
        if limit is not None and len(words) >= limit:
            break
        if rows and len(items) != len(rows[0]):
            logger.warning("Line %d has %d numbers, not %d; %r is left out.", number, len(items), len(rows[0]), word)
            continue
        try:
            rows.append(np.array(items, dtype=np.float32))
        except ValueError as error:
            raise InputError(f"Line {number}, word {word!r}: {error}. Expected {len(items)} numbers.") from error
        words.append(word)
    return words, rows


def items_of(lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Number and items of each line, without a header that only counts and without empty lines."""
    for number, line in enumerate(lines, start=1):
        items = line.rstrip().split(separator)
        is_header = number == 1 and len(items) == 2
        if not is_header and items != [""]:
            yield number, items
