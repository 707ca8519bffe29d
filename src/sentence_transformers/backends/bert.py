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

Vaswani et al. 2017 (attention), Devlin et al. 2019 (BERT), Hendrycks & Gimpel 2016 (GELU, exact form).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.backends.prepacked import PACK_LIMIT_BYTES, ROWS_HINT, compute_dtype
from sentence_transformers.inference.packing import Packing

FAMILY = {"bert": "bert.", "roberta": "roberta.", "xlm-roberta": "roberta.", "camembert": "roberta."}
OFFSET_FAMILY = {"roberta", "xlm-roberta", "camembert"}  # positions start at padding_idx + 1


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
            config.get("model_type") not in FAMILY
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
        offset = (config.get("pad_token_id", 1) or 0) + 1 if config["model_type"] in OFFSET_FAMILY else 0
        layers, heads, hidden, epsilon = (config[key] for key in required)
        return cls(layers, heads, hidden, epsilon, offset)


class BertEncoder(nn.Module):
    """Parameters of a BERT-family model, and its forward pass for packed batches without gradients on CPU.

    Args:
        shape: the architecture.
        config: content of config.json.
        tensors: weights under the names of the transformers model, e.g. "encoder.layer.0.output.dense.weight".
    """

    def __init__(self, shape: BertShape, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        for name, tensor in tensors.items():
            place: nn.Module = self
            *path, leaf = name.split(".")
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = cast(nn.Module, place._modules[part])
            place.register_parameter(leaf, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
        self._slots: list[tuple[dict[str, Any], str]] | None = None
        self._laid_out: tuple[Any, Layout] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_laid_out": None, "_slots": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> BertEncoder:
        import copy

        clone = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        clone.__dict__ = copy.deepcopy(self.__getstate__(), memo)
        return clone

    def __repr__(self) -> str:
        return f"BertEncoder({self.shape})"

    def fits_here(self) -> bool:
        """Whether this forward pass can be used now: weights on CPU, of a type it computes in, nothing else
        interfering.
        """
        first = self._current()[0]
        return (
            first.device.type == "cpu"
            and compute_dtype(first.dtype) is not None
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled("cpu")
        )

    def forward(self, ids: Tensor, positions: Tensor, packing: Packing, types: Tensor | None = None) -> Tensor:
        """(T,) int64 token ids, positions and segments (None: all 0) -> (T, H)."""
        return self.layout().run(ids, positions, packing, types).to(self._current()[0].dtype)

    def _current(self) -> list[nn.Parameter]:
        """All parameters as they are now; quicker than `parameters()`, which walks the modules at every call."""
        if self._slots is None:
            self._slots = [(part._parameters, name) for part in self.modules() for name in part._parameters]
        return [parameters[name] for parameters, name in self._slots]

    def layout(self) -> Layout:
        """The weights in the order and layout of the forward pass, made anew if any has changed."""
        state = [(p.data_ptr(), p._version, p.dtype) for p in self._current()]
        kept = self._laid_out
        if kept is None or kept[0] != state:
            kept = self._laid_out = (state, Layout(self.shape, dict(self.named_parameters())))
        return kept[1]


class Layer:
    """One transformer layer's weights, laid out."""

    def __init__(self, weights: dict[str, Tensor], prefix: str, dtype: torch.dtype) -> None:
        def get(name: str) -> Tensor:
            return weights[f"{prefix}.{name}"].detach().to(dtype)

        def together(kind: str) -> Tensor:
            return torch.cat([get(f"attention.self.{part}.{kind}") for part in ("query", "key", "value")])

        def packed(weight: Tensor) -> Tensor:
            return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_HINT)

        self.qkv, self.qkv_bias = packed(together("weight")), together("bias")
        self.out, self.out_bias = packed(get("attention.output.dense.weight")), get("attention.output.dense.bias")
        self.up, self.up_bias = packed(get("intermediate.dense.weight")), get("intermediate.dense.bias")
        self.down, self.down_bias = packed(get("output.dense.weight")), get("output.dense.bias")
        self.norm1 = get("attention.output.LayerNorm.weight"), get("attention.output.LayerNorm.bias")
        self.norm2 = get("output.LayerNorm.weight"), get("output.LayerNorm.bias")


class Layout:
    """A model's weights in the layout of the forward pass, and the pass itself."""

    def __init__(self, shape: BertShape, weights: dict[str, Tensor]) -> None:
        self.shape = shape
        first = weights["embeddings.word_embeddings.weight"]
        self.dtype = compute_dtype(first.dtype) or torch.float32
        self.words = first
        self.segments = weights["embeddings.token_type_embeddings.weight"].detach().to(self.dtype)
        self.places = weights["embeddings.position_embeddings.weight"].detach().to(self.dtype)
        scale, shift = (weights[f"embeddings.LayerNorm.{kind}"].detach().to(self.dtype) for kind in ("weight", "bias"))
        self.norm = scale, shift
        self.layers = [Layer(weights, f"encoder.layer.{i}", self.dtype) for i in range(shape.layers)]

    def run(self, ids: Tensor, positions: Tensor, packing: Packing, types: Tensor | None) -> Tensor:
        """(T,) ids -> (T, H), in the type that is computed in."""
        gelu_ = torch.ops.aten.gelu_
        linear, size, epsilon = torch.ops.mkldnn._linear_pointwise, (self.shape.hidden,), self.shape.epsilon
        x = F.embedding(ids, self.words).to(self.dtype)
        x = x + (self.segments[0] if types is None else F.embedding(types, self.segments))
        x = F.layer_norm(x + F.embedding(positions, self.places), size, *self.norm, epsilon)
        for layer in self.layers:
            mixed = self.attend(linear(x, layer.qkv, layer.qkv_bias, "none", [], ""), packing)
            x = F.layer_norm(linear.binary(mixed, x, layer.out, layer.out_bias, "add"), size, *layer.norm1, epsilon)
            hidden = gelu_(linear(x, layer.up, layer.up_bias, "none", [], ""))
            x = F.layer_norm(linear.binary(hidden, x, layer.down, layer.down_bias, "add"), size, *layer.norm2, epsilon)
        return x

    def attend(self, qkv: Tensor, packing: Packing) -> Tensor:
        """(T, 3 H) -> (T, H): attention within each sequence, group by group."""
        heads = self.shape.heads
        out = qkv.new_empty(qkv.shape[0], self.shape.hidden)
        for start, stop, count, length in packing.groups:
            if not length:
                continue
            q, k, v = qkv[start:stop].view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v)
            out[start:stop].view(count, length, heads, -1).copy_(mixed.transpose(1, 2))
        return out


def encoder_tensors(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor] | None:
    """A checkpoint's weights under today's names, without heads; None if any that is needed is missing.

    Older files call LayerNorm's weights gamma and beta, and put the family's name in front.
    """
    prefix = FAMILY[config["model_type"]]
    named = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(prefix)
        short = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", short))
        if re.match(r"(embeddings|encoder|pooler)\.", short) and not short.endswith(("position_ids", "token_type_ids")):
            named[short] = tensor
    needed = expected_names(config["num_hidden_layers"])
    kept = {name: named[name] for name in named if name in needed or name.startswith("pooler.")}
    if needed - kept.keys() or sum(t.numel() for t in kept.values()) * 4 > PACK_LIMIT_BYTES:
        return None
    return kept


def expected_names(layers: int) -> set[str]:
    """Names of all weights that the forward pass needs."""
    parts = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
    parts += ["attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"]
    names = {f"encoder.layer.{i}.{part}.{kind}" for i in range(layers) for part in parts for kind in ("weight", "bias")}
    tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    names |= {f"embeddings.{table}.weight" for table in tables}
    return names | {"embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"}
