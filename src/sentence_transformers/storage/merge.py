"""Merging: several models of one architecture become one, weight by weight.

With θ_i one weight tensor of model i, w_i its model's weight, and, where there is a base model θ_0, the task vectors
τ_i = θ_i - θ_0:

    linear            θ = Σ w_i θ_i / Σ w_i                                          Wortsman et al. 2022, "Model soups"
    slerp             θ = (sin((1 - t)Ω) θ_1 + sin(tΩ) θ_2) / sin Ω                  Shoemake 1985
                          Ω the angle between θ_1 and θ_2
    task_arithmetic   θ = θ_0 + Σ w_i τ_i                                            Ilharco et al. 2023
    ties              θ = θ_0 + mean of the trimmed τ_i that have the elected sign   Yadav et al. 2023, "TIES-Merging"

Each method is a function of one tensor per model. Tensors that do not hold floats (position numbers, say) are the first
model's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.modules.transformer import Transformer

if TYPE_CHECKING:
    from sentence_transformers.encoders.base import BaseModel

M = TypeVar("M", bound="BaseModel")

NEARLY_PARALLEL = 0.9995  # cosine from which slerp becomes a straight line: sin Ω is then too small to divide by


# ---- the methods, on one tensor per model


def linear(tensors: Sequence[Tensor], weights: Sequence[float], normalize: bool = True) -> Tensor:
    """Σ w_i θ_i, divided by Σ w_i if `normalize`.

    Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
    increasing inference time", https://arxiv.org/abs/2203.05482
    """
    total = sum_of(tensors, weights)
    return total / sum(weights) if normalize else total


def slerp(tensors: Sequence[Tensor], t: float = 0.5) -> Tensor:
    """(sin((1 - t)Ω) θ_1 + sin(tΩ) θ_2) / sin Ω, Ω the angle between the two tensors seen as long vectors.

    t = 0 gives the first, t = 1 the second. Nearly parallel or zero tensors are mixed along the straight line.
    Shoemake 1985, "Animating rotation with quaternion curves", https://doi.org/10.1145/325334.325242
    """
    first, second = tensors
    norms = first.norm() * second.norm()
    cosine = (first * second).sum() / norms if norms > 0 else torch.ones_like(norms)
    if cosine.abs() > NEARLY_PARALLEL:
        return (1 - t) * first + t * second
    angle = torch.arccos(cosine)
    return (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)


def task_arithmetic(tensors: Sequence[Tensor], base: Tensor, weights: Sequence[float]) -> Tensor:
    """θ_0 + Σ w_i (θ_i - θ_0). A negative weight takes a task away.

    Ilharco et al. 2023, "Editing models with task arithmetic", https://arxiv.org/abs/2212.04089
    """
    return base + sum_of([tensor - base for tensor in tensors], weights)


def ties(
    tensors: Sequence[Tensor], base: Tensor, weights: Sequence[float], density: float = 1.0, scale: float = 1.0
) -> Tensor:
    """Trim, elect a sign, and average what agrees with it.

        trim     of each τ_i = θ_i - θ_0 keep the `density` share of largest magnitude, set the rest to 0
        elect    s = sign(Σ w_i τ_i), entry by entry
        merge    τ = Σ w_i τ_i / Σ w_i over the models whose trimmed τ_i has sign s there; 0 where there is none, or
                 where the votes cancel
        result   θ_0 + scale · τ

    Yadav et al. 2023, "TIES-Merging: resolving interference when merging models", https://arxiv.org/abs/2306.01708
    """
    weighted = torch.stack([trim(tensor - base, density) * w for tensor, w in zip(tensors, weights, strict=True)])
    agrees = (weighted.sign() == weighted.sum(0).sign()) & (weighted != 0)
    share = torch.tensor(weights, dtype=base.dtype, device=base.device).reshape(-1, *[1] * base.dim())
    total = (weighted * agrees).sum(0)
    count = (share * agrees).sum(0)
    return base + scale * torch.where(count == 0, torch.zeros_like(total), total / count)


def trim(tensor: Tensor, density: float) -> Tensor:
    """Keep the entries of largest magnitude, a share `density` of all (rounded up), and set the rest to 0."""
    keep = -int(-density * tensor.numel() // 1)
    kept = torch.zeros_like(tensor).flatten()
    places = tensor.abs().flatten().topk(keep).indices
    kept[places] = tensor.flatten()[places]
    return kept.reshape(tensor.shape)


def sum_of(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return torch.stack([w * tensor for tensor, w in zip(tensors, weights, strict=True)]).sum(0)


class Method(NamedTuple):
    """One way of merging.

    Attributes:
        function: of one tensor per model and the settings.
        needs_base: whether it takes the base model's tensor as second argument.
        weight: default weight of each model; None if the method has no weights.
        settings: names of its other settings.
    """

    function: Callable[..., Tensor]
    needs_base: bool
    weight: float | None
    settings: frozenset[str] = frozenset()


METHODS = {
    "linear": Method(linear, False, 1.0, frozenset({"normalize"})),
    "slerp": Method(slerp, False, None, frozenset({"t"})),
    "task_arithmetic": Method(task_arithmetic, True, 1.0),
    "ties": Method(ties, True, 1.0, frozenset({"density", "scale"})),
}


# ---- whole models


def merge_models(
    cls: type[M],
    models: Sequence[str | Path | BaseModel],
    method: str = "linear",
    *,
    base_model: str | Path | BaseModel | None = None,
    parameters: dict[str, Any] | None = None,
    dtype: str | torch.dtype | None = torch.float32,
    out_dtype: str | torch.dtype | None = None,
    device: str | torch.device = "cpu",
    batch_options: Any = None,
    **load_kwargs: Any,
) -> M:
    """Merge models into a new one; everything but the weights (tokenizer, modules, prompts) is the first model's.

    Args:
        cls: class of the result, e.g. SentenceTransformer.
        models: names, folders or models; they are not changed.
        method: "linear", "slerp" (two models), "task_arithmetic" or "ties" (both need `base_model`).
        base_model: the model that the others were trained from.
        parameters: settings of the method: `weights`, one number per model (all but slerp; default 1 each);
            `normalize` (linear, default True); `t` in 0 to 1 (slerp, default 0.5); `density` in 0 to 1, the share of
            each task vector that is kept, and `scale` (ties, default 1).
        dtype: type the weights are merged in; None for their own.
        out_dtype: type of the result's weights; None for the first model's.
        device: where the weights are merged, and the result's device.
        batch_options: accepted for compatibility and not used.
        load_kwargs: for the constructor of `cls`, where a name or folder is given.

    Raises:
        InputError: for an unknown method or setting, too few models, a missing base model, or models whose weights
            differ in name or shape.

    Example:
        >>> SentenceTransformer.merge(["path/a", "path/b"], "linear", parameters={"weights": [0.7, 0.3]})
    """
    how = settings_of(method, models, base_model, parameters or {})
    given = [*models, *([] if base_model is None else [base_model])]
    loaded = [load(cls, model, device, load_kwargs) for model in given]
    states = [model.state_dict() for model in loaded]
    for model, state in zip(given[1:], states[1:], strict=True):
        check_same(states[0], state, model)
    result = loaded[0]
    if isinstance(models[0], torch.nn.Module):
        result = copy.deepcopy(loaded[0]).to(device)
    own = result.state_dict()
    merged = {
        name: merge_tensors(method, [state[name] for state in states], how, as_dtype(dtype), device)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in own.items()
    }
    result.load_state_dict(merged)
    return result if out_dtype is None else result.to(as_dtype(out_dtype))


def settings_of(method: str, models: Sequence[Any], base_model: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the method's function, checked."""
    if method not in METHODS:
        raise InputError(f"Unknown merge method {method!r}; known are {', '.join(METHODS)}.")
    _, needs_base, weight, names = METHODS[method]
    if isinstance(models, str) or len(models) < 2:
        raise InputError(f"merge needs a list of at least two models, got {models!r}.")
    if method == "slerp" and len(models) != 2:
        raise InputError(f"slerp merges two models, got {len(models)}; use 'linear' for more.")
    if needs_base and base_model is None:
        raise InputError(f"{method} needs base_model=, the model that the others were trained from.")
    if not needs_base and base_model is not None:
        raise InputError(f"{method} takes no base_model; use 'task_arithmetic' or 'ties'.")
    known = names | ({"weights"} if weight is not None else set())
    if unknown := sorted(parameters.keys() - known):
        raise InputError(f"{method} has no parameters {unknown}; it has {sorted(known)}.")
    how = dict(parameters)
    for name in {"t", "density"} & how.keys():
        if not 0 <= how[name] <= 1:
            raise InputError(f"{name} must lie between 0 and 1, got {how[name]!r}.")
    if weight is not None:
        how["weights"] = weights = [float(w) for w in how.get("weights") or [weight] * len(models)]
        if len(weights) != len(models):
            raise InputError(f"{len(models)} models need as many weights, got {weights}.")
        if method == "linear" and how.get("normalize", True) and sum(weights) == 0:
            raise InputError(f"The weights {weights} add up to 0, so their mean does not exist; set normalize=False.")
    return how


def load(cls: type[M], model: Any, device: Any, load_kwargs: dict[str, Any]) -> M:
    """A model by name, folder, or as it is; its transformers models in full, so that names of weights can be
    compared.
    """
    if not isinstance(model, torch.nn.Module):
        model = cls(str(model), device=str(device), **load_kwargs)
    for module in list(model.modules()):
        if isinstance(module, Transformer):
            _ = module.auto_model
    return model


def check_same(first: dict[str, Tensor], other: dict[str, Tensor], model: Any) -> None:
    """Raise `InputError` if two models' weights differ in name or shape."""
    name = model if isinstance(model, (str, Path)) else f"a {type(model).__name__}"
    if first.keys() != other.keys():
        missing, surplus = sorted(first.keys() - other.keys()), sorted(other.keys() - first.keys())
        raise InputError(
            f"{name} is of another architecture than the first model: "
            f"it lacks {missing[:5]} and has {surplus[:5]} more."
        )
    for key, tensor in first.items():
        if tensor.shape != other[key].shape:
            raise InputError(
                f"{name} is of another size than the first model: {key} has shape {tuple(other[key].shape)} "
                f"instead of {tuple(tensor.shape)}."
            )


def merge_tensors(
    method: str, tensors: list[Tensor], how: dict[str, Any], dtype: torch.dtype | None, device: str | torch.device
) -> Tensor:
    """One merged tensor, in the type of the first; the last of `tensors` is the base's where the method has one."""
    function, needs_base, _, _ = METHODS[method]
    at_work = [tensor.to(device=device, dtype=dtype or tensor.dtype) for tensor in tensors]
    merged = function(at_work[:-1], at_work[-1], **how) if needs_base else function(at_work, **how)
    return merged.to(tensors[0].dtype)


def as_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A torch type by itself or by name, such as "float16" or "torch.float16"."""
    if not isinstance(dtype, str):
        return dtype
    found = getattr(torch, dtype.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise InputError(f"Unknown dtype {dtype!r}; use e.g. 'float32' or torch.float32.")
    return found
