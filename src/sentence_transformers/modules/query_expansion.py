"""Query expansion: queries filled with further tokens, as ColBERT has them.

The vectors of the added tokens, [MASK] as a rule, stand for words that the query does not have but could have (Khattab
and Zaharia 2020, https://arxiv.org/abs/2004.12832, section 3.2). A setting is a dictionary:

    strategy   "fixed": each query is exactly `length` tokens long; "min": at least
    length     tokens of an expanded query
    attend     whether the query's own tokens look at the added ones; default: False
    token      the token that is added; default: the mask token, or where there is none the one that ends texts
"""

from __future__ import annotations

from typing import Any

from sentence_transformers.errors import InputError

DEFAULTS = {"strategy": None, "attend": False, "token": None, "length": None}
STRATEGIES = ("fixed", "min")


def checked(given: dict[str, Any]) -> dict[str, Any]:
    """A setting with all its keys; `InputError` for unknown ones."""
    if unknown := sorted(given.keys() - DEFAULTS.keys()):
        raise InputError(f"query_expansion has unknown keys {unknown}; known are {sorted(DEFAULTS)}.")
    whole = DEFAULTS | given
    if whole["strategy"] not in STRATEGIES:
        raise InputError(f"query_expansion['strategy'] must be one of {STRATEGIES}, got {whole['strategy']!r}.")
    length = whole["length"]
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise InputError(
            f"query_expansion['length'] must be the number of tokens of an expanded query, at least 1; got {length!r}. "
            "ColBERT has 32."
        )
    return whole
