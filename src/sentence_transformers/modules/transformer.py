"""A transformers model as a module: texts -> tokens -> one vector per token.

    padded   input_ids (B, L), attention_mask (B, L)                 -> token_embeddings (B, L, H)
    packed   input_ids (T,), position_ids (T,), packing: Packing     -> token_embeddings (T, H)

The way from texts to tokens is in `modules.text_input`. Which layout is used is decided once per loaded model: an
architecture that lets its attention function be chosen is shown two short sequences, and if packed equals alone it runs
packed from then on (`backends.capabilities`). What computes a batch is a `backends.runner.Runner`; `explain_runner`
says which one, and why not a faster.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from sentence_transformers._deprecation import transformer_kwargs_decorator
from sentence_transformers.backends.bert_cpu import BertCpuRunner
from sentence_transformers.backends.bert_layers import Part, complete
from sentence_transformers.backends.bert_network import BertNetwork
from sentence_transformers.backends.capabilities import PER_TEXT, lock
from sentence_transformers.backends.deferred_logits import DeferredLogits
from sentence_transformers.backends.graph import Graph, GraphRunner
from sentence_transformers.backends.override_detection import Survey, unseen
from sentence_transformers.backends.prepacked_linear import bind_to_replicas
from sentence_transformers.backends.pretrained import Checkpoint
from sentence_transformers.backends.runner import ModelRunner, RunOptions
from sentence_transformers.backends.tasks import TASKS
from sentence_transformers.backends.torch_runner import VOCABULARY_TASKS, TorchRunner, with_learned_prompt
from sentence_transformers.engine.tokenization import check_template
from sentence_transformers.errors import InputError
from sentence_transformers.features import Features, Packing, is_recorded
from sentence_transformers.modules.base import note_sides
from sentence_transformers.modules.chat import message_format
from sentence_transformers.modules.input_formatter import InputFormatter
from sentence_transformers.modules.modality import (
    TRANSFORMER_TASK_DEFAULTS as TRANSFORMER_TASK_DEFAULTS,
)
from sentence_transformers.modules.modality import (
    TRANSFORMER_TASK_TO_AUTO_MODEL as TRANSFORMER_TASK_TO_AUTO_MODEL,
)
from sentence_transformers.modules.modality import (
    check_modality_config,
    default_modality_config,
)
from sentence_transformers.modules.text_input import TextInput
from sentence_transformers.modules.tokenizer_kwargs import checked, warn_unknown
from sentence_transformers.storage import weights
from sentence_transformers.storage.files import Source, check_links, reading, settle
from sentence_transformers.storage.settings import argument_types, check_settings

logger = logging.getLogger(__name__)

TransformerTask = Literal["feature-extraction", "fill-mask", "sequence-classification", "text-generation"]

CONFIG_NAMES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
BACKENDS = ("torch", "onnx", "openvino")
MOST_LOGITS = 1 << 23  # held at once by a language model that cannot stop before them
NO_INT8 = (
    "{}: dtype 'int8' is for models of the BERT family (BERT, RoBERTa, XLM-R, CamemBERT) with safetensors weights, the "
    "torch backend on a CPU, and no further model_kwargs or config_kwargs. Leave it out, take 'bfloat16', or an int8 "
    "graph of backend='onnx'."
)
OLD_KWARGS = {"model_args": "model_kwargs", "tokenizer_args": "processor_kwargs", "config_args": "config_kwargs"}


class Transformer(TextInput):
    """A model of the transformers library.

    Args:
        model_name_or_path: folder or hub id.
        transformer_task: which head: "feature-extraction" (default), "fill-mask", "sequence-classification",
            "text-generation".
        model_kwargs, processor_kwargs, config_kwargs: passed on to `from_pretrained` of model, tokenizer and config.
            `dtype` (or the older `torch_dtype`) of `model_kwargs` sets the weights' type; "int8" keeps them and
            computes the products of the layers in int8 (BERT family, on CPU, without gradients; else as ever).
        processing_kwargs: arguments of the tokenizer's call and of the chat template, kept with the model:
            {"text": {...}, "chat_template": {...}} (`modules.tokenizer_kwargs`).
        modality_config: kind of input -> {"method": "forward", "method_output_name": …}, where the output is: the name
            of an entry, or a path into it, as ["hidden_states", -2]. Default: texts; with a chat template messages as
            well ("message", with a "format": "flat", "structured" or "auto"), and then every input is rendered by it.
        module_output_name: name of that output among the features; needed with `modality_config`.
        query_length, document_length: most tokens of a text of one side; default: as `max_seq_length`.
        query_expansion: fill queries with further tokens, which get vectors too, as ColBERT does:
            {"strategy": "fixed", "length": 32} makes each query 32 tokens long, "min" at least so long. "token" names
            the token (default: the mask token), "attend" says whether the others look at it (default: False).
        max_seq_length: most tokens per text; default: the smaller of the tokenizer's and the positions' limit.
        do_lower_case: lower-case texts before they are tokenised.
        tokenizer_name_or_path: another place for the tokenizer.

    Attributes:
        model_forward_params: names of the features that the transformers model is given, of those that it takes; None
            (default): all of them.

    Raises:
        InputError: for an unknown task or backend, for dtype "int8" where there is no such way to compute, and for a
            `modality_config` that is incomplete.
        ModelFormatError: if files are missing, truncated, or weights hold NaN.
    """

    config_file_name = "sentence_bert_config.json"
    config_keys: ClassVar[list[str]] = [
        "transformer_task",
        "modality_config",
        "module_output_name",
        "processing_kwargs",
        "unpad_inputs",
        "query_length",
        "document_length",
        "query_expansion",
    ]
    model_forward_params: set[str] | None = None
    takes_packed = True
    sees_following = True

    @transformer_kwargs_decorator
    def __init__(
        self,
        model_name_or_path: str,
        *,
        transformer_task: TransformerTask = "feature-extraction",
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        processing_kwargs: dict[str, Any] | None = None,
        backend: Literal["torch", "onnx", "openvino"] = "torch",
        modality_config: dict[str, dict[str, Any]] | None = None,
        module_output_name: str | None = None,
        unpad_inputs: bool | None = None,
        query_length: int | None = None,
        document_length: int | None = None,
        query_expansion: dict[str, Any] | None = None,
        max_seq_length: int | None = None,
        do_lower_case: bool = False,
        tokenizer_name_or_path: str | None = None,
    ) -> None:
        super().__init__()
        if transformer_task not in TASKS:
            raise InputError(f"Unknown transformer_task {transformer_task!r}; known are {', '.join(TASKS)}.")
        if backend not in BACKENDS:
            raise InputError(f"Unknown backend {backend!r}; known are {', '.join(BACKENDS)}.")
        auto_class, _, name = TASKS[transformer_task]
        self.transformer_task = transformer_task
        check_modality_config(modality_config, module_output_name)
        inferred = modality_config is None and type(self).infer_modalities is not Transformer.infer_modalities
        self.modality_config = modality_config or default_modality_config(transformer_task)
        self.module_output_name = module_output_name or name
        warn_unknown(processing_kwargs, "")
        self.processing_kwargs = checked(processing_kwargs)
        self.unpad_inputs = unpad_inputs
        self.query_length, self.document_length = query_length, document_length
        self.query_expansion = query_expansion
        self.backend = backend

        settle(model_name_or_path)
        self._checkpoint = Checkpoint(
            model_name_or_path,
            auto_class,
            tokenizer_name_or_path or model_name_or_path,
            *(kwargs or {} for kwargs in (model_kwargs, config_kwargs, processor_kwargs)),
        )
        usual = backend == "torch" and unpad_inputs is not False and self._gives_usual_output and not inferred
        found = self._checkpoint.bert_network() if usual else "other outputs or another backend are asked for"
        self._bert: BertNetwork | None = None if isinstance(found, str) else found
        self._not_bert = found if isinstance(found, str) else "its weights were not read by it"
        if self._checkpoint.int8 and self._bert is None:
            raise InputError(NO_INT8.format(model_name_or_path))
        plain = self._bert is not None and not do_lower_case
        self._tokenizer: Any = self._checkpoint.tokenizer_file() if plain else None
        self._model_runner: ModelRunner | None = None
        if self._bert is not None:
            self._modules["model"] = self._bert.model
        elif backend == "torch":
            self._use(self._checkpoint.model())
        else:
            self._use(self._graph())
        self.do_lower_case = do_lower_case
        if transformer_task == "text-generation":
            self.tokenizer.padding_side = "left"
        if modality_config is None:
            seen = (self.auto_model, self.processor) if inferred else (None, self._base_tokenizer)
            self.modality_config, self.module_output_name = self.infer_modalities(*seen)
        named = (processor_kwargs or {}).get("model_max_length")
        self.max_seq_length = self._within_graph(named or max_seq_length or self._default_max_length())

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in NOT_PICKLED}

    def infer_modalities(self, model: Any, processor: Any) -> tuple[dict[str, Any], str]:
        """`modality_config` and `module_output_name` where neither is given nor saved. May be overridden.

        Args:
            model: the transformers model; not looked at here.
            processor: the tokenizer; with a chat template, messages are inputs too.
        """
        config = default_modality_config(self.transformer_task)
        if template := getattr(processor, "chat_template", None):
            form = message_format(template, getattr(self.config, "model_type", None))
            config["message"] = config["text"] | {"format": form}
        return config, TASKS[self.transformer_task][2]

    def _graph(self) -> Graph:
        """The model as a graph that another runtime computes."""
        from sentence_transformers.backends.graph_load import load

        checkpoint = self._checkpoint
        own = {"model_subfolder": checkpoint.config_kwargs.get("subfolder", "")}
        own["tokenizer_inputs"] = self._base_tokenizer.model_input_names
        return load(
            self.backend, checkpoint.name, checkpoint.config(), self.transformer_task, checkpoint.model_kwargs | own
        )

    # ---- the network, and what computes it

    @property
    def auto_model(self) -> Any:
        """The transformers model. One that was not needed so far is made around the layers that are there.

        May be set to another model, also one that wraps this one (`peft.get_peft_model`), which is used and saved in
        its place.
        """
        return self._runner_of_model().model

    model = auto_model

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("auto_model", "model"):
            super().__setattr__(name, value)
            return
        if not isinstance(value, nn.Module):
            raise InputError(f"{name} must be a transformers model, got {value!r:.80} of type {type(value).__name__}.")
        self._use(value)

    def _use(self, model: Any) -> None:
        """Compute with a transformers model, or a graph, from now on."""
        name, task = self._checkpoint.name, self.transformer_task
        if self.backend == "torch":
            may_pack = self.unpad_inputs is not False and not self._checkpoint.names_attention
            pad_token_id = self._base_tokenizer.pad_token_id if task == PER_TEXT else None
            before = self._model_runner if isinstance(self._model_runner, TorchRunner) else None
            self._model_runner = TorchRunner(model, name, task, may_pack, pad_token_id, before)
        else:
            self._model_runner = GraphRunner(model, name)
        self._modules["model"] = model

    def _runner_of_model(self) -> ModelRunner:
        """What computes with the transformers model or graph; made, with the model, where it was not needed so far."""
        runner = self._model_runner
        if runner is None or runner.model is not self._modules["model"]:
            self._make_runner_of_model()
            runner = self._model_runner
            assert runner is not None
        return runner

    def _make_runner_of_model(self) -> None:
        with lock:
            model = self._modules["model"]
            if isinstance(model, Part):
                config = self.config
                complete(model, lambda: self._checkpoint.model_of(config), config)
            if self._model_runner is None or self._model_runner.model is not model:
                self._use(model)

    # what `torch.compiler.assume_constant_result` says, without the compiler: it is called before the graph is drawn
    _make_runner_of_model._dynamo_marked_constant = True  # type: ignore[attr-defined]

    @property
    def _network(self) -> BertNetwork | ModelRunner:
        """What is known of the network, without a detour through transformers where it is not in use."""
        model = self._modules["model"]
        return self._bert if isinstance(model, Part) and self._bert is not None else self._runner_of_model()

    @property
    def config(self) -> Any:
        """The transformers config."""
        model: Any = self._modules["model"]
        if not isinstance(model, Part):
            return model.config
        made = vars(model).get("config")
        if made is None:
            made = vars(model)["config"] = self._checkpoint.config_of(self._network.saved_config)
        return made

    @property
    def saved_config(self) -> dict[str, Any]:
        """Content of config.json."""
        return self._network.saved_config

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return self._network.vocabulary_size

    @property
    def vocabulary_rows(self) -> int | None:
        """Tokens that the table of word vectors has rows for; None where the model has no such table."""
        return self._network.vocabulary_rows

    @property
    def num_labels(self) -> int:
        """Scores per text of a classifier."""
        return self._network.num_labels

    @property
    def learned_positions(self) -> int | None:
        """Tokens that the table of learned positions has rows for; None for rotary, relative and computed ones."""
        return self._network.learned_positions

    @property
    def position_offset(self) -> int:
        """Position of a text's first token."""
        return self._network.position_offset

    def get_embedding_dimension(self) -> int:
        """H, the size of a token's vector."""
        return self._network.hidden_size

    get_word_embedding_dimension = get_embedding_dimension

    def _default_max_length(self) -> int | None:
        """The smaller of the tokenizer's limit and the number of positions; None if neither is set."""
        limits = (self._base_tokenizer.model_max_length, self._network.max_position_embeddings)
        return min((n for n in limits if isinstance(n, int) and 0 < n < 10**20), default=None)

    def _within_graph(self, length: int | None) -> int | None:
        """A length, at most that of a graph whose texts all have one length."""
        widest = None if self._model_runner is None else self._model_runner.fixed[1]
        if widest is None or (length is not None and length <= widest):
            return length
        logger.warning("%s takes texts of %d tokens; longer ones will be cut.", self._checkpoint.name, widest)
        return widest

    @property
    def modalities(self) -> list[str]:  # type: ignore[override]
        """Kinds of input: ["text"], with a chat template ["text", "message"]."""
        return list(self.modality_config)

    @property
    def input_formatter(self) -> InputFormatter:
        """What sorts inputs by kind and makes messages of them, as the module's settings are now."""
        form = self.modality_config.get("message", {}).get("format", "auto")
        return InputFormatter(getattr(self.config, "model_type", None), form, self.processor, self.modalities)

    @property
    def can_flatten_inputs(self) -> bool:
        """Whether batches run without padding (`packs`); proved on first use."""
        return self.packs

    def get_config_dict(self) -> dict[str, Any]:
        config = {key: getattr(self, key) for key in self.config_keys[:3]}
        optional = {key: getattr(self, key) for key in self.config_keys[3:]}
        return config | {key: value for key, value in optional.items() if value not in (None, {})}

    def __repr__(self) -> str:
        settings = self.get_config_dict() | {"architecture": self._network.architecture}
        return f"{type(self).__name__}({settings})"

    # ---- features -> vectors

    def forward(self, features: dict[str, Any], following: Any = None, **kwargs) -> dict[str, Any]:
        """Add the task's output: `token_embeddings`, `scores` or `causal_logits`; `all_layer_embeddings` too if the
        config asks for them.

        Args:
            following: the module that comes next. If it `takes_vocabulary`, a language model stops before its last
                product and adds `vocabulary`, a `DeferredLogits`, in the place of its logits.
        """
        if torch.compiler.is_compiling():
            self._make_runner_of_model()
        if "_is_replica" in self.__dict__:
            bind_to_replicas(self)
            if isinstance(runner := self._model_runner, TorchRunner):
                self._model_runner = runner.of_replica(self._modules["model"])
        packing = features.get("packing")
        recorded = is_recorded()
        vocabulary_next = getattr(following, "takes_vocabulary", False)
        defer = vocabulary_next and not recorded and self._gives_usual_output and self.defers
        if "input_ids" in features and not recorded and not features["input_ids"].numel():
            value = self._without_tokens(features)
        elif packing is not None and (fast := self._fast_runner()) is not None:
            value = fast.run(features)
        else:
            defer = defer and self._defers_in_transformers
            if packing is not None and not self.packs_in_transformers:
                features = dict(Features.of(features).pad(self.padding_id))
            value = self.run(features, defer)
            rows = value if isinstance(value, Tensor) else value.rows
            if rows.dim() == 3 and hasattr(self.auto_model, "get_base_model"):
                features = with_learned_prompt(features, rows.shape[1], self.padding_id)
        if defer:
            added = {"vocabulary": value}
        else:
            added = {self.module_output_name: value.logits() if isinstance(value, DeferredLogits) else value}
        if "kept_mask" in features:  # tokens that nobody looks at have vectors all the same
            rest = {key: entry for key, entry in features.items() if key != "kept_mask"}
            return rest | {"attention_mask": features["kept_mask"]} | added
        if packing is not None:
            if packing.attention_lengths is not None:  # from here on all tokens count
                features = features | {"packing": Packing(packing.lengths, packing.device)}
            return features | added
        features.update(added)
        return features

    def run(self, features: dict[str, Any], defer: bool = False) -> Tensor | DeferredLogits:
        """The output of the transformers model or graph: (B, L, …) or, of a packed batch, (T, …); (B, labels) of a
        classifier.
        """
        padding_id = 0 if features.get("packing") is None else self.padding_id
        options = RunOptions(self._output_path(features), self.model_forward_params, padding_id, defer)
        return self._runner_of_model().run(features, options)

    def _fast_runner(self) -> BertCpuRunner | None:
        """What computes packed batches without transformers, if it can be used: no gradients, no dropout, nothing in
        the way.
        """
        if self._bert is None or torch.is_grad_enabled() or self.training or self._why_not_bert() is not None:
            return None
        return self._bert.runner(unseen.value if isinstance(unseen.value, Survey) else None)

    def _why_not_bert(self) -> str | None:
        """Why packed batches do not go the way without transformers; None if they do, as long as no layer was
        changed.
        """
        bert = self._bert
        if bert is None:
            return self._not_bert
        if bert.model is not self._modules["model"]:
            return "auto_model was replaced"
        if self.unpad_inputs is False:
            return "unpad_inputs is False"
        if not self._gives_usual_output:
            return "modality_config names another output"
        if self.model_forward_params is not None:
            return "model_forward_params is set"
        return bert.obstacle()

    def explain_runner(self) -> str:
        """How this transformer computes, and why not faster, in one line. What is not known yet is tried out."""
        network, bert = self._network.architecture, self._bert
        if self.backend != "torch":
            return f"{network} as a graph of {self.backend}, padded batches"
        obstacle = self._why_not_bert()
        if obstacle is None and bert is not None:
            if bert.is_known():
                return f"{network} by BertCpuRunner, without transformers, packed batches{', int8' * bert.int8}"
            obstacle = "a layer was changed"
        slower = f"not by BertCpuRunner: {obstacle}"
        if (lack := self._why_padded()) is None:
            return f"{network} of transformers, packed batches; {slower}"
        others = "any lengths together" if self.pads_safely else "equal lengths alone, since padding changes vectors"
        return f"{network} of transformers, padded batches ({others}); not packed: {lack}; {slower}"

    @property
    def _gives_usual_output(self) -> bool:
        """Whether what is used of the transformers model is what its task gives, not another of its outputs."""
        usual = TASKS[self.transformer_task][1]
        return all(entry["method_output_name"] == usual for entry in self.modality_config.values())

    def _output_path(self, features: dict[str, Any]) -> list[Any]:
        """Where the model's output for a batch is: keys and indices, one after the other."""
        modality = features.get("modality")
        entry = self.modality_config.get(modality if isinstance(modality, str) else "text")
        name = (entry or next(iter(self.modality_config.values())))["method_output_name"]
        return list(name) if isinstance(name, (list, tuple)) else [name]

    def _without_tokens(self, features: dict[str, Any]) -> Tensor | DeferredLogits:
        """Zeros for a batch without a single token."""
        first, shape = next(self.parameters(), torch.zeros(0)), features["input_ids"].shape
        if self.transformer_task == PER_TEXT:
            packing = features.get("packing")
            return first.new_zeros(shape[0] if packing is None else len(packing), self.num_labels)
        rows = first.new_zeros(*shape, self.get_embedding_dimension())
        if self.transformer_task == "feature-extraction":
            return rows
        return DeferredLogits(rows, first.new_zeros(self.vocabulary_size, rows.shape[-1]), None)

    @property
    def packs(self) -> bool:
        """Whether this model runs packed; proved on first use."""
        bert = self._bert
        return (bert is not None and self._why_not_bert() is None and bert.is_known()) or self.packs_in_transformers

    @property
    def packs_in_transformers(self) -> bool:
        """Whether the transformers model runs packed; proved on first use."""
        return self._why_padded() is None

    def _why_padded(self) -> str | None:
        """Why the transformers model does not run packed; None if it does."""
        if self.unpad_inputs is False:
            return "unpad_inputs is False"
        if self._checkpoint.names_attention:
            return "the attention function was named"
        return self._runner_of_model().why_padded(self)

    @property
    def pads_safely(self) -> bool:
        """Whether padding leaves the other tokens alone; proved on first use. If not, only equal lengths go
        together.
        """
        return self._runner_of_model().capabilities.has(self, "pads_safely")

    @property
    def mixes(self) -> Literal["any", "some", "none"]:
        """Which texts of different lengths share a micro-batch: "any" where nothing is padded for it, "some" where
        padding costs time, "none" where it leaks into the result.
        """
        if self.packs or any(self._runner_of_model().fixed):
            return "any"
        return "some" if self.pads_safely else "none"

    @property
    def defers(self) -> bool:
        """Whether the model can stop before its last product, the one with the vocabulary; proved on first use."""
        if self.transformer_task not in VOCABULARY_TASKS:
            return False
        return self._why_not_bert() is None or self._defers_in_transformers

    @property
    def _defers_in_transformers(self) -> bool:
        runner = self._runner_of_model()
        return runner.defers and runner.capabilities.has(self, "defers")

    @property
    def token_budget(self) -> int | None:
        """Most tokens per micro-batch; None leaves it to the device. May be set. Whole rows of logits are large, so a
        model that needs them may take less.
        """
        asked: int | None = self.__dict__.get("_token_budget")
        if self.transformer_task not in VOCABULARY_TASKS or self.defers:
            return asked
        most = max(MOST_LOGITS // self.vocabulary_size, 16)
        return most if asked is None else min(asked, most)

    @token_budget.setter
    def token_budget(self, value: int | None) -> None:
        self.__dict__["_token_budget"] = value

    # ---- disk

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        """Write model, tokenizer and settings into `output_path`."""
        settle(output_path)
        model = self.auto_model
        if isinstance(model, Graph):
            model.config.save_pretrained(output_path)
            model.save(output_path)
        elif safe_serialization:
            compiled = any(weights.COMPILED in name for name in model.state_dict())
            model.save_pretrained(output_path, **({"state_dict": weights.tensors_of(model)} if compiled else {}))
        else:
            model.config.save_pretrained(output_path)
            torch.save(weights.tensors_of(model), Path(output_path, weights.TORCH_NAME))
        note_sides(self.tokenizer)
        self.processor.save_pretrained(output_path)
        self.save_config(output_path)

    @classmethod
    def from_source(cls, source: Source, **kwargs: Any) -> Self:
        """`load` from the place that its arguments name."""
        return cls.load(source.name, source.subfolder, **source.hub_kwargs, **kwargs)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        backend: Literal["torch", "onnx", "openvino"] = "torch",
        init_defaults: dict[str, Any] | None = None,
        plain_task: TransformerTask | None = None,
        **kwargs,
    ) -> Self:
        """Load from a model folder or the hub; arguments win over the saved settings.

        Args:
            plain_task: take the folder as a plain transformers checkpoint for this task, whatever its settings file
                says.
        """
        source = Source(model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        check_links(source.name, source.subfolder)
        if plain_task is None:
            saved = cls.load_config(model_name_or_path, subfolder, **source.hub_kwargs)
        else:
            saved = {"transformer_task": plain_task}
        hub = {
            "subfolder": subfolder,
            "token": token,
            "cache_dir": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
            "trust_remote_code": trust_remote_code,
        }
        hub = {key: value for key, value in hub.items() if value not in (None, "")}
        file = source.place(next((name for name in CONFIG_NAMES if source.path(name)), cls.config_file_name))
        check_settings(argument_types(Transformer), saved, file)
        given = {"model_kwargs": model_kwargs, "processor_kwargs": processor_kwargs, "config_kwargs": config_kwargs}
        for name, value in given.items():
            from_file = {k: v for k, v in (saved.pop(name, None) or {}).items() if k != "trust_remote_code"}
            given[name] = from_file | hub | (value or {})
        known = {key: value for key, value in saved.items() if key in KNOWN_SETTINGS}
        task = known.get("transformer_task") or (init_defaults or {}).get("transformer_task", "feature-extraction")
        if plain_task is None and not known.get("modality_config") and task in TASKS:
            known["modality_config"] = default_modality_config(task)  # saved before chat templates were used
            known["module_output_name"] = known.get("module_output_name") or TASKS[task][2]
        if surplus := saved.keys() - known.keys():
            logger.warning("Settings %s of %s are not known and are ignored.", sorted(surplus), model_name_or_path)
        settings = (init_defaults or {}) | known
        with reading(file):
            check_modality_config(settings.get("modality_config"), settings.get("module_output_name"))
        module = cls(model_name_or_path, **settings | given, backend=backend)
        check_template(getattr(module._base_tokenizer, "backend_tokenizer", None), source.place("tokenizer.json"))
        return module

    @classmethod
    def load_config(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        config_filename: str | None = None,
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> dict[str, Any]:
        """Saved settings under today's names, from the first of the file names that were ever used."""
        source = Source(model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        for name in (config_filename,) if config_filename else CONFIG_NAMES:
            if (config := source.json(name)) is not None:
                return {OLD_KWARGS.get(key, key): value for key, value in config.items()}
        return {}


NOT_PICKLED = ("_batch_tokenizers",)
KNOWN_SETTINGS = {*Transformer.config_keys, "max_seq_length", "do_lower_case", "tokenizer_name_or_path"}
