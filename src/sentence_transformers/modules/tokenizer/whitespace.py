"""WhitespaceTokenizer: words are what stands between white space; `tokenizer.word.lookup` finds their ids."""

from __future__ import annotations

from sentence_transformers.modules.tokenizer.stop_words import ENGLISH_STOP_WORDS as ENGLISH_STOP_WORDS
from sentence_transformers.modules.tokenizer.word import ListTokenizer


class WhitespaceTokenizer(ListTokenizer):
    """Cut at white space; arguments as for `ListTokenizer`."""

    config_file_name = "whitespacetokenizer_config.json"

    def words(self, text: str) -> list[str]:
        return (text.lower() if self.do_lower_case else text).split()
