"""A model of the transformers library as a runner: on packed batches where a trial shows that it may, else on padded
ones.

A classification model is an encoder (`base_model` in transformers) and a head that picks or averages tokens of a padded
batch, so packing stops at the border between the two. Inside `use_boundary(...)` the model is called with the padded
batch; a hook before the encoder gives it the packed one instead, and a hook behind it pads what comes out:

    padded (B, L) -> [ packed (1, T) -> encoder -> (1, T, H) ] -> padded (B, L, H) -> head -> (B, labels)

Padding is memory here, hardly work. The pooler that some encoders carry is applied again, to the padded output. Whether
this is right for an architecture is proved once per loaded model, like packing itself (`backends.capabilities`).
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Self

from torch import Tensor, nn

from sentence_transformers.backends import deferred_logits, packed_attention
from sentence_transformers.backends.capabilities import PER_TEXT, lock
from sentence_transformers.backends.deferred_logits import DeferredLogits
from sentence_transformers.backends.prepacked_linear import prepack
from sentence_transformers.backends.runner import ModelRunner, RunOptions
from sentence_transformers.errors import InputError
from sentence_transformers.features import Features, Packing
from sentence_transformers.util.thread_value import ThreadValue

logger = logging.getLogger(__name__)

VOCABULARY_TASKS = ("fill-mask", "text-generation")
_packed_inputs: ThreadValue[dict[str, Any] | None] = ThreadValue(None)


class TorchRunner(ModelRunner):
    """Computes with a transformers model.

    Args:
        model: the transformers model, also one that is wrapped.
        name: folder or hub id, for messages.
        task: one of `TASKS`.
        may_pack: let it use our attention function; else it keeps its own, and batches are padded.
        pad_token_id: for a classifier whose config names none.
        before: the runner in whose place this one comes.

    Attributes:
        attention_before: name of the attention function that the model had; None if it does not let it be chosen.
    """

    def __init__(
        self,
        model: Any,
        name: str,
        task: str,
        may_pack: bool = True,
        pad_token_id: int | None = None,
        before: TorchRunner | None = None,
    ) -> None:
        super().__init__(model, name)
        self.task = task
        self.attention_before: str | None = None if before is None else before.attention_before
        if may_pack and model.config._attn_implementation != packed_attention.NAME:
            self.attention_before = packed_attention.install(model)
        prepack(model)
        if task in VOCABULARY_TASKS:
            deferred_logits.defer(model)
        if task == PER_TEXT:
            if getattr(model.config, "pad_token_id", None) is None:
                model.config.pad_token_id = pad_token_id
            if not install_boundary(model):
                self.attention_before = None
        self.arguments = argument_names(model)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.attention_before is not None:  # a worker process does not know it yet
            packed_attention.register()

    def of_replica(self, model: nn.Module | None) -> Self:
        """The runner of a copy of the model on another device, as `nn.DataParallel` makes it."""
        made = copy.copy(self)
        made.model = model
        return made

    @cached_property
    def position_offset(self) -> int:
        return packed_attention.position_offset(self.model)

    @cached_property
    def learned_positions(self) -> int | None:
        return packed_attention.learned_positions(self.model)

    @property
    def defers(self) -> bool:
        """Whether the model stops before its last product when it is told to."""
        return deferred_logits.is_deferring(self.model)

    def why_padded(self, transformer: Any) -> str | None:
        """Why the model does not run packed; None if it does. Tried out on first use.

        Args:
            transformer: the `modules.transformer.Transformer` that computes by this runner.
        """
        if self.attention_before is None:
            return "the architecture does not let its attention function be chosen"
        if transformer.model_forward_params is not None:
            return "model_forward_params is set"
        known = self.capabilities.known
        if known.get("packs") is None and not packed_attention.is_in_use(self.model):
            return "another attention function was set"
        with lock:
            asked_before = "packs" in known
            lack = self.capabilities.lack(transformer, "packs")
            if lack is not None and not asked_before and "packs" in known:
                self.model.set_attn_implementation(self.attention_before)
                logger.info("%s runs on padded batches.", self.architecture)
        return lack

    def run(self, features: dict[str, Any], options: RunOptions) -> Tensor | DeferredLogits:
        """(B, L, …) or, of a packed batch, (T, …); (B, labels) of a classifier. `all_layer_embeddings` is added to the
        features if the config asks for hidden states.
        """
        packing = features.get("packing")
        model: Any = self.model
        if packing is not None and self.task == PER_TEXT:
            return self.classify_packed(features, options)
        inputs = self.inputs(features, options.accepted) if packing is None else self.packed_inputs(features)
        if getattr(model.config, "use_cache", None):
            inputs["use_cache"] = False
        if "hidden_states" in options.output:
            inputs["output_hidden_states"] = True
        if "logits_to_keep" in features and "logits_to_keep" in self.arguments and not options.deferred_logits:
            inputs["logits_to_keep"] = features["logits_to_keep"]
        with packed_attention.use_packing(packing), deferred_logits.stopping(options.deferred_logits):
            outputs = self.call(inputs)
        value = self.output(outputs, options)
        if model.config.output_hidden_states and "hidden_states" in outputs:
            layers = outputs["hidden_states"]
            features["all_layer_embeddings"] = layers if packing is None else [layer[0] for layer in layers]
        value = value if packing is None else value[0]
        if not options.deferred_logits:
            return value
        decoder = model.get_output_embeddings()
        return DeferredLogits(value, decoder.weight, decoder.bias)

    def packed_inputs(self, features: dict[str, Any], arguments: set[str] | None = None) -> dict[str, Any]:
        """Arguments of a model for a packed batch: one run of (1, T)."""
        known = self.arguments if arguments is None else arguments
        names = [key for key in ("input_ids", "position_ids", "token_type_ids") if key in features]
        inputs = {key: features[key][None] for key in names if key in known or key == "input_ids"}
        return inputs | {"packing": features["packing"]}

    def classify_packed(self, features: dict[str, Any], options: RunOptions) -> Tensor:
        """Scores (B, labels): the encoder runs packed, its head on the padded output."""
        arguments = set(inspect.signature(self.model.base_model.forward).parameters)
        padded = Features.of(features).pad(options.padding_id)
        packed = self.packed_inputs(features, arguments)
        with packed_attention.use_packing(features["packing"]), use_boundary(packed):
            scores: Tensor = self.model(**self.inputs(padded, options.accepted)).logits
            return scores

    def call(self, inputs: dict[str, Any]) -> Any:
        """The model's outputs; it is said what to do where a classifier cannot find the last token of each text."""
        if self.task != PER_TEXT or self.config.pad_token_id is not None:
            return self.model(**inputs)
        try:
            return self.model(**inputs)
        except ValueError as error:
            raise InputError(
                f"{error} Neither the config nor the tokenizer of this classifier names a padding token, by which it "
                "finds the end of each text. Set model.tokenizer.pad_token and model.config.pad_token_id."
            ) from error


def argument_names(model: Any) -> set[str]:
    """Names of the arguments that a transformers model takes, also one that is wrapped."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of PEFT
    parts = (part for part in model.modules() if "input_ids" in inspect.signature(part.forward).parameters)
    wrapped = next(parts, model)  # by `torch.compile`, which names no arguments
    return {name for one in (model, inner, wrapped) for name in inspect.signature(one.forward).parameters}


def with_learned_prompt(features: dict[str, Any], length: int, padding_id: int) -> dict[str, Any]:
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


# ---- the border between the encoder of a classifier and its head


@contextlib.contextmanager
def use_boundary(inputs: dict[str, Any] | None) -> Iterator[None]:
    """Encoders of classifiers called inside this context get `inputs`: input_ids (1, T), …, packing."""
    with _packed_inputs.set_to(inputs):
        yield


def install_boundary(model: Any) -> bool:
    """Put the hooks around a classifier's encoder; False if it has none."""
    encoder = getattr(model, "base_model", model)
    if encoder is model:
        return False
    if give_packed not in encoder._forward_pre_hooks.values():
        encoder.register_forward_pre_hook(give_packed, with_kwargs=True)
        encoder.register_forward_hook(pad_output)
    return True


def give_packed(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Replace the padded batch by the packed one; other arguments stay."""
    packed = _packed_inputs.value
    if packed is None:
        return None
    others = {
        key: value for key, value in kwargs.items() if key not in ("input_ids", "attention_mask", "inputs_embeds")
    }
    return (), others | packed


def pad_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Pad the encoder's output; pool it again where the encoder has a pooler."""
    packed = _packed_inputs.value
    if packed is None:
        return None
    packing: Packing = packed["packing"]
    rows = packing.pad(output[0][0])
    pooler = pooler_of(module)
    if isinstance(output, tuple):
        return (rows, pooler(rows)) if pooler is not None else (rows,)
    changed = {key: value for key, value in output.items() if key not in ("last_hidden_state", "pooler_output")}
    changed["last_hidden_state"] = rows
    if pooler is not None:
        changed["pooler_output"] = pooler(rows)
    return type(output)(**changed)


def pooler_of(encoder: Any) -> Callable[[Tensor], Tensor] | None:
    """(B, L, H) -> (B, H) as the encoder does it; None if it does not pool."""
    pooler = getattr(encoder, "pooler", None)
    if isinstance(pooler, nn.Linear):  # ALBERT keeps the parts apart
        return lambda rows: encoder.pooler_activation(pooler(rows[:, 0]))
    return pooler
