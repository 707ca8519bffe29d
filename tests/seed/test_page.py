"""The code of the page that this library was built from runs as it is written there.

All stories are told by one process, which is offline and has nothing but the cache of `hub.fill` and, for MTEB, the
rows of `mteb_data`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import models
from tests.seed import hub
from tests.seed.blocks import COMMANDS, FILLED, MENDED, STORIES, blocks, mended

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each story."""
    home = tmp_path_factory.mktemp("cache")
    hub.fill(home)
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [sys.executable, "-m", "tests.seed.run", *STORIES]
    folder = tmp_path_factory.mktemp("reader")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(name: str, outcome: dict[str, Any]) -> None:
    """The story ran to its end and computed what the page says."""
    assert outcome["error"] is None, outcome["error"]
    for variable, shape in SHAPES.get(name, {}).items():
        assert outcome["shapes"][variable] == shape
    assert PRINTED.get(name, "") in outcome["printed"]


@pytest.mark.parametrize("name", STORIES)
def test_story(name: str, told: dict[str, Any]) -> None:
    check(name, told[name])


def test_every_block_is_in_a_story() -> None:
    """No block of the page is left out, and nothing on it is mended or filled that is not there."""
    told = {number for numbers in STORIES.values() for number in numbers}
    page = blocks()
    assert told | set(COMMANDS) == set(page)
    assert all(page[number].strip() == command for number, command in COMMANDS.items())
    whole = ["".join(page[number] for number in numbers) for numbers in STORIES.values()]
    for broken in MENDED | FILLED:
        assert any(broken in code for code in whole), broken
    for code in whole:
        compile(mended(code), "page", "exec")
