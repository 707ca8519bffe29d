"""Record `mteb.json`: MTEB scores of version 6.2.0 on `mteb_tasks.py`. Run with an interpreter that has it and mteb.

PYTHONPATH=. path/to/python tests/golden/record_mteb.py
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import mteb
from tests.golden.mteb_tasks import scores

if __name__ == "__main__":
    assert metadata.version("sentence-transformers") == "6.2.0", "record with version 6.2.0"
    found = {"mteb": mteb.__version__, "scores": scores()}
    Path(__file__).with_name("mteb.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
