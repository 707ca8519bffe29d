"""SentenceTransformer: one vector per text.

    model = SentenceTransformer("all-MiniLM-L6-v2")
    embeddings = model.encode(texts)                        # float32, (N, H), in the order of the texts
    scores = model.similarity(embeddings, embeddings)       # float32, (N, N)

`encode` is a door: it checks what it was given, makes a plan and a job, lets the engine run, and brings the rows into
the form that was asked for. `encode_query` and `encode_document` add the prompt and task of their side.
What it shares with the other encoders is in `encoders.embedding`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from sentence_transformers._deprecation import REQUIRED, SENTENCES, current, legacy
from sentence_transformers.encoders import late_chunking
from sentence_transformers.encoders.base import class_property
from sentence_transformers.encoders.embedding import EmbeddingModel, for_side
from sentence_transformers.encoders.fit_mixin import FitMixin
from sentence_transformers.encoders.options import model_options
from sentence_transformers.engine import engine, workers
from sentence_transformers.engine.batching import DEFAULT_BATCH_SIZE
from sentence_transformers.engine.chunking import Passage
from sentence_transformers.engine.inputs import AnyInput, OneInput
from sentence_transformers.engine.outputs import Output, as_asked, check_output
from sentence_transformers.engine.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS
from sentence_transformers.errors import InputError
from sentence_transformers.modules.normalize import Normalize
from sentence_transformers.modules.pooling import Pooling
from sentence_transformers.modules.transformer import Transformer
from sentence_transformers.quantization import Precision
from sentence_transformers.similarity import SimilarityFunction
from sentence_transformers.storage.files import Source
from sentence_transformers.testing import hash_vectors

if TYPE_CHECKING:
    from sentence_transformers.storage.model_card import SentenceTransformerModelCardData

_truncations: ContextVar[dict[int, int | None]] = ContextVar("truncations", default={})  # noqa: B039  # never changed
"""Of the models within whose `truncate_embeddings` this context is, by `id`: the dimensions that are kept."""

INSTRUCTORS = {f"hkunlp/instructor-{size}" for size in ("base", "large", "xl")}  # trained without pooling their prompts


class SentenceTransformer(EmbeddingModel, FitMixin):
    """A model that turns each text into one vector.

    Args:
        similarity_fn_name: "cosine" (default), "dot", "euclidean" or "manhattan".
        truncate_dim: keep only the first dimensions (for models trained with Matryoshka losses).
        others: see `BaseModel`.

    Example:
        >>> model = SentenceTransformer("all-MiniLM-L6-v2")
        >>> model.encode("It is warm today.").shape
        (384,)
    """

    default_huggingface_organization = "sentence-transformers"
    model_type = "SentenceTransformer"

    @class_property
    def model_card_data_class(cls) -> Any:
        from sentence_transformers.storage.model_card import SentenceTransformerModelCardData

        return SentenceTransformerModelCardData

    @legacy(tokenizer_kwargs="processor_kwargs", use_auth_token="token")
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
        model_card_data: SentenceTransformerModelCardData | None = None,
        backend: Literal["torch", "onnx", "openvino"] = "torch",
        similarity_fn_name: str | SimilarityFunction | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(model_name_or_path, **model_options(locals()))
        self._set_similarity(similarity_fn_name)
        self.truncate_dim = truncate_dim if truncate_dim is not None else self._model_config.get("truncate_dim")
        self._check_truncate_dim(self.truncate_dim)
        if model_name_or_path in INSTRUCTORS:
            self.set_pooling_include_prompt(False)

    @classmethod
    def _modules_of_plain(cls, source: Source, **kwargs: Any) -> dict[str, Any]:
        """A transformer with mean pooling, or last-token pooling for causal language models."""
        modules = super()._modules_of_plain(source, **kwargs)
        transformer: Transformer = modules["0"]
        architecture = (transformer.saved_config.get("architectures") or [""])[0]
        causal = architecture.endswith("ForCausalLM") and getattr(transformer.config, "is_causal", True) is not False
        return modules | {"1": Pooling(transformer.get_embedding_dimension(), "lasttoken" if causal else "mean")}

    # ---- encoding

    @overload
    def encode(
        self, inputs: OneInput | Iterable[AnyInput], *, convert_to_tensor: Literal[True], **kwargs: Any
    ) -> Tensor: ...
    @overload
    def encode(self, inputs: OneInput, *, convert_to_numpy: Literal[False], **kwargs: Any) -> Tensor: ...
    @overload
    def encode(
        self, inputs: Iterable[AnyInput], *, convert_to_numpy: Literal[False], **kwargs: Any
    ) -> list[Tensor]: ...
    @overload
    def encode(
        self,
        inputs: OneInput | Iterable[AnyInput],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding"] = "sentence_embedding",
        precision: Precision = "float32",
        convert_to_numpy: Literal[True] = True,
        convert_to_tensor: Literal[False] = False,
        device: str | list[str | torch.device] | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: workers.Pool | None = None,
        chunk_size: int | None = None,
        num_workers: int | None = None,
        **kwargs: Any,
    ) -> np.ndarray: ...
    @overload
    def encode(
        self, inputs: OneInput | Iterable[AnyInput], *, output_value: Literal["token_embeddings"] | None, **kwargs: Any
    ) -> Any: ...
    @overload
    def encode(self, inputs: OneInput | Iterable[AnyInput], *, convert_to_tensor: bool, **kwargs: Any) -> Any: ...
    @overload
    def encode(self, inputs: OneInput | Iterable[AnyInput], *, convert_to_numpy: bool, **kwargs: Any) -> Any: ...
    def encode(
        self,
        inputs: OneInput | Iterable[AnyInput] = REQUIRED,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding", "token_embeddings"] | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | list[str | torch.device] | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: workers.Pool | None = None,
        chunk_size: int | None = None,
        num_workers: int | None = None,
        **kwargs,
    ) -> Any:
        """Turn texts into vectors.

        A text that occurs several times is computed once; the result of a text depends neither on the others nor on
        `batch_size`. One model may be used from many threads at once.

        Args:
            inputs: one text, or any iterable of texts. A pair of texts is an input too, and so are {"text": …}, a
                conversation [{"role": …, "content": …}, …] where the model has a chat template, and {route: text} where
                it begins with a Router.
            prompt_name: name of a prompt of this model, put before each text; the system message of a conversation.
            prompt: the prompt itself; wins over `prompt_name`, which wins over the model's default.
            batch_size: most texts per forward pass; by default a token budget alone decides.
            show_progress_bar: default: shown if this package's logger is at INFO or below.
            output_value: "sentence_embedding"; "token_embeddings" for one (l, H) tensor per text; None for a dictionary
                of all features per text. The last two ignore the convert flags.
            precision: other than "float32" (or None): quantised with `quantize_embeddings`.
            convert_to_numpy: numpy array (default) or, if False, a list of tensors.
            convert_to_tensor: one tensor on that device; wins over `convert_to_numpy`.
            device: where to compute; the model stays where it is, so for many calls move it with `model.to`. A list
                starts one worker process per entry.
            normalize_embeddings: scale vectors to length 1, after truncation.
            truncate_dim: keep only the first dimensions; wins over the model's own.
            pool: worker processes from `start_multi_process_pool`.
            chunk_size: texts sent to a worker at a time.
            num_workers: start that many CPU worker processes for this call.
            kwargs: for the modules, e.g. `task` for a Router; `processing_kwargs` for the tokenizer and the chat
                template of this call, as {"text": {"max_length": 64}, "chat_template": {…}}.

        Returns:
            One text: a vector (H,). Several: float32 of shape (N, H) (or the model's type; bfloat16 as float32 in
            numpy). No texts: shape (0, H).

        Raises:
            InputError: naming position and value, for an input that is not a text; for an unknown prompt, precision or
                keyword argument; for `batch_size` < 1 or a `truncate_dim` that the model does not have.
            WorkerError: if a worker process fails or dies.
        """
        if kwargs or inputs is REQUIRED:
            (inputs,) = current("SentenceTransformer.encode", SENTENCES, kwargs, inputs=inputs)
            self._check_kwargs(kwargs)
        output, _ = self._output(
            output_value, precision, convert_to_numpy, convert_to_tensor, normalize_embeddings, truncate_dim
        )
        texts, singular, task = self.inputs_of(inputs, kwargs.pop("task", None))
        text = self.prompt_text(prompt, prompt_name)
        request = engine.EncodeRequest(
            output, text, task, kwargs, batch_size, device, pool, chunk_size, num_workers, show_progress_bar
        )
        rows = engine.run(self, texts, request)
        return as_asked(rows, output, singular, self, request.result_device(self) if output.tensor else None)

    encode_query = for_side(encode, "query", QUERY_PROMPTS)
    encode_document = for_side(encode, "document", DOCUMENT_PROMPTS)

    def _output(
        self,
        output_value: Literal["sentence_embedding", "token_embeddings"] | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        **others: Any,
    ) -> tuple[Output, dict[str, Any]]:
        """The output arguments of `encode`, checked, and its other arguments."""
        dimension = self._dim(truncate_dim)
        precision = "float32" if precision is None else precision
        output = Output(output_value, precision, convert_to_numpy, convert_to_tensor, normalize_embeddings, dimension)
        check_output(output)
        return output, others

    def _encode_late(self, documents: list[str], pieces: list[Passage], given: dict[str, Any]) -> Any:
        return late_chunking.encode(self, documents, pieces, *self._output(**given))

    def simulate_embedding(
        self, inputs: OneInput | Iterable[AnyInput], truncate_dim: int | None = None, normalize_embeddings: bool = False
    ) -> np.ndarray:
        """Made-up vectors of the right shape, type and norm, without running the network.

        For capacity tests of what stands behind the model (databases, queues): the same text always gives the same
        vector, different texts give unrelated ones. They carry no meaning.

        Returns:
            float32 of shape (H,) or (N, H); of length 1 if the model normalises or `normalize_embeddings` is set, else
            of the length that standard normal vectors have, about √H.
        """
        found, singular, _ = self.inputs_of(inputs)
        texts = [item if isinstance(item, str) else repr(item) for item in found]
        dimension = self._dim(truncate_dim) or self.get_embedding_dimension()
        if dimension is None:
            raise InputError("None of the modules reports a dimension, so there is nothing to simulate.")
        unit = normalize_embeddings or (isinstance(self[-1], Normalize) and self._dim(truncate_dim) is None)
        rows = hash_vectors(texts, dimension, unit)
        return rows[0] if singular else rows

    # ---- settings

    @property
    def truncate_dim(self) -> int | None:
        """How many dimensions are kept; None for all. May be set; within `truncate_embeddings` for that context."""
        return _truncations.get().get(id(self), self._truncate_dim)

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        within = _truncations.get()
        if id(self) in within:
            _truncations.set(within | {id(self): value})
        else:
            self._truncate_dim = value

    def get_embedding_dimension(self) -> int | None:
        """Size of the vectors that `encode` returns; None if no module reports one."""
        dimension = super().get_embedding_dimension()
        return dimension if self.truncate_dim is None else min(self.truncate_dim, dimension or self.truncate_dim)

    def _dim(self, truncate_dim: int | None) -> int | None:
        """The dimension a call truncates to: its own, else the model's."""
        self._check_truncate_dim(truncate_dim)
        return self.truncate_dim if truncate_dim is None else truncate_dim

    def _check_truncate_dim(self, dimension: int | None) -> None:
        if dimension is None:
            return
        full = super().get_embedding_dimension()
        if dimension < 1 or (full is not None and dimension > full):
            raise InputError(f"truncate_dim={dimension} is outside 1 to {full}, the dimension of this model.")

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Within the context, `encode` keeps only the first `truncate_dim` dimensions; for this thread or asyncio task
        alone.
        """
        self._check_truncate_dim(truncate_dim)
        before = _truncations.set(_truncations.get() | {id(self): truncate_dim})
        try:
            yield
        finally:
            _truncations.reset(before)

    truncate_sentence_embeddings = truncate_embeddings

    def get_sentence_features(self, *features: Any) -> dict[str, Tensor]:
        """Older call of the first module's `get_sentence_features`."""
        return self._first.get_sentence_features(*features)

    def encode_multi_process(
        self,
        sentences: list[str],
        pool: workers.Pool,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        chunk_size: int | None = None,
        show_progress_bar: bool | None = None,
        precision: Precision = "float32",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> np.ndarray:
        """Older name of `encode(sentences, pool=pool)`."""
        given = dict(locals())
        return given.pop("self").encode(given.pop("sentences"), **given)

    @staticmethod
    def load(input_path: str) -> SentenceTransformer:
        """Older name of the constructor."""
        return SentenceTransformer(input_path)

    def get_saved_config(self) -> dict[str, Any]:
        own: dict[str, Any] = {"similarity_fn_name": self.similarity_fn_name}
        if self.truncate_dim is not None:
            own["truncate_dim"] = self.truncate_dim
        return super().get_saved_config() | own
