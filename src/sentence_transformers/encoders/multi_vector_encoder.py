"""MultiVectorEncoder: one vector per token, compared by late interaction.

    model = MultiVectorEncoder("colbert-ir/colbertv2.0")
    queries = model.encode_query(["Who wrote Faust?"])          # a list of tensors (tokens, H), one per text
    documents = model.encode_document(texts)
    scores = model.similarity(queries, documents)               # float32, (Q, D): MaxSim

A query token looks for the document token it likes best, and the likings are added up (`maxsim`). Models of older
libraries are read too (`encoders.stanford_colbert`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from sentence_transformers._deprecation import REQUIRED, SENTENCES, current, legacy
from sentence_transformers.encoders import stanford_colbert
from sentence_transformers.encoders.base import class_property, warn_untrained
from sentence_transformers.encoders.embedding import EmbeddingModel, for_side
from sentence_transformers.encoders.options import model_options
from sentence_transformers.engine import engine, workers
from sentence_transformers.engine.batching import DEFAULT_BATCH_SIZE
from sentence_transformers.engine.inputs import AnyInput, OneInput
from sentence_transformers.engine.outputs import TokenOutput
from sentence_transformers.engine.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.modules.dense import Dense
from sentence_transformers.modules.multi_vector_mask import MultiVectorMask
from sentence_transformers.modules.normalize import Normalize
from sentence_transformers.modules.token_pooling import BaseTokenPooling
from sentence_transformers.modules.transformer import Transformer
from sentence_transformers.similarity import SimilarityFunction
from sentence_transformers.storage import folder
from sentence_transformers.storage.files import Source

if TYPE_CHECKING:
    from sentence_transformers.storage.model_card import MultiVectorEncoderModelCardData
    from sentence_transformers.util.tensor import ArrayLike

TOKENS = "token_embeddings"
DIMENSION = 128  # of a model that is made of a plain transformer, as in ColBERT


class MultiVectorEncoder(EmbeddingModel):
    """A model that turns each text into one vector per token.

    Args:
        similarity_fn_name: "maxsim" (default) or "meanmaxsim", the mean over the query's tokens.
        others: see `BaseModel`.

    Example:
        >>> model = MultiVectorEncoder("colbert-ir/colbertv2.0")
        >>> model.encode_query("It is warm today.").shape
        torch.Size([32, 128])
    """

    default_huggingface_organization = None
    model_type = "MultiVectorEncoder"
    default_similarity: ClassVar[str] = "maxsim"
    SUPPORTED_SIMILARITY_FN_NAMES: ClassVar[tuple[str, ...]] = ("maxsim", "meanmaxsim")

    @class_property
    def model_card_data_class(cls) -> Any:
        from sentence_transformers.storage.model_card import MultiVectorEncoderModelCardData

        return MultiVectorEncoderModelCardData

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
        model_card_data: MultiVectorEncoderModelCardData | None = None,
        backend: Literal["torch", "onnx", "openvino"] = "torch",
        similarity_fn_name: str | SimilarityFunction | None = None,
    ) -> None:
        super().__init__(model_name_or_path, **model_options(locals()))
        self._set_similarity(similarity_fn_name)

    # ---- loading

    @classmethod
    def _load(cls, source: Source, **kwargs: Any) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, Any]]:
        """As of any model; a `Dense` works on tokens, and a checkpoint of Stanford's ColBERT brings its prompts."""
        modules, module_kwargs, config = super()._load(source, **kwargs)
        for part in modules.values():
            if isinstance(part, (Dense, Normalize)) and part.module_input_name == "sentence_embedding":
                part.module_input_name = part.module_output_name = TOKENS
        if source.path(folder.MODULES_FILE) is None and stanford_colbert.is_stanford(source):
            config = config | {"prompts": stanford_colbert.stanford_prompts(source)}
        return modules, module_kwargs, config

    @classmethod
    def _modules_of_plain(cls, source: Source, **kwargs: Any) -> dict[str, Any]:
        """A ColBERT model if the config says so; else a transformer with a random projection, to be trained."""
        if seeing := [name for name in stanford_colbert.architectures(source) if name.endswith("ForRetrieval")]:
            raise ModelFormatError(f"{source.name} is a {seeing[0]}, a model of images; this library encodes texts.")
        transformer = super()._modules_of_plain(source, **kwargs)["0"]
        if stanford_colbert.is_stanford(source):
            projection, words = stanford_colbert.set_up_stanford(transformer, source)
            return numbered([transformer, projection, *ending(words)])
        return numbered([transformer, new_projection(transformer, source), *ending()])

    @classmethod
    def _modules_of_other(
        cls, kind: str, source: Source, config: dict[str, Any], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, Any]]:
        """A PyLate model as it was; a `SentenceTransformer` without what makes one vector of many."""
        older = kind == stanford_colbert.PYLATE or stanford_colbert.is_pylate(config)
        if kind != "SentenceTransformer" and not older:
            return super()._modules_of_other(kind, source, config, **kwargs)
        found, _ = folder.load_modules(source, **kwargs)
        parts = [part for part in found.values() if isinstance(part, (Transformer, Dense))]
        if not parts or not isinstance(parts[0], Transformer):
            raise ModelFormatError(
                f"{source.name} cannot become a MultiVectorEncoder: its first module is a "
                f"{type(next(iter(found.values()))).__name__}, not a Transformer, which has a vector for each token."
            )
        if len(parts) == 1:
            parts.append(new_projection(parts[0], source))
        words: list[str] = []
        kept: dict[str, Any] = {
            key: config[key] for key in ("prompts", "default_prompt_name", "requirements") if key in config
        }
        if older:
            kept["prompts"] = stanford_colbert.pylate_prompts(config)
            words = stanford_colbert.set_up_pylate(parts[0], config)
        return numbered([*parts, *ending(words)]), {}, kept

    # ---- encoding

    @overload
    def encode(self, inputs: OneInput, *, convert_to_numpy: Literal[True], **kwargs: Any) -> np.ndarray: ...
    @overload
    def encode(
        self, inputs: Iterable[AnyInput], *, convert_to_numpy: Literal[True], **kwargs: Any
    ) -> list[np.ndarray]: ...
    @overload
    def encode(self, inputs: OneInput | Iterable[AnyInput], *, output_value: None, **kwargs: Any) -> Any: ...
    @overload
    def encode(self, inputs: OneInput, prompt_name: str | None = None, **kwargs: Any) -> Tensor: ...
    @overload
    def encode(self, inputs: Iterable[AnyInput], prompt_name: str | None = None, **kwargs: Any) -> list[Tensor]: ...
    def encode(
        self,
        inputs: OneInput | Iterable[AnyInput] = REQUIRED,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        show_progress_bar: bool | None = None,
        output_value: Literal["token_embeddings"] | None = "token_embeddings",
        convert_to_numpy: bool = False,
        device: str | torch.device | list[str | torch.device] | None = None,
        normalize_embeddings: bool = False,
        pool: workers.Pool | None = None,
        chunk_size: int | None = None,
        token_pooling: BaseTokenPooling | None = None,
        task: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Turn texts into one vector per token. For search use `encode_query` and `encode_document`.

        A text that occurs several times is computed once; the result of a text depends neither on the others nor on
        `batch_size`. One model may be used from many threads at once.

        Args:
            inputs: one text, or any iterable of texts; other forms as of `SentenceTransformer.encode`.
            prompt_name: name of a prompt of this model, put before each text.
            prompt: the prompt itself; wins over `prompt_name`, which wins over the model's default.
            batch_size: most texts per forward pass; by default a token budget alone decides.
            show_progress_bar: default: shown if this package's logger is at INFO or below.
            output_value: "token_embeddings", or None for a dictionary of all features per text.
            convert_to_numpy: numpy arrays instead of tensors.
            device: where to compute; the model stays where it is. A list starts one worker process per entry.
            normalize_embeddings: scale token vectors to length 1, before any pooling.
            pool: worker processes from `start_multi_process_pool`.
            chunk_size: texts sent to a worker at a time.
            token_pooling: joins token vectors, e.g. `HierarchicalTokenPooling(pool_factor=2)`.
            task: "query" or "document"; lengths, query expansion and the skiplist depend on it. None: a document, of
                the model's `max_seq_length`.
            kwargs: for the modules; `processing_kwargs` as of `SentenceTransformer.encode`.

        Returns:
            One text: (tokens, H). Several: a list of those, on the model's device.

        Raises:
            InputError: naming position and value, for an input that is not a text; for an unknown prompt or keyword
                argument; for `batch_size` < 1 or another `output_value`.
            WorkerError: if a worker process fails or dies.
        """
        if kwargs or inputs is REQUIRED:
            (inputs,) = current("MultiVectorEncoder.encode", SENTENCES, kwargs, inputs=inputs)
        if "convert_to_tensor" in kwargs:
            raise InputError(
                "MultiVectorEncoder.encode has no convert_to_tensor: texts have different numbers of tokens, which "
                "make no single tensor. It returns a list of tensors; for numpy arrays pass convert_to_numpy=True."
            )
        if output_value not in (TOKENS, None):
            raise InputError(f"output_value must be {TOKENS!r} or None (all features), got {output_value!r}.")
        if token_pooling is not None and not hasattr(token_pooling, "pool"):
            raise InputError(f"token_pooling must be a BaseTokenPooling, got {token_pooling!r}.")
        self._check_kwargs(kwargs)
        texts, singular, task = self.inputs_of(inputs, task)
        output = TokenOutput(output_value, convert_to_numpy, normalize_embeddings, token_pooling, task)
        text = self.prompt_text(prompt, prompt_name)
        request = engine.EncodeRequest(
            output, text, task, kwargs, batch_size, device, pool, chunk_size, show_progress_bar=show_progress_bar
        )
        return output.as_asked(engine.run(self, texts, request), singular, request.result_device(self))

    encode_query = for_side(encode, "query", QUERY_PROMPTS)
    encode_document = for_side(encode, "document", DOCUMENT_PROMPTS)

    # ---- similarity

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike, **kwargs: Any) -> Tensor:
        """All pairs of queries and documents: lists of Q and of D (tokens, H) -> float32 of shape (Q, D).

        Args:
            embeddings1, embeddings2: queries and documents, as `encode_query` and `encode_document` give them.
            kwargs: `a_mask`, `b_mask`, `chunk_elements`, `device`; see `maxsim`.
        """
        return SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2, **kwargs)

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike, **kwargs: Any) -> Tensor:
        """Query i with document i: lists of N (tokens, H) each -> float32 of shape (N,). Arguments: `similarity`."""
        function = SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)
        return function(embeddings1, embeddings2, **kwargs)

    def get_saved_config(self) -> dict[str, Any]:
        return super().get_saved_config() | {"similarity_fn_name": self._similarity_fn_name}


def new_projection(transformer: Transformer, source: Source) -> Dense:
    """A linear layer with random weights behind a transformer."""
    warn_untrained(source, f"a projection to {DIMENSION} dimensions")
    return Dense(transformer.get_embedding_dimension(), DIMENSION, False, None, module_input_name=TOKENS)


def ending(words: list[str] | None = None) -> list[nn.Module]:
    """The last modules of every such model: which tokens count, and vectors of length 1."""
    return [MultiVectorMask(words), Normalize(TOKENS)]


def numbered(modules: list[Any]) -> dict[str, Any]:
    """Modules by name: their numbers."""
    return {str(i): module for i, module in enumerate(modules)}
