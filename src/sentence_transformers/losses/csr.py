"""CSR: a sparse code that can be turned back into the dense vector, and still tells texts apart.

With x a text's dense vector, x̂_k, x̂_4k its reconstructions from the k and 4k strongest latents, and a the part that
dead latents alone would add (`modules.sparse_auto_encoder`):

    loss = mse(x̂_k, x) + mse(x̂_4k, x) / 8 + β · nmse(a, x − x̂_k) + γ · base(codes)

each of the first three the mean over the columns; nmse is mse divided by the variance of its target over the batch, and
that target has no gradient.
Wen et al. 2025, https://arxiv.org/abs/2503.01776.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.features import FeatureDict
from sentence_transformers.losses.base import Accepts, Loss
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.merged_forward import over_columns, run
from sentence_transformers.losses.sparse import SparseMultipleNegativesRankingLoss
from sentence_transformers.losses.splade import check_inner, terms_of

if TYPE_CHECKING:
    from sentence_transformers.protocols import EmbeddingLoss

BACKBONE, CODE = "sentence_embedding_backbone", "sentence_embedding"
K, K4, AUX, PLAIN = (
    "decoded_embedding_k",
    "decoded_embedding_4k",
    "decoded_embedding_aux",
    "decoded_embedding_k_pre_bias",
)
PARTS = (CODE, BACKBONE, K, K4, AUX, PLAIN)


def normalized_mean_squared_error(reconstruction: Tensor, original_input: Tensor) -> Tensor:
    """mse(reconstruction, original) / mean_ij (original_ij − mean_i original_ij)²: (B, d), (B, d) -> scalar."""
    variance = (original_input - original_input.mean(0)).square().mean()
    return F.mse_loss(reconstruction, original_input) / variance


class CSRReconstructionLoss(Loss):
    """How well dense vectors are restored from their codes; a part of `CSRLoss`.

    Args:
        model: a model with a `SparseAutoEncoder`.
        beta: weight of the auxiliary term.
    """

    config_keys: ClassVar[tuple[str, ...]] = ("beta",)

    def __init__(self, model: nn.Module, beta: float = 1.0) -> None:
        super().__init__(model)
        self.beta = beta

    def forward(self, sentence_features: Iterable[FeatureDict], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Raise `InputError`: alone it knows nothing of what texts mean."""
        raise InputError("CSRReconstructionLoss is a part of CSRLoss, not a loss of its own. Use CSRLoss(model).")

    def compute_loss_from_embeddings(
        self, outputs: list[dict[str, Tensor]], labels: Tensor | None = None
    ) -> dict[str, Tensor]:  # type: ignore[override]
        """The terms of the outputs of the model, one dictionary per column."""
        near = [F.mse_loss(one[K], one[BACKBONE]) for one in outputs]
        wide = [F.mse_loss(one[K4], one[BACKBONE]) for one in outputs]
        aux = [normalized_mean_squared_error(one[AUX], (one[BACKBONE] - one[PLAIN]).detach()) for one in outputs]
        return {
            "reconstruction_loss_k": torch.stack(near).mean(),
            "reconstruction_loss_4k": torch.stack(wide).mean() / 8,
            "reconstruction_loss_aux": self.beta * torch.stack(aux).mean(),
        }


class CSRLoss(Loss):
    """Reconstruction of dense vectors, and a loss over the codes (formula above).

    Args:
        model: a model with a `SparseAutoEncoder`.
        loss: the loss of the codes; default: `SparseMultipleNegativesRankingLoss`.
        beta: weight of the auxiliary term.
        gamma: weight of `loss`.

    Returns:
        {"reconstruction_loss_k": …, "reconstruction_loss_4k": …, "reconstruction_loss_aux": …, "base_loss": …}
    """

    citation = cites("wen2025matryoshkarevisitingsparsecoding")

    def __init__(
        self, model: nn.Module, loss: EmbeddingLoss | None = None, beta: float = 0.1, gamma: float = 1.0
    ) -> None:
        super().__init__(model)
        self.loss = SparseMultipleNegativesRankingLoss(model) if loss is None else loss
        check_inner(self.loss, type(self).__name__)
        self.beta, self.gamma = beta, gamma
        self.reconstruction_loss = CSRReconstructionLoss(model, beta)

    @property
    def accepts(self) -> tuple[Accepts, ...]:  # type: ignore[override]
        """What the inner loss takes."""
        return tuple(getattr(self.loss, "accepts", ()))

    def forward(self, sentence_features: Iterable[FeatureDict], labels: Tensor | None = None) -> dict[str, Tensor]:
        outputs = model_outputs(self.model, sentence_features)
        terms = self.reconstruction_loss.compute_loss_from_embeddings(outputs)
        base = terms_of(self.loss, [one[CODE] for one in outputs], labels)
        return terms | {name: term * self.gamma for name, term in base.items()}

    def get_config_dict(self) -> dict[str, Any]:
        return {"beta": self.beta, "gamma": self.gamma, "loss": type(self.loss).__name__}


def model_outputs(model: nn.Module, sentence_features: Iterable[FeatureDict]) -> list[dict[str, Tensor]]:
    """What the autoencoder makes of each column, all columns in one forward pass."""
    widths: list[int] = []

    def rows_of(features: FeatureDict) -> Tensor:
        out = run(model, features)
        if missing := [name for name in PARTS if name not in out]:
            raise InputError(f"CSRLoss needs a model with a SparseAutoEncoder; this one gives no {', '.join(missing)}.")
        widths[:] = [out[name].shape[1] for name in PARTS]
        return torch.cat([out[name] for name in PARTS], 1)

    columns = over_columns(model, sentence_features, rows_of)
    return [dict(zip(PARTS, rows.split(widths, 1), strict=True)) for rows in columns]
