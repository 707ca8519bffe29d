"""The code of the page that this library was built from runs as it is written there.

All stories that take a moment are told by one process, the slow ones each by its own; every process is offline and has
nothing but the cache of `hub.fill`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sentence_transformers
from tests import models
from tests.seed import hub
from tests.seed.blocks import COMMANDS, FILLED, MENDED, STORIES, blocks, mended

ROOT = Path(__file__).resolve().parents[2]
QUICK = [name for name, story in STORIES.items() if not story.slow]
WIDTH = models.HIDDEN
SHAPES = {  # story -> shapes of what it computes
    "encode": {"embeddings": [2, WIDTH]},
    "similarity": {"emb1": [WIDTH], "sim": [1, 1]},
    "cross_encoder": {"scores": [2]},
    "binary": {"embs": [2, hub.WIDE], "binary_embs": [2, hub.WIDE // 8]},
    "scalar": {"cal_embs": [1000, hub.WIDE], "int8_embs": [1, hub.WIDE]},
    "speed": {"embeddings": [2, WIDTH]},
}
PRINTED = {  # story -> something it prints
    "similarity": "Similarity: ",
    "dataset": "['sentence1', 'sentence2', 'score']",
    "train": "train_loss",
    "train_sts": "train_loss",
    "cross_encoder": "Score: ",
    "cross_encoder_scores": "train_loss",
    "cross_encoder_classes": "train_loss",
    "cross_lingual": "train_loss",
    "binary": f"(2, {hub.WIDE}) (2, {hub.WIDE // 8})",
    "mteb": "STS22.v2: ",
    "mteb_filters": "NFCorpus: ",
    "mteb_benchmark": "TwentyNewsgroupsClustering.v2: ",
}


def missing(name: str) -> list[str]:
    """What a story needs that is not there yet."""
    return [need for need in STORIES[name].needs if need not in sentence_transformers.__all__]


@pytest.fixture(scope="module")
def tell(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Names of stories -> what came of each, told by a fresh process."""
    home = tmp_path_factory.mktemp("cache")
    hub.fill(home)

    def run(*names: str) -> dict[str, Any]:
        environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        command = [sys.executable, "-m", "tests.seed.run", *names]
        folder = tmp_path_factory.mktemp("reader")
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def quick(tell: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return tell(*(name for name in QUICK if not missing(name)))


def check(name: str, outcome: dict[str, Any]) -> None:
    """The story ran to its end and computed what the page says."""
    assert outcome["error"] is None, outcome["error"]
    for variable, shape in SHAPES.get(name, {}).items():
        assert outcome["shapes"][variable] == shape
    assert PRINTED.get(name, "") in outcome["printed"]


@pytest.mark.parametrize("name", QUICK)
def test_story(name: str, quick: dict[str, Any]) -> None:
    if missing(name):
        pytest.xfail(f"expected to land: {missing(name)}")
    check(name, quick[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STORIES if name not in QUICK])
def test_slow_story(name: str, tell: Callable[..., dict[str, Any]]) -> None:
    pytest.importorskip("mteb")
    check(name, tell(name)[name])


def test_every_block_is_in_a_story() -> None:
    """No block of the page is left out, and nothing on it is mended or filled that is not there."""
    told = {number for story in STORIES.values() for number in story.blocks}
    page = blocks()
    assert told | set(COMMANDS) == set(page)
    assert all(page[number].strip() == command for number, command in COMMANDS.items())
    whole = ["".join(page[number] for number in story.blocks) for story in STORIES.values()]
    for broken in MENDED | FILLED:
        assert any(broken in code for code in whole), broken
    for code in whole:
        compile(mended(code), "page", "exec")
