"""PhraseTokenizer: known phrases become one word: "New York is big" -> new_york, big.

The vocabulary holds phrases with `ngram_separator` between their words. A text is cut into words by NLTK's
`word_tokenize`; then, longest phrases first and from left to right, neighbouring words that form a known phrase, as
they stand or in lower case, are joined. `tokenizer.word.lookup` finds the ids of what results.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from sentence_transformers.errors import MissingExtraError
from sentence_transformers.modules.tokenizer.stop_words import ENGLISH_STOP_WORDS
from sentence_transformers.modules.tokenizer.word import ListTokenizer


class PhraseTokenizer(ListTokenizer):
    """Cut into words and phrases. Needs the package nltk once it cuts a text.

    Args:
        vocab: words, and phrases with their words joined by `ngram_separator`.
        stop_words: words and phrases that are left out; within a known phrase a stop word stays.
        do_lower_case: kept and saved, without effect: as in version 6.2.0, lower case is tried in any case.
        ngram_separator: what joins the words of a phrase.
        max_ngram_length: phrases of more words than this are not looked for.
    """

    config_file_name = "phrasetokenizer_config.json"
    config_keys: ClassVar[list[str]] = [*ListTokenizer.config_keys, "ngram_separator", "max_ngram_length"]

    def __init__(
        self,
        vocab: Iterable[str] = (),
        stop_words: Iterable[str] = ENGLISH_STOP_WORDS,
        do_lower_case: bool = False,
        ngram_separator: str = "_",
        max_ngram_length: int = 5,
    ) -> None:
        self.ngram_separator = ngram_separator
        self.max_ngram_length = max_ngram_length
        super().__init__(vocab, stop_words, do_lower_case)

    def set_vocab(self, vocab: Iterable[str]) -> None:
        super().set_vocab(vocab)
        lengths = {word: word.count(self.ngram_separator) + 1 for word in self.vocab}
        self.ngram_lookup = {word for word, length in lengths.items() if 1 < length <= self.max_ngram_length}
        self.ngram_lengths = {lengths[word] for word in self.ngram_lookup}

    def words(self, text: str) -> list[str]:
        words = cut(text)
        for length in sorted(self.ngram_lengths, reverse=True):
            words = self.join_phrases(words, length)
        return words

    def join_phrases(self, words: list[str], length: int) -> list[str]:
        """Join each run of `length` words that forms a known phrase."""
        joined, start = [], 0
        while start < len(words):
            phrase = self.ngram_separator.join(words[start : start + length])
            is_whole = start + length <= len(words)
            if is_whole and (phrase in self.ngram_lookup or phrase.lower() in self.ngram_lookup):
                joined.append(phrase)
                start += length
            else:
                joined.append(words[start])
                start += 1
        return joined


def cut(text: str) -> list[str]:
    """Words and punctuation of a text, in order."""
    try:
        import nltk
    except ImportError as error:
        raise MissingExtraError("nltk", "nltk", "PhraseTokenizer") from error
    return nltk.word_tokenize(text, preserve_line=True)
