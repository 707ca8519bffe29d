"""Merging: several models of one architecture become one, weight by weight, by a formula of `encoders.merge_methods`.

Tensors that do not hold floats (position numbers, say) are the first model's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from sentence_transformers.encoders.merge_methods import ELSEWHERE, METHODS, OTHER_NAMES
from sentence_transformers.errors import InputError
from sentence_transformers.modules.transformer import Transformer

if TYPE_CHECKING:
    from typing import TypeAlias

    from sentence_transformers.encoders.base import BaseModel

    Mergeable: TypeAlias = str | Path | BaseModel

M = TypeVar("M", bound="BaseModel")


def merge_models(
    cls: type[M],
    models: Sequence[str | Path | M],
    method: str = "linear",
    *,
    base_model: str | Path | M | None = None,
    parameters: dict[str, Any] | None = None,
    dtype: str | torch.dtype | None = torch.float32,
    out_dtype: str | torch.dtype | None = None,
    device: str | torch.device = "cpu",
    batch_options: object = None,
    **load_kwargs: Any,
) -> M:
    """Merge models into a new one; everything but the weights (tokenizer, modules, prompts) is the first model's.
    Its card is a new one, with the tag "merge" and the first model's language and license.

    Args:
        cls: class of the result, e.g. SentenceTransformer.
        models: names, folders or models; they are not changed.
        method: one of `METHODS`.
        base_model: the model that the others were trained from; it may be one of `models`. For slerp the model at
            t = 0, by default the first.
        parameters: settings of the method. `weight`, `density`, `gamma` and `epsilon` are one number for all models, a
            list of one for each model that is not the base, or a map from places in `models`. `weight` is also called
            `weights`, `lambda` also `scale`. See the functions of the methods for the others.
        dtype: type the weights are merged in; None for their own.
        out_dtype: type of the result's weights; None for the first model's.
        device: where the weights are merged, and the result's device.
        batch_options: mergekit's limits of memory, which are not needed here; anything else than None is refused.
        load_kwargs: for the constructor of `cls`, where a name or folder is given.

    Raises:
        InputError: for an unknown method or setting, too few models, a missing base model, or models whose weights
            differ in name or shape.

    Example:
        >>> SentenceTransformer.merge(["path/a", "path/b"], "linear", parameters={"weight": [0.7, 0.3]})
    """
    if batch_options is not None:
        raise InputError("batch_options is for mergekit, which is not used here; leave it out.")
    places = roles(method, models, base_model)
    how = settings_of(method, places, parameters or {})
    given = [*models, *([] if base_model is None or base_place(models, base_model) is not None else [base_model])]
    loaded = [load(cls, model, device, load_kwargs) for model in given]
    states = [model.state_dict() for model in loaded]
    for model, state in zip(given[1:], states[1:], strict=True):
        check_same(states[0], state, model)
    merging = [states[place] for place in places]
    base = None if base_model is None else states[base_place(given, base_model) or 0]
    if METHODS[method].base == "first":
        merging, base = [base or merging[0], merging[-1]], None
    result = loaded[0]
    if isinstance(models[0], torch.nn.Module):
        result = copy.deepcopy(loaded[0]).to(device)
    merged = {
        name: merge_tensors(
            method,
            [state[name] for state in merging],
            None if base is None else base[name],
            how,
            as_dtype(dtype),
            device,
        ).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in result.state_dict().items()
    }
    result.load_state_dict(merged)
    said = result.model_card_data
    result.came_from = result._made_from = None  # what is there is one of the models
    result.model_card_data = type(said)(language=said.language, license=said.license)
    result.model_card_data.add_tags("merge")
    return result if out_dtype is None else result.to(as_dtype(out_dtype))


def base_place(models: Sequence[Mergeable], base_model: Mergeable) -> int | None:
    """Place of the base model among the models: the same object, or the same name; None if it is not one of them."""
    same = (
        model is base_model
        or (isinstance(model, (str, Path)) and isinstance(base_model, (str, Path)) and str(model) == str(base_model))
        for model in models
    )
    return next((place for place, found in enumerate(same) if found), None)


def roles(method: str, models: Sequence[Mergeable], base_model: Mergeable | None) -> list[int]:
    """Places of the models that are merged, the base not among them."""
    if method in ELSEWHERE:
        raise InputError(
            f"The merge method {method!r} of mergekit is not available here: no paper gives its formula. Use one of "
            f"{', '.join(METHODS)}, or mergekit itself."
        )
    if method not in METHODS:
        raise InputError(f"Unknown merge method {method!r}; known are {', '.join(METHODS)}.")
    how = METHODS[method]
    if isinstance(models, (str, Path)) or len(models) < 2:
        raise InputError(f"merge needs a list of at least two models, got {models!r}.")
    if how.base == "always" and base_model is None:
        raise InputError(f"{method} needs base_model=, the model that the others were trained from.")
    if how.base == "never" and base_model is not None:
        takers = ", ".join(name for name, other in METHODS.items() if other.base != "never")
        raise InputError(f"{method} takes no base_model; these do: {takers}.")
    base = None if base_model is None else base_place(models, base_model)
    if how.base == "first":
        if len(models) != 2:
            raise InputError(f"{method} merges two models, got {len(models)}; use 'linear' for more.")
        if base_model is not None and base is None:
            raise InputError(f"base_model of {method} is one of the two models, got another.")
        return [1 - (base or 0)] if base_model is not None else [0, 1]
    places = [place for place in range(len(models)) if place != base]
    if len(places) < how.least or (how.most is not None and len(places) > how.most):
        wanted = f"{how.most}" if how.least == how.most else f"at least {how.least}"
        raise InputError(f"{method} merges {wanted} models besides the base, got {len(places)}.")
    return places


def settings_of(method: str, places: Sequence[int], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the method's function, checked."""
    _, _, _, _, per_model, settings, fixed = METHODS[method]
    known = settings | per_model.keys()
    how = dict(fixed)
    for name, value in parameters.items():
        ours = OTHER_NAMES.get(name, name)
        if ours not in known:
            raise InputError(f"{method} has no parameters {[name]}; it has {sorted(known)}.")
        if name in OTHER_NAMES and ours in parameters:
            raise InputError(f"{name!r} and {ours!r} are two names of one parameter; give one of them.")
        how[ours] = value
    for name, default in per_model.items():
        how[name] = each_model(method, name, how.get(name, default), places)
    for name in ("t", "density", "gamma", "select_topk"):
        most = float("inf") if (method, name) == ("nearswap", "t") else 1
        for value in how[name] if name in per_model else [how[name]] if name in how else []:
            if not 0 <= value <= most:
                raise InputError(f"{name} must lie between 0 and {most}, got {value!r}.")
    check_settings(method, how)
    return how


def each_model(
    method: str, name: str, value: float | Sequence[float] | Mapping[int, float] | None, places: Sequence[int]
) -> list[float]:
    """A setting of each model that is merged, from one number, a list, or a map from the models' places."""
    if value is None:
        raise InputError(f"{method} needs the parameter {name}.")
    if isinstance(value, Mapping):
        if missing := [place for place in places if place not in value]:
            raise InputError(f"{name} has no entry for the models {missing}; their places in `models` are the keys.")
        value = [value[place] for place in places]
    values = [float(value)] * len(places) if isinstance(value, (int, float)) else [float(one) for one in value]
    if len(values) != len(places):
        raise InputError(f"{len(places)} models need as many {name}, got {values}.")
    return values


def check_settings(method: str, how: Mapping[str, Any]) -> None:
    """Raise `InputError` where a method would divide by 0, or lacks what has no default."""
    weights = how.get("weights", [1.0])
    divides = method == "nuslerp" or how.get("normalize", method == "linear")
    if divides and not how.get("elect", method == "ties") and sum(weights) == 0:
        advice = "choose others." if method == "nuslerp" else "set normalize=False."
        raise InputError(f"The weights {weights} add up to 0, so their mean does not exist; {advice}")
    if method == "nearswap" and "t" not in how:
        raise InputError("nearswap needs the parameter t, the largest step of a weight.")
    if method.startswith("dare") and how.get("rescale", True) and 0 in how["density"]:
        raise InputError("density must be above 0, or rescale False: what stays is divided by it.")
    for density, epsilon in zip(how.get("density", []), how.get("epsilon", []), strict=False):
        if not (epsilon >= 0 and density - epsilon > 0 and density + epsilon < 1):
            raise InputError(
                f"density - epsilon and density + epsilon are chances between 0 and 1; got {density} and {epsilon}."
            )


def load(cls: type[M], model: str | Path | M, device: str | torch.device, load_kwargs: dict[str, Any]) -> M:
    """A model by name, folder, or as it is; its transformers models in full, so that names of weights can be
    compared.
    """
    if not isinstance(model, torch.nn.Module):
        model = cls(str(model), device=str(device), **load_kwargs)
    for module in list(model.modules()):
        if isinstance(module, Transformer):
            _ = module.auto_model
    return model


def check_same(first: dict[str, Tensor], other: dict[str, Tensor], model: Mergeable) -> None:
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
    method: str,
    tensors: list[Tensor],
    base: Tensor | None,
    how: dict[str, Any],
    dtype: torch.dtype | None,
    device: str | torch.device,
) -> Tensor:
    """One merged tensor."""
    at_work = [tensor.to(device=device, dtype=dtype or tensor.dtype) for tensor in tensors]
    if METHODS[method].base in ("never", "first"):
        return METHODS[method].function(at_work, **how)
    base = None if base is None else base.to(device=device, dtype=dtype or base.dtype)
    return METHODS[method].function(at_work, base, **how)


def as_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A torch type by itself or by name, such as "float16" or "torch.float16"."""
    if not isinstance(dtype, str):
        return dtype
    found = getattr(torch, dtype.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise InputError(f"Unknown dtype {dtype!r}; use e.g. 'float32' or torch.float32.")
    return found
