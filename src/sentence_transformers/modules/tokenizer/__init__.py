"""Tokenizers that cut a text into whole words of a fixed list.

    WordTokenizer                       what each can do: text -> ids, save, load
    ├── WhitespaceTokenizer             cuts at white space
    ├── PhraseTokenizer                 cuts into words and joins those that form a known phrase: new_york
    └── TransformersTokenizerWrapper    a tokenizer of the transformers library under the same names

`word.lookup` is the rule by which the first two find a word's id.
"""

from __future__ import annotations

import sys

from sentence_transformers import _names
from sentence_transformers.modules.tokenizer.phrase import PhraseTokenizer
from sentence_transformers.modules.tokenizer.stop_words import ENGLISH_STOP_WORDS
from sentence_transformers.modules.tokenizer.whitespace import WhitespaceTokenizer
from sentence_transformers.modules.tokenizer.word import TransformersTokenizerWrapper, WordTokenizer

__all__ = [
    "ENGLISH_STOP_WORDS",
    "PhraseTokenizer",
    "TransformersTokenizerWrapper",
    "WhitespaceTokenizer",
    "WordTokenizer",
]

_public = frozenset(__all__)
sys.modules[__name__].__class__ = _names.FrontDoor  # older code imports modules of the same names from here
