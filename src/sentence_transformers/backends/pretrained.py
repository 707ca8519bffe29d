"""Where a transformer's parts come from, and the two ways of loading them.

The full way is transformers' own `from_pretrained`. The light way reads config.json, tokenizer.json and
model.safetensors directly, for models of the BERT family (`backends.bert_network`) and for tokenizers whose file says
everything, and gives the same numbers without importing transformers. What the light way does not know exactly, it
leaves to the full way.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch

from sentence_transformers.backends.bert_layers import HEADS, BertShape, build, kinds
from sentence_transformers.backends.bert_network import BertNetwork, encoder_tensors
from sentence_transformers.errors import ModelFormatError
from sentence_transformers.storage import weights
from sentence_transformers.storage.files import Source, reading
from sentence_transformers.storage.settings import check_settings

NO_LIMIT = int(1e30)
HUB_KEYS = {"subfolder", "token", "cache_dir", "revision", "local_files_only", "trust_remote_code"}
DTYPES = {None, "auto", "float32", "bfloat16", "float16", torch.float32, torch.bfloat16, torch.float16}
INT8 = ("int8", torch.int8)
ENCODER_MODELS = {
    "longt5": "LongT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
    "t5gemma": "T5GemmaEncoderModel",
}
WITHIN = {  # encoder-decoder families without a class for the encoder: it is taken out of the whole model
    "blenderbot",
    "blenderbot-small",
    "m2m_100",
    "marian",
    "moonshine",
    "nllb-moe",
    "pegasus",
    "pegasus_x",
    "prophetnet",
    "t5gemma2",
    "udop",
    "whisper",
}
TOKENIZER_SHAPE = {
    "model_max_length": float | None,
    "padding_side": Literal["left", "right"],
    "truncation_side": Literal["left", "right"],
    "model_input_names": list[str] | None,
}
PEFT_KEYS = ("subfolder", "revision", "token", "cache_dir", "local_files_only")
NOT_FOR_TRANSFORMERS = ("file_name", "export", "provider", "provider_options", "session_options", "ov_config")


@dataclass(frozen=True)
class Checkpoint:
    """Names and arguments of one transformer.

    Attributes:
        name: folder or hub id.
        auto_class: "AutoModel" and its like.
        tokenizer_name: folder or hub id of the tokenizer.
        model_kwargs, config_kwargs, processor_kwargs: for `from_pretrained`.
    """

    name: str
    auto_class: str
    tokenizer_name: str
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    config_kwargs: dict[str, Any] = field(default_factory=dict)
    processor_kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def asked_dtype(self) -> Any:
        """`dtype` of `model_kwargs`, or the older `torch_dtype`."""
        return self.model_kwargs.get("dtype", self.model_kwargs.get("torch_dtype"))

    @property
    def int8(self) -> bool:
        """Whether products in int8 are asked for, which is a way to compute, not a type of weights."""
        return self.asked_dtype in INT8

    @property
    def names_attention(self) -> bool:
        """Whether the caller names the attention function, which then stays."""
        names = ("attn_implementation", "_attn_implementation")
        return any(kwargs.get(name) is not None for kwargs in (self.model_kwargs, self.config_kwargs) for name in names)

    # ---- the full way

    def config(self) -> Any:
        """The transformers config."""
        import transformers

        source = self.folder(self.name, self.config_kwargs)
        if (base := self._base()) is not None:
            own = {key: value for key, value in self.config_kwargs.items() if key not in ("subfolder", "revision")}
            return transformers.AutoConfig.from_pretrained(base, **own)
        if source is None or self._asked():
            return transformers.AutoConfig.from_pretrained(self.name, **self.config_kwargs)
        with reading(source.place("config.json")):
            return transformers.AutoConfig.from_pretrained(self.name, **self.config_kwargs)

    def _base(self) -> str | None:
        """The model that the adapter in the folder belongs to; None where there is no adapter."""
        source = self.folder(self.name, self.model_kwargs)
        return None if source is None else base_of_adapter(source)

    def model(self) -> Any:
        """The transformers model, in evaluation mode; `ModelFormatError` if weights are missing, damaged or NaN."""
        from safetensors import SafetensorError

        kwargs = {key: value for key, value in self.model_kwargs.items() if key not in NOT_FOR_TRANSFORMERS}
        if "torch_dtype" in kwargs:
            kwargs["dtype"] = kwargs.pop("torch_dtype")
        if self.config_kwargs.keys() - HUB_KEYS:
            kwargs["config"] = self.config()
        if (source := self.folder(self.name, self.model_kwargs)) is not None:
            weights.check_layers(source)
        model_class = self._class_for_text()
        if model_class.__name__ == ENCODER_MODELS["t5gemma"]:  # refuses a config that says there is a decoder
            kwargs["config"] = kwargs.get("config") or self.config()
            kwargs["config"].is_encoder_decoder = False
        base = self._base()
        try:
            if base is not None and is_prompt(self.name, kwargs):
                import peft

                own = {key: kwargs.pop(key) for key in ("subfolder", "revision") if key in kwargs}
                model, report = model_class.from_pretrained(base, **kwargs, output_loading_info=True)
                model = peft.PeftModel.from_pretrained(model, self.name, **own)
            else:
                model, report = model_class.from_pretrained(self.name, **kwargs, output_loading_info=True)
                if base is not None:
                    read_magnitudes(model, self.name, report, kwargs)
        except pickle.UnpicklingError as error:
            raise ModelFormatError(weights.not_plain(f"{self.name}/{weights.TORCH_NAME}")) from error
        except (SafetensorError, json.JSONDecodeError, EOFError) as error:
            raise ModelFormatError(f"The files of {self.name} are damaged: {error}. Fetch them again.") from error
        except OSError as error:
            if not Path(self.name).is_dir():
                raise
            raise ModelFormatError(f"{self.name} lacks a file of its transformers model: {error}") from error
        except Exception as error:
            if not Path(self.name).is_dir() or isinstance(error, torch.OutOfMemoryError) or self._asked():
                raise
            with reading(f"config.json or the weights of {self.name}"):
                raise
        self._check_report(model, report)
        if self.auto_class == "AutoModel" and model.config.model_type in WITHIN and hasattr(model, "get_decoder"):
            model = model.get_encoder()
        weights.check_finite(dict(model.named_parameters()), self.name)
        return model.eval()

    def _check_report(self, model: Any, report: dict[str, Any]) -> None:
        """Raise `ModelFormatError` if the files lack weights of the encoder, which transformers fills with random ones.

        A head or pooler may be missing: it is new, to be trained.
        """
        base = f"{model.base_model_prefix}." if self.auto_class != "AutoModel" else ""
        missing = sorted(
            key for key in report.get("missing_keys", ()) if key.startswith(base) and "pooler" not in key.split(".")
        )
        if missing and not self._asked():
            raise ModelFormatError(
                f"The weights in {self.name} lack {len(missing)} tensors that its config.json asks for: {missing[:5]}."
            )

    def _asked(self) -> bool:
        """Whether the caller gave arguments for transformers, which may be what is wrong."""
        return bool((self.model_kwargs.keys() | self.config_kwargs.keys()) - HUB_KEYS)

    def _class_for_text(self) -> Any:
        """The Auto class, where a text encoder exists in an encoder-decoder family (T5 and its kin) that one.

        Of the families of `WITHIN` the whole model is loaded, unless the folder holds the encoder alone.
        """
        import transformers
        from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

        if self.auto_class != "AutoModel":
            return getattr(transformers, self.auto_class)
        config = self.config()
        kind = config.model_type
        if kind in ENCODER_MODELS:
            return getattr(transformers, ENCODER_MODELS[kind])
        name = (getattr(config, "architectures", None) or [""])[0]
        if kind in WITHIN and name.endswith("Encoder"):
            whole = transformers.MODEL_MAPPING[type(config)]
            return getattr(inspect.getmodule(whole), name)
        two_sided = getattr(config, "is_encoder_decoder", False) or "t5" in kind
        if two_sided and kind in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES:
            return transformers.AutoModelForTextEncoding
        return transformers.AutoModel

    def tokenizer(self, file: TokenizerFile | None = None) -> Any:
        """The transformers tokenizer or processor; made from `file` if the folder it came from is gone.

        An adapter's folder without a tokenizer has that of its base model.

        Raises:
            ModelFormatError: if the folder lacks the files of its tokenizer.
        """
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        if file is not None and not Path(self.tokenizer_name).is_dir():
            return PreTrainedTokenizerFast(tokenizer_object=file.backend_tokenizer, **file.config)
        source = self.folder(self.tokenizer_name, self.processor_kwargs)
        if source is None:
            return AutoTokenizer.from_pretrained(self.tokenizer_name, **self.processor_kwargs)
        has_own = source.path("tokenizer_config.json") or source.path("tokenizer.json")
        if not has_own and (base := base_of_adapter(source)) is not None:
            own = {k: v for k, v in self.processor_kwargs.items() if k not in ("subfolder", "revision")}
            return AutoTokenizer.from_pretrained(base, **own)
        with contextlib.ExitStack() as stack:
            if not self.processor_kwargs.keys() - HUB_KEYS:  # else an argument may be wrong
                files = f"{source.place('tokenizer.json')} (or tokenizer_config.json)"
                stack.enter_context(reading(files if source.path("tokenizer.json") else f"Missing or damaged: {files}"))
            tokenizer = AutoTokenizer.from_pretrained(self.tokenizer_name, **self.processor_kwargs)
        check_tokenizer_files(getattr(tokenizer, "tokenizer", tokenizer), source)
        return tokenizer

    # ---- from the light way to the full one, without the files

    def config_of(self, config: dict[str, Any]) -> Any:
        """The transformers config of a config.json that has been read."""
        import transformers

        with reading(f"{self.name}/config.json"):
            made = transformers.AutoConfig.for_model(**config)
        made.name_or_path = self.name
        return made

    def model_of(self, config: Any) -> Any:
        """A transformers model of a transformers config, whose parameters are yet to be set."""
        import transformers

        return getattr(transformers, self.auto_class).from_config(config)

    # ---- the light way

    def bert_network(self) -> BertNetwork | str:
        """The model without transformers, or why it needs the full way."""
        dtype = None if self.int8 else self.asked_dtype
        others = (self.model_kwargs.keys() - {"dtype", "torch_dtype"} | self.config_kwargs.keys()) - HUB_KEYS
        if self.auto_class not in HEADS:
            return f"it has none for {self.auto_class}"
        if others:
            return f"arguments for transformers were given: {', '.join(sorted(others))}"
        if dtype not in DTYPES:
            return f"dtype={dtype} was asked for"
        source = self.folder(self.name, self.model_kwargs)
        if source is None:
            return f"{self.name} is no folder"
        if not torch.backends.mkldnn.is_available():
            return "PyTorch was built without oneDNN"
        if source.path("adapter_config.json"):
            return "the folder holds an adapter"
        config, path = source.json("config.json"), source.path(weights.SAFE_NAME)
        if not isinstance(config, dict) or path is None:
            return f"the folder has no config.json, or no {weights.SAFE_NAME}"
        shape = BertShape.of_config(config)
        if isinstance(shape, str):
            return shape
        named = config.get("dtype") or config.get("torch_dtype")
        if str(named) not in ("None", "float32", "bfloat16", "float16", "float64"):
            return f"config.json says dtype {named}"
        tensors = encoder_tensors(weights.read_safetensors(path), config, self.auto_class)
        if tensors is None:
            return "the weights are not those of plain BERT, or larger than what is copied"
        root = build(kinds(config, self.auto_class), cast(tensors, dtype, config), config)
        if root is None or shape.hidden % shape.heads:  # the full way explains what is wrong
            return "weights have other shapes than config.json says"
        weights.check_finite(tensors, self.name)
        return BertNetwork(root.eval(), shape, config, self.auto_class, self.int8)

    def tokenizer_file(self) -> TokenizerFile | None:
        """The tokenizer without transformers, or None if it needs the full way."""
        source = self.folder(self.tokenizer_name, self.processor_kwargs)
        if source is None or self.processor_kwargs.keys() - HUB_KEYS:
            return None
        return TokenizerFile.read(source)

    def folder(self, name: str, kwargs: dict[str, Any]) -> Source | None:
        """The local folder of a part; None for a hub id."""
        return Source(name, kwargs.get("subfolder") or "") if Path(name).is_dir() else None


def base_of_adapter(source: Source) -> str | None:
    """The model that the adapter in a folder belongs to; None for any other folder."""
    adapter = source.json("adapter_config.json")
    if adapter is None:
        return None
    base = adapter.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelFormatError(
            f"{source.name}/adapter_config.json: base_model_name_or_path is {base!r}; expected a folder or hub id, "
            "where the model lies that the adapter is for."
        )
    return base


def is_prompt(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether an adapter is a learned prompt, which wraps a model in the place of changing its layers."""
    import peft

    hub = {key: kwargs[key] for key in PEFT_KEYS if key in kwargs}
    return isinstance(peft.PeftConfig.from_pretrained(name, **hub), peft.PromptLearningConfig)


def read_magnitudes(
    model: Any, name: str, report: dict[str, Any] | None = None, kwargs: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Read what transformers leaves out of an adapter with DoRA: it looks for the magnitudes under other names than
    those that peft saves them by.

    Args:
        report: what transformers says of loading; what is read here is missing no longer.
        kwargs: those of `load_adapter` or `from_pretrained`.
    """
    adapter = kwargs.get("adapter_name") or "default"
    if not getattr(model.peft_config[adapter], "use_dora", False):
        return
    import peft

    hub = {key: kwargs[key] for key in PEFT_KEYS if key in kwargs}
    weights = peft.load_peft_weights(name, device="cpu", **hub)
    found: Any = peft.set_peft_model_state_dict(model, weights, adapter_name=adapter)
    if report is not None:
        report["missing_keys"] = set(report["missing_keys"]) & set(found.missing_keys)


def check_tokenizer_files(tokenizer: Any, source: Source) -> None:
    """Raise `ModelFormatError` if a folder lacks the vocabulary of its tokenizer: transformers makes an empty one then.

    Either tokenizer.json is there, or each vocabulary file of the tokenizer's class.
    """
    names = {key: name for key, name in getattr(tokenizer, "vocab_files_names", {}).items() if isinstance(name, str)}
    whole = names.pop("tokenizer_file", "tokenizer.json")
    needed = [name for key, name in names.items() if key in ("vocab_file", "merges_file", "source_spm", "target_spm")]
    if source.path(whole) or (needed and all(source.path(name) for name in needed)):
        return
    if not needed and not hasattr(tokenizer, "backend_tokenizer"):
        return  # works on bytes or characters
    if needed and any(source.path(name) for name in ("tekken.json", "tokenizer.model", "spiece.model")):
        return  # other forms, which transformers converts
    where = f"{source.name}/{source.subfolder}".rstrip("/")
    other = f" or {' and '.join(needed)}" if needed else ""
    raise ModelFormatError(
        f"{where} lacks the vocabulary of its {type(tokenizer).__name__}: expected {whole}{other}. "
        "Fetch the missing file again."
    )


def cast(tensors: dict[str, torch.Tensor], dtype: Any, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights in the type asked for; "auto" or None means the type that the config names, else that of the file."""
    wanted = config.get("dtype") or config.get("torch_dtype") if dtype in (None, "auto") else dtype
    target = getattr(torch, wanted) if isinstance(wanted, str) else wanted
    return {key: tensor if target is None else tensor.to(target) for key, tensor in tensors.items()}


CHAT_FILES = ("chat_template.jinja", "chat_template.json")


@dataclass
class TokenizerFile:
    """A tokenizer.json and what tokenizer_config.json says of it, under the attribute names of transformers.

    Attributes:
        backend_tokenizer: the `tokenizers.Tokenizer`.
        model_max_length: most tokens per text.
    """

    backend_tokenizer: Any
    model_max_length: int
    padding_side: str
    truncation_side: str
    pad_token_id: int | None
    sep_token_id: int | None
    eos_token_id: int | None
    mask_token_id: int | None
    model_input_names: list[str]
    config: dict[str, Any]

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size()

    @classmethod
    def read(cls, source: Source) -> TokenizerFile | None:
        """The tokenizer of a folder; None where transformers would build it from more than its file."""
        from tokenizers import Tokenizer

        config, path = source.json("tokenizer_config.json"), source.path("tokenizer.json")
        if not isinstance(config, dict) or path is None or not says_everything(config, path):
            return None
        if config.get("chat_template") or any(source.path(name) for name in CHAT_FILES):
            return None
        with reading(path):
            tokenizer = Tokenizer.from_file(path)

        place = source.place("tokenizer_config.json")

        def token_id(key: str) -> int | None:
            token = config.get(key)
            text = token.get("content") if isinstance(token, dict) else token
            if not isinstance(text, str | None):
                raise ModelFormatError(f"{place}: {key} is {token!r:.80}; expected a token.")
            return None if text is None else tokenizer.token_to_id(text)

        check_settings(TOKENIZER_SHAPE, config, place)

        typed = str(config.get("tokenizer_class", "")).startswith("BertTokenizer")  # the generic class has no segments
        names = ["input_ids", "token_type_ids", "attention_mask"] if typed else ["input_ids", "attention_mask"]
        limit = config.get("model_max_length") or NO_LIMIT
        return cls(
            tokenizer,
            int(limit),
            config.get("padding_side", "right"),
            config.get("truncation_side", "right"),
            token_id("pad_token"),
            token_id("sep_token"),
            token_id("eos_token"),
            token_id("mask_token"),
            config.get("model_input_names") or names,
            config,
        )


def says_everything(config: dict[str, Any], path: str) -> bool:
    """Whether transformers would take the file as it is: a generic tokenizer, or BERT's with the same settings."""
    if config.get("added_tokens_decoder") and config.get("extra_special_tokens"):
        return False
    if config.get("split_special_tokens"):
        return False
    kind = str(config.get("tokenizer_class", "")).removesuffix("Fast")
    generic = kind == "TokenizersBackend" or config.get("tokenizer_class") == "PreTrainedTokenizerFast"
    further = any(config.get(key) for key in ("extra_special_tokens", "additional_special_tokens"))
    if further or not (generic or kind == "BertTokenizer"):
        return False
    if generic:
        return True
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    normalizer = content.get("normalizer") or {}
    expected = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
        "strip_accents": config.get("strip_accents"),
        "lowercase": config.get("do_lower_case", True),
    }
    words = content.get("model") or {}
    return (
        normalizer == expected
        and (content.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and words.get("type") == "WordPiece"
        and words.get("unk_token") == config.get("unk_token", "[UNK]")
        and words.get("max_input_chars_per_word", 100) == 100
        and content.get("post_processor") is not None
    )
