"""A command line that runs in this process, and small models on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

TEXTS = [
    "A cat sleeps on the sofa.",
    "Rates rise again.",
    "Dogs bark at night.",
    "It rains, and rains.",
    "A kitten naps.",
]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Run `sentence-transformers …` in a folder of its own."""
    from sentence_transformers.cli import main

    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("sentence_transformers")
    level = logger.level

    def run_command(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    yield run_command
    logger.setLevel(level)


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    """A file of texts."""
    file = tmp_path / "facts.txt"
    file.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def cross_folder(folder_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved cross-encoder."""
    from sentence_transformers import CrossEncoder

    folder = tmp_path_factory.mktemp("cross")
    CrossEncoder(str(folder_of("bert"))).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def late_folder(folder_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved late interaction model."""
    from sentence_transformers import MultiVectorEncoder

    folder = tmp_path_factory.mktemp("late")
    MultiVectorEncoder(str(folder_of("bert"))).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def sparse_folder(folder_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved sparse encoder: a masked language model with max pooling."""
    from transformers import AutoConfig, AutoModelForMaskedLM

    from sentence_transformers import SparseEncoder
    from sentence_transformers.modules.splade_pooling import SpladePooling
    from sentence_transformers.modules.transformer import Transformer

    plain, folder = tmp_path_factory.mktemp("mlm"), tmp_path_factory.mktemp("sparse")
    config = AutoConfig.from_pretrained(folder_of("bert"))
    AutoModelForMaskedLM.from_config(config).save_pretrained(plain)
    for file in folder_of("bert").glob("*token*"):
        (plain / file.name).write_bytes(file.read_bytes())
    transformer = Transformer.load(str(plain), plain_task="fill-mask")
    SparseEncoder(modules=[transformer, SpladePooling("max")]).save_pretrained(str(folder))
    return folder
