"""For tests of what stands around a model: an encoder without a network, whose vectors are made of the texts' hashes.

    from sentence_transformers.testing import MockEncoder

    model = MockEncoder(dimension=64)
    index = Index(model)                     # whatever takes a SentenceTransformer takes it

The same text has the same vector, in every process and on every machine; others are unrelated (cosine about 0, give or
take 1 / √dimension). Nothing is downloaded, and nothing is learned from the numbers but that they arrive.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sentence_transformers._deprecation import legacy
from sentence_transformers.engine.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS, side_prompt
from sentence_transformers.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sentence_transformers.quantization import Precision
    from sentence_transformers.similarity import SimilarityFunction
    from sentence_transformers.util.tensor import ArrayLike

__all__ = ["MockEncoder"]


class MockEncoder:
    """In the place of a `SentenceTransformer`, wherever its vectors need no meaning.

    It takes what `SentenceTransformer.encode` takes, for texts, and gives what that gives: the same shapes and types,
    prompts, precisions, errors. A query and a document of the same text are the same vector, unless `prompts` tells
    them apart.

    Args:
        dimension: H, of the vectors.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan".
        max_seq_length: words of a text, prompt included, that are read; the others change nothing. Default: all.
        prompts: name -> text put before the inputs; `encode_query` and `encode_document` take "query" and "document".
        truncate_dim: how many dimensions are kept.

    Raises:
        InputError: for a dimension, a length or a similarity that cannot be meant.

    Example:
        >>> model = MockEncoder(dimension=8)
        >>> model.similarity(model.encode_query("a text"), model.encode_document(["a text", "another"])).argmax()
        tensor(0)
    """

    model_type = "SentenceTransformer"
    device = "cpu"

    def __init__(
        self,
        dimension: int = 384,
        *,
        similarity_fn_name: str | SimilarityFunction | None = None,
        max_seq_length: int | None = None,
        prompts: Mapping[str, str] | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        check_least_1(dimension=dimension, max_seq_length=max_seq_length)
        self.dimension = dimension
        self.similarity_fn_name = similarity_fn_name
        self.max_seq_length = max_seq_length
        self.prompts = {"query": "", "document": "", **(prompts or {})}
        self._check_truncate_dim(truncate_dim)
        self.truncate_dim = truncate_dim

    @legacy(sentences="inputs")
    def encode(
        self,
        inputs: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding", "token_embeddings"] | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | list[str | torch.device] | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: dict[str, Any] | None = None,
        chunk_size: int | None = None,
        num_workers: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Turn texts into vectors of length 1 (before `truncate_dim` cuts them).

        Args:
            inputs: one text, or any iterable of texts.
            prompt_name: name of one of `prompts`, put before each text.
            prompt: the prompt itself; wins over `prompt_name`.
            batch_size, chunk_size, show_progress_bar: are checked and change nothing; no bar is shown.
            output_value: "sentence_embedding"; there are no tokens.
            precision: other than "float32" (or None): quantised with `quantize_embeddings`.
            convert_to_numpy: numpy array (default) or, if False, a list of tensors.
            convert_to_tensor: one tensor; wins over `convert_to_numpy`.
            device: of tensors.
            normalize_embeddings: scale vectors to length 1, after truncation.
            truncate_dim: keep only the first dimensions; wins over the encoder's own.
            pool, num_workers: None or 0; it computes in this process.
            kwargs: `task`, which changes nothing.

        Returns:
            One text: a vector (H,). Several: float32 of shape (N, H). No texts: shape (0, H).

        Raises:
            InputError: naming position and value, for an input that is not a text; for an unknown prompt, precision or
                keyword argument; for what it cannot do: tokens, other inputs than texts, worker processes.
        """
        if unknown := sorted(kwargs.keys() - {"task"}):
            raise InputError(f"{type(self).__name__} got unknown keyword arguments {unknown}; it accepts ['task'].")
        if output_value != "sentence_embedding":
            raise InputError(f"{type(self).__name__} has no tokens, so output_value cannot be {output_value!r}.")
        if pool is not None or num_workers or isinstance(device, (list, tuple)):
            raise InputError(
                f"{type(self).__name__} computes in this process; leave out pool, num_workers, several devices."
            )
        check_least_1(batch_size=batch_size, chunk_size=chunk_size)
        self._check_truncate_dim(truncate_dim)
        singular = isinstance(inputs, (str, bytes, Mapping)) or not hasattr(inputs, "__iter__")
        texts = [inputs] if singular else list(inputs)
        rows = hash_vectors(self._texts_read(texts, prompt, prompt_name), self.dimension, unit=True)
        keep = self.truncate_dim if truncate_dim is None else truncate_dim
        rows = rows[:, :keep]
        if normalize_embeddings and keep is not None:
            rows = unit_rows(rows)
        return converted(rows, precision or "float32", convert_to_numpy, convert_to_tensor, singular, device)

    def encode_query(self, inputs: str | Iterable[str], *args: Any, **kwargs: Any) -> Any:
        """`encode` for queries: uses the prompt "query" if no other is given."""
        return self._encode_side("query", QUERY_PROMPTS, inputs, *args, **kwargs)

    def encode_document(self, inputs: str | Iterable[str], *args: Any, **kwargs: Any) -> Any:
        """`encode` for documents: uses the prompt "document" if no other is given."""
        return self._encode_side("document", DOCUMENT_PROMPTS, inputs, *args, **kwargs)

    encode_query.__signature__ = encode_document.__signature__ = inspect.signature(encode)  # type: ignore[attr-defined]

    def encode_stream(self, inputs: Iterable[str], chunk_size: int = 4096, **kwargs: Any) -> Iterator[Any]:
        """What `encode` gives, for `chunk_size` texts of an iterable at a time."""
        check_least_1(chunk_size=chunk_size)
        rest = iter([inputs] if isinstance(inputs, str) else inputs)
        while texts := list(islice(rest, chunk_size)):
            yield self.encode(texts, **kwargs)

    # ---- similarity

    @property
    def similarity_fn_name(self) -> str:
        """Name of the similarity; may be set."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str | SimilarityFunction | None) -> None:
        name = getattr(value, "value", value) or "cosine"
        if name not in (known := ("cosine", "dot", "euclidean", "manhattan")):
            raise InputError(f"Unknown similarity {name!r}; known are {', '.join(known)}.")
        self._similarity_fn_name = str(name)

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Tensor:
        """All pairs: embeddings of N and of M texts -> float32 of shape (N, M), by `similarity_fn_name`."""
        from sentence_transformers.similarity import SimilarityFunction

        return SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Tensor:
        """Row by row: embeddings of N and of N texts -> float32 of shape (N,), by `similarity_fn_name`."""
        from sentence_transformers.similarity import SimilarityFunction

        return SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    # ---- settings

    def get_embedding_dimension(self) -> int:
        """Size of the vectors that `encode` returns."""
        return self.truncate_dim or self.dimension

    def get_sentence_embedding_dimension(self) -> int:
        """Older name of `get_embedding_dimension`."""
        return self.get_embedding_dimension()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dimension={self.dimension}, similarity_fn_name={self.similarity_fn_name!r})"

    # ---- inside

    def _encode_side(self, task: str, names: Sequence[str], *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(self.encode).bind(*args, **kwargs)
        given = {name: value for name, value in bound.arguments.items() if name != "kwargs"}
        given |= {"task": task, **bound.arguments.get("kwargs", {}), "prompt_name": side_prompt(self, names, given)}
        return self.encode(**given)

    def _texts_read(self, texts: list[Any], prompt: str | None, prompt_name: str | None) -> list[str]:
        """The texts, each behind its prompt, as far as they are read."""
        if prompt is None and prompt_name is not None:
            if prompt_name not in self.prompts:
                raise InputError(f"Prompt name {prompt_name!r} is unknown; there are {sorted(self.prompts)}.")
            prompt = self.prompts[prompt_name]
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"Input {i} is {text!r:.80} of type {type(text).__name__}; expected a string.")
        read = [(prompt or "") + text for text in texts]
        if self.max_seq_length is None:
            return read
        return [first_words(text, self.max_seq_length) for text in read]

    def _check_truncate_dim(self, dimension: int | None) -> None:
        if dimension is not None and not 1 <= dimension <= self.dimension:
            raise InputError(f"truncate_dim={dimension} is outside 1 to {self.dimension}, the dimension of this model.")


def check_least_1(**sizes: Any) -> None:
    """Raise `InputError` for a size that is no whole number of at least 1; None is a size left open."""
    for name, size in sizes.items():
        if size is not None and not (isinstance(size, int) and size >= 1):
            raise InputError(f"{name} must be an integer of at least 1, got {size!r}.")


def first_words(text: str, count: int) -> str:
    """A text as it is, or its first `count` words if it has more."""
    parts = text.split(maxsplit=count)
    return text if len(parts) <= count else " ".join(parts[:count])


def hash_vectors(texts: Sequence[str], dimension: int, unit: bool) -> np.ndarray:
    """Standard normal vectors, drawn from a generator that the text's BLAKE2 hash seeds.

    Args:
        unit: scale each to length 1.

    Returns:
        float32 of shape (len(texts), dimension).
    """
    rows = np.empty((len(texts), dimension), np.float32)
    for row, text in zip(rows, texts, strict=True):
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        row[:] = np.random.Generator(np.random.Philox(int.from_bytes(digest))).standard_normal(dimension, np.float32)
    return unit_rows(rows) if unit else rows


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows (N, H) scaled to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def converted(
    rows: np.ndarray, precision: Precision, numpy: bool, tensor: bool, singular: bool, device: str | torch.device | None
) -> np.ndarray | Tensor | list[Tensor]:
    """Rows (N, H) in the form that a caller of `encode` asked for."""
    if precision != "float32":
        from sentence_transformers.quantization import quantize_embeddings

        rows = np.asarray(quantize_embeddings(rows, precision))
    if numpy and not tensor:
        return rows[0] if singular else rows
    import torch

    made = torch.from_numpy(rows).to(device=device)
    return made[0] if singular else made if tensor else list(made)
