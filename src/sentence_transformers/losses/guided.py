"""In-batch negatives with a guide: what the guide finds more alike than the positive is no negative.

    loss_i = log Σ_j exp(cos_ij / T) − cos(a_i, p_i) / T

over the candidates (a_i, p_j), (a_i, a_j), (p_i, p_j) and (a_i, n_j), without those whose guide similarity exceeds
g(a_i, p_i) − margin ("absolute") or g − |g| · margin ("relative"); the positive stays. Solatorio 2024 (GISTEmbed).

The guide embeds the batch without gradients. If its tokens are others than the model's, the texts are restored and cut
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.features import Features
from sentence_transformers.losses.base import Accepts, Loss, check_columns
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.cross import is_cross_encoder
from sentence_transformers.losses.gradient_cache import CachedLossMixin, cached_loss
from sentence_transformers.losses.gradient_cache import RandContext as RandContext
from sentence_transformers.losses.in_batch_negatives import BLOCK_ROWS, PAIRS, own
from sentence_transformers.losses.merged_forward import embed_columns, sentence_rows, unwrap
from sentence_transformers.modules.lookup_input import LookupInput
from sentence_transformers.similarity import cos_sim
from sentence_transformers.util.distributed import all_gather, all_gather_with_grad, get_rank

if TYPE_CHECKING:
    from sentence_transformers.encoders.sentence_transformer import SentenceTransformer


def guided_rows(
    columns: Sequence[Tensor], guides: Sequence[Tensor], everywhere: tuple[Sequence[Tensor], Sequence[Tensor]],
    rows: Tensor, loss: GISTEmbedLoss,
) -> Tensor:  # fmt: skip
    """Loss of some rows of the batch: their cross entropy, with the positive as the class.

    Args:
        columns, guides: (b, H) and (b, G) of anchors and positives, by model and guide.
        everywhere: all candidates of the batch, by model and by guide: anchors, positives, columns of negatives.
        rows: (b,) int64, the rows' places among the candidates.
        loss: the settings.
    """
    count = len(everywhere[0][0])
    same = own(rows, count, 1)
    similarity, place = loss.sim_matrix, torch.arange(len(rows), device=rows.device)
    pairs = [(0, 1), *([(0, 0)] if loss.contrast_anchors else []), *([(1, 1)] if loss.contrast_positives else [])]
    pairs += [(0, i) for i in range(2, len(everywhere[0]))]
    guide_scores = {pair: similarity(guides[pair[0]], everywhere[1][pair[1]]) for pair in pairs}
    limit = guide_scores[0, 1][place, rows][:, None]
    limit = limit - (loss.margin if loss.margin_strategy == "absolute" else limit.abs() * loss.margin)
    blocks = []
    for first, second in pairs:
        scores = similarity(columns[first], everywhere[0][second])
        masked = guide_scores[first, second] > limit
        masked = masked & ~same if (first, second) == (0, 1) else masked | (same if first == second else False)
        blocks.append(scores.masked_fill(masked, -torch.inf))
    logits = torch.cat(blocks, 1) / loss.temperature
    return loss.cross_entropy_loss(logits, rows)


class GISTEmbedLoss(Loss):
    """In-batch negatives with a guide (formula above).

    Args:
        model: the model that is trained.
        guide: a model that says what is too alike to be a negative.
        temperature: T.
        margin_strategy: "absolute" or "relative".
        margin: how far below the positive's guide similarity negatives must lie.
        contrast_anchors, contrast_positives: whether anchors, or positives, are told apart from each other.
        gather_across_devices: take candidates of all processes.
    """

    citation = cites("solatorio2024gistembed")
    accepts = (PAIRS, Accepts(("anchor", "positive", "negative")))
    config_keys: ClassVar[tuple[str, ...]] = (
        "temperature",
        "margin_strategy",
        "margin",
        "contrast_anchors",
        "contrast_positives",
        "gather_across_devices",
    )
    most_columns: ClassVar[int | None] = 3

    def __init__(
        self,
        model: SentenceTransformer,
        guide: SentenceTransformer,
        temperature: float = 0.01,
        margin_strategy: Literal["absolute", "relative"] = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(model)
        if margin_strategy not in ("absolute", "relative"):
            raise InputError(f"margin_strategy must be 'absolute' or 'relative', got {margin_strategy!r}.")
        self.guide, self.temperature = guide, temperature
        self.margin_strategy, self.margin = margin_strategy, margin
        self.contrast_anchors, self.contrast_positives = contrast_anchors, contrast_positives
        self.gather_across_devices = gather_across_devices
        self.similarity_fct, self.cross_entropy_loss = nn.CosineSimilarity(dim=-1), nn.CrossEntropyLoss()
        self.must_retokenize = cuts_otherwise(unwrap(model), guide, type(self).__name__)

    def sim_matrix(self, embed1: Tensor, embed2: Tensor) -> Tensor:
        """All similarities, cosines unless `similarity_fct` was replaced: (n, H), (m, H) -> (n, m)."""
        if type(self.similarity_fct) is nn.CosineSimilarity:
            return cos_sim(embed1, embed2)
        return self.similarity_fct(embed1[:, None], embed2[None])

    def guide_vectors(self, sentence_features: Sequence[dict[str, Any]]) -> list[Tensor]:
        """The guide's vectors of each column."""
        self.guide.eval()
        columns = list(sentence_features)
        if self.must_retokenize:
            texts = [texts_of(unwrap(self.model), features) for features in columns]
            columns = [self.guide.preprocess(column) for column in texts]
            columns = [{k: v.to(self.guide.device) if hasattr(v, "to") else v for k, v in c.items()} for c in columns]
        with torch.no_grad():
            found = embed_columns(self.guide, columns, separate_first=False)
            return [column.detach() for column in found]

    def of_vectors(
        self, columns: Sequence[Tensor], guides: Sequence[Tensor], block_rows: int | None = None, backward: bool = False
    ) -> Tensor:
        """Mean loss over the rows, computed in blocks."""
        check_columns(list(columns), 2, self.most_columns, type(self).__name__)
        size, offset = len(columns[0]), 0
        everywhere: tuple[Sequence[Tensor], Sequence[Tensor]] = (columns, guides)
        if self.gather_across_devices:
            everywhere = [all_gather_with_grad(c) for c in columns], [all_gather(g) for g in guides]
            offset = get_rank() * size
        total = columns[0].new_zeros(()).float()
        for start in range(0, size, block_rows or size):
            part = slice(start, min(start + (block_rows or size), size))
            rows = torch.arange(part.start, part.stop, device=columns[0].device) + offset
            both = [c[part] for c in columns[:2]], [g[part] for g in guides[:2]]
            weight = 1 if self.cross_entropy_loss.reduction == "sum" else len(rows) / size
            share = guided_rows(*both, everywhere, rows, self) * weight
            if backward:
                share.backward(retain_graph=self.gather_across_devices)
                share = share.detach()
            total = total + share
        return total

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        features = list(sentence_features)
        return self.of_vectors(self.embed(features), self.guide_vectors(features))

    def get_config_dict(self) -> dict[str, Any]:
        return {"guide": repr(self.guide), **super().get_config_dict()}


class CachedGISTEmbedLoss(CachedLossMixin, GISTEmbedLoss):
    """`GISTEmbedLoss` with batches of any size in the memory of a small one (`losses.gradient_cache`).

    Args:
        mini_batch_size: texts embedded together on the average; mini-batches have about equally many tokens.
        mini_batch_num_tokens: most tokens embedded together, in the place of a number of texts.
        show_progress_bar: show a bar over the mini-batches.
        others: see `GISTEmbedLoss`.
    """

    accepts = (PAIRS, Accepts(("anchor", "positive", "negative_1"), least=3, most=None))
    config_keys = (*GISTEmbedLoss.config_keys, "mini_batch_size", "mini_batch_num_tokens")
    most_columns = None

    def __init__(
        self,
        model: SentenceTransformer,
        guide: SentenceTransformer,
        temperature: float = 0.01,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
        margin_strategy: Literal["absolute", "relative"] = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        GISTEmbedLoss.__init__(
            self,
            model,
            guide,
            temperature,
            margin_strategy,
            margin,
            contrast_anchors,
            contrast_positives,
            gather_across_devices,
        )
        self._set_mini_batches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)

    def calculate_loss(  # type: ignore[override]
        self, reps: list[Any], reps_guided: list[Any], *, with_backward: bool = False
    ) -> Tensor:
        """Loss of the vectors of each column by model and guide, as lists of (b, H)."""
        columns, guides = (
            [part if isinstance(part, Tensor) else torch.cat(list(part)) for part in side]
            for side in (reps, reps_guided)
        )
        return self.of_vectors(columns, guides, max(self.mini_batch_size, BLOCK_ROWS), with_backward)

    def rows_of_minibatch(self, features: dict[str, Any], with_grad: bool) -> tuple[Any, ...]:
        return sentence_rows(self.model, features), None if with_grad else self.guide_vectors([features])[0]

    def forward_joined(self, columns: list[Any], labels: Tensor | None = None) -> Tensor:
        guides = [list(column.split(self.mini_batch_size)) for column in self.guide_vectors(columns)]
        return cached_loss(
            self.model,
            columns,
            lambda found, with_backward: self.calculate_loss(
                [list(column.split(self.mini_batch_size)) for column in found], guides, with_backward=with_backward
            ),
            self.mini_batch_size,
            self.mini_batch_num_tokens,
            self.show_progress_bar,
        )


def cuts_otherwise(model: SentenceTransformer, guide: SentenceTransformer, loss: str) -> bool:
    """Whether the guide must be given texts instead of the model's tokens.

    Raises:
        InputError: if a model gives no vector per text, or has no tokenizer that can restore texts.
    """
    from sentence_transformers.encoders.multi_vector_encoder import MultiVectorEncoder

    for name, one in (("model", model), ("guide", guide)):
        if is_cross_encoder(one) or isinstance(one, MultiVectorEncoder):
            raise InputError(f"{loss} compares one vector per text; the {name}, a {type(one).__name__}, gives none.")
        if not (hasattr(one.tokenizer, "get_vocab") and (hasattr(one.tokenizer, "decode"))):
            raise InputError(
                f"{loss} needs tokenizers that restore texts, as those of transformers do; the {name} has a "
                f"{type(one.tokenizer).__name__}."
            )
    kinds = [{type(part) for part in one[0].modules() if isinstance(part, LookupInput)} for one in (model, guide)]
    if kinds[0] != kinds[1]:  # of whose features the other makes nothing
        return True
    longer = guide.max_seq_length is not None and (
        model.max_seq_length is None or guide.max_seq_length < model.max_seq_length
    )
    return longer or model.tokenizer.get_vocab() != guide.tokenizer.get_vocab()


def texts_of(model: SentenceTransformer, features: dict[str, Any]) -> list[str]:
    """The texts of a batch, from its tokens."""
    parts = [part.tolist() for part in Features.of(features).split("input_ids")]
    tokenizer = model.tokenizer
    decode = getattr(tokenizer, "batch_decode", None) or tokenizer.decode_batch
    return decode(parts, skip_special_tokens=True)
