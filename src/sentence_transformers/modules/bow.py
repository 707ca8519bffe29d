"""BoW: a bag of words, one dimension for each word of the vocabulary.

    y_v = w(v) · (how often word v occurs)        with cumulative_term_frequency
    y_v = w(v) · (whether word v occurs)          without

Texts are cut at white space, without stop words. `preprocess` gives `sentence_embedding` (B, V) at once, and `forward`
has nothing left to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sentence_transformers.modules.base import InputModule
from sentence_transformers.modules.tokenizer.whitespace import WhitespaceTokenizer
from sentence_transformers.modules.tokenizer.word import prompted
from sentence_transformers.modules.word_weights import weights_of


class BoW(InputModule):
    """A bag of words.

    Args:
        vocab: V words; repeated ones count once.
        word_weights: weight of each word, e.g. its inverse document frequency.
        unknown_word_weight: weight of the words of `vocab` that `word_weights` leaves out.
        cumulative_term_frequency: count a word each time it occurs, not once.
    """

    save_in_root = False
    config_keys: ClassVar[list[str]] = ["vocab", "word_weights", "unknown_word_weight", "cumulative_term_frequency"]
    takes_packed = True

    def __init__(
        self,
        vocab: Iterable[str],
        word_weights: Mapping[str, float] | None = None,
        unknown_word_weight: float = 1,
        cumulative_term_frequency: bool = True,
    ) -> None:
        super().__init__()
        self.vocab = vocab  # type: ignore[assignment]
        self.word_weights = word_weights or {}
        self.unknown_word_weight = unknown_word_weight
        self.cumulative_term_frequency = cumulative_term_frequency

    @property
    def vocab(self) -> list[str]:
        """The V words. May be set."""
        return self._vocab

    @vocab.setter
    def vocab(self, words: Iterable[str]) -> None:
        self._vocab = list(dict.fromkeys(words))
        self.tokenizer = WhitespaceTokenizer(self._vocab, stop_words=())

    @property
    def weights(self) -> list[float]:
        """(V,) weight of each word."""
        return weights_of(self.vocab, self.word_weights, self.unknown_word_weight)

    @property
    def sentence_embedding_dimension(self) -> int:
        """V."""
        return len(self.vocab)

    def forward(self, features: dict[str, Tensor | Any], **kwargs) -> dict[str, Tensor | Any]:
        return features

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs) -> dict[str, Tensor | Any]:
        """Texts -> `sentence_embedding` (B, V)."""
        return self.get_sentence_features([self.tokenizer.tokenize(text) for text in prompted(inputs, prompt)])

    def get_sentence_features(self, tokenized_texts: list[list[int]], pad_seq_length: int = 0) -> dict[str, Tensor]:
        """Ids of the words of B texts -> `sentence_embedding` (B, V)."""
        rows = torch.tensor(
            [row for row, ids in enumerate(tokenized_texts) for _ in ids], dtype=torch.int64, device="cpu"
        )
        columns = torch.tensor([index for ids in tokenized_texts for index in ids], dtype=torch.int64, device="cpu")
        bags = torch.zeros(len(tokenized_texts), len(self.vocab), device="cpu")
        values = torch.tensor(self.weights, dtype=torch.float32, device="cpu")[columns]
        bags.index_put_((rows, columns), values, accumulate=self.cumulative_term_frequency)
        return {"sentence_embedding": bags}

    def get_embedding_dimension(self) -> int:
        return len(self.vocab)
