"""Adaptive layers: a model that can do without its last layers.

    loss = w_L · inner(L) + Σ_i w(i) · w_P · inner(i) / n + T · w_KL · Σ_i KL(p_i ‖ p_L) / n     Li et al. 2024 (2DMSE)

inner(i) is the loss of the vectors that come out when the modules after the transformer are given layer i's tokens; p
are softmax distributions of the vectors at temperature T. One forward pass gives all layers; n of them, drawn at
random, are used in a step. `Matryoshka2dLoss` cuts dimensions as well.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.losses.base import Accepts, Loss
from sentence_transformers.losses.columns import over_columns, run, unwrap
from sentence_transformers.losses.gradient_cache import uses_gradient_cache
from sentence_transformers.losses.matryoshka import MatryoshkaLoss
from sentence_transformers.modules.base import run_module
from sentence_transformers.modules.transformer import Transformer

WEIGHTINGS: dict[str, Callable[[int], float]] = {
    "uniform": lambda layer: 1.0,
    "log": lambda layer: 1 / (1 + math.log(1 + layer)),
    "linear": lambda layer: 1 / (1 + layer),
}


def layer_vectors(model: Any, features: dict[str, Any]) -> Tensor:
    """(B, layers + 1, H): the vectors that each layer would give, the embeddings first and the last layer last."""
    encoder = unwrap(model)
    transformer, *rest = list(encoder)
    config = transformer.auto_model.config
    before, config.output_hidden_states = config.output_hidden_states, True
    try:
        output = run(model, dict(features))
    finally:
        config.output_hidden_states = before
    layers = list(output["all_layer_embeddings"])
    vectors = [output["sentence_embedding"]]
    for tokens in layers[-2::-1]:  # what comes after the last layer inside the transformer is not repeated
        part = {**output, "token_embeddings": tokens}
        part.pop("sentence_embedding", None)
        for module in rest:
            part = run_module(module, part, {})
        vectors.append(part["sentence_embedding"])
    return torch.stack(vectors[::-1], 1)


class AdaptiveLayerLoss(Loss):
    """Another loss at several layers at once (formula above).

    Args:
        model: the model that is trained; a `Transformer` and what follows it.
        loss: the loss of each layer. It must be a function of embeddings, not a cached one.
        n_layers_per_step: how many prior layers, drawn at random, a step uses; -1 for all.
        last_layer_weight, prior_layers_weight: w_L and w_P.
        kl_div_weight, kl_temperature: w_KL and T; 0 leaves the last term out.
        layer_weighting: w(i): "uniform" 1, "log" 1 / (1 + ln(1 + i)), "linear" 1 / (1 + i), or a function of i.

    Raises:
        InputError: for a model without a transformer in front, or a cached loss.
    """

    config_keys: ClassVar[tuple[str, ...]] = (
        "n_layers_per_step",
        "last_layer_weight",
        "prior_layers_weight",
        "kl_div_weight",
        "kl_temperature",
        "layer_weighting",
    )

    def __init__(
        self,
        model: Any,
        loss: nn.Module,
        n_layers_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_div_weight: float = 1.0,
        kl_temperature: float = 0.3,
        layer_weighting: Literal["uniform", "log", "linear"] | Callable[[int], float] = "uniform",
    ) -> None:
        super().__init__(model)
        if not isinstance(unwrap(model)[0], Transformer):
            raise InputError(f"{type(self).__name__} needs a model that begins with a Transformer.")
        if uses_gradient_cache(loss):
            raise InputError(
                f"{type(loss).__name__} embeds in mini-batches and cannot be used inside {type(self).__name__}."
            )
        if not hasattr(loss, "compute_loss_from_embeddings"):
            raise InputError(f"{type(loss).__name__} is not a function of embeddings (compute_loss_from_embeddings).")
        if not callable(layer_weighting) and layer_weighting not in WEIGHTINGS:
            raise InputError(f"Unknown layer_weighting {layer_weighting!r}; known are {', '.join(WEIGHTINGS)}.")
        self.loss = loss
        self.n_layers_per_step = n_layers_per_step
        self.last_layer_weight, self.prior_layers_weight = last_layer_weight, prior_layers_weight
        self.kl_div_weight, self.kl_temperature = kl_div_weight, kl_temperature
        self.layer_weighting = layer_weighting

    @property
    def accepts(self) -> tuple[Accepts, ...]:  # type: ignore[override]
        return tuple(getattr(self.loss, "accepts", ()))

    def get_layer_weight(self, layer_idx: int) -> float:
        """w(i)."""
        weighting = self.layer_weighting
        return (weighting if callable(weighting) else WEIGHTINGS[weighting])(layer_idx)

    def forward(self, sentence_features: Any, labels: Tensor | None = None) -> Tensor:
        columns = over_columns(self.model, sentence_features, lambda features: layer_vectors(self.model, features))
        return self.of_layers(columns, labels)

    def of_layers(self, columns: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Loss of the vectors (B, layers + 1, H) of each column."""
        inner: Any = self.loss
        priors = list(range(columns[0].shape[1] - 1))
        if 0 < self.n_layers_per_step < len(priors):
            priors = random.sample(priors, self.n_layers_per_step)
        last = [column[:, -1] for column in columns]
        total = inner.compute_loss_from_embeddings(last, labels) * self.last_layer_weight
        targets = torch.cat(last).detach()
        for layer in priors:
            vectors = [column[:, layer] for column in columns]
            share = inner.compute_loss_from_embeddings(vectors, labels) * self.get_layer_weight(layer)
            total = total + share * self.prior_layers_weight / len(priors)
            if self.kl_temperature > 0 and self.kl_div_weight:
                log_student = F.log_softmax(torch.cat(vectors) / self.kl_temperature, -1)
                teacher = F.softmax(targets / self.kl_temperature, -1)
                divergence = F.kl_div(log_student, teacher, reduction="batchmean")
                total = total + divergence * self.kl_temperature * self.kl_div_weight
        return total

    def get_config_dict(self) -> dict[str, Any]:
        return {"loss": type(self.loss).__name__, **super().get_config_dict()}

    @property
    def citation(self) -> str:
        return """@misc{li20242d,
    title={2D Matryoshka Sentence Embeddings},
    author={Xianming Li and Zongxi Li and Jing Li and Haoran Xie and Qing Li},
    year={2024},
    eprint={2402.14776},
    archivePrefix={arXiv},
    primaryClass={cs.CL}
}"""


class Matryoshka2dLoss(AdaptiveLayerLoss):
    """Another loss at several layers and several dimensions.

    Args:
        matryoshka_dims, matryoshka_weights, n_dims_per_step: see `MatryoshkaLoss`.
        others: see `AdaptiveLayerLoss`.
    """

    def __init__(
        self,
        model: Any,
        loss: nn.Module,
        matryoshka_dims: list[int],
        matryoshka_weights: list[float | int] | None = None,
        n_layers_per_step: int = 1,
        n_dims_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_div_weight: float = 1.0,
        kl_temperature: float = 0.3,
        layer_weighting: Literal["uniform", "log", "linear"] | Callable[[int], float] = "uniform",
    ) -> None:
        super().__init__(
            model,
            MatryoshkaLoss(model, loss, matryoshka_dims, matryoshka_weights, n_dims_per_step),
            n_layers_per_step,
            last_layer_weight,
            prior_layers_weight,
            kl_div_weight,
            kl_temperature,
            layer_weighting,
        )

    def get_config_dict(self) -> dict[str, Any]:
        inner: Any = self.loss
        return {**super().get_config_dict(), **inner.get_config_dict()}
