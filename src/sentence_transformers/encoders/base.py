"""What all encoders share: a list of modules that is loaded, moved, called, saved and published as one model.

A model is an `nn.Sequential`: `model[0]` is the input module, iteration gives the modules, `forward(features)` runs
them. A subclass says what it is called in saved models, which card describes it, and adds its own last step; loading,
prompts, devices, worker processes and saving are here.
"""

from __future__ import annotations

import logging
from abc import ABC
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from sentence_transformers.backends.override_detection import extensions, own_preprocess
from sentence_transformers.encoders.peft import PeftAdapterMixin
from sentence_transformers.engine import workers
from sentence_transformers.engine.engine import EncodeRequest, run
from sentence_transformers.engine.inputs import is_conversation
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.modules.base import Module, arguments, kwargs_of, warn_tokenize
from sentence_transformers.modules.transformer import Transformer
from sentence_transformers.storage import folder, hub, resolve, saving
from sentence_transformers.storage.files import Source
from sentence_transformers.util.misc import save_to_hub_args_decorator
from sentence_transformers.util.tensor import module_device

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from sentence_transformers.engine.inputs import AnyInput
    from sentence_transformers.protocols import AnyProcessor, AnyTokenizer, Evaluator
    from sentence_transformers.storage.base_model_card import BaseModelCardData

logger = logging.getLogger(__name__)

MADE_BY_MODULES = ("token_embeddings", "sentence_embedding", "scores", "causal_logits")  # features
ALWAYS_ACCEPTED = {"task", "processing_kwargs"}


class class_property:  # used as `property` is
    """A class attribute that a method gives, so that what it imports is loaded when it is first asked for."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __get__(self, instance: object, owner: type) -> Any:
        return self.function(owner)


NOT_PICKLED = ("_batchers", "_survey")  # threads; what was found in the parts of this very object


class BaseModel(nn.Sequential, PeftAdapterMixin, ABC):
    """Common part of the encoders.

    Args:
        model_name_or_path: folder, hub id, short name or name of an installed model package (`storage.resolve`).
        modules: the modules themselves, in order, instead of a name.
        device: e.g. "cpu", "cuda:1"; default: the best that is there.
        prompts: name -> text put before inputs; saved with the model.
        default_prompt_name: prompt used when a call names none.
        cache_folder: another hub cache.
        trust_remote_code: whether code that comes with the model may run.
        revision: branch, tag or commit of a hub model.
        local_files_only: never ask the network.
        token: hub token.
        model_kwargs, processor_kwargs, config_kwargs: for the transformers model, its tokenizer and its config.
        model_card_data: what the model card says.
        backend: "torch", "onnx" or "openvino".

    Raises:
        ModelNotFoundError: if no place has the model; the message lists every place tried.
        ModelFormatError: if its folder is malformed, incomplete or unsafe.
        InputError: if both or neither of name and modules are given, or a prompt name is unknown.
    """

    default_huggingface_organization: ClassVar[str | None] = None
    model_type: ClassVar[str] = "BaseModel"
    default_prompts: ClassVar[dict[str, str]] = {}

    @class_property
    def model_card_data_class(cls) -> Any:
        from sentence_transformers.storage.base_model_card import BaseModelCardData

        return BaseModelCardData

    def __init__(
        self,
        model_name_or_path: str | None = None,
        *,
        modules: list[nn.Module] | OrderedDict[str, nn.Module] | None = None,
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
        model_card_data: BaseModelCardData | None = None,
        backend: Literal["torch", "onnx", "openvino"] = "torch",
    ) -> None:
        if isinstance(model_name_or_path, dict):  # what `model[:1]` comes to
            raise InputError(f"Modules are given by name: {type(self).__name__}(modules=list(model)[:1]).")
        if (modules is None) == (model_name_or_path is None or model_name_or_path == ""):
            raise InputError("Give either model_name_or_path or modules=[...].")
        if modules is not None and not modules:
            raise InputError("modules is empty; give at least one module, such as a Transformer.")
        self.module_kwargs: dict[str, list[str]] = {}
        config: dict[str, Any] = {}
        if modules is None:
            asked = Source(str(model_name_or_path), "", token, cache_folder, revision, local_files_only)
            source = resolve.resolve(asked, self.default_huggingface_organization)
            parts, kwargs, config = self._load(
                source,
                trust_remote_code=trust_remote_code,
                model_kwargs=model_kwargs,
                processor_kwargs=processor_kwargs,
                config_kwargs=config_kwargs,
                backend=backend,
            )
        else:
            parts = modules if isinstance(modules, dict) else {str(i): part for i, part in enumerate(modules)}
            kwargs = {}
        super().__init__(OrderedDict(parts))
        self.module_kwargs = kwargs
        self.backend = backend
        self.trust_remote_code = trust_remote_code
        self._model_config = config
        self.prompts = self.default_prompts | config.get("prompts", {})
        self.prompts |= {name: text for name, text in (prompts or {}).items() if text is not None}
        self.default_prompt_name = default_prompt_name or config.get("default_prompt_name")
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise InputError(
                f"default_prompt_name={self.default_prompt_name!r} is not among the prompts {sorted(self.prompts)}."
            )
        self._card: BaseModelCardData | None = model_card_data
        self.came_from = None if modules is not None else Path(source.name).absolute()
        self._made_from: tuple[str, str | None] | None = None
        if model_name_or_path and not Path(model_name_or_path).expanduser().exists():
            name = resolve.full_name(str(model_name_or_path), self.default_huggingface_organization)
            self._made_from = (name, revision)
        self._place(device)
        self.eval()
        for module in self:
            if isinstance(module, Module):
                module.on_model_ready(self)

    # ---- loading

    @classmethod
    def _load(cls, source: Source, **kwargs: Any) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, Any]]:
        """Modules by name, the encode arguments each takes, and the model's settings."""
        from sentence_transformers.util.environment import check_version_requirements

        config = folder.read_config(source)
        if config.get("requirements"):
            check_version_requirements(config["requirements"], source.name)
        if source.path(folder.MODULES_FILE) is None:
            folder.check_plain(source)
            logger.info("%s has no modules.json; building a model from its transformer.", source.name)
            return cls._modules_of_plain(source, **kwargs), {}, {}
        kind = config.get("model_type", "SentenceTransformer")
        if kind != cls.model_type:
            return cls._modules_of_other(kind, source, config, **kwargs)
        return *folder.load_modules(source, **kwargs), config

    @classmethod
    def _modules_of_other(
        cls, kind: str, source: Source, config: dict[str, Any], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, Any]]:
        """What `_load` gives for a folder that holds a model of another kind."""
        logger.warning("%s is a %s; a %s is made from its transformer.", source.name, kind, cls.model_type)
        return cls._modules_of_plain(source, **kwargs), {}, {}

    @classmethod
    def _modules_of_plain(cls, source: Source, **kwargs: Any) -> dict[str, Any]:
        """Modules for a transformers checkpoint without `modules.json`."""
        kwargs.setdefault("plain_task", "feature-extraction")
        return {"0": Transformer.from_source(source, **kwargs)}

    def _place(self, device: str | None) -> None:
        """Move to the device and bring all modules to the first one's type."""
        from sentence_transformers.util.environment import get_device_name

        first = next(self[0].parameters(), None)
        if first is not None and first.is_floating_point():
            for module in list(self)[1:]:
                module.to(first.dtype)
        if not self._is_dispatched():
            self.to(device or get_device_name())
            return
        for module in self:  # what takes its output follows it
            if not is_dispatched(module):
                module.to(self.device)

    def _is_dispatched(self) -> bool:
        """Whether accelerate has spread the model over several devices (`device_map`)."""
        return is_dispatched(self)

    # ---- what it is made of

    def _first_module(self) -> nn.Module:
        """The input module, `self[0]`."""
        return self[0]

    def _last_module(self) -> nn.Module:
        """The last module, `self[-1]`."""
        return self[-1]

    @property
    def _target_device(self) -> torch.device:
        """Older name of `device`. Setting it moves the model there."""
        logger.warning("_target_device is deprecated; use model.device.")
        return self.device

    @_target_device.setter
    def _target_device(self, device: str | torch.device | None) -> None:
        logger.warning("_target_device is deprecated; use model.to(device).")
        self.to(device)

    @property
    def _first(self) -> Any:
        """The input module; `Any`, because torch types every attribute of an `nn.Module` as a tensor or module."""
        return self[0]

    @property
    def model_card_data(self) -> BaseModelCardData:
        """What the model card says; may be replaced or changed."""
        if self._card is None:
            self._card = self.model_card_data_class()
        if self._card.model is not self:
            self._card.register_model(self)
            self._card.try_to_set_base_model()
        return self._card

    @model_card_data.setter
    def model_card_data(self, value: BaseModelCardData) -> None:
        self._card = value

    @property
    def device(self) -> torch.device:
        """Where the first tensor lies."""
        return module_device(self)

    @property
    def dtype(self) -> torch.dtype | None:
        """Type of the first weight; None without weights."""
        return next((p.dtype for p in self.parameters()), None)

    @property
    def modalities(self) -> list[str]:
        """Kinds of input, e.g. ["text"]."""
        return list(getattr(self[0], "modalities", ["text"]))

    def supports(self, modality: str | tuple[str, ...]) -> bool:
        """Whether the model takes inputs of this kind; of several kinds at once also if it takes messages of them."""
        kinds = self.modalities
        if isinstance(modality, str):
            return modality in kinds
        return modality in kinds or ("message" in kinds and all(part in kinds for part in modality))

    @property
    def tokenizer(self) -> Any:
        """Tokenizer of the first module."""
        return self[0].tokenizer

    @tokenizer.setter
    def tokenizer(self, value: AnyTokenizer) -> None:
        self._first.tokenizer = value

    @property
    def processor(self) -> Any:
        """Processor of the first module: a tokenizer, or what holds one."""
        return getattr(self[0], "processor", None) or self.tokenizer

    @processor.setter
    def processor(self, value: AnyProcessor) -> None:
        self._first.processor = value

    @property
    def max_seq_length(self) -> int | None:
        """Most tokens per text; longer texts are cut. May be set."""
        return getattr(self[0], "max_seq_length", None)

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self._first.max_seq_length = value

    def get_max_seq_length(self) -> int | None:
        """Older name of `max_seq_length`."""
        return self.max_seq_length

    @property
    def transformers_model(self) -> Any:
        """The first transformers model inside, or None."""
        transformer = self._transformer
        return None if transformer is None else transformer.auto_model

    @property
    def _transformer(self) -> Transformer | None:
        return next((module for module in self.modules() if isinstance(module, Transformer)), None)

    @property
    def config(self) -> Any:
        """Config of the transformers model, or None."""
        return getattr(self._transformer, "config", None)

    @config.setter
    def config(self, value: PretrainedConfig) -> None:
        if self.transformers_model is not None:
            self.transformers_model.config = value

    def get_backend(self) -> str:
        return self.backend

    def explain_runner(self) -> str:
        """How this model computes, and why not faster: a line for each transformer in it.

        What is not known yet is tried out: that may import transformers and run the model on three short sequences.

        Example:
            >>> SentenceTransformer("all-MiniLM-L6-v2").explain_runner()
            'BertModel by BertCpuRunner, without transformers, packed batches'
        """
        if (foreign := next(extensions(self), None)) is not None:
            return f"{type(self).__name__}: padded batches by preprocess and forward, in the caller's thread: {foreign}"
        transformers = [module for module in self.modules() if isinstance(module, Transformer)]
        return "\n".join(one.explain_runner() for one in transformers) or f"{type(self[0]).__name__}: no transformer"

    def get_model_kwargs(self) -> list[str]:
        """Names of the extra keyword arguments that `encode` passes on to modules."""
        names = {name for module in self for name in kwargs_of(module)}
        return sorted(names | {name for names in self.module_kwargs.values() for name in names})

    def _check_kwargs(self, kwargs: dict[str, Any]) -> None:
        if not kwargs:
            return
        accepted = ALWAYS_ACCEPTED | set(self.get_model_kwargs())
        if unknown := sorted(kwargs.keys() - accepted):
            raise InputError(
                f"{type(self).__name__} got unknown keyword arguments {unknown}; "
                f"this model's modules accept {sorted(accepted)}."
            )

    # ---- computing

    def forward(self, input: dict[str, Tensor], **kwargs) -> dict[str, Tensor]:
        """Run the modules in order; each is given those keyword arguments that it takes."""
        parts = list(self.named_children())
        for (name, module), (_, after) in zip(parts, [*parts[1:], ("", None)], strict=True):
            wanted = self.module_kwargs.get(name)
            given = kwargs if wanted is None else {key: value for key, value in kwargs.items() if key in wanted}
            try:
                given = given | ({"task": kwargs["task"]} if "task" in kwargs else {})
                input, given = arguments(module, input, given, after)
                input = module(input, **given)
            except KeyError as error:
                if not error.args or error.args[0] not in MADE_BY_MODULES:
                    raise
                raise ModelFormatError(
                    f"Module {name} of this model, a {type(module).__name__}, needs {error}, which none before it "
                    f"makes; it is given {sorted(input)}. In a model folder modules.json names the modules, and their "
                    "settings say what they make (module_output_name)."
                ) from error
        return input

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in NOT_PICKLED}

    def compute_rows(self, inputs: Sequence[Any], request: EncodeRequest) -> Any:
        """Rows of the inputs, in their order: what worker processes are asked for."""
        return run(self, inputs, request)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs) -> dict[str, Any]:
        """Inputs as a padded batch of features, as `forward` takes it."""
        if hasattr(self[0], "preprocess"):
            return self._first.preprocess(inputs, prompt=prompt, **kwargs)
        return self._first.tokenize([prompt + text for text in inputs] if prompt else list(inputs))

    def tokenize(self, texts: str | Sequence[AnyInput], **kwargs) -> dict[str, Any]:
        """Older name of `preprocess`."""
        warn_tokenize(self)
        return self.preprocess([texts] if isinstance(texts, str) else texts, **kwargs)

    def is_singular_input(self, inputs: object) -> bool:
        """Whether `inputs` is one input rather than several: a text, a conversation, or what has no parts."""
        several = (hasattr(inputs, "__iter__") or hasattr(inputs, "__getitem__")) and getattr(inputs, "ndim", 1) != 0
        return isinstance(inputs, (str, bytes, dict)) or is_conversation(inputs) or not several

    @property
    def _reads_texts(self) -> bool:
        """Whether inputs go to this library's own modules for texts and conversations, which say what they take."""
        first = self[0]
        routes = getattr(first, "routes", None)
        entries = [parts[0] for parts in routes.values()] if isinstance(routes, dict) else []
        return set(self.modalities) <= {"text", "message"} and all(map(own_preprocess, [self, first, *entries]))

    def compile(self, *args, **kwargs) -> None:
        """`torch.compile` the forward pass, as `encode` uses it too."""
        self._compiled_call_impl = torch.compile(self._call_impl, *args, **kwargs)

    def prompt_text(self, prompt: str | None, prompt_name: str | None) -> str | None:
        """The prompt of a call: `prompt`, else the one named, else the default.

        Raises:
            InputError: if there is no prompt of that name; lists those there are.
        """
        if prompt is not None:
            if prompt_name is not None:
                logger.warning(
                    "Both prompt and prompt_name are given; prompt is used, prompt_name=%r is not.", prompt_name
                )
            return prompt
        name = prompt_name if prompt_name is not None else self.default_prompt_name
        if name is None:
            return None
        if name not in self.prompts:
            raise InputError(f"Prompt name {name!r} is unknown; this model has the prompts {sorted(self.prompts)}.")
        return self.prompts[name]

    def evaluate(self, evaluator: Evaluator, output_path: str | None = None) -> dict[str, float] | float:
        """Run an evaluator on this model; results go to `output_path` if given."""
        if output_path is not None:
            Path(output_path).mkdir(parents=True, exist_ok=True)
        return evaluator(self, output_path)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict | None = None, **kwargs: Any
    ) -> None:
        """Trade computing for memory in training: layers are computed again in the backward pass. Arguments as for the
        method of a transformers model, whatever its version calls it.
        """
        model = self.transformers_model
        if model is not None:
            newer = getattr(model, "activation_checkpointing_enable", None)
            (newer or model.gradient_checkpointing_enable)(activation_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict | None = None, **kwargs: Any) -> None:
        """`activation_checkpointing_enable` under its older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)

    def clear_placement_cache(self) -> None:
        """Kept for compatibility; nothing is cached."""

    # ---- worker processes

    def start_multi_process_pool(self, target_devices: list[str] | None = None) -> workers.Pool:
        """Start one worker process per device for `encode(..., pool=pool)`.

        Args:
            target_devices: e.g. ["cuda:0", "cuda:1"] or ["cpu"] * 4; default: all CUDA (else NPU) devices, else four
                CPU workers. The model itself moves to the CPU, and back when the pool is stopped.
        """
        if self._is_dispatched():
            raise ValueError("A model that is spread over devices (device_map) cannot be copied to worker processes.")
        return workers.start(self, target_devices)

    @staticmethod
    def stop_multi_process_pool(pool: workers.Pool) -> None:
        """End the worker processes of a pool."""
        workers.stop(pool)

    # ---- disk and hub

    def get_saved_config(self) -> dict[str, Any]:
        """Content of `config_sentence_transformers.json`; subclasses add their settings."""
        from sentence_transformers import __version__

        versions = {
            "sentence_transformers": __version__.partition("+")[0],
            "transformers": metadata.version("transformers"),
            "pytorch": torch.__version__,
        }
        kept = {key: value for key, value in self._model_config.items() if key == "requirements"}
        return kept | {
            "__version__": versions,
            "model_type": self.model_type,
            "prompts": self.prompts,
            "default_prompt_name": self.default_prompt_name,
        }

    def save(
        self,
        path: str | None,
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: list[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write the model into the folder `path`. Files of other names that are there are kept; interrupted, it leaves
        the older model there or, where only files had yet to be moved, the new one (`storage.saving.atomic_folder`).

        Args:
            path: the folder; made if need be. None writes nothing.
            model_name: the hub id by which the code in the model card loads the model.
            create_model_card: whether README.md is written. The text of one that is there is kept, unless this library
                wrote it (`storage.readme`).
            train_datasets: hub ids of data sets named in the card.
            safe_serialization: safetensors (default) or `pytorch_model.bin`.
        """
        if path is None:
            return
        with saving.atomic_folder(path, self.came_from) as fresh:
            modules = dict(self.named_children())
            folder.write(fresh, modules, self.get_saved_config(), self.module_kwargs, safe_serialization)
            if create_model_card:
                from sentence_transformers.storage.readme import write_card

                write_card(self, fresh, Path(path), model_name, train_datasets)

    def save_pretrained(
        self,
        path: str,
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: list[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """`save`, which a subclass may override, with the same arguments."""
        self.save(
            path,
            model_name=model_name,
            create_model_card=create_model_card,
            train_datasets=train_datasets,
            safe_serialization=safe_serialization,
        )

    def push_to_hub(
        self,
        repo_id: str,
        token: str | None = None,
        private: bool | None = None,
        safe_serialization: bool = True,
        commit_message: str | None = None,
        local_model_path: str | None = None,
        exist_ok: bool = False,
        replace_model_card: bool = False,
        train_datasets: list[str] | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload the model, or the folder `local_model_path`, to the hub.

        Returns:
            Address of the commit, or of the pull request if `create_pr`.
        """
        return hub.push(
            self,
            hub.Upload(repo_id, token, private, commit_message, exist_ok, revision, create_pr, replace_model_card),
            local_model_path,
            safe_serialization,
            train_datasets,
        )

    @save_to_hub_args_decorator
    def save_to_hub(
        self,
        repo_id: str,
        organization: str | None = None,
        token: str | None = None,
        private: bool | None = None,
        safe_serialization: bool = True,
        commit_message: str = "Add new model.",
        local_model_path: str | None = None,
        exist_ok: bool = False,
        replace_model_card: bool = False,
        train_datasets: list[str] | None = None,
    ) -> str:
        """Older name of `push_to_hub`; `organization` goes before a `repo_id` without one.

        Raises:
            InputError: if `repo_id` names another organization.
        """
        logger.warning("save_to_hub is deprecated; use push_to_hub, with repo_id='owner/name'.")
        if organization:
            owner, _, name = repo_id.rpartition("/")
            if owner not in ("", organization):
                raise InputError(f"organization={organization!r}, but repo_id={repo_id!r}; give repo_id alone.")
            repo_id = f"{organization}/{name}"
        return self.push_to_hub(
            repo_id,
            token=token,
            private=private,
            safe_serialization=safe_serialization,
            commit_message=commit_message,
            local_model_path=local_model_path,
            exist_ok=exist_ok,
            replace_model_card=replace_model_card,
            train_datasets=train_datasets,
        )

    @classmethod
    def merge(
        cls,
        models: Sequence[str | Path | Self],
        method: str = "linear",
        *,
        base_model: str | Path | Self | None = None,
        parameters: dict[str, Any] | None = None,
        dtype: str | torch.dtype | None = torch.float32,
        out_dtype: str | torch.dtype | None = None,
        device: str | torch.device = "cpu",
        batch_options: object = None,
        **load_kwargs: Any,
    ) -> Self:
        """Merge several models of one architecture into one; see `encoders.merge.merge_models` for the arguments."""
        from sentence_transformers.encoders.merge import merge_models

        return merge_models(
            cls,
            models,
            method,
            base_model=base_model,
            parameters=parameters,
            dtype=dtype,
            out_dtype=out_dtype,
            device=device,
            batch_options=batch_options,
            **load_kwargs,
        )


def is_dispatched(module: nn.Module) -> bool:
    """Whether accelerate has spread a module, or one inside it, over several devices (`device_map`)."""
    return any(getattr(part, "hf_device_map", None) is not None for part in module.modules())


def dimension_of(modules: Iterable[Any]) -> int | None:
    """Size of the vectors that a list of modules ends in; None if no module reports one."""
    for module in reversed(list(modules)):
        for name in ("get_embedding_dimension", "get_sentence_embedding_dimension"):
            if hasattr(module, name):
                return getattr(module, name)()
    return None


def warn_untrained(source: Source, part: str) -> None:
    """Say that a model got a part with random weights."""
    logger.warning(
        "%s comes without %s, so it has random weights: train the model before you use it.", source.name, part
    )
