"""A transformers model as a module: texts -> tokens -> one vector per token.

    padded   input_ids (B, L), attention_mask (B, L)                 -> token_embeddings (B, L, H)
    packed   input_ids (T,), position_ids (T,), packing: Packing     -> token_embeddings (T, H)

Which layout is used is decided once per loaded model: an architecture that lets its attention function be chosen is shown
two short sequences, and if packed equals alone it runs packed from then on (`inference.attention`). Texts longer than
`max_seq_length` are cut; the first time that happens a warning says how many.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from sentence_transformers._deprecation import renamed
from sentence_transformers.backends.prepacked import prepack
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.inference import attention
from sentence_transformers.inference.packing import Packing, is_packed, pad_rows
from sentence_transformers.inference.tokens import BatchTokenizer, Tokens
from sentence_transformers.modules.base import InputModule
from sentence_transformers.storage.files import Source

logger = logging.getLogger(__name__)

TransformerTask = Literal["feature-extraction", "fill-mask", "sequence-classification", "text-generation"]

# task: (Auto class in transformers, its output that is used, name of that output among the features)
TASKS = {
    "feature-extraction": ("AutoModel", "last_hidden_state", "token_embeddings"),
    "fill-mask": ("AutoModelForMaskedLM", "logits", "token_embeddings"),
    "sequence-classification": ("AutoModelForSequenceClassification", "logits", "scores"),
    "text-generation": ("AutoModelForCausalLM", "logits", "causal_logits"),
}
CONFIG_NAMES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
OLD_KWARGS = {"model_args": "model_kwargs", "tokenizer_args": "processor_kwargs", "config_args": "config_kwargs"}


class Transformer(InputModule):
    """A model of the transformers library.

    Args:
        model_name_or_path: folder or hub id.
        transformer_task: which head: "feature-extraction" (default), "fill-mask", "sequence-classification",
            "text-generation".
        model_kwargs, processor_kwargs, config_kwargs: passed on to `from_pretrained` of model, tokenizer and config.
            `dtype` (or the older `torch_dtype`) of `model_kwargs` sets the weights' type.
        processing_kwargs: arguments of the tokenizer's call, kept with the model: {"text": {...}}.
        max_seq_length: most tokens per text; default: the smaller of the tokenizer's and the positions' limit.
        do_lower_case: lower-case texts before they are tokenised.
        tokenizer_name_or_path: another place for the tokenizer.

    Raises:
        InputError: for an unknown task or backend.
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
    takes_packed = True

    @renamed(model_args="model_kwargs", tokenizer_args="processor_kwargs", config_args="config_kwargs")
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
        modality_config: dict[str, Any] | None = None,
        module_output_name: str | None = None,
        unpad_inputs: bool | None = None,
        query_length: int | None = None,
        document_length: int | None = None,
        query_expansion: dict[str, Any] | None = None,
        max_seq_length: int | None = None,
        do_lower_case: bool = False,
        tokenizer_name_or_path: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        if transformer_task not in TASKS:
            raise InputError(f"Unknown transformer_task {transformer_task!r}; known are {', '.join(TASKS)}.")
        if backend != "torch":
            raise InputError(f"backend={backend!r} is not available in this version; use backend='torch'.")
        auto_class, output, name = TASKS[transformer_task]
        self.transformer_task = transformer_task
        self.modality_config = modality_config or {"text": {"method": "forward", "method_output_name": output}}
        self.module_output_name = module_output_name or name
        self.processing_kwargs = processing_kwargs or {}
        self.unpad_inputs = unpad_inputs
        self.query_length, self.document_length, self.query_expansion = query_length, document_length, query_expansion
        self.backend = backend

        shared = {"cache_dir": cache_dir} if cache_dir else {}
        self.model = load_model(
            auto_class, model_name_or_path, shared | (model_kwargs or {}), shared | (config_kwargs or {})
        )
        self.processor = load_tokenizer(
            tokenizer_name_or_path or model_name_or_path, shared | (processor_kwargs or {})
        )
        if do_lower_case:
            lower_case(self.processor)
        self.max_seq_length = max_seq_length or default_max_length(self.processor, self.model.config)
        self._before_packing = attention.install(self.model) if unpad_inputs is not False else None
        prepack(self.model)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_batch_tokenizer"}

    # ---- what it is made of

    @property
    def auto_model(self) -> Any:
        """The transformers model."""
        return self.model

    @property
    def config(self) -> Any:
        """The transformers model's config."""
        return self.model.config

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer. It may be replaced; encoding uses a private copy of it, made again then."""
        return getattr(self.processor, "tokenizer", self.processor)

    @tokenizer.setter
    def tokenizer(self, value: Any) -> None:
        self.processor = value

    @property
    def max_seq_length(self) -> int | None:
        """Most tokens per text, special tokens included; longer texts are cut."""
        length = self.tokenizer.model_max_length
        return length if length < 10**20 else None

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self.tokenizer.model_max_length = int(1e30) if value is None else int(value)

    def get_embedding_dimension(self) -> int:
        """H, the size of a token's vector."""
        config = self.config.get_text_config() if hasattr(self.config, "get_text_config") else self.config
        return config.hidden_size

    get_word_embedding_dimension = get_embedding_dimension

    def get_config_dict(self) -> dict[str, Any]:
        config = {key: getattr(self, key) for key in self.config_keys[:3]}
        optional = {key: getattr(self, key) for key in self.config_keys[3:]}
        return config | {key: value for key, value in optional.items() if value not in (None, {})}

    def __repr__(self) -> str:
        settings = self.get_config_dict() | {"architecture": type(self.model).__name__}
        return f"Transformer({settings}, max_seq_length={self.max_seq_length})"

    # ---- texts -> features

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        processing_kwargs: dict[str, Any] | None = None,
        task: str | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        """Texts, or (text, text) pairs, as a padded batch.

        Returns:
            input_ids and attention_mask, int64 of shape (B, L); token_type_ids where the model has segments;
            prompt_length, if there is a prompt.
        """
        return self.features(self.tokens(inputs, prompt, task=task), packed=False)

    def tokens(self, inputs: Sequence[Any], prompt: str | None = None, task: str | None = None) -> Tokens:
        """Texts, or (text, text) pairs, as one unpadded run of tokens; `prompt` is put before each text."""
        tokenizer = self.batch_tokenizer(task)
        if not prompt:
            return self._report(tokenizer(inputs))
        if inputs and isinstance(inputs[0], str):
            return self._report(tokenizer([prompt + text for text in inputs], self.prompt_length(tokenizer, prompt)))
        return self._report(tokenizer([(prompt + first, second) for first, second in inputs]))

    def features(self, tokens: Tokens, packed: bool, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Tokens as a packed or padded batch on `device`."""
        ids = torch.from_numpy(tokens.ids)
        types = None if tokens.type_ids is None else torch.from_numpy(tokens.type_ids)
        features: dict[str, Any] = {"modality": "text"}
        if tokens.prompt_length:
            features["prompt_length"] = tokens.prompt_length
        packing = Packing(tokens.lengths, device)
        if packed:
            features |= {"packing": packing, "input_ids": ids.to(device, non_blocking=True)}
            features["position_ids"] = packing.positions + self.position_offset
            if types is not None:
                features["token_type_ids"] = types.to(device, non_blocking=True)
            return features
        packing = Packing(tokens.lengths)
        padding_id = getattr(self.tokenizer, "pad_token_id", None) or 0
        left = getattr(self.tokenizer, "padding_side", "right") == "left"
        steps = torch.arange(packing.longest)
        features["input_ids"] = pad_rows(ids, packing, padding_id)
        features["attention_mask"] = (steps[None, :] < packing.lengths_tensor[:, None]).long()
        if types is not None:
            features["token_type_ids"] = pad_rows(types, packing)
        for key in ("input_ids", "attention_mask", "token_type_ids"):
            if key in features:
                features[key] = (shift_left(features[key], packing) if left else features[key]).to(device)
        return features

    def batch_tokenizer(self, task: str | None = None) -> BatchTokenizer:
        """The private copy of the tokenizer; one per tokenizer, length and task."""
        limit = {"query": self.query_length, "document": self.document_length}.get(task or "") or self.max_seq_length
        key = (id(self.tokenizer), len(self.tokenizer), limit)
        kept = self.__dict__.get("_batch_tokenizer")
        if kept is None or kept[0] != key:
            text_kwargs = self.processing_kwargs.get("text", {})
            special = text_kwargs.get("add_special_tokens", True)
            with_types = "token_type_ids" in self.tokenizer.model_input_names
            kept = (key, BatchTokenizer(self.tokenizer, limit, special, with_types))
            self.__dict__["_batch_tokenizer"] = kept
        return kept[1]

    def prompt_length(self, tokenizer: BatchTokenizer, prompt: str) -> int:
        """Tokens that the prompt takes at the start of a text, without the closing special token."""
        ids = tokenizer([prompt]).ids
        closing = len(ids) and int(ids[-1]) in (self.tokenizer.sep_token_id, self.tokenizer.eos_token_id)
        return len(ids) - int(bool(closing))

    def _report(self, tokens: Tokens) -> Tokens:
        """Say once per model that texts were cut."""
        if tokens.cut and not self.__dict__.get("_cut_reported"):
            self.__dict__["_cut_reported"] = True
            logger.warning(
                "%d of %d texts are longer than max_seq_length = %s tokens and were cut. "
                "Raise `model.max_seq_length` if the model allows it, or split the texts. (Said once per model.)",
                tokens.cut,
                len(tokens),
                self.max_seq_length,
            )
        return tokens

    # ---- features -> vectors

    def forward(self, features: dict[str, Any], **kwargs) -> dict[str, Any]:
        """Add `token_embeddings` (or the task's output), and `all_layer_embeddings` if the config asks for them."""
        if is_packed(features):
            inputs = {
                key: features[key][None] for key in ("input_ids", "position_ids", "token_type_ids") if key in features
            }
            packing = features["packing"]
            with attention.use_packing(packing):
                output = self.model(**inputs, packing=packing, **self._no_cache)
        else:
            names = ("input_ids", "attention_mask", "token_type_ids", "inputs_embeds")
            inputs = {key: features[key] for key in names if key in features}
            output = self.model(**inputs, **self._no_cache)
        value = output[self.modality_config["text"]["method_output_name"]]
        features[self.module_output_name] = value[0] if is_packed(features) else value
        if self.config.output_hidden_states and "hidden_states" in output:
            layers = output["hidden_states"]
            features["all_layer_embeddings"] = [layer[0] for layer in layers] if is_packed(features) else layers
        return features

    @property
    def _no_cache(self) -> dict[str, bool]:
        return {"use_cache": False} if getattr(self.config, "use_cache", None) else {}

    @property
    def packs(self) -> bool:
        """Whether this model runs packed; proved on first use."""
        if self._before_packing is None:
            return False
        if "_packs" not in self.__dict__:
            self._packs = self._prove()
            if not self._packs:
                self.model.set_attn_implementation(self._before_packing)
                logger.info("%s runs on padded batches.", type(self.model).__name__)
        return self._packs

    @property
    def position_offset(self) -> int:
        if "_position_offset" not in self.__dict__:
            self._position_offset = attention.position_offset(self.model)
        return self._position_offset

    def _prove(self) -> bool:
        if self.transformer_task not in ("feature-extraction", "fill-mask"):
            return False
        was_training = self.training
        self.eval()
        try:
            return attention.prove(self._probe_packed, self._probe_alone, self.config.vocab_size, self.model.device)
        finally:
            self.train(was_training)

    def _probe_packed(self, ids: Tensor, packing: Packing) -> Tensor:
        positions = packing.positions + self.position_offset
        return self.forward({"input_ids": ids, "position_ids": positions, "packing": packing})[self.module_output_name]

    def _probe_alone(self, ids: Tensor) -> Tensor:
        return self.forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)})[self.module_output_name]

    # ---- disk

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        """Write model, tokenizer and settings into `output_path`."""
        state = None if safe_serialization else self.model.state_dict()
        if state is None:
            self.model.save_pretrained(output_path)
        else:
            self.model.config.save_pretrained(output_path)
            torch.save(state, Path(output_path, "pytorch_model.bin"))
        self.processor.save_pretrained(output_path)
        self.save_config(output_path)

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
        backend: str = "torch",
        init_defaults: dict[str, Any] | None = None,
        **kwargs,
    ) -> Self:
        """Load from a model folder or the hub; arguments win over the saved settings."""
        source = Source(model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        saved = cls.load_config(model_name_or_path, subfolder, **source.hub_kwargs)
        hub = {
            "subfolder": subfolder,
            "token": token,
            "cache_dir": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
            "trust_remote_code": trust_remote_code,
        }
        hub = {key: value for key, value in hub.items() if value not in (None, "")}
        given = {"model_kwargs": model_kwargs, "processor_kwargs": processor_kwargs, "config_kwargs": config_kwargs}
        for name, value in given.items():
            from_file = {k: v for k, v in saved.pop(name, {}).items() if k != "trust_remote_code"}
            given[name] = from_file | hub | (value or {})
        known = {key: value for key, value in saved.items() if key in KNOWN_SETTINGS}
        if surplus := saved.keys() - known.keys():
            logger.warning("Settings %s of %s are not known and are ignored.", sorted(surplus), model_name_or_path)
        return cls(model_name_or_path, **(init_defaults or {}) | known | given, backend=backend)

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


KNOWN_SETTINGS = {*Transformer.config_keys, "max_seq_length", "do_lower_case", "tokenizer_name_or_path"}


def load_model(auto_class: str, name: str, model_kwargs: dict[str, Any], config_kwargs: dict[str, Any]) -> Any:
    """A transformers model in evaluation mode; `ModelFormatError` if its weights are missing, damaged or NaN."""
    import transformers
    from safetensors import SafetensorError

    for key in ("file_name", "export", "provider"):
        model_kwargs.pop(key, None)
    if "torch_dtype" in model_kwargs:
        model_kwargs["dtype"] = model_kwargs.pop("torch_dtype")
    if config_kwargs.keys() - model_kwargs.keys() - {"subfolder"}:
        config = transformers.AutoConfig.from_pretrained(name, **config_kwargs)
        model_kwargs["config"] = config
    try:
        model = getattr(transformers, auto_class).from_pretrained(name, **model_kwargs)
    except (SafetensorError, json.JSONDecodeError, EOFError) as error:
        raise ModelFormatError(f"The files of {name} are damaged: {error}. Fetch them again.") from error
    for tensor_name, tensor in model.named_parameters():
        if tensor.is_floating_point() and tensor.device.type != "meta" and not torch.isfinite(tensor.sum()):
            raise ModelFormatError(f"The weight {tensor_name} of {name} holds NaN or infinite values.")
    return model.eval()


def load_tokenizer(name: str, kwargs: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name, **kwargs)


def lower_case(tokenizer: Any) -> None:
    """Make the tokenizer lower-case its input, in a way that is saved with it."""
    rust = getattr(tokenizer, "backend_tokenizer", None)
    if rust is None:
        tokenizer.do_lower_case = True
        return
    from tokenizers import normalizers

    lower = normalizers.Lowercase()
    rust.normalizer = lower if rust.normalizer is None else normalizers.Sequence([lower, rust.normalizer])


def default_max_length(tokenizer: Any, config: Any) -> int | None:
    """The smaller of the tokenizer's limit and the number of positions; None if neither is set."""
    positions = getattr(config, "max_position_embeddings", None)
    limits = [n for n in (tokenizer.model_max_length, positions) if isinstance(n, int) and 0 < n < 10**20]
    return min(limits, default=None)


def shift_left(tensor: Tensor, packing: Packing) -> Tensor:
    """Move the padding of a right-padded (B, L) tensor to the left."""
    gaps = tensor.shape[1] - packing.lengths_tensor[:, None]
    return tensor.gather(1, (torch.arange(tensor.shape[1])[None, :] - gaps) % tensor.shape[1])
