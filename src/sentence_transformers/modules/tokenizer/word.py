"""What a word tokenizer does, and the rule by which a word finds its id.

`lookup` tries a word in three spellings and takes the first that is in the vocabulary:

    as it stands   ->   without punctuation at its ends   ->   that in lower case

A spelling that is a stop word ends the search: the word is left out, as are words found in no spelling.
"""

from __future__ import annotations

import json
import string
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sentence_transformers.engine.inputs import as_batch, as_inputs
from sentence_transformers.errors import InputError
from sentence_transformers.modules.tokenizer.stop_words import ENGLISH_STOP_WORDS
from sentence_transformers.storage.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class WordTokenizer(ABC):
    """Cuts a text into ids of words."""

    @abstractmethod
    def set_vocab(self, vocab: Iterable[str]) -> None:
        """Take these words; the place of a word is its id."""

    @abstractmethod
    def get_vocab(self, vocab: Iterable[str] | None = None) -> Any:
        """The words; `vocab` is not used, and there because tokenizers of one's own have it."""

    @abstractmethod
    def tokenize(self, text: str, **kwargs) -> list[int]:
        """Ids of the words of a text."""

    @abstractmethod
    def save(self, output_path: str) -> None:
        """Write the tokenizer into a folder."""

    @staticmethod
    @abstractmethod
    def load(input_path: str) -> WordTokenizer:
        """Read the tokenizer from a folder."""


class ListTokenizer(WordTokenizer):
    """A word tokenizer over a list of words, saved as one JSON file. A subclass says how to cut text into words.

    Args:
        vocab: words; the place of a word is its id, the last place if a word stands there twice.
        stop_words: words that are left out.
        do_lower_case: turn texts to lower case first, if the subclass does so.
    """

    config_file_name: ClassVar[str]
    config_keys: ClassVar[list[str]] = ["vocab", "stop_words", "do_lower_case"]

    def __init__(
        self,
        vocab: Iterable[str] = (),
        stop_words: Iterable[str] = ENGLISH_STOP_WORDS,
        do_lower_case: bool = False,
    ) -> None:
        self.stop_words = set(stop_words)
        self.do_lower_case = do_lower_case
        self.set_vocab(vocab)

    @abstractmethod
    def words(self, text: str) -> list[str]:
        """Cut a text into words."""

    def tokenize(self, text: str, **kwargs) -> list[int]:
        found = (lookup(word, self.word2idx, self.stop_words) for word in self.words(text))
        return [index for index in found if index is not None]

    def set_vocab(self, vocab: Iterable[str]) -> None:
        self.vocab = list(vocab)
        self.word2idx = {word: index for index, word in enumerate(self.vocab)}

    def get_vocab(self, vocab: Iterable[str] | None = None) -> list[str]:
        return self.vocab

    def save(self, output_path: str) -> None:
        settings = {key: getattr(self, key) for key in self.config_keys}
        settings["stop_words"] = sorted(self.stop_words)
        Path(output_path, self.config_file_name).write_text(json.dumps(settings), encoding="utf-8")

    @classmethod
    def load(cls, input_path: str) -> Self:
        return cls(**read_json(Path(input_path, cls.config_file_name)))


class TransformersTokenizerWrapper(WordTokenizer):
    """A tokenizer of the transformers library; it adds its special tokens and keeps its own vocabulary."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def tokenize(self, text: str, **kwargs) -> list[int]:
        return self.tokenizer.encode(text)

    def set_vocab(self, vocab: Iterable[str]) -> None:
        """Does nothing: the vocabulary belongs to the tokenizer."""

    def get_vocab(self, vocab: Iterable[str] | None = None) -> dict[str, int]:
        return self.tokenizer.get_vocab()

    def save(self, output_path: str) -> None:
        self.tokenizer.save_pretrained(output_path)

    @staticmethod
    def load(input_path: str) -> TransformersTokenizerWrapper:
        from transformers import AutoTokenizer

        return TransformersTokenizerWrapper(AutoTokenizer.from_pretrained(input_path, local_files_only=True))


def lookup(word: str, word_ids: Mapping[str, int], stop_words: Collection[str]) -> int | None:
    """Id of a word in the first spelling that is known; None for stop words and unknown words."""
    bare = word.strip(string.punctuation)
    for spelling in (word, bare, bare.lower()):
        if spelling in stop_words:
            return None
        if spelling in word_ids:
            return word_ids[spelling]
    return None


def prompted(inputs: Sequence[Any], prompt: str | None) -> list[str]:
    """The texts with the prompt in front; `InputError` with position and type for what is not a text."""
    texts = as_inputs(as_batch(inputs))
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"Input {position} is {text!r} ({type(text).__name__}); words are cut from str only.")
    return [(prompt or "") + text for text in texts]
