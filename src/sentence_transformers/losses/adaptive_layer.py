"""Adaptive layers: a model that can do without its last layers.

    loss = w_L · inner(L) + Σ_i w(i) · w_P · inner(i) / n + T · w_KL · Σ_i KL(p_i ‖ p_L) / n     Li et al. 2024 (2DMSE)

inner(i) is the loss of the vectors that come out when the modules after the transformer are given layer i's tokens; p
are softmax distributions of the vectors at temperature T. One forward pass gives all layers; n of them, drawn at
random, are used in a step. `Matryoshka2dLoss` cuts dimensions as well.

An inner loss that is a function of embeddings is given those of each layer; any other is called once per layer, while
the model returns that layer's output (of one forward pass, which is kept).
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.losses.base import Accepts, Loss
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.gradient_cache import uses_gradient_cache
from sentence_transformers.losses.matryoshka import MatryoshkaLoss, is_plain
from sentence_transformers.losses.merged_forward import over_columns, replaced_forward, run, unwrap
from sentence_transformers.modules.base import run_module
from sentence_transformers.modules.transformer import Transformer

if TYPE_CHECKING:
    from sentence_transformers.features import FeatureDict

WEIGHTINGS: dict[str, Callable[[int], float]] = {
    "uniform": lambda layer: 1.0,
    "log": lambda layer: 1 / (1 + math.log(1 + layer)),
    "linear": lambda layer: 1 / (1 + layer),
}


@contextlib.contextmanager
def all_layers(model: nn.Module) -> Iterator[None]:
    """Within the context the model's output has the tokens of all layers, as `all_layer_embeddings`."""
    config = unwrap(model)[0].auto_model.config
    before, config.output_hidden_states = config.output_hidden_states, True
    try:
        yield
    finally:
        config.output_hidden_states = before


def output_of_layer(model: nn.Module, output: dict[str, Any], layer: int) -> dict[str, Any]:
    """What the model would give back if its transformer ended after some layers, 0 for none."""
    part = {**output, "token_embeddings": output["all_layer_embeddings"][layer]}
    part.pop("sentence_embedding", None)
    for module in list(unwrap(model))[1:]:
        part = run_module(module, part, {})
    return part


def layer_vectors(model: nn.Module, features: dict[str, Any]) -> Tensor:
    """(B, layers + 1, H): the vectors that each layer would give, the embeddings first and the last layer last."""
    with all_layers(model):
        output = run(model, dict(features))
    priors = range(len(output["all_layer_embeddings"]) - 1)  # what comes after the last layer is not repeated
    vectors = [output_of_layer(model, output, layer)["sentence_embedding"] for layer in priors]
    return torch.stack([*vectors, output["sentence_embedding"]], 1)


class Outputs:
    """The model's outputs in one step of a loss that calls it: one forward pass per call, at any layer.

    Attributes:
        full: the output of each call, with all layers.
        used: the vectors (B, H) of each call, at the layer of the last pass.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.full: list[dict[str, Any]] = []
        self.used: list[Tensor] = []

    @contextlib.contextmanager
    def at(self, layer: int | None) -> Iterator[None]:
        """Within the context the model returns the output of a layer; None for the last."""
        original = unwrap(self.model).forward
        self.used = []

        def forward(features: FeatureDict, *args: Any, **kwargs: Any) -> Any:
            number = len(self.used)
            if number == len(self.full):
                with all_layers(self.model):
                    self.full.append(original(features, *args, **kwargs))
            full = self.full[number]
            output = dict(full) if layer is None else output_of_layer(self.model, full, layer)
            self.used.append(output["sentence_embedding"])
            return output

        functools.update_wrapper(forward, original)
        with replaced_forward(self.model, forward):
            yield


class AdaptiveLayerLoss(Loss):
    """Another loss at several layers at once (formula above).

    Args:
        model: the model that is trained; a `Transformer` and what follows it.
        loss: the loss of each layer; not a cached one.
        n_layers_per_step: how many prior layers, drawn at random, a step uses; -1 for all.
        last_layer_weight, prior_layers_weight: w_L and w_P.
        kl_div_weight, kl_temperature: w_KL and T; 0 leaves the last term out.
        layer_weighting: w(i): "uniform" 1, "log" 1 / (1 + ln(1 + i)), "linear" 1 / (1 + i), or a function of i.

    Raises:
        InputError: for a model without a transformer in front, or a cached loss.
    """

    citation = cites("li20242d")
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
        model: nn.Module,
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

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        if not is_plain(self.loss):
            return self.of_calls(list(sentence_features), labels)
        columns = over_columns(self.model, sentence_features, lambda features: layer_vectors(self.model, features))
        return self.of_layers(columns, labels)

    def of_layers(self, columns: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Loss of the vectors (B, layers + 1, H) of each column."""
        inner: Any = self.loss

        def at(layer: int) -> tuple[Tensor, list[Tensor]]:
            vectors = [column[:, layer] for column in columns]
            return inner.compute_loss_from_embeddings(vectors, labels), vectors

        return self.total(at(-1), at, columns[0].shape[1] - 1)

    def of_calls(self, sentence_features: list[Any], labels: Tensor | None) -> Tensor:
        """Loss by an inner loss that calls the model: once for each layer, with the outputs of one forward pass."""
        outputs = Outputs(self.model)

        def at(layer: int | None) -> tuple[Tensor, list[Tensor]]:
            with outputs.at(layer):
                return self.loss([dict(features) for features in sentence_features], labels), outputs.used

        last = at(None)
        if not outputs.full:
            raise InputError(f"{type(self.loss).__name__} did not call the model that {type(self).__name__} trains.")
        return self.total(last, at, len(outputs.full[0]["all_layer_embeddings"]) - 1)

    def total(
        self, last: tuple[Tensor, list[Tensor]], at: Callable[[int], tuple[Tensor, list[Tensor]]], count: int
    ) -> Tensor:
        """The formula at the top of the module.

        Args:
            last: loss and vectors (B, H), column by column, of the last layer.
            at: the same of a prior layer.
            count: number of prior layers.
        """
        priors = list(range(count))
        if 0 < self.n_layers_per_step < count:
            priors = random.sample(priors, self.n_layers_per_step)
        total, targets = last[0] * self.last_layer_weight, torch.cat(last[1]).detach()
        for layer in priors:
            share, vectors = at(layer)
            total = total + share * self.get_layer_weight(layer) * self.prior_layers_weight / len(priors)
            if self.kl_temperature > 0 and self.kl_div_weight:
                log_student = F.log_softmax(torch.cat(vectors) / self.kl_temperature, -1)
                teacher = F.softmax(targets / self.kl_temperature, -1)
                divergence = F.kl_div(log_student, teacher, reduction="batchmean")
                total = total + divergence * self.kl_temperature * self.kl_div_weight
        return total

    def get_config_dict(self) -> dict[str, Any]:
        return {"loss": type(self.loss).__name__, **super().get_config_dict()}


class Matryoshka2dLoss(AdaptiveLayerLoss):
    """Another loss at several layers and several dimensions.

    Args:
        matryoshka_dims, matryoshka_weights, n_dims_per_step: see `MatryoshkaLoss`.
        others: see `AdaptiveLayerLoss`.
    """

    def __init__(
        self,
        model: nn.Module,
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
