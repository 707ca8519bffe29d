"""Merging: several models of one architecture become one, weight by weight.

With θ_i one weight tensor of model i, w_i its model's weight, and, where there is a base model θ_0, the task vectors
τ_i = θ_i - θ_0:

    linear            θ = Σ w_i θ_i / Σ w_i                                          Wortsman et al. 2022, "Model soups"
    slerp             θ = (sin((1 - t)Ω) θ_1 + sin(tΩ) θ_2) / sin Ω                  Shoemake 1985
                          Ω the angle between θ_1 and θ_2
    nuslerp           slerp at t = w_2 / (w_1 + w_2); of task vectors if there is a base model
    karcher           the direction with the smallest sum of squared angles          Karcher 1977
    nearswap          θ = θ_0 + min(t / |τ|, 1) τ
    model_stock       θ = θ_0 + t mean(τ_i), t from the angle between the τ_i        Jang et al. 2024, "Model Stock"
    task_arithmetic   θ = θ_0 + λ Σ w_i τ_i                                          Ilharco et al. 2023
    ties              θ = θ_0 + λ mean of the trimmed τ_i that have the elected sign Yadav et al. 2023, "TIES-Merging"
    sce               the same with weights from the τ_i themselves                  Wan et al. 2024, "FuseChat"

The methods of the form θ_0 + λ Σ w_i τ_i' differ in how they thin the task vectors out and in whether the models elect
a sign first, entry by entry; those that do are called `ties`:

    breadcrumbs, breadcrumbs_ties   without the largest and the smallest entries     Davari and Belilovsky 2023
    dare_linear, dare_ties          a random share of the entries, scaled up         Yu et al. 2023
    della_linear, della             the same, large entries more probably            Deep et al. 2024

Names and defaults are those of mergekit. Each method is a function of one tensor per model. Tensors that do not hold
floats (position numbers, say) are the first model's. Random choices come from torch's own generator:
`torch.manual_seed` repeats them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.modules.transformer import Transformer

if TYPE_CHECKING:
    from typing import TypeAlias

    from sentence_transformers.encoders.base import BaseModel

    Mergeable: TypeAlias = str | Path | BaseModel

M = TypeVar("M", bound="BaseModel")

NEARLY_PARALLEL = 0.9995  # cosine from which slerp becomes a straight line: sin Ω is then too small to divide by


# ---- means and paths between models, on one tensor per model


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
    first, second = (tensor.flatten() for tensor in tensors)
    return slerp_rows(first, second, t).reshape(tensors[0].shape)


def slerp_rows(first: Tensor, second: Tensor, t: float) -> Tensor:
    """`slerp` along the last axis: (…, n), (…, n) -> (…, n)."""
    norms = first.norm(dim=-1, keepdim=True) * second.norm(dim=-1, keepdim=True)
    cosine = torch.where(norms > 0, (first * second).sum(-1, keepdim=True) / norms, 1.0)
    straight = (1 - t) * first + t * second
    angle = torch.arccos(cosine.clamp(-1, 1))
    curved = (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)
    return torch.where(cosine.abs() > NEARLY_PARALLEL, straight, curved)


def nuslerp(
    tensors: Sequence[Tensor],
    base: Tensor | None,
    weights: Sequence[float],
    nuslerp_flatten: bool = True,
    nuslerp_row_wise: bool = False,
) -> Tensor:
    """`slerp` at t = w_2 / (w_1 + w_2); with a base model, of the two task vectors, added to it.

    Args:
        nuslerp_flatten: whether a tensor is one long vector; otherwise each column is a vector of its own.
        nuslerp_row_wise: then each row.
    """
    t = weights[1] / (weights[0] + weights[1])
    first, second = tensors if base is None else [tensor - base for tensor in tensors]
    if nuslerp_flatten or first.dim() < 2:
        merged = slerp([first, second], t)
    elif nuslerp_row_wise:
        merged = slerp_rows(first, second, t)
    else:
        merged = slerp_rows(first.transpose(0, -1), second.transpose(0, -1), t).transpose(0, -1)
    return merged if base is None else base + merged


def karcher(tensors: Sequence[Tensor], max_iter: int = 10, tol: float = 1e-5) -> Tensor:
    """The Karcher mean of the tensors' directions, as long as the tensors are on the average.

        m ← exp_m((1/N) Σ log_m(u_i)),    u_i = θ_i / |θ_i|

    repeated from the normalised mean of the u_i until the step is shorter than `tol`, `max_iter` times at most. Here
    log_m(u) points from m along the great circle to u, as long as the angle between them; exp_m walks it. Tensors of
    zeros have no direction and are left out.
    Karcher 1977, "Riemannian center of mass and mollifier smoothing", https://doi.org/10.1002/cpa.3160300502
    """
    norms = torch.stack([tensor.norm() for tensor in tensors])
    units = [tensor / norm for tensor, norm in zip(tensors, norms, strict=True) if norm > 0]
    mean = torch.stack(units).mean(0) if units else torch.zeros_like(tensors[0])
    if not mean.norm() > 0:
        return mean
    mean = mean / mean.norm()
    for _ in range(max_iter):
        step = torch.stack([towards(mean, unit) for unit in units]).mean(0)
        length = step.norm()
        if length < tol:
            break
        mean = torch.cos(length) * mean + torch.sin(length) * step / length
    return norms.mean() * mean


def towards(start: Tensor, end: Tensor) -> Tensor:
    """log_start(end) of two unit vectors: from one along the great circle to the other, as long as their angle."""
    cosine = (start * end).sum().clamp(-1, 1)
    straight = end - cosine * start
    length = straight.norm()
    return straight * (torch.arccos(cosine) / length) if length > 0 else torch.zeros_like(start)


def nearswap(tensors: Sequence[Tensor], t: float) -> Tensor:
    """θ_0 + min(t / |θ - θ_0|, 1) (θ - θ_0), entry by entry: the second model where the two are no more than t apart,
    and a step of t towards it elsewhere.
    """
    base, other = tensors
    return base + (other - base).clamp(-t, t)


def model_stock(tensors: Sequence[Tensor], base: Tensor, filter_wise: bool = False) -> Tensor:
    """θ_0 + t · mean(τ_i) with t = N cos α / (1 + (N - 1) cos α), α the mean angle between the N task vectors.

    Args:
        filter_wise: whether each row of a matrix has a t of its own.

    Jang et al. 2024, "Model Stock: all we need is just a few fine-tuned models", https://arxiv.org/abs/2403.19522
    """
    tasks = torch.stack([tensor - base for tensor in tensors])
    rows = tasks.flatten(2) if filter_wise and base.dim() > 1 else tasks.flatten(1)[:, None]  # (N, rows, n)
    count = len(tensors)
    units = torch.nn.functional.normalize(rows, dim=-1)
    cosines = torch.einsum("irn,jrn->rij", units, units)
    above = torch.triu_indices(count, count, 1)
    cosine = cosines[:, above[0], above[1]].mean(-1)  # (rows,)
    t = count * cosine / (1 + (count - 1) * cosine)
    t = t.reshape(-1, *[1] * (base.dim() - 1)) if filter_wise and base.dim() > 1 else t.squeeze()
    return base + t * tasks.mean(0)


# ---- sums of task vectors, on one tensor per model


def task_arithmetic(
    tensors: Sequence[Tensor], base: Tensor, weights: Sequence[float], scale: float = 1.0, normalize: bool = False
) -> Tensor:
    """θ_0 + λ Σ w_i τ_i. A negative weight takes a task away.

    Ilharco et al. 2023, "Editing models with task arithmetic", https://arxiv.org/abs/2212.04089
    """
    return base + scale * combined([tensor - base for tensor in tensors], weights, False, normalize)


def ties(
    tensors: Sequence[Tensor],
    base: Tensor,
    weights: Sequence[float],
    density: float | Sequence[float] = 1.0,
    scale: float = 1.0,
    normalize: bool = True,
) -> Tensor:
    """Trim, elect a sign, and average what agrees with it.

        trim     of each τ_i = θ_i - θ_0 keep the `density` share of largest magnitude, set the rest to 0
        elect    s = sign(Σ w_i τ_i), entry by entry
        merge    τ = Σ w_i τ_i / Σ w_i over the models whose trimmed τ_i has sign s there; 0 where there is none, or
                 where the votes cancel
        result   θ_0 + λ · τ

    Yadav et al. 2023, "TIES-Merging: resolving interference when merging models", https://arxiv.org/abs/2306.01708
    """
    tasks = thinned(trim, tensors, base, density=density)
    return base + scale * combined(tasks, weights, True, normalize)


def breadcrumbs(
    tensors: Sequence[Tensor],
    base: Tensor,
    weights: Sequence[float],
    elect: bool,
    density: float | Sequence[float] = 1.0,
    gamma: float | Sequence[float] = 0.01,
    scale: float = 1.0,
    normalize: bool = False,
) -> Tensor:
    """θ_0 + λ Σ w_i τ_i, of each τ_i without the entries of smallest and of largest magnitude; see `middle`.

    Davari and Belilovsky 2023, "Model breadcrumbs: scaling multi-task model merging with sparse masks",
    https://arxiv.org/abs/2312.06795
    """
    tasks = thinned(middle, tensors, base, density=density, gamma=gamma)
    return base + scale * combined(tasks, weights, elect, normalize)


def dare(
    tensors: Sequence[Tensor],
    base: Tensor,
    weights: Sequence[float],
    elect: bool,
    density: float | Sequence[float] = 1.0,
    rescale: bool = True,
    scale: float = 1.0,
    normalize: bool = False,
) -> Tensor:
    """θ_0 + λ Σ w_i τ_i, of each τ_i a random share `density` of the entries, divided by `density` if `rescale`.

    Yu et al. 2023, "Language models are super Mario: absorbing abilities from homologous models as a free lunch",
    https://arxiv.org/abs/2311.03099
    """
    tasks = thinned(
        lambda task, density: drop(task, torch.full_like(task, density), rescale), tensors, base, density=density
    )
    return base + scale * combined(tasks, weights, elect, normalize)


def della(
    tensors: Sequence[Tensor],
    base: Tensor,
    weights: Sequence[float],
    elect: bool,
    normalize: bool,
    density: float | Sequence[float],
    epsilon: float | Sequence[float],
    rescale: bool = True,
    scale: float = 1.0,
) -> Tensor:
    """`dare` with a chance of its own for each entry; see `chances`.

    Deep et al. 2024, "DELLA-Merging: reducing interference in model merging through magnitude-based sampling",
    https://arxiv.org/abs/2406.11617
    """
    tasks = thinned(
        lambda task, density, epsilon: drop(task, chances(task, density, epsilon), rescale),
        tensors,
        base,
        density=density,
        epsilon=epsilon,
    )
    return base + scale * combined(tasks, weights, elect, normalize)


def sce(tensors: Sequence[Tensor], base: Tensor, select_topk: float = 1.0) -> Tensor:
    """Select, calculate, erase: `ties` with weights that come from the task vectors.

        select      keep the share `select_topk` of the entries (rounded up) that vary most between the τ_i
        calculate   w_i = Σ τ_i² / Σ_j Σ τ_j²
        erase       only τ_i that have the sign of Σ τ_j count
        result      θ_0 + Σ w_i τ_i / Σ w_i over those, entry by entry

    Wan et al. 2024, "FuseChat: knowledge fusion of chat models", https://arxiv.org/abs/2408.07990
    """
    tasks = torch.stack([tensor - base for tensor in tensors])
    if select_topk < 1:
        tasks = tasks * (trim(tasks.var(0, correction=0), select_topk) > 0)
    power = tasks.square().flatten(1).sum(1)
    weights = (power / power.sum()).tolist() if power.sum() > 0 else [1.0 / len(tensors)] * len(tensors)
    agrees = tasks.sign() == tasks.sum(0).sign()
    return base + combined(list(tasks * agrees), weights, True, True)


def combined(tasks: Sequence[Tensor], weights: Sequence[float], elect: bool, normalize: bool) -> Tensor:
    """Σ w_i τ_i.

    Args:
        elect: only entries with the sign of Σ w_i τ_i count.
        normalize: divide by Σ w_i, of the models whose entry counts.
    """
    weighted = torch.stack([task * w for task, w in zip(tasks, weights, strict=True)])
    counts = torch.ones_like(weighted, dtype=torch.bool)
    if elect:
        counts = (weighted.sign() == weighted.sum(0).sign()) & (weighted != 0)
    total = (weighted * counts).sum(0)
    if not normalize:
        return total
    share = torch.tensor(weights, dtype=total.dtype, device=total.device).reshape(-1, *[1] * total.dim())
    divisor = (share * counts).sum(0)
    return torch.where(divisor == 0, torch.zeros_like(total), total / divisor)


def thinned(
    function: Callable[..., Tensor], tensors: Sequence[Tensor], base: Tensor, **settings: float | Sequence[float]
) -> list[Tensor]:
    """`function` of each task vector, with the settings of its model: one number for all, or one for each."""
    each = {
        name: [value] * len(tensors) if isinstance(value, (int, float)) else value for name, value in settings.items()
    }
    return [
        function(tensor - base, **{name: values[i] for name, values in each.items()})
        for i, tensor in enumerate(tensors)
    ]


def trim(tensor: Tensor, density: float) -> Tensor:
    """Keep the entries of largest magnitude, a share `density` of all (rounded up), and set the rest to 0."""
    return keep_places(tensor, tensor.abs().flatten().topk(rounded_up(density, tensor)).indices)


def middle(tensor: Tensor, density: float, gamma: float) -> Tensor:
    """Without the share `gamma` of largest magnitude (rounded down), keep the largest, a share `density` of all
    (rounded up). Where they are not that many, fewer of the largest go.
    """
    kept = rounded_up(density, tensor)
    largest = min(int(round(gamma * tensor.numel(), 6)), tensor.numel() - kept)
    order = tensor.abs().flatten().argsort(descending=True)
    return keep_places(tensor, order[largest : largest + kept])


def rounded_up(share: float, tensor: Tensor) -> int:
    return math.ceil(round(share * tensor.numel(), 6))  # 0.1 · 30 is a little more than 3 in floats


def keep_places(tensor: Tensor, places: Tensor) -> Tensor:
    """The entries at these places of the flat tensor, 0 elsewhere."""
    kept = torch.zeros_like(tensor).flatten()
    kept[places] = tensor.flatten()[places]
    return kept.reshape(tensor.shape)


def chances(task: Tensor, density: float, epsilon: float) -> Tensor:
    """For each entry the chance to be kept: by its rank in magnitude within its row, equal steps from
    density - epsilon for the smallest to density + epsilon for the largest.
    """
    ranks = task.abs().argsort(-1).argsort(-1) if task.dim() else torch.zeros_like(task)
    last = max(task.shape[-1] - 1, 1) if task.dim() else 1
    return density - epsilon + 2 * epsilon * ranks.to(task.dtype) / last


def drop(task: Tensor, chance: Tensor, rescale: bool) -> Tensor:
    """Each entry with a chance of its own, else 0; what stays is divided by its chance if `rescale`."""
    kept = task * (torch.rand_like(task) < chance)
    return kept / chance if rescale else kept


def sum_of(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return torch.stack([w * tensor for tensor, w in zip(tensors, weights, strict=True)]).sum(0)


class Method(NamedTuple):
    """One way of merging.

    Attributes:
        function: of one tensor per model, the base's where it takes one, and the settings.
        base: whether it takes the base model's tensor: "never", "always", "if given"; "first" if the base model is the
            first of two models.
        least, most: number of models besides the base, or with it if it is the first of two.
        per_model: settings of each model -> default.
        settings: its other settings.
        fixed: arguments that make the method of the function.
    """

    function: Callable[..., Tensor]
    base: Literal["never", "always", "if given", "first"]
    least: int = 2
    most: int | None = None
    per_model: Mapping[str, float | None] = {}
    settings: frozenset[str] = frozenset()
    fixed: Mapping[str, Any] = {}


SUM = frozenset({"scale", "normalize"})
WEIGHTS = {"weights": 1.0}
THIN = {**WEIGHTS, "density": 1.0}

METHODS = {
    "linear": Method(linear, "never", per_model=WEIGHTS, settings=frozenset({"normalize"})),
    "slerp": Method(slerp, "first", most=2, settings=frozenset({"t"})),
    "nuslerp": Method(
        nuslerp, "if given", most=2, per_model=WEIGHTS, settings=frozenset({"nuslerp_flatten", "nuslerp_row_wise"})
    ),
    "karcher": Method(karcher, "never", settings=frozenset({"max_iter", "tol"})),
    "nearswap": Method(nearswap, "first", most=2, settings=frozenset({"t"})),
    "model_stock": Method(model_stock, "always", settings=frozenset({"filter_wise"})),
    "task_arithmetic": Method(task_arithmetic, "always", 1, per_model=WEIGHTS, settings=SUM),
    "ties": Method(ties, "always", 1, per_model=THIN, settings=SUM),
    "breadcrumbs": Method(breadcrumbs, "always", 1, None, {**THIN, "gamma": 0.01}, SUM, {"elect": False}),
    "breadcrumbs_ties": Method(breadcrumbs, "always", 1, None, {**THIN, "gamma": 0.01}, SUM, {"elect": True}),
    "dare_linear": Method(dare, "always", 1, None, THIN, SUM | {"rescale"}, {"elect": False}),
    "dare_ties": Method(dare, "always", 1, None, THIN, SUM | {"rescale"}, {"elect": True}),
    "della_linear": Method(
        della,
        "always",
        1,
        None,
        {**WEIGHTS, "density": None, "epsilon": None},
        SUM | {"rescale"},
        {"elect": False, "normalize": False},
    ),
    "della": Method(
        della,
        "always",
        1,
        None,
        {**WEIGHTS, "density": None, "epsilon": None},
        SUM | {"rescale"},
        {"elect": True, "normalize": True},
    ),
    "sce": Method(sce, "always", 1, settings=frozenset({"select_topk"})),
}
ELSEWHERE = ("arcee_fusion", "multislerp", "passthrough", "ram", "ramplus_tl")  # mergekit's, without a paper's formula
OTHER_NAMES = {"weight": "weights", "lambda": "scale"}  # mergekit's names of settings -> ours


# ---- whole models


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
