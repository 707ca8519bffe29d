"""What a loaded model can do, found out by trying it once on three short sequences.

    packs         packed equals alone: the model runs on packed batches
    pads_safely   padded equals alone: texts of different lengths may share a padded batch
    defers        the rows at which a language model stops give its logits (`backends.deferred_logits`)

An architecture's declarations do not say it (some mix neighbouring tokens outside of their attention), and remote code
declares nothing, so it is proved, per loaded model, when it is first asked for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sentence_transformers.backends import packed_attention
from sentence_transformers.backends.override_detection import extensions
from sentence_transformers.features import Features, Packing
from sentence_transformers.util.environment import is_out_of_memory
from sentence_transformers.util.tensor import module_device

logger = logging.getLogger(__name__)
lock = threading.RLock()
PER_TEXT = "sequence-classification"  # the task whose output is one row per text, not per token


class Capabilities:
    """What one transformer can do, each found when first asked for.

    Attributes:
        known: "packs", "pads_safely" or "defers" -> why not; None where it can.
    """

    def __init__(self) -> None:
        self.known: dict[str, str | None] = {}

    def has(self, transformer: Any, name: str) -> bool:
        """Whether the model can do what is named."""
        return self.lack(transformer, name) is None

    def lack(self, transformer: Any, name: str) -> str | None:
        """Why the model cannot do what is named; None if it can.

        Code of the caller's on the way (hooks, patches) is not called for a trial: until it is gone the answer is no.

        Args:
            transformer: a `modules.transformer.Transformer`, which is not kept: it is freed when nobody needs it.
        """
        if name in self.known:
            return self.known[name]
        with lock:
            if name not in self.known:
                if (foreign := next(extensions(transformer), None)) is not None:
                    return foreign
                trial = Trial(transformer)
                self.known[name] = trial.in_evaluation(getattr(trial, name))
            return self.known[name]


class Trial:
    """A transformer that is tried out.

    Args:
        transformer: a `modules.transformer.Transformer`.
    """

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer

    @torch.no_grad()
    def in_evaluation(self, trial: Callable[[], str | None]) -> str | None:
        was_training = self.transformer.training
        self.transformer.eval()
        try:
            return trial()
        finally:
            self.transformer.train(was_training)

    def packs(self) -> str | None:
        return self._together_is_alone(self.packed)

    def pads_safely(self) -> str | None:
        return self._together_is_alone(self.padded)

    def defers(self) -> str | None:
        features = self.features_alone(self.sequences()[0])
        try:
            found = self.transformer.run(features, defer=True).logits()
            equal = packed_attention.same(found, self.transformer.run(features, defer=False))
            return None if equal else "what follows its last rows is more than one product"
        except Exception as error:
            if is_out_of_memory(error):
                raise
            logger.info("The model cannot stop before its vocabulary: %s: %s", type(error).__name__, error)
            return f"{type(error).__name__}: {error}"

    def _together_is_alone(self, together: Callable[[list[Tensor]], Tensor]) -> str | None:
        return packed_attention.difference(together, self.alone, self.sequences())

    def sequences(self) -> list[Tensor]:
        """Three sequences of random tokens, seven, four and five long."""
        size = self.transformer.vocabulary_size
        generator, device = torch.Generator().manual_seed(0), module_device(self.transformer)
        return [torch.randint(size // 2, size, (n,), generator=generator, device="cpu").to(device) for n in (7, 4, 5)]

    @property
    def per_text(self) -> bool:
        return self.transformer.transformer_task == PER_TEXT

    def output(self, features: dict[str, Any]) -> Tensor:
        return self.transformer.run(features)

    def packed(self, sequences: list[Tensor]) -> Tensor:
        """(tokens, H), or (texts, labels)."""
        packing = Packing([len(ids) for ids in sequences], sequences[0].device)
        positions = packing.positions + self.transformer.position_offset
        return self.output({"input_ids": torch.cat(sequences), "position_ids": positions, "packing": packing})

    def padded(self, sequences: list[Tensor]) -> Tensor:
        packing = Packing([len(ids) for ids in sequences], sequences[0].device)
        features = Features(input_ids=torch.cat(sequences), packing=packing).pad(self.transformer.padding_id)
        output = self.output(features)
        return output if self.per_text else output[features["attention_mask"].bool()]

    def alone(self, ids: Tensor) -> Tensor:
        output = self.output(self.features_alone(ids))
        return output if self.per_text else output[0]

    @staticmethod
    def features_alone(ids: Tensor) -> dict[str, Any]:
        return {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None])}
