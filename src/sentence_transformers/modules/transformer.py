"""A transformers model as a module: texts -> tokens -> one vector per token.

    padded   input_ids (B, L), attention_mask (B, L)                 -> token_embeddings (B, L, H)
    packed   input_ids (T,), position_ids (T,), packing: Packing     -> token_embeddings (T, H)

The way from texts to tokens is in `modules.text_input`. Which layout is used is decided once per loaded model: an
architecture that lets its attention function be chosen is shown two short sequences, and if packed equals alone it runs
packed from then on (`backends.capabilities`).
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from sentence_transformers._deprecation import transformer_kwargs_decorator
from sentence_transformers.backends import deferred_logits, packed_attention, packed_classifier
from sentence_transformers.backends.bert_cpu import Layout, PackedBert
from sentence_transformers.backends.bert_network import Part, complete
from sentence_transformers.backends.capabilities import PER_TEXT, Capabilities, lock
from sentence_transformers.backends.checkpoint import NO_LIMIT, Origin, TokenizerFile
from sentence_transformers.backends.deferred_logits import VocabularyRows
from sentence_transformers.backends.extension_points import Survey, unseen
from sentence_transformers.backends.graph import Graph
from sentence_transformers.backends.prepacked_linear import bind_to_replicas, prepack
from sentence_transformers.backends.tasks import TASKS
from sentence_transformers.engine.tokenization import check_template
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.features import is_recorded, pad, pad_rows
from sentence_transformers.modules.base import note_sides
from sentence_transformers.modules.chat import message_format
from sentence_transformers.modules.input_formatter import InputFormatter
from sentence_transformers.modules.processing import checked, warn_unknown
from sentence_transformers.modules.text_input import TextInput
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
VOCABULARY_TASKS = ("fill-mask", "text-generation")
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
            {"text": {...}, "chat_template": {...}} (`modules.processing`).
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
        check_modalities(modality_config, module_output_name)
        inferred = modality_config is None and type(self).infer_modalities is not Transformer.infer_modalities
        self.modality_config = modality_config or modalities_of(transformer_task)
        self.module_output_name = module_output_name or name
        warn_unknown(processing_kwargs, "")
        self.processing_kwargs = checked(processing_kwargs)
        self.unpad_inputs = unpad_inputs
        self.query_length, self.document_length = query_length, document_length
        self.query_expansion = query_expansion
        self.backend = backend

        settle(model_name_or_path)
        self._origin = Origin(
            model_name_or_path,
            auto_class,
            tokenizer_name_or_path or model_name_or_path,
            *(kwargs or {} for kwargs in (model_kwargs, config_kwargs, processor_kwargs)),
        )
        torch_runs = backend == "torch"
        usual = torch_runs and unpad_inputs is not False and self._gives_usual_output and not inferred
        found = self._origin.light_model() if usual else "other outputs or another backend are asked for"
        light = None if isinstance(found, str) else found
        self._not_light = found if isinstance(found, str) else None
        if self._origin.int8 and light is None:
            raise InputError(NO_INT8.format(model_name_or_path))
        self._tokenizer: Any = self._origin.light_tokenizer() if light is not None and not do_lower_case else None
        self._before_packing: str | None = None
        self.capabilities = Capabilities()
        self._fast = light
        if light is not None:
            self._modules["model"] = light.root
        elif torch_runs:
            self._adopt(self._origin.model())
        else:
            self._modules["model"] = self._graph()
            self._takes = {"input_ids", "attention_mask", "token_type_ids"}
        self._lower_case = False
        self.do_lower_case = do_lower_case
        if transformer_task == "text-generation":
            self.tokenizer.padding_side = "left"
        if modality_config is None:
            seen = (self.auto_model, self.processor) if inferred else (None, self._cutter)
            self.modality_config, self.module_output_name = self.infer_modalities(*seen)
        named = (processor_kwargs or {}).get("model_max_length")
        self.max_seq_length = self._within_graph(named or max_seq_length or self._default_max_length())

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in NOT_PICKLED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.light is None and self._before_packing is not None:  # a worker process does not know it yet
            packed_attention.register()

    def infer_modalities(self, model: Any, processor: Any) -> tuple[dict[str, Any], str]:
        """`modality_config` and `module_output_name` where neither is given nor saved. May be overridden.

        Args:
            model: the transformers model; not looked at here.
            processor: the tokenizer; with a chat template, messages are inputs too.
        """
        config = modalities_of(self.transformer_task)
        if template := getattr(processor, "chat_template", None):
            form = message_format(template, getattr(self.config, "model_type", None))
            config["message"] = config["text"] | {"format": form}
        return config, TASKS[self.transformer_task][2]

    def _graph(self) -> Graph:
        """The model as a graph that another runtime computes."""
        from sentence_transformers.backends.graph_load import load

        origin = self._origin
        own = {"model_subfolder": origin.config_kwargs.get("subfolder", "")}
        own["tokenizer_inputs"] = self._cutter.model_input_names
        return load(self.backend, origin.name, origin.config(), self.transformer_task, origin.model_kwargs | own)

    # ---- what it is made of

    @property
    def auto_model(self) -> Any:
        """The transformers model. One that was not needed so far is made around the layers that are there.

        May be set to another model, also one that wraps this one (`peft.get_peft_model`), which is used and saved in
        its place.
        """
        if "_takes" not in self.__dict__:
            self._make_transformers_model()
        return self._modules["model"]

    model = auto_model

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("auto_model", "model"):
            super().__setattr__(name, value)
            return
        if not isinstance(value, nn.Module):
            raise InputError(f"{name} must be a transformers model, got {value!r:.80} of type {type(value).__name__}.")
        if self.backend != "torch":
            self._modules["model"] = value
            return
        self.capabilities = Capabilities()
        for kept in ("_position_offset", "_learned_positions"):
            self.__dict__.pop(kept, None)
        self._adopt(value)

    @property
    def light(self) -> PackedBert | None:
        """What is known of a model without transformers; None once the transformers model is in use."""
        return self._fast if isinstance(self._modules["model"], Part) else None

    def _make_transformers_model(self) -> None:
        with lock:
            own, fast = self._modules["model"], self._fast
            if isinstance(own, Part) and fast is not None:
                config = self.config
                complete(own, lambda: self._origin.model_of(config), config)
                self._adopt(own)

    # what `torch.compiler.assume_constant_result` says, without the compiler: it is called before the graph is drawn
    _make_transformers_model._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def _adopt(self, model: Any) -> None:
        """Use a transformers model from now on."""
        packs = self.unpad_inputs is not False and not self._origin.names_attention
        if packs and model.config._attn_implementation != packed_attention.NAME:
            self._before_packing = packed_attention.install(model)
        prepack(model)
        if self.transformer_task in VOCABULARY_TASKS:
            deferred_logits.defer(model)
        if self.transformer_task == PER_TEXT:
            if getattr(model.config, "pad_token_id", None) is None:
                model.config.pad_token_id = self._cutter.pad_token_id
            if not packed_classifier.install(model):
                self._before_packing = None
        self._modules["model"] = model
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of PEFT
        parts = (part for part in model.modules() if "input_ids" in inspect.signature(part.forward).parameters)
        wrapped = next(parts, model)  # by `torch.compile`, which names no arguments
        self._takes = {name for one in (model, inner, wrapped) for name in inspect.signature(one.forward).parameters}

    @property
    def config(self) -> Any:
        """The transformers config."""
        light = self.light
        if light is None:
            return self.auto_model.config
        made = vars(light.root).get("config")
        if made is None:
            made = vars(light.root)["config"] = self._origin.config_of(light.config)
        return made

    @property
    def saved_config(self) -> dict[str, Any]:
        """Content of config.json, without a detour through transformers where the model runs without it."""
        return self.light.config if self.light is not None else self.config.to_dict()

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return self.light.vocabulary if self.light is not None else self.config.get_text_config().vocab_size

    @property
    def vocabulary_rows(self) -> int | None:
        """Tokens that the table of word vectors has rows for; None where the model has no such table."""
        if self.light is not None:
            return self.light.vocabulary
        try:
            table = self.auto_model.get_input_embeddings().weight
        except (AttributeError, NotImplementedError):
            return None
        return len(table) if table.dim() == 2 else None

    @property
    def num_labels(self) -> int:
        """Scores per text of a classifier."""
        return self.light.labels if self.light is not None else self.config.num_labels

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

    @property
    def processor(self) -> Any:
        """The transformers tokenizer, or the processor that holds it."""
        if self._tokenizer is None or isinstance(self._tokenizer, TokenizerFile):
            file = self._tokenizer
            self._tokenizer = self._origin.tokenizer(file)
            if file is not None:
                self.tokenizer.model_max_length = file.model_max_length
        return self._tokenizer

    @processor.setter
    def processor(self, value: Any) -> None:
        self._tokenizer = value

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer. It may be replaced; encoding uses a private copy of it, made again then."""
        own = self.processor
        return own if hasattr(own, "convert_tokens_to_ids") else getattr(own, "tokenizer", own)

    @tokenizer.setter
    def tokenizer(self, value: Any) -> None:
        self._tokenizer = value

    @property
    def do_lower_case(self) -> bool:
        """Whether the tokenizer was told to lower-case texts first. May be set, not unset."""
        return self._lower_case

    @do_lower_case.setter
    def do_lower_case(self, value: bool) -> None:
        if self._lower_case and not value:
            raise InputError("The tokenizer lower-cases texts and is saved so; give the module another tokenizer.")
        if value and not self._lower_case:
            lower_case(self.tokenizer)
            self.tokenizer = self.tokenizer  # the copy that encoding uses is made again
        self._lower_case = bool(value)

    @property
    def _cutter(self) -> Any:
        """What texts are cut with: the tokenizer, or its file alone."""
        return self._tokenizer if isinstance(self._tokenizer, TokenizerFile) else self.tokenizer

    @property
    def max_seq_length(self) -> int | None:
        """Most tokens per text, special tokens included; longer texts are cut. No more than the model has learned
        positions for, whatever is set; None where nothing limits it.
        """
        limits = [n for n in (self._cutter.model_max_length, self.learned_positions) if n is not None and n < 10**20]
        return min(limits, default=None)

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        if value is not None and value < 1:
            raise InputError(f"max_seq_length must be at least 1 or None, got {value}.")
        self._cutter.model_max_length = NO_LIMIT if value is None else int(value)
        most = self.learned_positions
        if value is not None and most is not None and value > most:
            logger.warning("max_seq_length = %d is more than the model has positions for: %d is used.", value, most)

    @property
    def learned_positions(self) -> int | None:
        """Tokens that the table of learned positions has rows for; None for rotary, relative and computed ones."""
        if self.light is not None:
            return self.light.positions - self.position_offset
        model, most = self.__dict__.get("_learned_positions", (None, None))
        if model is not self.auto_model:
            model = self.auto_model
            most = packed_attention.learned_positions(model)
            self.__dict__["_learned_positions"] = (model, most)
        return most

    def _default_max_length(self) -> int | None:
        """The smaller of the tokenizer's limit and the number of positions; None if neither is set."""
        light = self.light
        positions: Any
        if light is not None:
            positions = light.positions
        else:
            positions = getattr(self.config, "max_position_embeddings", None)
        limits = [n for n in (self._cutter.model_max_length, positions) if isinstance(n, int) and 0 < n < 10**20]
        return min(limits, default=None)

    def _within_graph(self, length: int | None) -> int | None:
        """A length, at most that of a graph whose texts all have one length."""
        widest = getattr(self._modules["model"], "fixed", (None, None))[1]
        if widest is None or (length is not None and length <= widest):
            return length
        logger.warning("%s takes texts of %d tokens; longer ones will be cut.", self._origin.name, widest)
        return widest

    def get_embedding_dimension(self) -> int:
        """H, the size of a token's vector."""
        if self.light is not None:
            return self.light.shape.hidden
        config = self.config.get_text_config() if hasattr(self.config, "get_text_config") else self.config
        return config.hidden_size

    get_word_embedding_dimension = get_embedding_dimension

    def get_config_dict(self) -> dict[str, Any]:
        config = {key: getattr(self, key) for key in self.config_keys[:3]}
        optional = {key: getattr(self, key) for key in self.config_keys[3:]}
        return config | {key: value for key, value in optional.items() if value not in (None, {})}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.get_config_dict() | {'architecture': self._architecture}})"

    @property
    def _architecture(self) -> str:
        """Name of the class of the transformers model."""
        light = self.light
        if light is None:
            return type(self._modules["model"]).__name__
        family = re.sub(r"(Model|For[A-Z]\w+)$", "", (light.config.get("architectures") or ["BertModel"])[0])
        return family + (light.auto_class.removeprefix("AutoModel") or "Model")

    # ---- features -> vectors

    def forward(self, features: dict[str, Any], following: Any = None, **kwargs) -> dict[str, Any]:
        """Add the task's output: `token_embeddings`, `scores` or `causal_logits`; `all_layer_embeddings` too if the
        config asks for them.

        Args:
            following: the module that comes next. If it `takes_vocabulary`, a language model stops before its last
                product and adds `vocabulary`, a `VocabularyRows`, in the place of its logits.
        """
        if torch.compiler.is_compiling():
            self._make_transformers_model()
        if "_is_replica" in self.__dict__:
            bind_to_replicas(self)
        packing = features.get("packing")
        recorded = is_recorded()
        vocabulary_next = getattr(following, "takes_vocabulary", False)
        defer = vocabulary_next and not recorded and self._gives_usual_output and self.defers
        if "input_ids" in features and not recorded and not features["input_ids"].numel():
            value = self._without_tokens(features)
        elif packing is not None and (layout := self._layout_now()) is not None:
            value = layout.run(features["input_ids"], features["position_ids"], packing, features.get("token_type_ids"))
            value = value.to(layout.words.dtype) if isinstance(value, Tensor) else value
        else:
            defer = defer and self._defers_in_transformers
            if packing is not None and not self.packs_in_transformers:
                features = self._as_padded(features)
            value = self.run(features, defer)
            rows = value if isinstance(value, Tensor) else value.rows
            if rows.dim() == 3 and hasattr(self.auto_model, "get_base_model"):
                features = with_prompt(features, rows.shape[1], self.padding_id)
        if defer:
            added = {"vocabulary": value}
        else:
            added = {self.module_output_name: value.logits() if isinstance(value, VocabularyRows) else value}
        if "kept_mask" in features:  # tokens that nobody looks at have vectors all the same
            rest = {key: entry for key, entry in features.items() if key != "kept_mask"}
            return rest | {"attention_mask": features["kept_mask"]} | added
        if packing is not None:
            return features | added
        features.update(added)
        return features

    def _layout_now(self) -> Layout | None:
        """The weights of the forward pass without transformers if it can be used: no gradients, no dropout, nothing
        else in the way.
        """
        plain = not torch.is_grad_enabled() and not self.training
        survey = unseen.value if isinstance(unseen.value, Survey) else None
        return self._fast.layout(survey) if plain and self._fast is not None and self._obstacle() is None else None

    def _obstacle(self) -> str | None:
        """Why packed batches do not go the way without transformers; None if they do, as long as no layer was
        changed.
        """
        fast = self._fast
        if fast is None:
            return self._not_light or "its weights were not read by it"
        if fast.root is not self._modules["model"]:
            return "auto_model was replaced"
        if self.unpad_inputs is False:
            return "unpad_inputs is False"
        if not self._gives_usual_output:
            return "modality_config names another output"
        if self.model_forward_params is not None:
            return "model_forward_params is set"
        return fast.obstacle()

    def explain_runner(self) -> str:
        """How this transformer computes, and why not faster, in one line. What is not known yet is tried out."""
        network = self._architecture
        if self.backend != "torch":
            return f"{network} as a graph of {self.backend}, padded batches"
        obstacle = self._obstacle()
        if obstacle is None and self._fast is not None:
            if self._fast.is_known():
                return f"{network} by PackedBert, without transformers, packed batches{', int8' * self._fast.int8}"
            obstacle = "a layer was changed"
        slower = f"not by PackedBert: {obstacle}"
        if (lack := self._why_padded()) is None:
            return f"{network} of transformers, packed batches; {slower}"
        others = "any lengths together" if self.pads_safely else "equal lengths alone, since padding changes vectors"
        return f"{network} of transformers, padded batches ({others}); not packed: {lack}; {slower}"

    @property
    def _gives_usual_output(self) -> bool:
        """Whether what is used of the transformers model is what its task gives, not another of its outputs."""
        usual = TASKS[self.transformer_task][1]
        return all(entry["method_output_name"] == usual for entry in self.modality_config.values())

    def run(self, features: dict[str, Any], defer: bool = False) -> Tensor | VocabularyRows:
        """The transformers model's output: (B, L, …) or, of a packed batch, (T, …); (B, labels) of a classifier."""
        packing, model = features.get("packing"), self.auto_model
        if packing is not None and self.transformer_task == PER_TEXT:
            return self._classify_packed(features)
        inputs = self._inputs(features, self._takes)
        if getattr(model.config, "use_cache", None):
            inputs["use_cache"] = False
        path = self._output_path(features)
        if "hidden_states" in path:
            inputs["output_hidden_states"] = True
        if "logits_to_keep" in features and "logits_to_keep" in self._takes and not defer:
            inputs["logits_to_keep"] = features["logits_to_keep"]
        with packed_attention.use_packing(packing), deferred_logits.stopping(defer):
            output = self._output_of(model, inputs)
        value = output
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError) as error:
                raise ModelFormatError(
                    f"{self._origin.name}: modality_config names the output {path!r:.80} of a {type(model).__name__}; "
                    f"its outputs are {list(output)}, and {key!r:.80} is not in what comes before it."
                ) from error
        if model.config.output_hidden_states and "hidden_states" in output:
            layers = output["hidden_states"]
            features["all_layer_embeddings"] = layers if packing is None else [layer[0] for layer in layers]
        value = value if packing is None else value[0]
        if not defer:
            return value
        decoder = model.get_output_embeddings()
        return VocabularyRows(value, decoder.weight, decoder.bias)

    def _output_path(self, features: dict[str, Any]) -> list[Any]:
        """Where the model's output for a batch is: keys and indices, one after the other."""
        modality = features.get("modality")
        entry = self.modality_config.get(modality if isinstance(modality, str) else "text")
        name = (entry or next(iter(self.modality_config.values())))["method_output_name"]
        return list(name) if isinstance(name, (list, tuple)) else [name]

    def _output_of(self, model: Any, inputs: dict[str, Any]) -> Any:
        """The output of the transformers model; it is said what to do where a classifier cannot find the last token of
        each text.
        """
        if self.transformer_task != PER_TEXT or model.config.pad_token_id is not None:
            return model(**inputs)
        try:
            return model(**inputs)
        except ValueError as error:
            raise InputError(
                f"{error} Neither the config nor the tokenizer of this classifier names a padding token, by which it "
                "finds the end of each text. Set model.tokenizer.pad_token and model.config.pad_token_id."
            ) from error

    def _inputs(self, features: dict[str, Any], takes: set[str]) -> dict[str, Any]:
        """Arguments of a transformers model that takes those named."""
        packing = features.get("packing")
        if packing is None:
            named, apart = self.model_forward_params, ("input_ids", "logits_to_keep")
            inputs = {key: value for key, value in features.items() if key in takes and key not in apart}
            inputs |= {key: features[key] for key in ("input_ids",) if key in features}
            return inputs if named is None else {key: value for key, value in inputs.items() if key in named}
        names = [key for key in ("input_ids", "position_ids", "token_type_ids") if key in features]
        return {key: features[key][None] for key in names if key in takes or key == "input_ids"} | {"packing": packing}

    def _classify_packed(self, features: dict[str, Any]) -> Tensor:
        """Scores (B, labels): the encoder runs packed, its head on the padded output."""
        encoder = self.auto_model.base_model
        packed = self._inputs(features, set(inspect.signature(encoder.forward).parameters))
        padded = self._as_padded(features)
        with packed_attention.use_packing(features["packing"]), packed_classifier.use_boundary(packed):
            return self.auto_model(**self._inputs(padded, self._takes)).logits

    def _as_padded(self, features: dict[str, Any]) -> dict[str, Any]:
        """A packed batch of token ids in the padded layout."""
        packing = features["packing"]
        padded = pad(features) | {"input_ids": pad_rows(features["input_ids"], packing, self.padding_id)}
        if packing.seen is not None:
            steps, seen = torch.arange(packing.longest, device=packing.device), torch.tensor(packing.seen)
            padded["kept_mask"] = padded["attention_mask"]
            padded["attention_mask"] = (steps[None, :] < seen.to(packing.device)[:, None]).long()
        return padded

    def _without_tokens(self, features: dict[str, Any]) -> Tensor | VocabularyRows:
        """Zeros for a batch without a single token."""
        first, shape = next(self.parameters(), torch.zeros(0)), features["input_ids"].shape
        if self.transformer_task == PER_TEXT:
            packing = features.get("packing")
            return first.new_zeros(shape[0] if packing is None else len(packing), self.num_labels)
        rows = first.new_zeros(*shape, self.get_embedding_dimension())
        if self.transformer_task == "feature-extraction":
            return rows
        return VocabularyRows(rows, first.new_zeros(self.vocabulary_size, rows.shape[-1]), None)

    @property
    def packs(self) -> bool:
        """Whether this model runs packed; proved on first use."""
        fast = self._fast
        return (fast is not None and self._obstacle() is None and fast.is_known()) or self.packs_in_transformers

    @property
    def packs_in_transformers(self) -> bool:
        """Whether the transformers model runs packed; proved on first use."""
        return self._why_padded() is None

    def _why_padded(self) -> str | None:
        """Why the transformers model does not run packed; None if it does."""
        model = self.auto_model
        if self.unpad_inputs is False:
            return "unpad_inputs is False"
        if self._origin.names_attention:
            return "the attention function was named"
        if self._before_packing is None:
            return "the architecture does not let its attention function be chosen"
        if self.model_forward_params is not None:
            return "model_forward_params is set"
        known = self.capabilities.known.get("packs")
        if known is None and not packed_attention.is_in_use(model):
            return "another attention function was set"
        with lock:
            asked_before = "packs" in self.capabilities.known
            lack = self.capabilities.lack(self, "packs")
            if lack is not None and not asked_before and "packs" in self.capabilities.known:
                model.set_attn_implementation(self._before_packing)
                logger.info("%s runs on padded batches.", type(model).__name__)
        return lack

    @property
    def pads_safely(self) -> bool:
        """Whether padding leaves the other tokens alone; proved on first use. If not, only equal lengths go
        together.
        """
        return self.capabilities.has(self, "pads_safely")

    @property
    def mixes(self) -> Literal["any", "some", "none"]:
        """Which texts of different lengths share a micro-batch: "any" where nothing is padded for it, "some" where
        padding costs time, "none" where it leaks into the result.
        """
        if self.packs or any(getattr(self.auto_model, "fixed", ())):
            return "any"
        return "some" if self.pads_safely else "none"

    @property
    def defers(self) -> bool:
        """Whether the model can stop before its last product, the one with the vocabulary; proved on first use."""
        if self.transformer_task not in VOCABULARY_TASKS:
            return False
        return self._obstacle() is None or self._defers_in_transformers

    @property
    def _defers_in_transformers(self) -> bool:
        return deferred_logits.is_deferring(self.auto_model) and self.capabilities.has(self, "defers")

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

    @property
    def position_offset(self) -> int:
        if self.light is not None:
            return self.light.shape.position_offset
        if "_position_offset" not in self.__dict__:
            self._position_offset = packed_attention.position_offset(self.auto_model)
        return self._position_offset

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
            known["modality_config"] = modalities_of(task)  # saved before chat templates were used
            known["module_output_name"] = known.get("module_output_name") or TASKS[task][2]
        if surplus := saved.keys() - known.keys():
            logger.warning("Settings %s of %s are not known and are ignored.", sorted(surplus), model_name_or_path)
        settings = (init_defaults or {}) | known
        with reading(file):
            check_modalities(settings.get("modality_config"), settings.get("module_output_name"))
        module = cls(model_name_or_path, **settings | given, backend=backend)
        check_template(getattr(module._cutter, "backend_tokenizer", None), source.place("tokenizer.json"))
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


NOT_PICKLED = ("_batch_tokenizers", "_learned_positions")
KNOWN_SETTINGS = {*Transformer.config_keys, "max_seq_length", "do_lower_case", "tokenizer_name_or_path"}


def modalities_of(task: str) -> dict[str, Any]:
    """Where the output of a model of a task is, for texts."""
    return {"text": {"method": "forward", "method_output_name": TASKS[task][1]}}


TRANSFORMER_TASK_DEFAULTS = {task: (modalities_of(task), output) for task, (_, _, output) in TASKS.items()}


class AutoClasses(Mapping[str, Any]):
    """Task -> Auto class of transformers, which is imported when it is asked for."""

    def __getitem__(self, task: str) -> Any:
        import transformers

        return getattr(transformers, TASKS[task][0])

    def __iter__(self) -> Iterator[str]:
        return iter(TASKS)

    def __len__(self) -> int:
        return len(TASKS)


TRANSFORMER_TASK_TO_AUTO_MODEL = AutoClasses()


def check_modalities(config: dict[str, Any] | None, output: str | None) -> None:
    """Raise `InputError` for a modality_config that does not say what comes out and under which name."""
    if config is None:
        return
    if output is None:
        raise InputError(
            "modality_config needs module_output_name beside it: the name of the output among the features, such as "
            '"token_embeddings" or "sentence_embedding".'
        )
    for modality, entry in config.items():
        if not isinstance(entry, dict) or not {"method", "method_output_name"} <= entry.keys():
            raise InputError(
                f"modality_config[{modality!r}] must be a dictionary with 'method' and 'method_output_name', "
                f"got {entry!r}."
            )
        if modality in ("text", "message") and entry["method"] != "forward":
            raise InputError(
                f"modality_config[{modality!r}] asks for the method {entry['method']!r} of the model; texts go "
                "through 'forward' here."
            )
        path = entry["method_output_name"]
        whole = isinstance(path, (list, tuple)) and bool(path) and all(type(step) in (str, int) for step in path)
        if modality in ("text", "message") and not (isinstance(path, str) or whole):
            raise InputError(
                f"modality_config[{modality!r}]['method_output_name'] is {path!r}; expected the name of an entry of "
                "the model's output, or a path of names and indices into it, as ['hidden_states', -2]."
            )


def with_prompt(features: dict[str, Any], length: int, padding_id: int) -> dict[str, Any]:
    """A padded batch that has as many tokens as the model gave vectors: one with a learned prompt (PEFT's prompt
    tuning) puts that before each text.
    """
    mask = features.get("attention_mask")
    if mask is None or mask.shape[1] >= length:
        return features
    fills = {"input_ids": padding_id, "token_type_ids": 0, "attention_mask": 1, "kept_mask": 1}
    added = (length - mask.shape[1], 0)
    return features | {
        name: nn.functional.pad(features[name], added, value=fill) for name, fill in fills.items() if name in features
    }


def lower_case(tokenizer: Any) -> None:
    """Make the tokenizer lower-case its input, in a way that is saved with it."""
    rust = getattr(tokenizer, "backend_tokenizer", None)
    if rust is None:
        tokenizer.do_lower_case = True
        return
    from tokenizers import normalizers

    lower = normalizers.Lowercase()
    rust.normalizer = lower if rust.normalizer is None else normalizers.Sequence([lower, rust.normalizer])
