"""Evaluators of cross-encoders under their older names."""

from __future__ import annotations

import re
import warnings
from typing import Any

from sentence_transformers.evaluation.cross_encoder import (
    CrossEncoderClassificationEvaluator,
    CrossEncoderCorrelationEvaluator,
)
from sentence_transformers.evaluation.cross_reranking import CrossEncoderRerankingEvaluator


class OlderName:
    """Warns that its newer name is that of the class it inherits from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        newer = next(base.__name__ for base in type(self).__mro__ if base.__name__.startswith("CrossEncoder"))
        warnings.warn(f"{type(self).__name__} is now {newer}.", DeprecationWarning, stacklevel=2)
        super().__init__(*args, **kwargs)

    @property
    def description(self) -> str:
        """The older kind in words: "Cross Encoder Binary Accuracy"."""
        name = type(self).__name__.removeprefix("CE").removesuffix("Evaluator")
        return "Cross Encoder " + re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


class CEBinaryAccuracyEvaluator(OlderName, CrossEncoderClassificationEvaluator):
    """Older name of `CrossEncoderClassificationEvaluator`."""


class CEBinaryClassificationEvaluator(OlderName, CrossEncoderClassificationEvaluator):
    """Older name of `CrossEncoderClassificationEvaluator`."""


class CEF1Evaluator(OlderName, CrossEncoderClassificationEvaluator):
    """Older name of `CrossEncoderClassificationEvaluator`."""


class CESoftmaxAccuracyEvaluator(OlderName, CrossEncoderClassificationEvaluator):
    """Older name of `CrossEncoderClassificationEvaluator`."""


class CECorrelationEvaluator(OlderName, CrossEncoderCorrelationEvaluator):
    """Older name of `CrossEncoderCorrelationEvaluator`."""


class CERerankingEvaluator(OlderName, CrossEncoderRerankingEvaluator):
    """Older name of `CrossEncoderRerankingEvaluator`."""
