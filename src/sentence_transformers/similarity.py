"""How alike two embeddings are: pure functions of arrays.

Each measure has two forms. *All pairs*: a (Q, H) against b (D, H) gives (Q, D). *Pairwise*: row n of a against row n
of b, both (N, H), gives (N,). Greater is more alike: distances come with a minus sign.

    cosine       aᵀb / (‖a‖‖b‖)      cos_sim         pairwise_cos_sim
    dot          aᵀb                 dot_score       pairwise_dot_score
    manhattan    −Σ|aᵢ − bᵢ|         manhattan_sim   pairwise_manhattan_sim
    euclidean    −‖a − b‖            euclidean_sim   pairwise_euclidean_sim
    maxsim       Σᵢ maxⱼ qᵢᵀdⱼ       maxsim          maxsim_pairwise          (one vector a token; see `maxsim`)
    mean maxsim  maxsim / |q|        mean_maxsim     mean_maxsim_pairwise

Arguments may be lists, numpy arrays, tensors and sparse tensors. Integers and half precision are computed in float32,
which is also the dtype of the (dense) result; float64 stays float64. If one argument is on an accelerator, so is the
result. `SimilarityFunction` finds a measure by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from enum import Enum

import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.late_interaction import maxsim, maxsim_pairwise, mean_maxsim, mean_maxsim_pairwise
from sentence_transformers.util.tensor import ArrayLike, is_sparse, normalize_embeddings, take_rows, to_float, to_rows

__all__ = [
    "SimilarityFunction",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "maxsim",
    "maxsim_pairwise",
    "mean_maxsim",
    "mean_maxsim_pairwise",
    "pairwise_angle_sim",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "pytorch_cos_sim",
]

DENSE_BLOCK = 2**24
"""Where a measure needs dense rows, sparse ones are made dense in blocks of at most so many values."""


def cos_sim(a: ArrayLike, b: ArrayLike) -> Tensor:
    """cos(a, b) = aᵀb / (‖a‖ ‖b‖); 0 if either is the zero vector.

    Args:
        a: (Q, H), or (H,) for one row.
        b: (D, H), or (H,) for one row.

    Returns:
        Float of shape (Q, D).

    Raises:
        InputError: if the dimensions differ.
    """
    a, b = _two_sides(a, b)
    return _matmul(normalize_embeddings(a), normalize_embeddings(b))


def pytorch_cos_sim(a: ArrayLike, b: ArrayLike) -> Tensor:
    """Deprecated name of `cos_sim`."""
    warnings.warn("`pytorch_cos_sim` is deprecated, use `cos_sim`.", DeprecationWarning, stacklevel=2)
    return cos_sim(a, b)


def dot_score(a: ArrayLike, b: ArrayLike) -> Tensor:
    """aᵀb. Shapes and errors as in `cos_sim`."""
    return _matmul(*_two_sides(a, b))


def manhattan_sim(a: ArrayLike, b: ArrayLike) -> Tensor:
    """−Σᵢ |aᵢ − bᵢ|. Shapes and errors as in `cos_sim`."""
    return _negative_distance(*_two_sides(a, b), p=1.0)


def euclidean_sim(a: ArrayLike, b: ArrayLike) -> Tensor:
    """−√Σᵢ (aᵢ − bᵢ)². Shapes and errors as in `cos_sim`."""
    return _negative_distance(*_two_sides(a, b), p=2.0)


def pairwise_cos_sim(a: ArrayLike, b: ArrayLike) -> Tensor:
    """cos(aₙ, bₙ); 0 if either is the zero vector.

    Args:
        a: (..., H); two vectors (H,) give a scalar.
        b: the same shape, or (H,) to compare every row of `a` with one vector.

    Returns:
        Float of shape (...).

    Raises:
        InputError: if the shapes do not fit.
    """
    return _pairwise(a, b, lambda x, y: (normalize_embeddings(x) * normalize_embeddings(y)).sum(-1))


def pairwise_dot_score(a: ArrayLike, b: ArrayLike) -> Tensor:
    """aₙᵀbₙ. Shapes and errors as in `pairwise_cos_sim`."""
    return _pairwise(a, b, lambda x, y: (x * y).sum(-1))


def pairwise_manhattan_sim(a: ArrayLike, b: ArrayLike) -> Tensor:
    """−Σᵢ |aₙᵢ − bₙᵢ|. Shapes and errors as in `pairwise_cos_sim`."""
    return _pairwise(a, b, lambda x, y: -(x - y).abs().sum(-1))


def pairwise_euclidean_sim(a: ArrayLike, b: ArrayLike) -> Tensor:
    """−√Σᵢ (aₙᵢ − bₙᵢ)². Shapes and errors as in `pairwise_cos_sim`."""
    return _pairwise(a, b, lambda x, y: -torch.linalg.vector_norm(x - y, dim=-1))


def pairwise_angle_sim(x: ArrayLike, y: ArrayLike) -> Tensor:
    """Angle difference of two vectors read as complex numbers (AnglE, https://arxiv.org/abs/2309.12871).

    The first half of a vector holds the real parts, the second half the imaginary parts: z = a + bi, w = c + di. The
    quotient of the unit vectors is z/w = ((ac + bd) + (bc − ad)i) / (|z||w|); the result is |Σ re + Σ im|, 0 for zero
    vectors. Other shapes and errors as in `pairwise_cos_sim`.

    Raises:
        InputError: also if the dimension is odd.
    """
    return _pairwise(x, y, _angle)


def _angle(x: Tensor, y: Tensor) -> Tensor:
    if x.shape[-1] % 2:
        raise InputError(f"Complex vectors need an even dimension (real parts, imaginary parts), got {x.shape[-1]}.")
    a, b = normalize_embeddings(x).chunk(2, dim=-1)
    c, d = normalize_embeddings(y).chunk(2, dim=-1)
    return ((a * c + b * d) + (b * c - a * d)).sum(-1).abs()


class SimilarityFunction(Enum):
    """Measures by the name under which models store them."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"  # noqa: PIE796  another name of DOT_PRODUCT, part of the public contract
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"
    MAXSIM = "maxsim"
    MEAN_MAXSIM = "meanmaxsim"

    @staticmethod
    def to_similarity_fn(similarity_function: str | SimilarityFunction) -> Callable[[ArrayLike, ArrayLike], Tensor]:
        """The all-pairs function of a name, e.g. "cosine" -> `cos_sim`; ValueError for an unknown name."""
        return _FUNCTIONS[SimilarityFunction(similarity_function)][0]

    @staticmethod
    def to_similarity_pairwise_fn(
        similarity_function: str | SimilarityFunction,
    ) -> Callable[[ArrayLike, ArrayLike], Tensor]:
        """The pairwise function of a name, e.g. "cosine" -> `pairwise_cos_sim`; ValueError for an unknown name."""
        return _FUNCTIONS[SimilarityFunction(similarity_function)][1]

    @staticmethod
    def possible_values() -> list[str]:
        """["cosine", "dot", "euclidean", "manhattan", "maxsim", "meanmaxsim"]."""
        return [member.value for member in SimilarityFunction]


def named_function(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The measure behind `model.similarity` or `model.similarity_pairwise`, by which a search knows cosine and dot.

    A method that was overridden or patched, or of a model that is not this library's, is returned as it is.
    """
    from sentence_transformers.util.whose_code import is_foreign

    owner, function = getattr(method, "__self__", None), getattr(method, "__func__", None)
    if owner is None or is_foreign(function, ("sentence_transformers.encoders.", "sentence_transformers.testing")):
        return method
    return _FUNCTIONS[SimilarityFunction(owner.similarity_fn_name)][method.__name__ == "similarity_pairwise"]


_FUNCTIONS: dict[SimilarityFunction, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    SimilarityFunction.COSINE: (cos_sim, pairwise_cos_sim),
    SimilarityFunction.DOT_PRODUCT: (dot_score, pairwise_dot_score),
    SimilarityFunction.EUCLIDEAN: (euclidean_sim, pairwise_euclidean_sim),
    SimilarityFunction.MANHATTAN: (manhattan_sim, pairwise_manhattan_sim),
    SimilarityFunction.MAXSIM: (maxsim, maxsim_pairwise),
    SimilarityFunction.MEAN_MAXSIM: (mean_maxsim, mean_maxsim_pairwise),
}


def _two_sides(a: ArrayLike, b: ArrayLike) -> tuple[Tensor, Tensor]:
    """Both arguments as float rows of one dimension and one dtype (the wider one)."""
    left, right = to_rows(a, "a"), to_rows(b, "b")
    if left.shape[1] != right.shape[1]:
        raise InputError(
            f"Embeddings of different dimensions cannot be compared: `a` has shape {tuple(left.shape)}, "
            f"`b` has shape {tuple(right.shape)}. Were both made by the same model, with the same `truncate_dim`?"
        )
    return _alike(left, right)


def _alike(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides in the wider dtype, on the device of `left`, or of `right` if `left` is on the CPU."""
    dtype = torch.promote_types(left.dtype, right.dtype)
    device = right.device if left.device.type == "cpu" else left.device
    return left.to(device, dtype), right.to(device, dtype)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """abᵀ, dense, of shape (Q, D), for any mix of dense and sparse."""
    if not is_sparse(b):
        return torch.sparse.mm(a, b.T) if is_sparse(a) else a @ b.T
    return torch.cat([torch.sparse.mm(b, rows.T).T for rows in _dense_blocks(a)])


def _negative_distance(a: Tensor, b: Tensor, p: float) -> Tensor:
    """−‖a − b‖ₚ for all pairs."""
    return torch.cat([torch.cat([-torch.cdist(x, y, p) for y in _dense_blocks(b)], dim=1) for x in _dense_blocks(a)])


def _dense_blocks(tensor: Tensor) -> Iterator[Tensor]:
    """A dense tensor as it is; a sparse one as dense blocks of at most `DENSE_BLOCK` values (or one row)."""
    step = max(1, DENSE_BLOCK // max(1, tensor.shape[-1])) if is_sparse(tensor) else max(1, len(tensor))
    for start in range(0, max(1, len(tensor)), step):
        yield take_rows(tensor, start, start + step).to_dense()


def _pairwise(a: ArrayLike, b: ArrayLike, measure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`measure` of the rows of two arrays, after conversion and a check of the shapes."""
    left, right = to_float(a), to_float(b)
    same = left.shape == right.shape
    one_with_all = min(left.ndim, right.ndim) == 1 and left.shape[-1:] == right.shape[-1:]
    if left.ndim == 0 or not (same or one_with_all):
        raise InputError(
            f"Pairs need two arrays of the same shape, got {tuple(left.shape)} and {tuple(right.shape)}. "
            "To compare every row with every row use the function without `pairwise_`."
        )
    left, right = _alike(left, right)
    if not (is_sparse(left) or is_sparse(right)):
        return measure(left, right)
    if not same or left.ndim == 1:
        return measure(left.to_dense(), right.to_dense())
    step = max(1, DENSE_BLOCK // max(1, left.shape[-1]))
    pairs = ((take_rows(left, i, i + step), take_rows(right, i, i + step)) for i in range(0, max(1, len(left)), step))
    return torch.cat([measure(x.to_dense(), y.to_dense()) for x, y in pairs])
