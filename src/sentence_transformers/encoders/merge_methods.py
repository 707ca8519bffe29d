"""Formulas of merging: several models of one architecture become one, weight by weight.

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

Names and defaults are those of mergekit. Each method is a function of one tensor per model. Random choices come from
torch's own generator: `torch.manual_seed` repeats them. `encoders.merge` applies them to whole models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

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
