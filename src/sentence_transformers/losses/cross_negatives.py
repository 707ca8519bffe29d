"""In-batch negatives for cross-encoders: each query's own document against a few of the others.

    loss_i = log Σ_j exp(a(s(q_i, d_j)) · scale) − a(s(q_i, d_i)) · scale

d_j are the query's own positive, its own columns of negatives, and `num_negatives` documents of other rows drawn at
random: a cross-encoder computes every pair anew, so that all B² of them would cost too much. s is the score, a the
activation function. Documents are drawn without replacement from all columns of all other rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sentence_transformers.errors import InputError
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.cross import CrossLoss, pair_features, scores_of
from sentence_transformers.losses.gradient_cache import RandContext as RandContext
from sentence_transformers.losses.gradient_cache import cached_loss, gradients_of, synchronised
from sentence_transformers.losses.in_batch_negatives import (
    PAIRS,
    TUPLES,
)
from sentence_transformers.losses.merged_forward import run
from sentence_transformers.util.whose_code import OWN, is_foreign

Texts = Sequence[str]
STEPS = ("predict_minibatch", "predict_minibatch_iter", "calculate_loss_and_cache_gradients")


class MultipleNegativesRankingLoss(CrossLoss):
    """The query's own document should have a higher score than others.

    Args:
        model: a cross-encoder with one score.
        num_negatives: documents of other rows per query, drawn at random; None for all.
        scale: factor of the activated scores.
        activation_fn: applied to the scores; by default the sigmoid.
    """

    citation = cites("oord2019representationlearningcontrastivepredictive")
    accepts = (PAIRS, TUPLES)
    config_keys: ClassVar[tuple[str, ...]] = ("scale", "num_negatives")

    def __init__(
        self,
        model: nn.Module,
        num_negatives: int | None = 4,
        scale: float = 10.0,
        activation_fn: nn.Module | None = nn.Sigmoid(),  # noqa: B008  # the contract; holds nothing
    ) -> None:
        super().__init__(model, activation_fn)
        if num_negatives is not None and num_negatives < 0:
            raise InputError(f"num_negatives must be at least 0, or None for all, got {num_negatives}.")
        self.num_negatives, self.scale = num_negatives, scale
        self.cross_entropy_loss = nn.CrossEntropyLoss()

    def call_model_with_columns(
        self, anchors: Texts, candidates: Texts, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Scores (B,) of two columns, row by row."""
        return self.call_model_with_pairs(list(zip(anchors, candidates, strict=True)), prompt, task)

    def call_model_with_pairs(self, pairs: Sequence[Any], prompt: str | None = None, task: str | None = None) -> Tensor:
        """Scores (B,) of pairs of texts."""
        return scores_of(self.model, pairs, prompt, task).squeeze(-1)

    def get_in_batch_negatives(self, anchors: Texts, candidates: Sequence[Texts]) -> Iterator[list[str]]:
        """Columns of documents that belong to other rows: one document per row in each.

        Args:
            anchors: the B queries.
            candidates: columns of documents, positives first.
        """
        texts = [text for column in candidates for text in column]
        size = len(anchors)
        others = ~torch.eye(size, dtype=torch.bool).repeat(1, len(candidates))
        available = (size - 1) * len(candidates)
        if self.num_negatives is None or self.num_negatives >= available:
            chosen = others.nonzero()[:, 1].view(size, available)
        else:
            chosen = torch.multinomial(others.float(), self.num_negatives)
        for column in chosen.T.tolist():
            yield [texts[place] for place in column]

    def pairs(self, inputs: Sequence[Texts]) -> list[tuple[str, str]]:
        """All pairs to be scored, column by column: positives, own negatives, negatives of other rows."""
        if len(inputs) < 2:
            raise InputError(f"{type(self).__name__} expects at least 2 text columns, got {len(inputs)}.")
        anchors, candidates = inputs[0], list(inputs[1:])
        if self.num_negatives != 0:
            candidates += self.get_in_batch_negatives(anchors, inputs[1:])
        return [pair for column in candidates for pair in zip(anchors, column, strict=True)]

    def calculate_loss(self, logits: Tensor, batch_size: int) -> Tensor:
        """Loss of the scores (columns · B,) of `pairs`."""
        scores = self.activation_fn(logits.view(-1, batch_size).T) * self.scale
        return self.cross_entropy_loss(scores, torch.zeros(batch_size, dtype=torch.int64, device=scores.device))

    def forward(
        self,
        inputs: list[list[str]],
        labels: Tensor | None = None,
        prompt: str | None = None,
        task: str | None = None,
    ) -> Tensor:
        """Loss of a batch: one list of texts per column."""
        return self.calculate_loss(self.call_model_with_pairs(self.pairs(inputs), prompt, task), len(inputs[0]))


class CachedMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """In-batch negatives with batches of any size in the memory of a small one (`losses.gradient_cache`).

    Args:
        mini_batch_size: most pairs computed together.
        show_progress_bar: show a bar over the mini-batches.
        others: see `MultipleNegativesRankingLoss`.
    """

    citation = cites("gao2021scaling")
    uses_gradient_cache = True
    config_keys = ("scale", "num_negatives", "mini_batch_size")

    def __init__(
        self,
        model: nn.Module,
        num_negatives: int | None = 4,
        scale: float = 10.0,
        activation_fn: nn.Module | None = nn.Sigmoid(),  # noqa: B008  # the contract; holds nothing
        mini_batch_size: int = 32,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(model, num_negatives, scale, activation_fn)
        if mini_batch_size < 1:
            raise InputError(f"mini_batch_size must be at least 1, got {mini_batch_size}.")
        self.mini_batch_size, self.show_progress_bar = mini_batch_size, show_progress_bar

    def calculate_loss(self, logits: Tensor | Sequence[Tensor], batch_size: int) -> Tensor:
        """Loss of the scores (columns · B,) of `pairs`, as one tensor or one per mini-batch."""
        return super().calculate_loss(logits if isinstance(logits, Tensor) else torch.cat(list(logits)), batch_size)

    def predict_minibatch(
        self,
        pairs: Sequence[Any],
        with_grad: bool,
        copy_random_state: bool,
        random_state: RandContext | None = None,
        prompt: str | None = None,
        task: str | None = None,
    ) -> tuple[Tensor, RandContext | None]:
        """Scores (b,) of a mini-batch of pairs, and the random state as it was before, or None.

        Args:
            with_grad: keep the graph.
            copy_random_state: return the random state.
            random_state: the one to compute with.
        """
        features = pair_features(self.model, pairs, prompt, task)
        with torch.set_grad_enabled(with_grad), random_state or contextlib.nullcontext():
            tensors = [value for value in features.values() if isinstance(value, Tensor)]
            state = RandContext(*tensors) if copy_random_state else None
            return run(self.model, features)["scores"].squeeze(-1), state

    def predict_minibatch_iter(
        self,
        pairs: Sequence[Any],
        with_grad: bool,
        copy_random_state: bool,
        random_states: Sequence[RandContext | None] | None = None,
        prompt: str | None = None,
        task: str | None = None,
    ) -> Iterator[tuple[Tensor, RandContext | None]]:
        """`predict_minibatch` of `mini_batch_size` pairs at a time; `random_states` has one for each."""
        starts = range(0, len(pairs), self.mini_batch_size)
        for i, start in enumerate(tqdm(starts, "Score mini-batches", disable=not self.show_progress_bar, leave=False)):
            yield self.predict_minibatch(
                pairs=pairs[start : start + self.mini_batch_size],
                with_grad=with_grad,
                copy_random_state=copy_random_state,
                random_state=None if random_states is None else random_states[i],
                prompt=prompt,
                task=task,
            )

    def calculate_loss_and_cache_gradients(
        self, logits: Sequence[Tensor], batch_size: int
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss, detached, and its gradients with respect to the scores of each mini-batch."""
        value = self.calculate_loss(logits, batch_size)
        value.backward()
        return value.detach().requires_grad_(), [part for (part,) in gradients_of([[part] for part in logits])]

    def forward(
        self,
        inputs: list[list[str]],
        labels: Tensor | None = None,
        prompt: str | None = None,
        task: str | None = None,
    ) -> Tensor:
        """Loss of a batch; the model's gradients come when `backward` is called on it."""
        pairs, size = self.pairs(inputs), len(inputs[0])
        if any(is_foreign(getattr(self, step), OWN) for step in STEPS):
            return self.of_mini_batches(pairs, size, prompt, task)
        return cached_loss(
            self.model,
            [pair_features(self.model, pairs, prompt, task)],
            lambda columns, _: self.calculate_loss(columns[0].squeeze(-1), size),
            self.mini_batch_size,
            None,
            self.show_progress_bar,
            rows_of=lambda model, part: run(model, part)["scores"],
        )

    def of_mini_batches(self, pairs: Sequence[Any], size: int, prompt: str | None, task: str | None) -> Tensor:
        """`forward` through the methods that a subclass may override, the pairs in order."""
        settings: dict[str, Any] = {"pairs": pairs, "prompt": prompt, "task": task}
        training = torch.is_grad_enabled()
        found = list(self.predict_minibatch_iter(with_grad=False, copy_random_state=training, **settings))
        logits = [part.detach().requires_grad_(training) for part, _ in found]
        if not training:
            return self.calculate_loss(logits, size)
        value, gradients = self.calculate_loss_and_cache_gradients(logits, size)

        def send_back(scale: Tensor) -> None:
            states = [state for _, state in found]
            parts = self.predict_minibatch_iter(
                with_grad=True, copy_random_state=False, random_states=states, **settings
            )
            for k, gradient in enumerate(gradients):
                with torch.enable_grad(), synchronised(self.model, only=k == len(gradients) - 1):
                    scores, _ = next(parts)
                    scores.backward((gradient * scale).to(scores.dtype))

        value.register_hook(send_back)
        return value
