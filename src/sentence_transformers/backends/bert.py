"""The BERT family on CPU, without loading transformers: BERT, RoBERTa, XLM-R, CamemBERT, and all that share their
layers.

Most embedding models in use have these layers, so they get a forward pass of their own, over packed rows:

    x = LayerNorm(word[id] + position[p] + segment[0])                                                        (T, H)
    q, k, v = split(x · [Wq Wk Wv] + [bq bk bv])                             one product instead of three
    x = LayerNorm(x + attend(q, k, v) · Wo + bo)                             the sum is part of the product
    x = LayerNorm(x + gelu(x · Wi + bi) · Wd + bd)

Weights are laid out for oneDNN once. A fresh process reaches its first vector without importing transformers (which
takes longer than torch itself), and one short query costs little more than reading the weights. `BertEncoder` holds the
same parameters under the same names as the transformers model. Training, other devices, and anyone who asks for the
transformers model get that model, with these very parameters (`modules.transformer`).

The model may carry a head (`backends.bert_heads`). A classifier sees only the first token of each text, so the last
layer computes only that one.

Vaswani et al. 2017 (attention), Devlin et al. 2019 (BERT), Hendrycks & Gimpel 2016 (GELU, exact form).
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.backends.bert_heads import HEADS, ROBERTA, HeadNames, classify, to_vocabulary
from sentence_transformers.backends.prepacked import PACK_LIMIT_BYTES, compute_dtype
from sentence_transformers.backends.products import GELU_LOWEST, FloatProduct, Int8Product, Product
from sentence_transformers.backends.vocabulary import VocabularyRows
from sentence_transformers.backends.write_detection import Watch, address, watch
from sentence_transformers.inference.attention import sdpa_was_replaced
from sentence_transformers.inference.packing import Packing

FAMILY = {"bert": "bert.", "roberta": "roberta.", "xlm-roberta": "roberta.", "camembert": "roberta."}
OFFSET_FAMILY = set(ROBERTA)  # positions start at padding_idx + 1
WIDE_ROWS = 384  # rows that go through the wide layers at a time: the same speed, less memory (benchmarks/LOG.md)
SHORT, SEVERAL = range(5, 30), 8  # tokens and texts of a group that two products attend sooner than the kernel
FAINT = 1e-25  # the least sum of a row's weights: then what was rounded to nothing did not count
WORDS = "embeddings.word_embeddings.weight"  # read where it is
COPIED = re.compile(r"encoder\.layer\.\d+\.(attention\.self\.\w+\.(weight|bias)|.*dense\.weight)$")
COPIED_INT8 = re.compile(r"encoder\.layer\.\d+\.output\.dense\.bias$")
ENCODER_NAME = re.compile(r"(embeddings|encoder|pooler)\.")


@dataclass(frozen=True)
class BertShape:
    """The numbers of one architecture, from its config.json."""

    layers: int
    heads: int
    hidden: int
    epsilon: float
    position_offset: int

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> BertShape | None:
        """The shape of a config; None if it asks for anything that is not plain BERT with exact GELU."""
        unusual = (
            str(config.get("model_type")) not in FAMILY
            or config.get("hidden_act", "gelu") != "gelu"
            or config.get("position_embedding_type", "absolute") != "absolute"
            or config.get("is_decoder")
            or config.get("add_cross_attention")
            or config.get("output_hidden_states")
            or config.get("quantization_config")
            or "auto_map" in config
        )
        required = ("num_hidden_layers", "num_attention_heads", "hidden_size", "layer_norm_eps")
        if unusual or not all(key in config for key in required):
            return None
        if not all(type(config[key]) in ((int,) if key != "layer_norm_eps" else (int, float)) for key in required):
            return None
        if not all(config[key] > 0 for key in required):
            return None
        offset = (config.get("pad_token_id", 1) or 0) + 1 if config["model_type"] in OFFSET_FAMILY else 0
        layers, heads, hidden, epsilon = (config[key] for key in required)
        return cls(layers, heads, hidden, epsilon, offset)


class BertEncoder(nn.Module):
    """Parameters of a BERT-family model, and its forward pass for packed batches without gradients on CPU.

    Args:
        shape: the architecture.
        config: content of config.json.
        tensors: weights under the names of the transformers model, e.g. "encoder.layer.0.output.dense.weight", or
            "bert.encoder.…" in a model with a head.
        auto_class: "AutoModel", or the Auto class of a model with a head.
        int8: compute the products of the layers in int8; the parameters stay as they are.
    """

    def __init__(
        self,
        shape: BertShape,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        auto_class: str = "AutoModel",
        int8: bool = False,
    ) -> None:
        super().__init__()
        self.int8 = int8
        self.shape, self.config, self.auto_class = shape, config, auto_class
        self.prefix = "" if auto_class == "AutoModel" else FAMILY[config["model_type"]]
        for name, tensor in tensors.items():
            place: nn.Module = self
            *path, leaf = name.split(".")
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = cast(nn.Module, place._modules[part])
            place.register_parameter(leaf, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
        self._slots: list[tuple[dict[str, nn.Parameter | None], str, str]] | None = None
        self._laid_out: tuple[list[Check], Layout] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_laid_out": None, "_slots": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state | {"_lock": threading.Lock()})

    def __deepcopy__(self, memo: dict[int, Any]) -> BertEncoder:
        import copy

        clone = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        clone.__dict__ = copy.deepcopy(self.__getstate__(), memo)
        clone._lock = threading.Lock()
        return clone

    def __repr__(self) -> str:
        return f"BertEncoder({self.shape})"

    def fits_here(self) -> bool:
        """Whether this forward pass can be used now: weights on CPU, of a type it computes in, nothing else
        interfering.
        """
        parameters, leaf, _ = self._places()[0]
        first = parameters[leaf]
        return (
            first is not None
            and first.device.type == "cpu"
            and compute_dtype(first.dtype) is not None
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled("cpu")
            and not sdpa_was_replaced()
        )

    @property
    def positions(self) -> int:
        """Number of positions."""
        return self.get_parameter(f"{self.prefix}embeddings.position_embeddings.weight").shape[0]

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.get_parameter(f"{self.prefix}embeddings.word_embeddings.weight").shape[0]

    @property
    def labels(self) -> int:
        """Number of scores per text; 0 without a classifier."""
        name = HEADS[self.auto_class][self.config["model_type"]].labels
        return self.get_parameter(name).shape[0] if name else 0

    def _places(self) -> list[tuple[dict[str, nn.Parameter | None], str, str]]:
        """Where all parameters are kept: the module's dictionary, the name in it, and the full name."""
        if self._slots is None:
            self._slots = [
                (part._parameters, leaf, f"{path}.{leaf}".removeprefix(self.prefix))
                for path, part in self.named_modules()
                for leaf in part._parameters
            ]
        return self._slots

    def layout(self) -> Layout | None:
        """The weights in the order and layout of the forward pass, made anew if any has changed; None if changes of a
        weight could go unseen (`backends.write_detection`).
        """
        kept = self._laid_out
        if kept is not None and all(check.holds() for check in kept[0]):
            return kept[1]
        with self._lock:  # one copy, however many threads ask for it
            kept = self._laid_out
            if kept is None or not all(check.holds() for check in kept[0]):
                self._laid_out = kept = None  # ends the watch over weights that are read again
                weights: dict[str, Tensor] = {
                    name: parameter
                    for parameters, leaf, name in self._places()
                    if (parameter := parameters[leaf]) is not None
                }
                head = HEADS[self.auto_class][self.config["model_type"]]
                made = Layout(self.shape, weights, head, self.int8)
                checks = [Check.of(*place, made.dtype, self.int8) for place in self._places()]
                if all(check is not None for check in checks):
                    self._laid_out = kept = ([check for check in checks if check is not None], made)
            return None if kept is None else kept[1]


class Check(NamedTuple):
    """What tells that a weight is still the one that a layout was made with.

    Attributes:
        parameters, leaf: where it is kept.
        parameter: itself, as it was then.
        address, dtype: where its numbers lay, and their type.
        guard: watches over the numbers, if the layout holds a copy of them.
    """

    parameters: dict[str, nn.Parameter | None]
    leaf: str
    parameter: nn.Parameter
    address: int
    dtype: torch.dtype
    guard: Watch | None

    @classmethod
    def of(
        cls, parameters: dict[str, nn.Parameter | None], leaf: str, name: str, dtype: torch.dtype, int8: bool
    ) -> Check | None:
        """The check of one parameter; None if it would have to be watched and cannot be."""
        parameter = parameters[leaf]
        if parameter is None:
            return None
        copied = COPIED.match(name) or (int8 and COPIED_INT8.match(name)) or parameter.dtype != dtype
        guard = watch(parameter) if copied and name != WORDS else None
        if copied and name != WORDS and guard is None:
            return None
        return cls(parameters, leaf, parameter, address(parameter), parameter.dtype, guard)

    def holds(self) -> bool:
        parameter = self.parameter
        if self.parameters[self.leaf] is not parameter:
            return False
        if self.guard is not None:
            return self.guard.unchanged(parameter)
        return address(parameter) == self.address and parameter.dtype is self.dtype


class Layer:
    """One transformer layer's weights, laid out.

    Args:
        product: the kind of its products.
        first_only: the layer is computed for the first token of each text alone, so the query is a product of its own.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        prefix: str,
        dtype: torch.dtype,
        product: type[Product] = FloatProduct,
        first_only: bool = False,
    ) -> None:
        def get(name: str) -> Tensor:
            return weights[f"{prefix}.{name}"].detach().to(dtype)

        def together(kind: str) -> Tensor:
            parts = ("key", "value") if first_only else ("query", "key", "value")
            return torch.cat([get(f"attention.self.{part}.{kind}") for part in parts])

        def whole(name: str, lowest: float | None = None) -> Product:
            return product(get(f"{name}.weight"), get(f"{name}.bias"), lowest)

        self.first_only = first_only
        self.mix = product(together("weight"), together("bias"))
        if first_only:
            query = "attention.self.query"
            self.query = product(get(f"{query}.weight"), get(f"{query}.bias").clone())
        self.out, self.up = whole("attention.output.dense"), whole("intermediate.dense")
        self.down = whole("output.dense", GELU_LOWEST)
        self.norm1 = get("attention.output.LayerNorm.weight"), get("attention.output.LayerNorm.bias")
        self.norm2 = get("output.LayerNorm.weight"), get("output.LayerNorm.bias")


class Layout:
    """A model's weights in the layout of the forward pass, and the pass itself."""

    def __init__(self, shape: BertShape, weights: dict[str, Tensor], head: HeadNames, int8: bool = False) -> None:
        self.shape, self.classifies = shape, head.labels is not None
        first = weights["embeddings.word_embeddings.weight"]
        self.dtype = torch.float32 if int8 else compute_dtype(first.dtype) or torch.float32
        self.words = first
        self.segments = weights["embeddings.token_type_embeddings.weight"].detach().to(self.dtype)
        self.places = weights["embeddings.position_embeddings.weight"].detach().to(self.dtype)
        scale, shift = (weights[f"embeddings.LayerNorm.{kind}"].detach().to(self.dtype) for kind in ("weight", "bias"))
        self.norm = scale, shift
        last = shape.layers - 1 if self.classifies else -1
        kind: type[Product] = Int8Product if int8 else FloatProduct
        self.layers = [Layer(weights, f"encoder.layer.{i}", self.dtype, kind, i == last) for i in range(shape.layers)]
        self.head = [weights[name].detach().to(self.dtype) for name in head.names]

    def run(self, ids: Tensor, positions: Tensor, packing: Packing, types: Tensor | None) -> Tensor | VocabularyRows:
        """(T,) ids -> (T, H) or what the head makes of it, in the type that is computed in."""
        size, epsilon = (self.shape.hidden,), self.shape.epsilon
        x = F.embedding(ids, self.words).to(self.dtype)
        x = x + (self.segments[0] if types is None else F.embedding(types, self.segments))
        x = F.layer_norm(x + F.embedding(positions, self.places), size, *self.norm, epsilon)
        for layer in self.layers:
            mixed = layer.mix(x)
            if layer.first_only:
                x = x[packing.offsets[:-1]]
                mixed = self.attend_first(layer.query(x), mixed, packing)
            else:
                mixed = self.attend(mixed, packing)
            x = F.layer_norm(layer.out.plus(mixed, x), size, *layer.norm1, epsilon)
            del mixed
            x = torch.cat([self.widen(layer, rows) for rows in x.split(WIDE_ROWS)])
        if not self.head:
            return x
        return classify(x, self.head) if self.classifies else to_vocabulary(x, self.head, self.words, epsilon)

    def widen(self, layer: Layer, x: Tensor) -> Tensor:
        """(t, H) -> (t, H): the feed-forward part of a layer."""
        hidden = torch.ops.aten.gelu_(layer.up(x))
        out = layer.down.plus(hidden, x)
        return F.layer_norm(out, (self.shape.hidden,), *layer.norm2, self.shape.epsilon)

    def attend(self, qkv: Tensor, packing: Packing) -> Tensor:
        """(T, 3 H) -> (T, H): attention within each sequence, group by group."""
        heads = self.shape.heads
        out = qkv.new_empty(qkv.shape[0], self.shape.hidden)
        for (start, stop, count, length), visible in zip(packing.groups, packing.visible, strict=True):
            if not length:
                continue
            views = qkv[start:stop].view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
            mixed = attend_short(views) if visible is None else None
            if mixed is None:
                mask = None if visible is None else visible[:, None, None, :]
                q, k, v = views
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            out[start:stop].view(count, length, heads, -1).copy_(mixed.transpose(1, 2))
        return out

    def attend_first(self, query: Tensor, kv: Tensor, packing: Packing) -> Tensor:
        """(B, H) queries of the first tokens, (T, 2 H) -> (B, H)."""
        heads, done = self.shape.heads, 0
        out = torch.empty_like(query)
        for start, stop, count, length in packing.groups:
            k, v = kv[start:stop].view(count, length, 2, heads, -1).permute(2, 0, 3, 1, 4)
            q = query[done : done + count].view(count, heads, 1, -1)
            out[done : done + count] = F.scaled_dot_product_attention(q, k, v).flatten(1)
            done += count
        return out


def attend_short(qkv: Tensor) -> Tensor | None:
    """Attention of many short texts by two batched products: (3, n, heads, l, d) -> (n, heads, l, d).

    The kernel calls matrix products for each text and head; here all of them are two calls. Taken off before exp is the
    largest score of a text and head, not that of each row, as short rows are slow to search. A row that would vanish by
    that is left to the kernel, with its group.

    Returns:
        None where the kernel does better.
    """
    _, count, heads, length, width = qkv.shape
    if qkv.dtype != torch.float32 or length not in SHORT or count < SEVERAL:
        return None
    q, k, v = qkv.contiguous().view(3, count * heads, length, width)
    weights = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=width**-0.5)
    weights.sub_(weights.flatten(1).amax(1)[:, None, None]).exp_()
    sums = weights.sum(-1, keepdim=True)
    if float(sums.amin()) < FAINT:
        return None
    return torch.bmm(weights, v).div_(sums).view(count, heads, length, width)


def encoder_tensors(tensors: dict[str, Tensor], config: dict[str, Any], auto_class: str) -> dict[str, Tensor] | None:
    """The weights that a model of a class has, under its names; None if any that is needed is missing.

    Older files call LayerNorm's weights gamma and beta. A file may hold the encoder with or without the family's name
    in front, and the weights of other heads.
    """
    prefix = FAMILY[config["model_type"]]
    head = HEADS[auto_class][config["model_type"]]
    optional = ("pooler.dense.weight", "pooler.dense.bias") if auto_class == "AutoModel" else ()
    needed = expected_names(config["num_hidden_layers"]) | set(head.names)
    kept = {}
    for name, tensor in tensors.items():
        short = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name.removeprefix(prefix))
        short = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", short)
        if short in needed or short in optional:
            kept[short] = tensor
    if needed - kept.keys() or sum(t.numel() for t in kept.values()) * 4 > PACK_LIMIT_BYTES:
        return None
    if auto_class == "AutoModelForMaskedLM" and not is_tied(tensors, kept, config):
        return None
    front = "" if auto_class == "AutoModel" else prefix
    return {front + name if ENCODER_NAME.match(name) else name: tensor for name, tensor in kept.items()}


def is_tied(tensors: dict[str, Tensor], kept: dict[str, Tensor], config: dict[str, Any]) -> bool:
    """Whether the last product of a masked language model uses the word embeddings and the head's bias."""
    decoder = tensors.get("cls.predictions.decoder.weight", tensors.get("lm_head.decoder.weight"))
    bias = tensors.get("cls.predictions.decoder.bias", tensors.get("lm_head.decoder.bias"))
    own = kept.get("cls.predictions.bias", kept.get("lm_head.bias"))
    words = kept["embeddings.word_embeddings.weight"]
    return bool(config.get("tie_word_embeddings", True)) and all(
        found is None or (tied is not None and torch.equal(found, tied))
        for found, tied in ((decoder, words), (bias, own))
    )


def expected_names(layers: int) -> set[str]:
    """Names of all weights that the forward pass needs."""
    parts = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
    parts += ["attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"]
    names = {f"encoder.layer.{i}.{part}.{kind}" for i in range(layers) for part in parts for kind in ("weight", "bias")}
    tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    names |= {f"embeddings.{table}.weight" for table in tables}
    return names | {"embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"}
