"""The BERT family on CPU, without loading transformers: BERT, RoBERTa, XLM-R, CamemBERT, and all that share their
layers.

Most embedding models in use have these layers, so they get a forward pass of their own, over packed rows:

    x = LayerNorm(word[id] + position[p] + segment[0])                                                        (T, H)
    q, k, v = split(x · [Wq Wk Wv] + [bq bk bv])                             one product instead of three
    x = LayerNorm(x + attend(q, k, v) · Wo + bo)                             the sum is part of the product
    x = LayerNorm(x + gelu(x · Wi + bi) · Wd + bd)

Weights are laid out for oneDNN once. A fresh process reaches its first vector without importing transformers (which
takes longer than torch itself), and one short query costs little more than reading the weights. The layers themselves
are those of `bert_network`, which the transformers model takes over when it is asked for; `PackedBert` reads them
before and after, as long as they are what it knows. Training and other devices get the transformers model.

The model may carry a head (`backends.bert_cpu_heads`). A classifier sees only the first token of each text, so the last
layer computes only that one.

Vaswani et al. 2017 (packed_attention), Devlin et al. 2019 (BERT), Hendrycks & Gimpel 2016 (GELU, exact form).
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.backends import packed_attention
from sentence_transformers.backends.bert_cpu_heads import HEADS, classify, to_vocabulary
from sentence_transformers.backends.bert_network import FAMILY, Kind, Part, kinds, label_count
from sentence_transformers.backends.deferred_logits import VocabularyRows
from sentence_transformers.backends.extension_points import Survey, is_observed
from sentence_transformers.backends.linear import GELU_LOWEST, FloatProduct, Int8Product, Product
from sentence_transformers.backends.prepacked_linear import LayerForward, PackedForward, compute_dtype, may_be_packed
from sentence_transformers.backends.tasks import OFFSET_FAMILY
from sentence_transformers.backends.write_detection import Watch, address, can_be_watched, watch
from sentence_transformers.features import Group, Packing

WIDE_ROWS = 384  # rows that go through the wide layers at a time: the same speed, less memory (benchmarks/LOG.md)
SHORT, SEVERAL = range(5, 30), 8  # tokens and texts of a group that two products attend sooner than the kernel
FAINT = 1e-25  # the least sum of a row's weights: then what was rounded to nothing did not count
WORDS = "embeddings.word_embeddings.weight"  # read where it is
COPIED = re.compile(r"encoder\.layer\.\d+\.(attention\.self\.\w+\.(weight|bias)|.*dense\.weight)$")
COPIED_INT8 = re.compile(r"encoder\.layer\.\d+\.output\.dense\.bias$")
POOLER = re.compile(r"pooler(\.|$)")
ENCODER_NAME = re.compile(r"(embeddings|encoder|pooler)\.")
private: Any = torch._C
GELU_IN_PLACE = private._nn.gelu_  # what `torch.ops.aten.gelu_` finds by way of Python


@dataclass(frozen=True)
class BertShape:
    """The numbers of one architecture, from its config.json."""

    layers: int
    heads: int
    hidden: int
    epsilon: float
    position_offset: int

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> BertShape | str:
        """The shape of a config; what of it is not plain BERT with exact GELU, if anything is."""
        usual: dict[str, Any] = {"hidden_act": "gelu", "position_embedding_type": "absolute"}
        usual |= dict.fromkeys(("is_decoder", "add_cross_attention", "output_hidden_states", "quantization_config"))
        if (kind := str(config.get("model_type"))) not in FAMILY:
            return f"model_type is {kind!r}, not one of the BERT family ({', '.join(FAMILY)})"
        for key, value in usual.items():
            if (found := config.get(key, value)) != value and (value or found):
                return f"{key} is {found!r}"
        if "auto_map" in config:
            return "its code comes with the model"
        required = ("num_hidden_layers", "num_attention_heads", "hidden_size", "layer_norm_eps")
        for key in required:
            types = (int, float) if key == "layer_norm_eps" else (int,)
            number: Any = config.get(key)
            if type(number) not in types or number <= 0:
                return f"{key} is {number!r}"
        offset = (config.get("pad_token_id", 1) or 0) + 1 if config["model_type"] in OFFSET_FAMILY else 0
        layers, heads, hidden, epsilon = (config[key] for key in required)
        return cls(layers, heads, hidden, epsilon, offset)


class PackedBert:
    """The forward pass of a BERT-family network for packed batches without gradients on CPU.

    It reads the layers of the network wherever they are: in the freshly loaded one as well as in the transformers model
    that has taken them over. Before each use it sees that they are the same as when the weights were laid out, and what
    it knows how to compute; it leaves any other network to transformers.

    Args:
        root: the network, a `network.Part` or a transformers model.
        shape: the architecture.
        config: content of config.json.
        auto_class: "AutoModel", or the Auto class of a model with a head.
        int8: compute the products of the layers in int8; the parameters stay as they are.
    """

    def __init__(
        self,
        root: nn.Module,
        shape: BertShape,
        config: dict[str, Any],
        auto_class: str = "AutoModel",
        int8: bool = False,
    ) -> None:
        self.root, self.int8 = root, int8
        self.shape, self.config, self.auto_class = shape, config, auto_class
        self.prefix = "" if auto_class == "AutoModel" else FAMILY[config["model_type"]]
        self.head = HEADS[auto_class][config["model_type"]]
        self._laid_out: LaidOut | None = None
        self._is_known: bool | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_laid_out": None, "_is_known": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def obstacle(self) -> str | None:
        """Why this forward pass cannot be used now; None if it can: weights on CPU, of a type it computes in, nothing
        else asked for, nothing interfering.
        """
        words = self.table("word")
        if words is None:
            return "its word embeddings are elsewhere"
        if words.device.type != "cpu":
            return f"the model is on {words.device}"
        if compute_dtype(words.dtype) is None:
            return f"weights are {words.dtype}"
        if torch.compiler.is_compiling():
            return "it is being compiled"
        if torch.is_autocast_enabled("cpu"):
            return "autocast is on"
        if packed_attention.sdpa_was_replaced():
            return "the attention function 'sdpa' was replaced"
        if is_observed():
            return "a mode of PyTorch's is active, or a function of torch.nn.functional was replaced"
        if asks_for_more(self.root):
            return "attentions, hidden states or another attention function are asked for"
        return None

    def table(self, kind: str) -> Tensor | None:
        """The "word", "position" or "token_type" embeddings; None if they are elsewhere."""
        part: Any = self.root
        for name in (*self.prefix.split(".")[:-1], "embeddings", f"{kind}_embeddings"):
            part = part._modules.get(name)
            if part is None:
                return None
        return part._parameters.get("weight")

    @property
    def positions(self) -> int:
        """Number of positions."""
        table = self.table("position")
        return self.config["max_position_embeddings"] if table is None else len(table)

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        table = self.table("word")
        return self.config["vocab_size"] if table is None else len(table)

    @property
    def labels(self) -> int:
        """Number of scores per text; 0 without a classifier."""
        return label_count(self.config) if self.head.labels else 0

    def is_known(self) -> bool:
        """Whether the network was what is computed here when it was last looked at, to lay out its weights or now."""
        if self._is_known is None:
            self._is_known = self.read() is not None
        return self._is_known

    def layout(self, survey: Survey | None = None) -> Layout | None:
        """The weights in the order and layout of the forward pass, made anew if any has changed; None if the network is
        another, or changes of a weight could go unseen (`backends.write_detection`).

        Args:
            survey: of the model, if it was seen to hold in this call: then its parts need no second look.
        """
        kept = self._laid_out
        if kept is not None and kept.holds(survey):
            return kept.layout
        with self._lock:  # one copy, however many threads ask for it
            kept = self._laid_out
            if kept is None or not kept.holds(survey):
                self._laid_out = kept = None  # ends the watch over weights that are read again
                read = self.read()
                self._is_known = read is not None
                if read is None:
                    return None
                self._laid_out = kept = LaidOut.of(self, *read)
            return None if kept is None else kept.layout

    def read(self) -> tuple[dict[str, Place], list[Fact]] | None:
        """Where the weights are by their short names, and what has to stay as it is; None for a network of other parts
        than those that are computed here.
        """
        expected = kinds(self.config, self.auto_class)
        found = dict(self.root.named_modules(remove_duplicate=False))
        if not self.head.names:  # what is pooled by transformers is not used
            expected, found = ({k: v for k, v in all.items() if not POOLER.match(k)} for all in (expected, found))
        if found.keys() != expected.keys():
            return None
        places: dict[str, Place] = {}
        facts: list[Fact] = []
        for name, part in found.items():
            kind, short = expected[name], name.removeprefix(self.prefix)
            if not is_of_kind(part, kind):
                return None
            parent, _, last = name.rpartition(".")
            if name:
                facts.append((found[parent]._modules, last, part))
            watched = kind.settings if kind.type is Part else WATCHED.get(kind.type, ())
            facts += [(part.__dict__, key, part.__dict__.get(key)) for key in watched]
            if isinstance(part, nn.ModuleList):
                facts.append((part._modules, str(len(part)), None))
            places |= {f"{short}.{leaf}": (part._parameters, leaf) for leaf in part._parameters}
        needed = expected_names(self.shape.layers) | set(self.head.names)
        if not needed <= places.keys():
            return None
        for name, tied in self.tied.items():
            (parameters, leaf), (others, other) = places[name], places[tied]
            facts.append((parameters, leaf, others[other]))
        if any(place.get(key) is not value for place, key, value in facts):
            return None
        return {name: places[name] for name in needed}, facts

    @property
    def tied(self) -> dict[str, str]:
        """Parameters of the last product of a masked language model, which are other ones at the same time."""
        bias = self.head.names[-1] if self.head.names and not self.head.labels else None
        if bias is None:
            return {}
        decoder = bias.removesuffix("bias") + "decoder"
        return {f"{decoder}.weight": WORDS, f"{decoder}.bias": bias}


Place = tuple[dict[str, nn.Parameter | None], str]
Fact = tuple[dict[str, Any], str, Any]  # a dictionary, a key, and the object that is there
WATCHED: dict[type, tuple[str, ...]] = {  # attributes that change what a module computes
    nn.Linear: ("forward",),
    nn.LayerNorm: ("eps",),
    nn.Embedding: ("max_norm",),
    nn.GELU: ("approximate",),
}
DEFAULTS = {"max_norm": None, "approximate": "none"}


class LaidOut:
    """A layout, and what tells that it is still that of the network.

    Args:
        facts: what has to stay in its place, parameters included.
        copied: parameters of which the layout holds a copy.
        guards: the watches over them.
        shared: parameters whose memory the layout reads.
    """

    def __init__(
        self, layout: Layout, facts: list[Fact], copied: list[Tensor], guards: list[Watch], shared: list[Tensor]
    ) -> None:
        self.layout, self.guards = layout, guards
        surveyed = [isinstance(value, nn.Module) or value is None or key == "forward" for _, key, value in facts]
        self.parts = [fact for fact, is_surveyed in zip(facts, surveyed, strict=True) if is_surveyed]
        self.facts = [fact for fact, is_surveyed in zip(facts, surveyed, strict=True) if not is_surveyed]
        self.survey: weakref.ref[Survey] | None = None
        self.copied, self.weights = copied, copied + shared
        self.seen = self.look()

    @classmethod
    def of(cls, model: PackedBert, places: dict[str, Place], facts: list[Fact]) -> LaidOut | None:
        """A new one; None if a parameter would have to be watched and cannot be."""
        weights = {name: cast(nn.Parameter, parameters[leaf]) for name, (parameters, leaf) in places.items()}
        for part in model.root.modules():  # one copy is enough
            if isinstance(forward := vars(part).get("forward"), PackedForward):
                forward.drop()
        dtype = torch.float32 if model.int8 else compute_dtype(weights[WORDS].dtype) or torch.float32
        facts = [*facts, *((*places[name], weight) for name, weight in weights.items())]
        copied: list[Tensor] = []
        shared: list[Tensor] = []
        for name, weight in weights.items():
            is_copied = COPIED.match(name) or (model.int8 and COPIED_INT8.match(name)) or weight.dtype != dtype
            (copied if is_copied and name != WORDS else shared).append(weight)
        if not all(map(can_be_watched, copied)):
            return None
        layout = Layout(model, weights, dtype)
        guards = [guard for weight in copied if (guard := watch(weight)) is not None]
        return cls(layout, facts, copied, guards, shared) if len(guards) == len(copied) else None

    def holds(self, survey: Survey | None) -> bool:
        """Whether everything is in its place, and no weight was written to; parts of the network are looked at if they
        were not yet since the survey was made.
        """
        if survey is None or self.survey is None or self.survey() is not survey:
            if any(place.get(key) is not value for place, key, value in self.parts):
                return False
            self.survey = None if survey is None else weakref.ref(survey)
        return not any(place.get(key) is not value for place, key, value in self.facts) and self.look() == self.seen

    def look(self) -> tuple[list[Any], ...]:
        """What changes with a weight: where it lies, and how its numbers there are read."""
        return (
            list(map(address, self.weights)),
            [weight.dtype for weight in self.weights],
            [weight.stride() for weight in self.copied],
            [weight.shape for weight in self.copied],
        )


def asks_for_more(root: nn.Module) -> bool:
    """Whether the transformers config asks for what is not computed here: attentions, hidden states, an attention
    function of the caller's choice.
    """
    config: Any = vars(root).get("config")
    if config is None:
        return False
    functions = (None, packed_attention.NAME) if isinstance(root, Part) else (packed_attention.NAME,)
    asked = config.output_attentions or config.output_hidden_states
    return bool(asked) or config._attn_implementation not in functions


def is_of_kind(part: nn.Module, kind: Kind) -> bool:
    """Whether a module computes what one of this kind does, in evaluation mode."""
    own = vars(part)
    if kind.type is Part:
        known = type(part) is Part or type(part).__module__.startswith("transformers.models.")
        return known and all(own.get(name) == value for name, value in kind.settings.items())
    if type(part) is not kind.type:
        return kind.type is nn.Dropout and type(part) is nn.Identity
    forward = own.get("forward")
    if forward is not None and not (isinstance(forward, LayerForward) and forward.exact):
        return False
    computing = ("normalized_shape", "eps", "max_norm", "approximate")
    if any(own[name] != kind.settings.get(name, DEFAULTS.get(name)) for name in computing if name in own):
        return False
    rows = 1 if kind.type is nn.Embedding else 0  # a table may have been given further rows
    weights = part._parameters
    return all(
        type(weight := weights.get(leaf)) is nn.Parameter and weight.shape[rows:] == size[rows:]
        for leaf, size in kind.shapes.items()
    )


class Layer:
    """One transformer layer's weights, laid out.

    Args:
        product: the kind of its products.
        first_only: the layer is computed for the first token of each text alone, so the query is a product of its own.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
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

    def __init__(self, model: PackedBert, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        shape, self.dtype = model.shape, dtype
        self.shape, self.classifies = shape, model.head.labels is not None
        self.words = weights[WORDS]
        self.segments = weights["embeddings.token_type_embeddings.weight"].detach().to(self.dtype)
        self.places = weights["embeddings.position_embeddings.weight"].detach().to(self.dtype)
        scale, shift = (weights[f"embeddings.LayerNorm.{kind}"].detach().to(self.dtype) for kind in ("weight", "bias"))
        self.norm = scale, shift
        last = shape.layers - 1 if self.classifies else -1
        kind: type[Product] = Int8Product if model.int8 else FloatProduct
        self.layers = [Layer(weights, f"encoder.layer.{i}", self.dtype, kind, i == last) for i in range(shape.layers)]
        self.head = [weights[name].detach().to(self.dtype) for name in model.head.names]

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
            parts = x.split(WIDE_ROWS) if len(x) > WIDE_ROWS else (x,)
            parts = [self.widen(layer, rows) for rows in parts]
            x = torch.cat(parts) if len(parts) > 1 else parts[0]
        if not self.head:
            return x
        return classify(x, self.head) if self.classifies else to_vocabulary(x, self.head, self.words, epsilon)

    def widen(self, layer: Layer, x: Tensor) -> Tensor:
        """(t, H) -> (t, H): the feed-forward part of a layer."""
        hidden = GELU_IN_PLACE(layer.up(x))
        out = layer.down.plus(hidden, x)
        return F.layer_norm(out, (self.shape.hidden,), *layer.norm2, self.shape.epsilon)

    def attend(self, qkv: Tensor, packing: Packing) -> Tensor:
        """(T, 3 H) -> (T, H): attention within each sequence, group by group."""
        groups, size = packing.groups, self.shape.hidden
        if len(groups) == 1:
            return self.attend_group(qkv, groups[0], packing.visible[0]).reshape(len(qkv), size)
        out = qkv.new_empty(len(qkv), size)
        for group, visible in zip(groups, packing.visible, strict=True):
            if group.length:
                mixed = self.attend_group(qkv[group.start : group.stop], group, visible)
                out[group.start : group.stop].view(mixed.shape).copy_(mixed)
        return out

    def attend_group(self, qkv: Tensor, group: Group, visible: Tensor | None) -> Tensor:
        """(n l, 3 H) -> (n, l, heads, d): attention within each of n sequences of one length."""
        views = qkv.view(group.count, group.length, 3, self.shape.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = attend_short(views) if visible is None else None
        if mixed is None:
            mask = None if visible is None else visible[:, None, None, :]
            q, k, v = views.unbind()
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return mixed.transpose(1, 2)

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
    if config["num_hidden_layers"] > len(tensors):
        return None
    needed = expected_names(config["num_hidden_layers"]) | set(head.names)
    kept = {}
    for name, tensor in tensors.items():
        short = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name.removeprefix(prefix))
        short = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", short)
        if short in needed or short in optional:
            kept[short] = tensor
    if needed - kept.keys() or not may_be_packed(kept.values()):
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
