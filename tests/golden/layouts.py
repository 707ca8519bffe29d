"""Small model folders in every layout that was ever saved, made by editing the folders in `tests/golden_formats`.

`LAYOUTS` maps a name to a function that writes one folder. The module knows nothing of this library, so that
`record_formats.py` can build the very same folders for version 6.2.0 and the tests can build them for this one.
Made-up weights are sine waves: the same numbers on every machine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).resolve().parent.parent / "golden_formats"
H = 16  # dimension of the golden transformers
OLD = "sentence_transformers.models"

TEXTS = [
    "",
    "yes",
    "no",
    "a b c",
    "Hello World",
    "HELLO world",
    "  leading",
    "trailing  ",
    " \t\n both \n",
    "   ",
    "emoji 😀🎉",
    "naïve café",
    "中文字",
    "a long text of many words, " * 12,
    "x" * 200,
    "!?.",
    "[MASK] in [SEP] text",
    "don't stop-me",
    "tab\tand\nnewline",
    "zero\u200bwidth",
]
PROMPT = "yes: "

LAYOUTS: dict[str, Callable[[Path], None]] = {}


def layout(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """Register a layout under its function's name."""
    LAYOUTS[function.__name__] = function
    return function


# ---- tools


def copy(folder: Path, kind: str) -> None:
    shutil.copytree(GOLDEN / kind, folder, dirs_exist_ok=True)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def update(path: Path, **changes: Any) -> None:
    """Change keys of a JSON object in a file; None removes a key."""
    content = read(path) | changes
    write(path, {key: value for key, value in content.items() if value is not None})


def modules(folder: Path, *entries: tuple[str, str]) -> None:
    """Write modules.json from (path, type) pairs."""
    names = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(entries)]
    write(folder / "modules.json", names)


def wave(*shape: int, step: float = 0.7) -> torch.Tensor:
    """float32 of the given shape: sin(step), sin(2·step), …"""
    values = np.sin(np.arange(1, 1 + int(np.prod(shape))) * step)
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def to_torch_file(folder: Path) -> None:
    """model.safetensors -> pytorch_model.bin"""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def weights(folder: Path, **tensors: torch.Tensor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name.replace("__", "."): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")


def old_transformer(folder: Path, **settings: Any) -> None:
    """A Transformer folder as it was before version 5.4: the length in sentence_bert_config.json."""
    write(folder / "sentence_bert_config.json", {"max_seq_length": 16, "do_lower_case": False} | settings)


def cased(folder: Path) -> None:
    """Let the tokenizer keep upper-case letters, which its vocabulary does not have."""
    content = read(folder / "tokenizer.json")
    content["normalizer"]["lowercase"] = False
    write(folder / "tokenizer.json", content)


def flags(**true: bool) -> dict[str, Any]:
    """An old Pooling config."""
    names = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    given = {f"pooling_mode_{name}": true.get(name, False) for name in names}
    return {"word_embedding_dimension": H} | given


# ---- today's folders, one per kind of model


for _kind in ("st", "st2", "static", "router", "ce", "splade", "csr", "mv"):
    LAYOUTS[f"out_{_kind}"] = lambda folder, kind=f"out_{_kind}": copy(folder, kind)


# ---- modules.json


@layout
def types_of_a_package(folder: Path) -> None:
    copy(folder, "out_st")
    modules(folder, ("", f"{OLD}.Transformer"), ("1_Pooling", f"{OLD}.Pooling"), ("2_Normalize", f"{OLD}.Normalize"))


@layout
def types_of_a_module(folder: Path) -> None:
    copy(folder, "out_st")
    modules(
        folder,
        ("", f"{OLD}.Transformer.Transformer"),
        ("1_Pooling", f"{OLD}.Pooling.Pooling"),
        ("2_Normalize", f"{OLD}.Normalize.Normalize"),
    )


@layout
def normalize_at_its_second_home(folder: Path) -> None:
    copy(folder, "out_st")
    entries = read(folder / "modules.json")
    entries[2]["type"] = "sentence_transformers.sentence_transformer.modules.normalize.Normalize"
    write(folder / "modules.json", entries)


@layout
def names_and_kwargs(folder: Path) -> None:
    copy(folder, "out_st")
    entries = read(folder / "modules.json")
    for entry, name in zip(entries, ("transformer", "pooling", "unit"), strict=True):
        entry |= {"name": name, "kwargs": ["task"] if name == "transformer" else []}
    write(folder / "modules.json", entries)


@layout
def without_normalize_folder(folder: Path) -> None:
    copy(folder, "out_st")
    shutil.rmtree(folder / "2_Normalize")


@layout
def empty_normalize_folder(folder: Path) -> None:
    copy(folder, "out_st")
    (folder / "2_Normalize" / "config.json").unlink()


# ---- config_sentence_transformers.json


@layout
def version_2(folder: Path) -> None:
    """What all-MiniLM-L6-v2 looked like: only versions among the settings, a pickle, no Normalize folder."""
    copy(folder, "out_st")
    write(folder / "config_sentence_transformers.json", {"__version__": {"sentence_transformers": "2.0.0"}})
    modules(folder, ("", f"{OLD}.Transformer"), ("1_Pooling", f"{OLD}.Pooling"), ("2_Normalize", f"{OLD}.Normalize"))
    shutil.rmtree(folder / "2_Normalize")
    write(folder / "1_Pooling" / "config.json", flags(mean_tokens=True))
    old_transformer(folder)
    to_torch_file(folder)


@layout
def version_1(folder: Path) -> None:
    """Before version 2: a 0_Transformer folder and no settings of the model."""
    copy(folder / "0_Transformer", "out_st")
    for name in ("config_sentence_transformers.json", "modules.json", "README.md"):
        (folder / "0_Transformer" / name).unlink()
    for name in ("1_Pooling", "2_Normalize"):
        shutil.rmtree(folder / "0_Transformer" / name)
    modules(folder, ("0_Transformer", f"{OLD}.Transformer"), ("1_Pooling", f"{OLD}.Pooling"))
    write(folder / "1_Pooling" / "config.json", flags(mean_tokens=True))
    old_transformer(folder / "0_Transformer")
    to_torch_file(folder / "0_Transformer")


@layout
def version_3(folder: Path) -> None:
    copy(folder, "out_st")
    write(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {"sentence_transformers": "3.0.0", "transformers": "4.41.0", "pytorch": "2.3.0"},
            "prompts": {"passage": "d: ", "query": "q: "},
            "default_prompt_name": None,
            "similarity_fn_name": None,
        },
    )


@layout
def newer_version(folder: Path) -> None:
    copy(folder, "out_st")
    update(folder / "config_sentence_transformers.json", __version__={"sentence_transformers": "99.0.0"})


@layout
def unsupported_similarity(folder: Path) -> None:
    copy(folder, "out_st")
    update(folder / "config_sentence_transformers.json", similarity_fn_name="maxsim")


@layout
def met_requirements(folder: Path) -> None:
    copy(folder, "out_st")
    wanted = {"transformers": ">=4", "python": {"specifier": ">=3.8", "reason": "words"}, "pytorch": ">=1"}
    update(folder / "config_sentence_transformers.json", requirements=wanted)


@layout
def unmet_requirements(folder: Path) -> None:
    copy(folder, "out_st")
    wanted = {"transformers": {"specifier": ">=99", "reason": "it needs the future"}}
    update(folder / "config_sentence_transformers.json", requirements=wanted)


@layout
def unreadable_requirements(folder: Path) -> None:
    copy(folder, "out_st")
    update(folder / "config_sentence_transformers.json", requirements={"transformers": "the newest"})


# ---- sentence_bert_config.json


@layout
def short_length(folder: Path) -> None:
    copy(folder, "out_st")
    old_transformer(folder, max_seq_length=8)


@layout
def no_length_anywhere(folder: Path) -> None:
    """Neither file nor tokenizer names a length: the positions decide."""
    copy(folder, "out_st")
    write(folder / "sentence_bert_config.json", {})
    update(folder / "tokenizer_config.json", model_max_length=None)


@layout
def no_settings_file(folder: Path) -> None:
    copy(folder, "out_st")
    (folder / "sentence_bert_config.json").unlink()


@layout
def length_null(folder: Path) -> None:
    copy(folder, "out_st")
    old_transformer(folder, max_seq_length=None)


@layout
def cased_tokenizer(folder: Path) -> None:
    copy(folder, "out_st")
    cased(folder)
    old_transformer(folder)


@layout
def lower_cased(folder: Path) -> None:
    copy(folder, "out_st")
    cased(folder)
    old_transformer(folder, do_lower_case=True)


@layout
def old_kwargs_names(folder: Path) -> None:
    copy(folder, "out_st")
    old_transformer(
        folder,
        model_args={"attn_implementation": "eager", "trust_remote_code": True},
        tokenizer_args={"model_max_length": 10},
        config_args={"num_hidden_layers": 1, "hidden_act": "relu"},
        max_seq_length=12,
    )


def _length(name: str, settings: dict[str, Any], tokenizer: int | None) -> None:
    def write_folder(folder: Path) -> None:
        copy(folder, "out_st")
        write(folder / "sentence_bert_config.json", settings)
        update(folder / "tokenizer_config.json", model_max_length=tokenizer)

    LAYOUTS[f"length_{name}"] = write_folder


# the golden transformer has 64 positions
_length("in_both", {"max_seq_length": 8, "tokenizer_args": {"model_max_length": 10}}, 64)
_length("above_the_tokenizers", {"max_seq_length": 20}, 10)
_length("of_the_tokenizer", {}, 10)
_length("of_the_positions", {}, 512)


@layout
def kwargs_names(folder: Path) -> None:
    copy(folder, "out_st")
    content = read(folder / "sentence_bert_config.json")
    content |= {"processor_kwargs": {"model_max_length": 10}, "config_kwargs": {"hidden_act": "relu"}}
    write(folder / "sentence_bert_config.json", content)


for _name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"):

    def _other_name(folder: Path, name: str = _name) -> None:
        copy(folder, "out_st")
        (folder / "sentence_bert_config.json").unlink()
        write(folder / f"sentence_{name}_config.json", {"max_seq_length": 9, "do_lower_case": False})

    LAYOUTS[f"settings_of_{_name}"] = _other_name


# ---- Pooling


def _pooling(name: str, config: dict[str, Any]) -> None:
    def write_folder(folder: Path) -> None:
        copy(folder, "out_st")
        write(folder / "1_Pooling" / "config.json", config)
        update(folder / "config_sentence_transformers.json", prompts={"query": "q: ", "document": "doc: "})

    LAYOUTS[f"pooling_{name}"] = write_folder


_pooling("no_flag", flags())
_pooling("cls", flags(cls_token=True))
_pooling("all_flags", flags(**{key[13:]: True for key in flags() if key.startswith("pooling_mode_")}))
_pooling("max_and_last", flags(max_tokens=True, lasttoken=True))
_pooling("few_flags", {"word_embedding_dimension": H, "pooling_mode_max_tokens": True})
_pooling("mode_beside_flags", flags(max_tokens=True) | {"pooling_mode": "cls"})
_pooling("list_in_own_order", {"embedding_dimension": H, "pooling_mode": ["max", "cls"], "include_prompt": True})
_pooling("without_prompt", flags(mean_tokens=True) | {"include_prompt": False})
_pooling(
    "all_without_prompt",
    {
        "embedding_dimension": H,
        "pooling_mode": ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"],
        "include_prompt": False,
    },
)


# ---- Dense and the older modules


def _dense(folder: Path, **settings: Any) -> None:
    copy(folder, "out_st")
    modules(folder, ("", f"{OLD}.Transformer"), ("1_Pooling", f"{OLD}.Pooling"), ("2_Dense", f"{OLD}.Dense"))
    shutil.rmtree(folder / "2_Normalize")
    config = {"in_features": H, "out_features": 5, "bias": True}
    write(folder / "2_Dense" / "config.json", config | settings)
    weights(folder / "2_Dense", linear__weight=wave(5, H), linear__bias=wave(5))


@layout
def dense_with_old_keys(folder: Path) -> None:
    _dense(folder, activation_function="torch.nn.modules.activation.ReLU")
    to_torch_file(folder / "2_Dense")


@layout
def dense_without_activation(folder: Path) -> None:
    _dense(folder)


@layout
def dense_with_unknown_keys(folder: Path) -> None:
    _dense(folder, activation_function="torch.nn.modules.linear.Identity", colour="green")


@layout
def dense_with_foreign_activation(folder: Path) -> None:
    _dense(folder, activation_function="somewhere.else.Activation")


@layout
def layer_norm_and_dropout(folder: Path) -> None:
    copy(folder, "out_st")
    modules(
        folder,
        ("", f"{OLD}.Transformer"),
        ("1_Pooling", f"{OLD}.Pooling"),
        ("2_LayerNorm", f"{OLD}.LayerNorm"),
        ("3_Dropout", f"{OLD}.Dropout.Dropout"),
    )
    write(folder / "2_LayerNorm" / "config.json", {"dimension": H})
    weights(folder / "2_LayerNorm", norm__weight=wave(H), norm__bias=wave(H, step=0.3))
    write(folder / "3_Dropout" / "config.json", {"dropout": 0.5})


@layout
def weighted_layer_pooling(folder: Path) -> None:
    copy(folder, "out_st")
    update(folder / "config.json", output_hidden_states=True)
    modules(
        folder,
        ("", f"{OLD}.Transformer"),
        ("1_WeightedLayerPooling", f"{OLD}.WeightedLayerPooling"),
        ("2_Pooling", f"{OLD}.Pooling"),
    )
    settings = {"word_embedding_dimension": H, "layer_start": 0, "num_hidden_layers": 1}
    write(folder / "1_WeightedLayerPooling" / "config.json", settings)
    weights(folder / "1_WeightedLayerPooling", layer_weights=torch.tensor([1.0, 3.0]))
    shutil.move(folder / "1_Pooling", folder / "2_Pooling")


def _words(folder: Path, kind: str) -> None:
    """WordEmbeddings in 0_WordEmbeddings, then one older module, then mean pooling."""
    vocabulary = ["PADDING_TOKEN", "hello", "world", "text", "long", "many", "words"]
    settings = {
        "tokenizer_class": f"{OLD}.tokenizer.WhitespaceTokenizer.WhitespaceTokenizer",
        "update_embeddings": False,
        "max_seq_length": 1000000,
    }
    write(folder / "0_WordEmbeddings" / "wordembedding_config.json", settings)
    words = {"vocab": vocabulary, "stop_words": ["the"], "do_lower_case": True}
    write(folder / "0_WordEmbeddings" / "whitespacetokenizer_config.json", words)
    table = wave(len(vocabulary), 4)
    table[0] = 0  # as `WordEmbeddings.from_text_file` makes it
    weights(folder / "0_WordEmbeddings", emb_layer__weight=table)
    modules(
        folder,
        ("0_WordEmbeddings", f"{OLD}.WordEmbeddings"),
        (f"1_{kind}", f"{OLD}.{kind}.{kind}"),
        ("2_Pooling", f"{OLD}.Pooling"),
    )
    write(folder / "2_Pooling" / "config.json", flags(mean_tokens=True) | {"word_embedding_dimension": 6})


@layout
def words_and_cnn(folder: Path) -> None:
    _words(folder, "CNN")
    settings = {"in_word_embedding_dimension": 4, "out_channels": 3, "kernel_sizes": [1, 3]}
    write(folder / "1_CNN" / "cnn_config.json", settings)
    tensors = {f"convs__{i}__{part}": wave(3, 4, k) if part == "weight" else wave(3)
               for i, k in enumerate((1, 3)) for part in ("weight", "bias")}  # fmt: skip
    weights(folder / "1_CNN", **tensors)


@layout
def words_and_lstm(folder: Path) -> None:
    _words(folder, "LSTM")
    settings = {"word_embedding_dimension": 4, "hidden_dim": 3, "num_layers": 1, "dropout": 0, "bidirectional": True}
    write(folder / "1_LSTM" / "lstm_config.json", settings)
    tensors = {}
    for end in ("", "_reverse"):
        tensors |= {f"encoder__weight_ih_l0{end}": wave(12, 4), f"encoder__weight_hh_l0{end}": wave(12, 3, step=0.4)}
        tensors |= {f"encoder__bias_ih_l0{end}": wave(12), f"encoder__bias_hh_l0{end}": wave(12, step=0.2)}
    weights(folder / "1_LSTM", **tensors)


@layout
def bag_of_words(folder: Path) -> None:
    modules(folder, ("0_BoW", f"{OLD}.BoW"))
    settings = {"vocab": ["hello", "world", "text"], "word_weights": {"world": 2.5}, "unknown_word_weight": 0.5}
    write(folder / "0_BoW" / "config.json", settings | {"cumulative_term_frequency": True})


# ---- StaticEmbedding


@layout
def static_of_old(folder: Path) -> None:
    copy(folder, "out_static")
    modules(folder, ("0_StaticEmbedding", f"{OLD}.StaticEmbedding"))
    (folder / "0_StaticEmbedding").mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        shutil.move(folder / name, folder / "0_StaticEmbedding" / name)
    to_torch_file(folder / "0_StaticEmbedding")


@layout
def static_of_model2vec(folder: Path) -> None:
    copy(folder, "out_static")
    weights(folder, embeddings=wave(91, 6))


@layout
def static_with_mapping(folder: Path) -> None:
    copy(folder, "out_static")
    weights(folder, embeddings=wave(10, 6), mapping=torch.arange(91) % 10, weights=wave(91, step=0.3).double())


# ---- Router


@layout
def asym(folder: Path) -> None:
    """Asym of version 2: its settings in config.json, folders of any name, one dense layer per key."""
    copy(folder, "out_st")
    shutil.rmtree(folder / "2_Normalize")
    modules(folder, ("", f"{OLD}.Transformer"), ("1_Pooling", f"{OLD}.Pooling"), ("2_Asym", f"{OLD}.Asym"))
    ids = {"query": "140227_Dense", "document": "140228_Dense"}
    config = {
        "types": dict.fromkeys(ids.values(), f"{OLD}.Dense"),
        "structure": {key: [name] for key, name in ids.items()},
        "parameters": {"allow_empty_key": True},
    }
    write(folder / "2_Asym" / "config.json", config)
    for step, name in enumerate(ids.values(), 1):
        dense = {"in_features": H, "out_features": 4, "bias": False}
        write(folder / "2_Asym" / name / "config.json", dense)
        weights(folder / "2_Asym" / name, linear__weight=wave(4, H, step=0.3 * step))


@layout
def router_with_two_ways(folder: Path) -> None:
    """A static table for queries, a transformer for documents, found by task."""
    copy(folder, "out_router")
    copy(folder / "query_0_StaticEmbedding", "out_static")
    shutil.move(folder / "query_0_Transformer", folder / "document_0_Transformer")
    shutil.move(folder / "1_Pooling", folder / "document_1_Pooling")
    config = {
        "types": {
            "query_0_StaticEmbedding": f"{OLD}.StaticEmbedding.StaticEmbedding",
            "document_0_Transformer": f"{OLD}.Transformer",
            "document_1_Pooling": f"{OLD}.Pooling",
        },
        "structure": {
            "query": ["query_0_StaticEmbedding"],
            "document": ["document_0_Transformer", "document_1_Pooling"],
        },
        "parameters": {
            "default_route": None,
            "allow_empty_key": True,
            "route_mappings": {"('search', 'text')": "query", "('other', None)": "document"},
        },
    }
    write(folder / "router_config.json", config)
    modules(folder, ("", f"{OLD}.Router"))


# ---- plain transformers checkpoints


def plain(folder: Path, kind: str = "out_st") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / kind / name, folder / name)


@layout
def plain_encoder(folder: Path) -> None:
    plain(folder)


@layout
def plain_encoder_as_pickle(folder: Path) -> None:
    plain(folder)
    to_torch_file(folder)


@layout
def plain_with_settings_beside(folder: Path) -> None:
    """Without modules.json the other settings files are not read."""
    plain(folder)
    write(folder / "sentence_bert_config.json", {"max_seq_length": 8, "do_lower_case": False})
    settings = {"prompts": {"query": "q: "}, "default_prompt_name": "query", "similarity_fn_name": "dot"}
    write(folder / "config_sentence_transformers.json", settings)


@layout
def plain_masked_language_model(folder: Path) -> None:
    plain(folder, "out_splade")


def byte_tokenizer(folder: Path) -> None:
    """One token per byte, so that every space and capital counts; <s> first, </s> last."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: i for i, name in enumerate(["<pad>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> <s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "model_max_length": 48}
    write(folder / "tokenizer_config.json", names | {"tokenizer_class": "PreTrainedTokenizerFast"})


def llama(folder: Path, **config: Any) -> None:
    """A plain checkpoint of a tiny causal language model."""
    import transformers

    settings = transformers.LlamaConfig(
        vocab_size=259, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(settings)
    with torch.no_grad():
        for i, tensor in enumerate(model.parameters()):
            tensor.copy_(wave(*tensor.shape, step=0.3 + 0.17 * i))
    model.save_pretrained(folder)
    update(folder / "config.json", **config)
    byte_tokenizer(folder)


@layout
def plain_causal(folder: Path) -> None:
    llama(folder)


@layout
def plain_causal_seen_whole(folder: Path) -> None:
    """is_causal false: a decoder that was turned into an encoder; mean pooling."""
    llama(folder, is_causal=False)


@layout
def plain_causal_left_padded(folder: Path) -> None:
    llama(folder)
    update(folder / "tokenizer_config.json", padding_side="left")
