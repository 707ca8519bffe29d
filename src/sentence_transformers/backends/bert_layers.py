"""The modules of a BERT-family model, before transformers is imported and after.

A freshly loaded model is made of real layers (`nn.Linear`, `nn.Embedding`, `nn.LayerNorm`, `nn.Dropout`), under the
names and in the order of the transformers model, inside of empty containers, `Part`. So `modules()`, `parameters()`,
`state_dict()`, `apply`, hooks, freezing and whatever replaces layers find what they would find there.

When the transformers model is asked for, `complete` makes it of these very modules: each `Part` gets the class and the
attributes of the container that transformers has in its place. A module that somebody holds, has hooked or wrote down
under its name is the one that computes, before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from sentence_transformers.backends.tasks import BERT, ROBERTA, TASKS, position_offset

FAMILY = {"bert": "bert.", "roberta": "roberta.", "xlm-roberta": "roberta.", "camembert": "roberta."}
HEAD_FIRST = ("xlm-roberta", "camembert")  # families whose models begin with their head
POOLER_SEED = 0


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
        layers, heads, hidden, epsilon = (config[key] for key in required)
        return cls(layers, heads, hidden, epsilon, position_offset(config))


class HeadNames(NamedTuple):
    """Names of a head's weights in the order of its formula; `labels` is the matrix with one row per label."""

    names: tuple[str, ...]
    labels: str | None = None


CLASSIFIER_BERT = HeadNames(
    ("pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"), "classifier.weight"
)
CLASSIFIER_ROBERTA = HeadNames(
    ("classifier.dense.weight", "classifier.dense.bias", "classifier.out_proj.weight", "classifier.out_proj.bias"),
    "classifier.out_proj.weight",
)
VOCABULARY_BERT = HeadNames(
    (
        *(f"cls.predictions.transform.{part}" for part in ("dense.weight", "dense.bias")),
        *(f"cls.predictions.transform.LayerNorm.{part}" for part in ("weight", "bias")),
        "cls.predictions.bias",
    )
)
VOCABULARY_ROBERTA = HeadNames(
    (
        *(f"lm_head.dense.{part}" for part in ("weight", "bias")),
        *(f"lm_head.layer_norm.{part}" for part in ("weight", "bias")),
        "lm_head.bias",
    )
)

# Auto class in transformers -> family -> names
HEADS: dict[str, dict[str, HeadNames]] = {
    TASKS["feature-extraction"].auto_class: {family: HeadNames(()) for family in BERT + ROBERTA},
    TASKS["sequence-classification"].auto_class: {
        **dict.fromkeys(BERT, CLASSIFIER_BERT),
        **dict.fromkeys(ROBERTA, CLASSIFIER_ROBERTA),
    },
    TASKS["fill-mask"].auto_class: {
        **dict.fromkeys(BERT, VOCABULARY_BERT),
        **dict.fromkeys(ROBERTA, VOCABULARY_ROBERTA),
    },
}


class Part(nn.Module):
    """Holds layers. What is computed with them is known to the transformers model (`complete`).

    Args:
        name: its full name in the model; "" for the model itself.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name_in_model = name


class Kind(NamedTuple):
    """What stands under a name: the class, and the attributes that tell one from another."""

    type: type[nn.Module]
    settings: dict[str, Any]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of its parameters by name."""
        if self.type is nn.Linear:
            width = self.settings["out_features"]
            return {"weight": (width, self.settings["in_features"]), "bias": (width,)}
        if self.type is nn.Embedding:
            return {"weight": (self.settings["num_embeddings"], self.settings["embedding_dim"])}
        if self.type is nn.LayerNorm:
            return dict.fromkeys(("weight", "bias"), self.settings["normalized_shape"])
        return {}


PART, LIST = Kind(Part, {}), Kind(nn.ModuleList, {})
TEMPLATES: dict[type[nn.Module], nn.Module] = {
    nn.Linear: nn.Linear(1, 1),
    nn.Embedding: nn.Embedding(1, 1),
    nn.LayerNorm: nn.LayerNorm(1),
    nn.Dropout: nn.Dropout(),
    nn.GELU: nn.GELU(),
    nn.Tanh: nn.Tanh(),
}


def kinds(config: dict[str, Any], auto_class: str) -> dict[str, Kind]:
    """Name of a module -> its kind, in the order of the transformers model that a config.json describes."""
    size, inner, epsilon = config["hidden_size"], config.get("intermediate_size", 0), config["layer_norm_eps"]
    chance, heads = config.get("hidden_dropout_prob", 0.1), config["num_attention_heads"]
    width = size // heads
    first_kind = config["model_type"] in BERT
    pad = config.get("pad_token_id", 0 if first_kind else 1)
    norm, dropout = Kind(nn.LayerNorm, {"normalized_shape": (size,), "eps": epsilon}), Kind(nn.Dropout, {"p": chance})
    square = linear(size, size)
    prefix = "" if auto_class == "AutoModel" else FAMILY[config["model_type"]]

    def table(rows: int, padding: int | None = None) -> Kind:
        return Kind(nn.Embedding, {"num_embeddings": rows, "embedding_dim": size, "padding_idx": padding})

    position = {"position_embeddings": table(config.get("max_position_embeddings", 512), None if first_kind else pad)}
    embeddings = {
        "word_embeddings": table(config.get("vocab_size", 0), pad),
        **(position if first_kind else {}),
        "token_type_embeddings": table(config.get("type_vocab_size", 2)),
        "LayerNorm": norm,
        "dropout": dropout,
        **({} if first_kind else position),
    }
    layer = {
        "attention": PART,
        "attention.self": Kind(
            Part, {"num_attention_heads": heads, "attention_head_size": width, "scaling": width**-0.5}
        ),
        **{f"attention.self.{name}": square for name in ("query", "key", "value")},
        "attention.self.dropout": Kind(nn.Dropout, {"p": config.get("attention_probs_dropout_prob", 0.1)}),
        "attention.output": PART,
        "attention.output.dense": square,
        "attention.output.LayerNorm": norm,
        "attention.output.dropout": dropout,
        "intermediate": PART,
        "intermediate.dense": linear(size, inner),
        "intermediate.intermediate_act_fn": Kind(nn.GELU, {}),
        "output": PART,
        "output.dense": linear(inner, size),
        "output.LayerNorm": norm,
        "output.dropout": dropout,
    }
    encoder = {"embeddings": PART, **{f"embeddings.{name}": kind for name, kind in embeddings.items()}}
    encoder |= {"encoder": PART, "encoder.layer": LIST}
    for i in range(config["num_hidden_layers"]):
        encoder |= {f"encoder.layer.{i}": PART, **{f"encoder.layer.{i}.{name}": kind for name, kind in layer.items()}}
    if auto_class == "AutoModel" or (first_kind and auto_class == "AutoModelForSequenceClassification"):
        encoder |= {"pooler": PART, "pooler.dense": square, "pooler.activation": Kind(nn.Tanh, {})}
    own = {prefix.rstrip("."): PART} if prefix else {}
    own |= {prefix + name: kind for name, kind in encoder.items()}
    top = head(config, auto_class, norm)
    return {"": PART} | (top | own if config["model_type"] in HEAD_FIRST else own | top)


def linear(inputs: int, outputs: int) -> Kind:
    return Kind(nn.Linear, {"in_features": inputs, "out_features": outputs})


def head(config: dict[str, Any], auto_class: str, norm: Kind) -> dict[str, Kind]:
    """The modules that follow the encoder."""
    size, first_kind = config["hidden_size"], config["model_type"] in BERT
    if auto_class == "AutoModelForMaskedLM":
        decoder = linear(size, config.get("vocab_size", 0))
        if not first_kind:
            parts = {"": PART, ".dense": linear(size, size), ".layer_norm": norm, ".decoder": decoder}
            return {f"lm_head{name}": kind for name, kind in parts.items()}
        transform = {"": PART, ".dense": linear(size, size), ".transform_act_fn": Kind(nn.GELU, {}), ".LayerNorm": norm}
        named = {f"cls.predictions.transform{name}": kind for name, kind in transform.items()}
        return {"cls": PART, "cls.predictions": PART, **named, "cls.predictions.decoder": decoder}
    if auto_class == "AutoModelForSequenceClassification":
        chance = config.get("classifier_dropout")
        dropout = Kind(nn.Dropout, {"p": config.get("hidden_dropout_prob", 0.1) if chance is None else chance})
        labels = linear(size, label_count(config))
        if first_kind:
            return {"dropout": dropout, "classifier": labels}
        parts = {"": PART, ".dense": linear(size, size), ".dropout": dropout, ".out_proj": labels}
        return {f"classifier{name}": kind for name, kind in parts.items()}
    return {}


def label_count(config: dict[str, Any]) -> int:
    return len(config.get("id2label") or range(config.get("num_labels", 2)))


def build(expected: dict[str, Kind], tensors: dict[str, Tensor], config: dict[str, Any]) -> Part | None:
    """The modules, with these weights; None if one of the weights has another shape than the config says.

    A pooler that the file lacks is new: random, and the same at each loading.
    """
    words = next(name for name in expected if name.endswith("embeddings.word_embeddings"))
    made: dict[str, nn.Module] = {}
    for name, kind in expected.items():
        parent, _, last = name.rpartition(".")
        if kind.type is Part:
            part: nn.Module = Part(name)
            vars(part).update(kind.settings)
        elif kind.type is nn.ModuleList:
            part = nn.ModuleList()
        else:
            part = layer(kind)
            for leaf, shape in kind.shapes.items() if last != "decoder" else ():
                tensor = tensors.get(f"{name}.{leaf}")
                if tensor is None:
                    tensor = fresh(leaf, shape, config).to(tensors[f"{words}.weight"].dtype)
                if tuple(tensor.shape) != shape:
                    return None
                part._parameters[leaf] = parameter(tensor)
        made[name] = part
        if name:
            made[parent]._modules[last] = part
        if (bias := tensors.get(f"{name}.bias")) is not None and kind is PART:
            part._parameters["bias"] = parameter(bias)
        if last == "position_embeddings":
            rows = torch.arange(kind.settings["num_embeddings"]).expand(1, -1)
            made[parent].register_buffer("position_ids", rows, persistent=False)
            made[parent].register_buffer("token_type_ids", torch.zeros_like(rows), persistent=False)
    for name, part in made.items():
        if name.endswith(".decoder"):
            bias = made[name.rpartition(".")[0]]._parameters["bias"]
            part._parameters.update(weight=made[words]._parameters["weight"], bias=bias)
    return cast(Part, made[""])


def layer(kind: Kind) -> nn.Module:
    """A layer without parameters. Its class's constructor would fill some with random numbers first."""
    template = TEMPLATES[kind.type]
    made = kind.type.__new__(kind.type)
    nn.Module.__init__(made)
    for key, value in vars(template).items():
        vars(made).setdefault(key, value)
    vars(made).update(kind.settings)
    for leaf in template._parameters:
        made._parameters[leaf] = None
    return made


def parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=tensor.is_floating_point())


def fresh(leaf: str, shape: tuple[int, ...], config: dict[str, Any]) -> Tensor:
    """What a new layer starts with: normal numbers, and zeros for its bias."""
    if leaf == "bias":
        return torch.zeros(shape)
    generator = torch.Generator().manual_seed(POOLER_SEED)
    return torch.empty(shape).normal_(0, config.get("initializer_range", 0.02), generator=generator)


# ---- the transformers model made of the same modules


def complete(root: Part, make: Callable[[], Any], config: Any) -> None:
    """Make a network a transformers model.

    That is done in a thread of its own, where no tracing, dispatch mode or autocast of the caller's holds.

    Args:
        make: makes a transformers model of this architecture, of which the weights are not used.
        config: its config.
    """
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(become, root, make, config).result()


def become(root: Part, make: Callable[[], Any], config: Any) -> None:
    with torch.device("meta"):
        pattern = make()
    copied = pattern.config
    for part in reversed(list(root.modules())):  # the root last: until then it is seen as incomplete
        if isinstance(part, Part):
            like = pattern.get_submodule(part.name_in_model)
            for key, value in vars(like).items():
                vars(part).setdefault(key, config if value is copied else value)
            part.__class__ = type(like)
