"""What encoders share that give each text an embedding: sides, streams, calls from asyncio, similarity.

`SentenceTransformer` and its relatives differ in what an embedding is (one vector, a sparse one, one vector per token);
each has an `encode` of its own. Everything here is written in terms of that `encode`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from torch import Tensor

from sentence_transformers._deprecation import REQUIRED, SENTENCES, current
from sentence_transformers.encoders.base import BaseModel, dimension_of
from sentence_transformers.engine import chunking, engine, workers
from sentence_transformers.engine.chunking import Passage
from sentence_transformers.engine.dynamic_batching import Batcher
from sentence_transformers.engine.inputs import AnyInput, OneInput, as_inputs, is_message
from sentence_transformers.engine.prompts import document_side, side_prompt
from sentence_transformers.errors import InputError
from sentence_transformers.modules.pooling import Pooling
from sentence_transformers.modules.router import Router
from sentence_transformers.similarity import SimilarityFunction
from sentence_transformers.util.tensor import is_sparse, to_coo

if TYPE_CHECKING:
    from sentence_transformers.util.tensor import ArrayLike

Encode = TypeVar("Encode", bound=Callable[..., Any])
ADDED = ("num_workers",)  # arguments of `encode` that version 6.2.0 does not have: an `encode` written for it may not


class EmbeddingModel(BaseModel):
    """An encoder that gives each text an embedding; a subclass defines `encode`."""

    default_prompts: ClassVar[dict[str, str]] = {"query": "", "document": ""}
    default_similarity: ClassVar[str] = "cosine"
    SUPPORTED_SIMILARITY_FN_NAMES: ClassVar[tuple[str, ...]] = ("cosine", "dot", "euclidean", "manhattan")
    _similarity_fn_name: str | None

    encode: Callable[..., Any]

    # ---- encoding

    def inputs_of(
        self, inputs: AnyInput | Iterable[AnyInput], task: str | None = None, first: int = 0
    ) -> tuple[list[Any], bool, str | None]:
        """The inputs of a call in their inside form, whether one was given rather than several, and the task.

        Args:
            task: as the caller gave it; inputs of the form {route: input} name it themselves.
            first: number of the first input, for error messages.

        Raises:
            InputError: naming the first input that the model does not take; if inputs name another route than `task`.
        """
        singular = self.is_singular_input(inputs)
        items: list[Any] = [inputs] if singular else inputs if isinstance(inputs, list) else list(inputs)
        if not self._reads_texts:
            return items, singular, task
        if isinstance(self[0], Router):
            items, task = self[0].unnamed(items, task)
        return as_inputs(items, "message" in self.modalities, first), singular, task

    def documents_of(self, inputs: AnyInput | Iterable[AnyInput]) -> list[str]:
        """The documents of a call that cuts them into passages; `InputError` naming the first that is not a text."""
        documents, _, _ = self.inputs_of(inputs)
        engine.check_texts(documents)
        return documents

    def encode_stream(self, inputs: Iterable[AnyInput], chunk_size: int = 4096, **kwargs) -> Iterator[Any]:
        """Encode an iterable of any length in bounded memory.

        Args:
            inputs: texts, e.g. a generator over a file.
            chunk_size: texts read, computed and yielded at a time.
            kwargs: as for `encode`.

        Yields:
            What `encode` returns, for `chunk_size` texts at a time, in order.

        Example:
            >>> for embeddings in model.encode_stream(line.strip() for line in open("corpus.txt")):
            ...     index.add(embeddings)
        """
        if chunk_size < 1:
            raise InputError(f"chunk_size must be at least 1, got {chunk_size}.")
        if kwargs.get("precision") in ("int8", "uint8"):
            raise InputError(
                f"encode_stream cannot quantise to {kwargs['precision']}: the ranges would differ from chunk to chunk. "
                f"Stream float32 and call quantize_embeddings(chunk, precision, ranges=...) with ranges of your own."
            )
        devices = workers.devices_asked(kwargs.get("device"), kwargs.get("num_workers"))
        own_pool = self.start_multi_process_pool(devices) if devices and kwargs.get("pool") is None else None
        keywords = {"show_progress_bar": False, **kwargs}
        if own_pool is not None:
            keywords |= {"pool": own_pool, "device": None}
            keywords.pop("num_workers", None)
        iterator: Iterator[Any] = iter([inputs] if self.is_singular_input(inputs) else inputs)
        done = 0
        try:
            while texts := [[item] if is_message(item) else item for item in islice(iterator, chunk_size)]:
                self.inputs_of(texts, kwargs.get("task"), done)
                yield self.encode(texts, **keywords)
                done += len(texts)
        finally:
            if own_pool is not None:
                self.stop_multi_process_pool(own_pool)

    def split_texts(
        self,
        inputs: OneInput | Iterable[AnyInput],
        max_tokens: int | None = None,
        overlap: int = 0,
        prompt_name: str | None = None,
        prompt: str | None = None,
        task: str | None = None,
    ) -> list[Passage]:
        """Cut long documents into passages that this model reads whole, where a paragraph, sentence or word ends.

        Args:
            inputs: documents.
            max_tokens: most tokens of a passage, special tokens and prompt included; default: what the model reads.
            overlap: most tokens that a passage shares with the one before; up to half a passage.
            prompt_name, prompt, task: as for `encode`; they take some of the tokens.

        Returns:
            The passages of all documents, one after the other, each with its text, the place of its document and its
            first and last character there. A document that is short enough is one passage.

        Raises:
            InputError: for sizes that leave no room for text, or a model that does not cut texts into tokens.
        """
        documents = self.documents_of(inputs)
        engine.check_sizes(max_tokens=max_tokens)
        module = engine.input_module(self, task)
        if not hasattr(module, "reader"):
            raise InputError(
                f"{type(module).__name__} does not say how it cuts texts into tokens, so none can be split."
            )
        text = self.prompt_text(prompt, prompt_name)
        others = len(module.tokens([""], text, task=task).ids) if getattr(module, "renders", False) else None
        return chunking.split(documents, module.reader(task), max_tokens, overlap, text, others)

    def encode_passages(
        self,
        inputs: OneInput | Iterable[AnyInput],
        max_tokens: int | None = None,
        overlap: int = 0,
        late: bool = False,
        **kwargs: Any,
    ) -> tuple[list[Passage], Any]:
        """Encode long documents passage by passage, so that nothing of them is cut off.

        Args:
            inputs: documents.
            max_tokens, overlap: as for `split_texts`.
            late: late chunking: as much of a document as the model reads is computed at once, and each passage is
                pooled from its tokens, which have seen the text around them. For dense models that pool by mean or
                maximum.
            kwargs: as for `encode_document`.

        Returns:
            The passages, as `split_texts` gives them, and their embeddings, as `encode_document` does.

        Raises:
            InputError: as `split_texts` and `encode_document`; for `late` with a model that cannot.

        Example:
            >>> passages, embeddings = model.encode_passages(documents, max_tokens=128)
            >>> hit = util.semantic_search(model.encode_query("How hot is lightning?"), embeddings)[0][0]
            >>> passages[hit["corpus_id"]]
        """
        documents = self.documents_of(inputs)
        given = document_side(self, kwargs)
        sides = {name: given.get(name) for name in ("prompt_name", "prompt", "task")}
        pieces = self.split_texts(documents, max_tokens, overlap, **sides)
        if late:
            return pieces, self._encode_late(documents, pieces, given)
        return pieces, self.encode([piece.text for piece in pieces], **given)

    def _encode_late(self, documents: list[str], pieces: list[Passage], given: dict[str, Any]) -> Any:
        """Embeddings of passages that have seen the text around them."""
        raise InputError(f"late=True is for models with one vector per text, and this is a {type(self).__name__}.")

    async def encode_async(self, inputs: OneInput | Sequence[AnyInput], **kwargs) -> Any:
        """`encode` for asyncio programs: awaitable, and calls that wait at the same time are computed as one batch.

        Args and result: as for `encode`.
        """
        texts, singular, task = self.inputs_of(inputs, kwargs.get("task"))
        kwargs |= {"task": task} if task else {}
        ranged = kwargs.get("precision") in ("int8", "uint8")  # codes depend on the range of the call's own texts
        rows = await self._batcher.submit(texts, kwargs, alone=ranged)
        if singular and isinstance(rows, Tensor) and is_sparse(rows):
            return to_coo(rows)[0]
        return rows[0] if singular else rows

    @property
    def _batcher(self) -> Batcher:
        own = self.__dict__.setdefault("_batchers", {})  # by process: a fork leaves threads behind
        if os.getpid() not in own:
            encode = lambda texts, **kwargs: self.encode(texts, **kwargs)  # noqa: E731  # as it is then, if replaced
            own.setdefault(os.getpid(), Batcher(encode, lambda: getattr(self, "truncate_dim", None)))
        return own[os.getpid()]

    # ---- similarity

    @property
    def similarity_fn_name(self) -> str:
        """Name of the similarity; the class's default unless set."""
        return self._similarity_fn_name or self.default_similarity

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str | SimilarityFunction | None) -> None:
        name = value.value if isinstance(value, SimilarityFunction) else value
        if name is not None and name not in self.SUPPORTED_SIMILARITY_FN_NAMES:
            raise InputError(f"Unknown similarity {name!r}; known are {', '.join(self.SUPPORTED_SIMILARITY_FN_NAMES)}.")
        self._similarity_fn_name = name

    def _set_similarity(self, given: str | SimilarityFunction | None) -> None:
        """The similarity of a new model: the caller's, else the saved one if this class knows it."""
        saved = self._model_config.get("similarity_fn_name")
        self.similarity_fn_name = given or (saved if saved in self.SUPPORTED_SIMILARITY_FN_NAMES else None)

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Tensor:
        """All pairs: embeddings of N and of M texts -> float32 of shape (N, M), by the model's similarity."""
        return SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Tensor:
        """Row by row: embeddings of N and of N texts -> float32 of shape (N,), by the model's similarity."""
        return SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    # ---- settings

    def get_embedding_dimension(self) -> int | None:
        """Size of the vectors that `encode` returns; None if no module reports one."""
        return dimension_of(self)

    def get_sentence_embedding_dimension(self) -> int | None:
        """Older name of `get_embedding_dimension`."""
        return self.get_embedding_dimension()

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Whether the tokens of the prompt count in pooling."""
        for module in self.modules():
            if isinstance(module, Pooling):
                module.include_prompt = include_prompt


def for_side(encode: Encode, task: str, prompts: Sequence[str]) -> Encode:
    """`encode` for one side of a search: with the first of `prompts` that the model has, and with the side's task.

    `self.encode` is called once, with every argument by name, so that an `encode` of the caller's own may take
    `(self, inputs, **kwargs)`.

    Args:
        encode: the method whose arguments it takes.
        task: "query" or "document"; modules such as `Router` see it.
    """
    signature = inspect.signature(encode)

    def encode_side(
        self: EmbeddingModel, inputs: AnyInput | Iterable[AnyInput] = REQUIRED, *args: Any, **kwargs: Any
    ) -> Any:
        if kwargs or inputs is REQUIRED:
            (inputs,) = current(encode_side.__qualname__, SENTENCES, kwargs, inputs=inputs)
        bound = signature.bind(self, inputs, *args, **kwargs)
        bound.apply_defaults()
        given = {name: value for name, value in bound.arguments.items() if name not in ("self", "kwargs")}
        given |= bound.arguments["kwargs"]
        given["prompt_name"] = side_prompt(self, prompts, given)
        given["task"] = given.get("task") or task
        unset = [name for name in ADDED if given.get(name) is None]
        return self.encode(**{name: value for name, value in given.items() if name not in unset})

    encode_side.__name__ = f"encode_{task}"
    encode_side.__qualname__ = encode.__qualname__.replace("encode", encode_side.__name__)
    encode_side.__module__ = encode.__module__
    choice = " else ".join(f'"{name}"' for name in prompts)
    encode_side.__doc__ = f'`encode` for a {task}: uses the prompt {choice} if the model has it, and task="{task}".'
    encode_side.__signature__ = signature  # type: ignore[attr-defined]
    return cast(Encode, encode_side)
