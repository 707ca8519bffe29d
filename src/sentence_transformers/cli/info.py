"""`info`: what a model is made of, how large it is and how fast."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentence_transformers.cli import options

if TYPE_CHECKING:
    from torch import nn

    from sentence_transformers.encoders.cross_encoder import CrossEncoder
    from sentence_transformers.encoders.embedding import EmbeddingModel

SENTENCE = "when they left harbour the weather was calm and nobody expected what this evening would bring to us"
WORDS = SENTENCE.split()
SECONDS_TO_MEASURE = 1.0


def info(
    model: options.ModelArgument,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure for a second how fast it is.")] = True,
    kind: options.KindOption = None,
    device: options.Device = None,
    backend: options.BackendOption = options.Backend.torch,
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """What a model is made of: modules, dimensions, size, prompts, speed.

    [bold]Example[/bold]: sentence-transformers info all-MiniLM-L6-v2
    """
    from sentence_transformers.cli.models import Loading, kind_of, load

    loading = Loading(device, backend, revision, offline, trust_remote_code)
    kind = kind or kind_of(model, loading)
    started = time.monotonic()
    loaded = load(model, loading, kind)
    facts = facts_of(loaded, model) | {"loaded in": f"{time.monotonic() - started:.1f} s"}
    if speed:
        facts["speed"] = measured(loaded)
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False, default=str))
    else:
        print_facts(facts)


def facts_of(model: CrossEncoder | EmbeddingModel, name: str) -> dict[str, Any]:
    """What can be told without running the model."""
    from sentence_transformers.encoders.cross_encoder import CrossEncoder

    parameters = list(model.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    size = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    facts: dict[str, Any] = {
        "model": name,
        "kind": type(model).__name__,
        "modules": {key: module_text(module) for key, module in model.named_children()},
        "architecture": getattr(model.config, "model_type", None),
        "parameters": f"{count:,} ({size / 2**20:,.0f} MiB in memory, {str(model.dtype).removeprefix('torch.')})",
        "longest text": None if model.max_seq_length is None else f"{model.max_seq_length:,} tokens",
        "backend": model.get_backend(),
        "computed by": model.explain_runner(),
        "device": str(model.device),
        "prompts": {key: text for key, text in model.prompts.items() if text},
        "default prompt": model.default_prompt_name,
    }
    if isinstance(model, CrossEncoder):
        facts |= {"labels": model.num_labels, "activation": type(model.activation_fn).__name__}
    else:
        facts |= {"dimension": model.get_embedding_dimension(), "similarity": model.similarity_fn_name}
    if Path(name).is_dir():
        files = [file for file in Path(name).rglob("*") if file.is_file()]
        facts["on disk"] = f"{sum(file.stat().st_size for file in files) / 2**20:,.1f} MiB in {len(files)} files"
    return {key: value for key, value in facts.items() if value not in (None, {})}


def module_text(module: nn.Module) -> str:
    """A module in one line."""
    lines = repr(module).splitlines()
    return lines[0] if len(lines) == 1 else type(module).__name__


def measured(model: CrossEncoder | EmbeddingModel) -> str:
    """Texts, or pairs, a second: different texts of about 30 words, for a second after a warm-up."""
    from sentence_transformers.encoders.cross_encoder import CrossEncoder

    pairs = isinstance(model, CrossEncoder)
    texts = [" ".join(WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(30)) + f" {i}" for i in range(4096)]
    items: list[Any] = list(zip(texts, reversed(texts), strict=True)) if pairs else texts
    compute = model.predict if isinstance(model, CrossEncoder) else model.encode
    compute(items[:8], show_progress_bar=False)
    done, size, started = 8, 16, time.monotonic()
    while done < len(items) and time.monotonic() - started < SECONDS_TO_MEASURE:
        compute(items[done : done + size], show_progress_bar=False)
        done, size = done + size, min(2 * size, 256)
    rate = min(done, len(items)) / (time.monotonic() - started)
    return f"about {rate:,.0f} {'pairs' if pairs else 'texts'} of 30 words a second on {model.device}"


def print_facts(facts: dict[str, Any]) -> None:
    """A table of two columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, show_header=False, pad_edge=False)
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in facts.items():
        text = "\n".join(f"{key}: {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)
        drawn.add_row(name, Text(text))
    Console().print(drawn)
