"""CrossEncoder: one score per pair of texts, which the model reads together.

    model = CrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2")
    scores = model.predict([(query, document), …])          # float32, (N,) or, with several labels, (N, labels)
    ranking = model.rank(query, documents)                  # [{"corpus_id": 2, "score": 0.98}, …], best first

More precise than comparing embeddings and far more work, so it usually sorts the hundred best of a faster search. Pairs
run on the same engine as texts: a distinct text is cut into tokens once, pairs are planned by total length.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from sentence_transformers._deprecation import (
    PAIRS,
    REQUIRED,
    cross_encoder_init_args_decorator,
    cross_encoder_predict_rank_args_decorator,
    current,
    deprecated,
)
from sentence_transformers.backends.override_detection import own_preprocess
from sentence_transformers.backends.prepacked_linear import Float32Forward, prepack
from sentence_transformers.encoders.base import BaseModel, class_property, warn_untrained
from sentence_transformers.encoders.cross_fit_mixin import FitMixin
from sentence_transformers.encoders.options import model_options
from sentence_transformers.engine import engine, workers
from sentence_transformers.engine.batching import DEFAULT_BATCH_SIZE
from sentence_transformers.engine.inputs import PairInput, as_input, as_text, is_conversation
from sentence_transformers.engine.outputs import to_numpy
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.modules.activation import Activation, activation_from_name, activation_name
from sentence_transformers.modules.logit_score import LogitScore
from sentence_transformers.storage.files import Source
from sentence_transformers.storage.folder import CONFIG_FILE

if TYPE_CHECKING:
    from sentence_transformers.protocols import AnyTokenizer
    from sentence_transformers.storage.model_card import CrossEncoderModelCardData

logger = logging.getLogger(__name__)

Ranking = list[dict[Literal["corpus_id", "score", "text"], Any]]


class CrossEncoder(BaseModel, FitMixin):
    """A model that scores pairs of texts.

    Args:
        num_labels: scores per pair; default: what the checkpoint has, or 1.
        max_length: most tokens per pair; a pair that is longer loses tokens of its longer text.
        activation_fn: applied to the scores; default: the saved one, else sigmoid for one label, identity for more.
        keep_in_fp32_modules: linear layers that compute in float32 though the model is in half precision, by their
            full names, e.g. ["model.classifier"]; see `set_keep_in_fp32_modules`.
        others: see `BaseModel`.

    Example:
        >>> model = CrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2")
        >>> model.predict([("How many people live in Berlin?", "Berlin has 3.8 million inhabitants.")]).shape
        (1,)
    """

    default_huggingface_organization = "cross-encoder"
    model_type = "CrossEncoder"
    activation_fn: Activation

    @class_property
    def model_card_data_class(cls) -> Any:
        from sentence_transformers.storage.model_card import CrossEncoderModelCardData

        return CrossEncoderModelCardData

    @cross_encoder_init_args_decorator
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
        model_card_data: CrossEncoderModelCardData | None = None,
        backend: Literal["torch", "onnx", "openvino"] = "torch",
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Activation | None = None,
        keep_in_fp32_modules: list[str] | None = None,
    ) -> None:
        config_kwargs = (config_kwargs or {}) | ({} if num_labels is None else {"num_labels": num_labels})
        super().__init__(model_name_or_path, **model_options(locals()))
        if max_length is not None:
            self.max_seq_length = max_length
        self.activation_fn = activation_fn or self._saved_activation()
        self.set_keep_in_fp32_modules(keep_in_fp32_modules or self._model_config.get("keep_in_fp32_modules") or [])

    def __setattr__(self, name: str, value: Any) -> None:
        """The activation is a setting and no module of the sequence, also where it is an `nn.Module`."""
        if name == "activation_fn":
            self.__dict__[name] = value
        elif name == "default_activation_function":
            self.activation_fn = value
            deprecated("CrossEncoder.default_activation_function is now activation_fn.", stacklevel=2)
        else:
            super().__setattr__(name, value)

    # ---- loading

    @classmethod
    def _load(cls, source: Source, **kwargs: Any) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, Any]]:
        """As of any model; a transformer alone must be a classifier."""
        modules, module_kwargs, config = super()._load(source, **kwargs)
        task = getattr(next(iter(modules.values())), "transformer_task", "sequence-classification")
        if len(modules) == 1 and task != "sequence-classification":
            raise ModelFormatError(
                f"{source.place('sentence_bert_config.json')}: transformer_task is {task!r}; expected "
                "'sequence-classification', for nothing else in this folder makes a score of a pair."
            )
        return modules, module_kwargs, config

    @classmethod
    def _modules_of_plain(cls, source: Source, **kwargs: Any) -> dict[str, Any]:
        """A classifier, or a causal language model whose next word, yes or no, is the score."""
        config = source.json("config.json") or {}
        architectures = [str(name) for name in config.get("architectures") or [""]]
        if architectures[0].endswith("ForCausalLM"):
            kwargs["plain_task"] = "text-generation"
            kwargs["processor_kwargs"] = {"padding_side": "left"} | (kwargs.get("processor_kwargs") or {})
            modules = super()._modules_of_plain(source, **kwargs)
            return modules | {"1": LogitScore(*yes_and_no(modules["0"].tokenizer, source.name))}
        kwargs["plain_task"] = "sequence-classification"
        if not any(name.endswith("ForSequenceClassification") for name in architectures):
            kwargs["config_kwargs"] = {"num_labels": 1} | (kwargs.get("config_kwargs") or {})
            warn_untrained(source, "a classification head")
        return super()._modules_of_plain(source, **kwargs)

    def _saved_activation(self) -> Activation:
        """The activation that the saved model names, today or in its older settings; else the default."""
        transformer = self._transformer
        config = {} if transformer is None else transformer.saved_config
        section = config.get("sentence_transformers") or {}
        older = section.get("activation_fn") or config.get("sbert_ce_default_activation_function")
        name = self._model_config.get("activation_fn") or older
        if not name:
            return self.get_default_activation_fn()
        try:
            return activation_from_name(name, self.trust_remote_code, self.get_default_activation_fn)
        except ModelFormatError as error:
            where = f"{self.came_from or self._folder or 'the model'}: {CONFIG_FILE} or config.json"
            raise ModelFormatError(f"{where}, activation_fn: {error}") from error

    def get_default_activation_fn(self) -> Activation:
        """Sigmoid for one label, identity for more."""
        return nn.Sigmoid() if self.num_labels == 1 else nn.Identity()

    # ---- scoring

    @overload
    def predict(
        self, inputs: PairInput | Iterable[PairInput], *, convert_to_tensor: Literal[True], **kwargs: Any
    ) -> Tensor: ...
    @overload
    def predict(
        self,
        inputs: PairInput | Iterable[PairInput],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: Literal[True] = True,
        convert_to_tensor: Literal[False] = False,
        device: str | list[str | torch.device] | None = None,
        pool: workers.Pool | None = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> np.ndarray: ...
    @overload
    def predict(self, inputs: PairInput | Iterable[PairInput], *, convert_to_tensor: bool, **kwargs: Any) -> Any: ...
    @overload
    def predict(self, inputs: PairInput | Iterable[PairInput], *, convert_to_numpy: bool, **kwargs: Any) -> Any: ...
    def predict(
        self,
        inputs: PairInput | Iterable[PairInput] = REQUIRED,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | list[str | torch.device] | None = None,
        pool: workers.Pool | None = None,
        chunk_size: int | None = None,
        **kwargs,
    ) -> Any:
        """Score pairs of texts.

        A pair that occurs several times is computed once; the score of a pair depends neither on the others nor on
        `batch_size`. One model may be used from many threads at once.

        Args:
            inputs: one pair (text, text), or any iterable of pairs; a text may be {"text": …}. Where the model has a
                chat template, a conversation of messages with the roles "query" and "document" is a pair too.
            prompt_name: name of a prompt of this model, put before the first text of each pair; the system message
                where the model has a chat template.
            prompt: the prompt itself; wins over `prompt_name`, which wins over the model's default.
            batch_size: most pairs per forward pass; by default a token budget alone decides.
            show_progress_bar: default: shown if this package's logger is at INFO or below.
            activation_fn: applied to the logits, float32 of shape (N, labels); default: the model's own.
            apply_softmax: softmax over the labels, after the activation; without effect on one label.
            convert_to_numpy: numpy array (default) or, if False, a list of tensors.
            convert_to_tensor: one tensor on the model's device; wins over `convert_to_numpy`.
            device: where to compute; the model stays where it is. A list starts one worker process per entry.
            pool: worker processes from `start_multi_process_pool`.
            chunk_size: pairs sent to a worker at a time.
            kwargs: for the modules; `processing_kwargs` for the tokenizer and the chat template of this call, as
                {"text": {"max_length": 64}, "chat_template": {…}}.

        Returns:
            One label: float32 of shape (N,), a scalar for one pair. Several: (N, labels), (labels,) for one pair.

        Raises:
            InputError: naming position and value, for an input that is not a pair of texts; for an unknown prompt or
                keyword argument, or `batch_size` < 1.
            WorkerError: if a worker process fails or dies.
        """
        if kwargs or inputs is REQUIRED:
            given = {"inputs": inputs, "activation_fn": activation_fn}
            inputs, activation_fn = current("CrossEncoder.predict", PAIRS, kwargs, **given)
        if own_preprocess(self) and own_preprocess(self[0]):
            self._check_kwargs(kwargs)
        singular = self.is_singular_input(inputs)
        pairs: list[Any] = [inputs] if singular else list(inputs)
        if self._reads_texts:
            pairs = as_pairs(pairs, "message" in self.modalities)
        task = kwargs.pop("task", None)
        text = self.prompt_text(prompt, prompt_name)
        request = engine.EncodeRequest(
            Scores(), text, task, kwargs, batch_size, device, pool, chunk_size, show_progress_bar=show_progress_bar
        )
        logits = engine.run(self, pairs, request)
        if logits is None:
            logits = torch.zeros(0, self.num_labels)
        logits = torch.from_numpy(logits) if isinstance(logits, np.ndarray) else logits
        scores = (activation_fn or self.activation_fn)(logits)
        if apply_softmax and scores.ndim == 2 and scores.shape[1] > 1:
            scores = scores.softmax(dim=1)
        if self.num_labels == 1 and scores.ndim == 2:
            scores = scores[:, 0]
        scores = scores[0] if singular else scores
        if convert_to_tensor:
            return scores.to(request.result_device(self))
        if convert_to_numpy:
            return to_numpy(scores)[()]
        return scores if singular else list(scores)

    @cross_encoder_predict_rank_args_decorator
    def rank(
        self,
        query: str | Sequence[str],
        documents: Sequence[str] | Sequence[Sequence[str]],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        device: str | list[str | torch.device] | None = None,
        pool: workers.Pool | None = None,
        chunk_size: int | None = None,
    ) -> Ranking | list[Ranking]:
        """Sort documents by their score with a query, best first.

        Args:
            query: one query; or several, which are then planned and computed together.
            documents: the documents of the query; for several queries, one list of documents each.
            top_k: results per query; None for all.
            return_documents: put each document into its result, as "text".
            others: as for `predict`.

        Returns:
            List of {"corpus_id": place in `documents`, "score": float}; equal scores in the order of the documents. For
            several queries, a list of such lists.

        Raises:
            InputError: if the model has several labels, or the arguments are not texts and lists of texts.
        """
        if self.num_labels != 1:
            raise InputError(
                f"rank needs a model with one score per pair; this one has num_labels={self.num_labels}. "
                "Use predict and choose the label to sort by, or load the model with num_labels=1 and train it."
            )
        if top_k is not None and top_k < 0:
            raise InputError(f"top_k must not be negative, got {top_k}.")
        single = isinstance(query, (str, dict))
        if not single and not isinstance(query, Sequence):
            raise InputError(f"The query is {query!r:.80} of type {type(query).__name__}; expected a string.")
        queries: list[Any] = [query] if single else list(query)
        lists: list[Any] = [documents] if single else list(documents)
        check_lists(queries, lists)
        pairs: Any = [[one, document] for one, found in zip(queries, lists, strict=True) for document in found]
        scores = self.predict(
            inputs=pairs,
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            activation_fn=activation_fn,
            convert_to_tensor=True,
            device=device,
            pool=pool,
            chunk_size=chunk_size,
        )
        values = to_numpy(torch.as_tensor(scores))
        rankings, start = [], 0
        for found in lists:
            rankings.append(best_first(values[start : start + len(found)], found, top_k, return_documents))
            start += len(found)
        return rankings[0] if single else rankings

    def is_singular_input(self, inputs: object) -> bool:
        """Whether `inputs` is one pair rather than several: its first element is a text."""
        if isinstance(inputs, (str, bytes, dict)) or not hasattr(inputs, "__iter__") or getattr(inputs, "ndim", 1) == 0:
            return True
        return isinstance(inputs, (tuple, list, np.ndarray)) and len(inputs) > 0 and isinstance(inputs[0], (str, dict))

    # ---- what it is made of

    @property
    def model(self) -> Any:
        """The transformers model."""
        return self.transformers_model

    @property
    def num_labels(self) -> int:
        """Scores per pair."""
        last = self[-1]
        if isinstance(last, LogitScore):
            return 1
        if hasattr(last, "out_features"):
            return int(cast(Any, last).out_features)
        transformer = self._transformer
        return 1 if transformer is None else transformer.num_labels

    @property
    def max_length(self) -> int | None:
        """Older name of `max_seq_length`."""
        return self.max_seq_length

    @max_length.setter
    def max_length(self, value: int | None) -> None:
        self.max_seq_length = value

    @property
    def default_activation_function(self) -> Activation:
        """Older name of `activation_fn`."""
        deprecated("CrossEncoder.default_activation_function is now activation_fn.", stacklevel=2)
        return self.activation_fn

    def set_keep_in_fp32_modules(self, module_names: list[str]) -> None:
        """Let some linear layers compute in float32 though the model is in half precision.

        The weights keep their type. The names are saved with the model.

        Args:
            module_names: full names as seen from this model, e.g. ["model.classifier"]; [] for none.

        Raises:
            InputError: if a name leads to nothing, or to something other than a plain linear layer.
        """
        if isinstance(module_names, str):
            raise InputError(f"keep_in_fp32_modules must be a list of names, got the string {module_names!r}.")
        layers = [linear_layer(self, name) for name in module_names]
        before = [module for module in self.modules() if isinstance(vars(module).get("forward"), Float32Forward)]
        for module in before:
            del module.forward
        if before and (transformer := self._transformer) is not None:
            prepack(transformer.auto_model)
        for layer in layers:
            layer.forward = Float32Forward(layer)  # type: ignore[method-assign]
        self.keep_in_fp32_modules = list(module_names)

    def get_saved_config(self) -> dict[str, Any]:
        own: dict[str, Any] = {"activation_fn": activation_name(self.activation_fn)}
        if self.keep_in_fp32_modules:
            own["keep_in_fp32_modules"] = self.keep_in_fp32_modules
        return super().get_saved_config() | own


@dataclass(frozen=True)
class Scores:
    """Rows of `predict`: the logits of each pair as float32, (n, labels), before any activation.

    Attributes:
        as_array: as numpy array, for the way out of a worker process.
    """

    as_array: bool = False

    def rows(self, model: BaseModel, features: dict[str, Any], count: int) -> Any:
        rows = features["scores"].detach().float()
        rows = rows[:, None] if rows.ndim == 1 else rows
        return rows.cpu().numpy() if self.as_array else rows

    def for_worker(self) -> Scores:
        return replace(self, as_array=True)


def as_pairs(inputs: Sequence[Any], messages: bool = False) -> list[Any]:
    """The inputs as tuples of two texts, or with `messages` conversations; `InputError` names the first that is not."""
    pairs = []
    for i, item in enumerate(inputs):
        pair: Any = as_text(item)
        if messages and is_conversation(item):
            pair = as_input(item, i, messages)
        if not isinstance(pair, (tuple, list)):
            parts = item if isinstance(item, (tuple, list, np.ndarray)) else ()
            count = f" and length {len(parts)}" if len(parts) not in (0, 2) else ""
            raise InputError(
                f"Input {i} is {item!r:.80} of type {type(item).__name__}{count} and not a pair of two strings. "
                f"Give `predict` one pair (text, text) or a list of pairs."
            )
        pairs.append(pair)
    return pairs


def linear_layer(model: CrossEncoder, name: str) -> nn.Linear:
    """The plain linear layer of a name; `InputError` if it is something else."""
    layer: Any = model
    for part in name.split("."):
        if not hasattr(layer, part):
            raise InputError(
                f"keep_in_fp32_modules names {name!r}, but {type(layer).__name__} has no {part!r}. Layers of the "
                'transformers model are reached by "model.", e.g. "model.classifier".'
            )
        layer = getattr(layer, part)
    if type(layer) is not nn.Linear:
        raise InputError(
            f"keep_in_fp32_modules takes plain nn.Linear layers; {name!r} is of type {type(layer).__name__}."
        )
    return layer


def check_lists(queries: Sequence[Any], lists: Sequence[Any]) -> None:
    """Raise `InputError` unless there is one list of documents per query."""
    if len(queries) != len(lists):
        raise InputError(f"rank got {len(queries)} queries and {len(lists)} lists of documents; give one list each.")
    for i, documents in enumerate(lists):
        if isinstance(documents, str) or not hasattr(documents, "__len__"):
            raise InputError(
                f"The documents of query {i} are {documents!r:.80} of type {type(documents).__name__}; "
                "expected a list of strings."
            )


def best_first(scores: np.ndarray, documents: Sequence[str], top_k: int | None, with_text: bool) -> Ranking:
    """One query's results, by falling score, equal scores in the order of the documents."""
    ranking: Ranking = []
    for i in np.argsort(-scores, kind="stable")[:top_k].tolist():
        result: dict[Any, Any] = {"corpus_id": i, "score": float(scores[i])}
        ranking.append(result | {"text": documents[i]} if with_text else result)
    return ranking


def yes_and_no(tokenizer: AnyTokenizer, name: str) -> tuple[int, int]:
    """Ids of the tokens "yes" and "no"; `ModelFormatError` if the tokenizer lacks one."""
    vocabulary = tokenizer.get_vocab()
    if missing := [repr(word) for word in ("yes", "no") if word not in vocabulary]:
        raise ModelFormatError(
            f"{name} is a causal language model whose tokenizer has no token {' and no token '.join(missing)}, "
            "which its score is read from. Build the model yourself: CrossEncoder(modules=[Transformer(name, "
            'transformer_task="text-generation"), LogitScore(true_token_id=…, false_token_id=…)]).'
        )
    return vocabulary["yes"], vocabulary["no"]
