"""A network of the BERT family on CPU, loaded without transformers, and when `BertCpuRunner` may compute it.

Most embedding models in use have these layers (BERT, RoBERTa, XLM-R, CamemBERT), so a fresh process reaches its first
vector without importing transformers, which takes longer than torch itself. The layers are those of `bert_layers`,
which the transformers model takes over when it is asked for; `BertNetwork` reads them before and after, as long as they
are what it knows. Training and other devices get the transformers model.
"""

from __future__ import annotations

import operator
import re
import threading
import weakref
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from sentence_transformers.backends import packed_attention
from sentence_transformers.backends.bert_cpu import WORDS, BertCpuRunner
from sentence_transformers.backends.bert_layers import FAMILY, HEADS, BertShape, Kind, Part, kinds, label_count
from sentence_transformers.backends.override_detection import Survey, is_observed
from sentence_transformers.backends.prepacked_linear import LayerForward, PackedForward, compute_dtype, may_be_packed
from sentence_transformers.backends.write_detection import Watch, can_be_watched, watch

COPIED = re.compile(r"encoder\.layer\.\d+\.(attention\.self\.\w+\.(weight|bias)|.*dense\.weight)$")
COPIED_INT8 = re.compile(r"encoder\.layer\.\d+\.output\.dense\.bias$")
POOLER = re.compile(r"pooler(\.|$)")
ENCODER_NAME = re.compile(r"(embeddings|encoder|pooler)\.")


class BertNetwork:
    """A BERT-family network, and the runner that computes packed batches of it without gradients on CPU.

    It reads the layers of the network wherever they are: in the freshly loaded one as well as in the transformers model
    that has taken them over. Before each use it sees that they are the same as when the weights were laid out, and what
    the runner knows how to compute; it leaves any other network to transformers.

    Args:
        model: the network, a `bert_layers.Part` or a transformers model.
        shape: the architecture.
        saved_config: content of config.json.
        auto_class: "AutoModel", or the Auto class of a model with a head.
        int8: compute the products of the layers in int8; the parameters stay as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: BertShape,
        saved_config: dict[str, Any],
        auto_class: str = "AutoModel",
        int8: bool = False,
    ) -> None:
        self.model, self.int8 = model, int8
        self.shape, self.saved_config, self.auto_class = shape, saved_config, auto_class
        self.prefix = "" if auto_class == "AutoModel" else FAMILY[saved_config["model_type"]]
        self.head = HEADS[auto_class][saved_config["model_type"]]
        self._prepared: Prepared | None = None
        self._is_known: bool | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_prepared": None, "_is_known": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    # ---- what is known of the network, as of a `runner.ModelRunner`

    @property
    def architecture(self) -> str:
        family = re.sub(r"(Model|For[A-Z]\w+)$", "", (self.saved_config.get("architectures") or ["BertModel"])[0])
        return family + (self.auto_class.removeprefix("AutoModel") or "Model")

    @property
    def hidden_size(self) -> int:
        return self.shape.hidden

    @property
    def vocabulary_size(self) -> int:
        table = self.table("word")
        return self.saved_config["vocab_size"] if table is None else len(table)

    vocabulary_rows = vocabulary_size

    @property
    def num_labels(self) -> int:
        return label_count(self.saved_config) if self.head.labels else 0

    @property
    def max_position_embeddings(self) -> int:
        table = self.table("position")
        return self.saved_config["max_position_embeddings"] if table is None else len(table)

    @property
    def position_offset(self) -> int:
        return self.shape.position_offset

    @property
    def learned_positions(self) -> int:
        return self.max_position_embeddings - self.position_offset

    def table(self, kind: str) -> Tensor | None:
        """The "word", "position" or "token_type" embeddings; None if they are elsewhere."""
        part: Any = self.model
        for name in (*self.prefix.split(".")[:-1], "embeddings", f"{kind}_embeddings"):
            part = part._modules.get(name)
            if part is None:
                return None
        return part._parameters.get("weight")

    # ---- the runner

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
        if asks_for_more(self.model):
            return "attentions, hidden states or another attention function are asked for"
        return None

    def is_known(self) -> bool:
        """Whether the network was what is computed here when it was last looked at, to lay out its weights or now."""
        if self._is_known is None:
            self._is_known = self.read() is not None
        return self._is_known

    def runner(self, survey: Survey | None = None) -> BertCpuRunner | None:
        """What computes the network, with weights that are laid out anew if any has changed; None if the network is
        another, or changes of a weight could go unseen (`backends.write_detection`).

        Args:
            survey: of the model, if it was seen to hold in this call: then its parts need no second look.
        """
        kept = self._prepared
        if kept is not None and kept.holds(survey):
            return kept.runner
        with self._lock:  # one copy, however many threads ask for it
            kept = self._prepared
            if kept is None or not kept.holds(survey):
                self._prepared = kept = None  # ends the watch over weights that are read again
                read = self.read()
                self._is_known = read is not None
                if read is None:
                    return None
                self._prepared = kept = self.prepare(*read)
            return None if kept is None else kept.runner

    def prepare(self, places: dict[str, Place], facts: list[Fact]) -> Prepared | None:
        """A new runner; None if a parameter would have to be watched and cannot be."""
        weights = {name: cast(nn.Parameter, parameters[leaf]) for name, (parameters, leaf) in places.items()}
        for part in self.model.modules():  # one copy is enough
            if isinstance(forward := vars(part).get("forward"), PackedForward):
                forward.drop()
        dtype = torch.float32 if self.int8 else compute_dtype(weights[WORDS].dtype) or torch.float32
        copied: list[Tensor] = []
        read: list[Tensor] = []
        for name, weight in weights.items():
            is_copied = COPIED.match(name) or (self.int8 and COPIED_INT8.match(name)) or weight.dtype != dtype
            (copied if is_copied and name != WORDS else read).append(weight)
        if not all(map(can_be_watched, copied)):
            return None
        runner = BertCpuRunner(self.shape, self.head, weights, dtype, self.int8)
        guard = watch(*copied, read=read)
        facts = [*facts, *((*places[name], weight) for name, weight in weights.items())]
        return None if guard is None else Prepared(runner, facts, guard)

    def read(self) -> tuple[dict[str, Place], list[Fact]] | None:
        """Where the weights are by their short names, and what has to stay as it is; None for a network of other parts
        than those that are computed here.
        """
        expected = kinds(self.saved_config, self.auto_class)
        found = dict(self.model.named_modules(remove_duplicate=False))
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


class Prepared:
    """A runner, and what tells that its weights are still those of the network.

    Args:
        facts: what has to stay in its place, parameters included.
        guard: the watch over the parameters.
    """

    def __init__(self, runner: BertCpuRunner, facts: list[Fact], guard: Watch) -> None:
        self.runner, self.guard = runner, guard
        surveyed = [isinstance(value, nn.Module) or value is None or key == "forward" for _, key, value in facts]
        self.parts = columns(fact for fact, is_surveyed in zip(facts, surveyed, strict=True) if is_surveyed)
        self.others = columns(fact for fact, is_surveyed in zip(facts, surveyed, strict=True) if not is_surveyed)
        self.survey: weakref.ref[Survey] | None = None

    def holds(self, survey: Survey | None) -> bool:
        """Whether everything is in its place, and no weight was written to; parts of the network are looked at if they
        were not yet since the survey was made.
        """
        if survey is None or self.survey is None or self.survey() is not survey:
            if not all_hold(*self.parts):
                return False
            self.survey = None if survey is None else weakref.ref(survey)
        return all_hold(*self.others) and self.guard.unchanged()


def columns(facts: Iterable[Fact]) -> tuple[list[Any], ...]:
    return tuple(map(list, zip(*facts, strict=True))) or ([], [], [])


def all_hold(places: list[dict[str, Any]], keys: list[str], values: list[Any]) -> bool:
    """Whether each place has its value under its key."""
    return all(map(operator.is_, map(dict.get, places, keys), values))


def asks_for_more(model: nn.Module) -> bool:
    """Whether the transformers config asks for what is not computed here: attentions, hidden states, an attention
    function of the caller's choice.
    """
    config: Any = vars(model).get("config")
    if config is None:
        return False
    functions = (None, packed_attention.NAME) if isinstance(model, Part) else (packed_attention.NAME,)
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
