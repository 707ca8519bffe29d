"""The documentation is true: every ```python block of README.md and docs/*.md runs, offline, in the order of its page.

The blocks of one page share a namespace, as if a reader pasted one after the other. A ```text block right after a
```python block is what the latter prints; numbers may differ in the last digits. A block that cannot run here has
`<!-- not run: reason -->` on the line before it, and there are only a few of those.

So do the ```bash blocks that call `sentence-transformers` or write a file for it. The command runs in this process;
what stands before it in a pipe, and every other line, is the shell's.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?P<skip><!-- not run: [^\n]+ -->\n+)?^```(?P<language>python|bash)\n(?P<code>.*?)^```\n"
    r"(\n*```text\n(?P<shown>.*?)^```\n)?",
    re.M | re.S,
)
COMMAND = "sentence-transformers "
SHELL_LINE = re.compile(r"^.*<<'(\w+)'\n(?:.*\n)*?\1\n|^.+\n", re.M)  # a line, or one with the lines that follow `<<`
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
TOLERANCE = 2e-3
MOST_NOT_RUN = 8


class Block(NamedTuple):
    """One piece of code of a page, and what the page says that it prints."""

    line: int
    code: str
    shown: str | None
    skipped: bool
    language: str


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page that are run, in order."""
    text = page.read_text(encoding="utf-8")
    found = [
        Block(text.count("\n", 0, one.start("code")), one["code"], one["shown"], bool(one["skip"]), one["language"])
        for one in BLOCK.finditer(text)
    ]
    return [block for block in found if block.language == "python" or COMMAND in block.code or "<<'" in block.code]


def run_shell(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the lines of a shell block; our own command in this process, because a new one loads torch each time."""
    from sentence_transformers.cli import main

    for line in (found[0] for found in SHELL_LINE.finditer(code.replace("\\\n", " "))):
        before, piped, command = line.rpartition(" | ")
        if not command.startswith(COMMAND):
            subprocess.run(["bash", "-euc", line], check=True)
            continue
        given = subprocess.run(["bash", "-euc", before], check=True, capture_output=True).stdout if piped else b""
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(command.removeprefix(COMMAND), comments=True))
        assert not ended.value.code, f"{command.strip()} ended with {ended.value.code}"


def assert_printed(shown: str, printed: str, where: str) -> None:
    """The same words, and the same numbers up to TOLERANCE; white space does not count."""
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", shown).split(), f"{where} printed:\n{printed}"
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], abs=TOLERANCE), f"{where} printed:\n{printed}"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection to another machine fails."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != getattr(socket, "AF_UNIX", None):
            raise OSError(f"the documentation's code must run offline, but it connects to {address!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def usual_logging() -> Iterator[None]:
    """What a page sets on the library's logger does not outlive it."""
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None, usual_logging: None
) -> None:
    """Each block runs after those before it, and prints what the page says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.skipped:
            continue
        where, printed = f"{page.name}:{block.line}", io.StringIO()
        with contextlib.redirect_stdout(printed):
            if block.language == "bash":
                run_shell(block.code, monkeypatch)
            else:
                exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)
        if block.shown is not None:
            assert_printed(block.shown, printed.getvalue(), where)


def test_few_blocks_are_not_run() -> None:
    skipped = [f"{page.name}:{block.line}" for page in PAGES for block in blocks_of(page) if block.skipped]
    assert len(skipped) <= MOST_NOT_RUN, skipped


def test_every_python_block_is_found() -> None:
    """No block escapes by being indented or by another spelling of its language."""
    for page in PAGES:
        fences = re.findall(r"^[ \t>]*```+ *(?:python|py|pycon)\b", page.read_text(encoding="utf-8"), re.M)
        assert len(fences) == sum(block.language == "python" for block in blocks_of(page)), page.name


def test_links_lead_somewhere() -> None:
    """Relative links of the pages name files that exist (benchmarks/RESULTS.md is made by `make bench`)."""
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not target.endswith("benchmarks/RESULTS.md"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
