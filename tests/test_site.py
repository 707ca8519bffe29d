"""The site is whole: it builds without a warning, no link inside it is broken, and a browser shows every page.

Slow, and skipped where mkdocs (`make docs` installs it) or Chromium is not there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from sentence_transformers import _names

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors.update(value for value in (given.get("id"), given.get("name")) if value)
        self.links += [value for value in (given.get("href"), given.get("src")) if value]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed; `make docs` installs it")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed; `make docs` installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_no_link_is_broken(site: Path) -> None:
    """Every relative link leads to a file of the site, and to an anchor in it where it names one."""
    pages = {file: Page(file) for file in site.rglob("*.html")}
    broken = []
    for file, page in pages.items():
        for link in page.links if file.name != "404.html" else []:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{file.relative_to(site)}: {link}")
    assert not broken, "\n".join(broken)
    assert len(pages) > 25


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for file in site.rglob("*.html"):
        for link in Page(file).links:
            assert not (urlsplit(link).netloc and link.endswith((".js", ".css", ".woff2"))), f"{file.name}: {link}"


def test_reference_has_every_public_name(site: Path) -> None:
    """Losses, evaluators and models that the package exports have a heading in the reference."""
    anchors = {anchor for file in (site / "reference").glob("*.html") for anchor in Page(file).anchors}
    for package in (
        "sentence_transformer.losses",
        "cross_encoder.losses",
        "evaluation",
        "sentence_transformer.modules",
    ):
        for name in _names.PACKAGES[package].split():
            path = f"{_names.ROOT}.{_names.place(name, package)}.{name}"
            assert path in anchors, path


def test_a_browser_shows_every_page(site: Path, tmp_path: Path) -> None:
    """Each page has its heading on the screen, and no script of it fails."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("Chromium is not installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--enable-logging=stderr"]
    for file in sorted(site.rglob("*.html")):
        done = subprocess.run(
            [browser, *flags, "--virtual-time-budget=2000", "--dump-dom", file.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "<h1" in done.stdout, f"{file.name} shows no heading"
        assert 'class="js' in done.stdout or "md-header" in done.stdout, f"{file.name} is not styled"
        failed = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "Uncaught" in line]
        assert not failed, f"{file.name}: {failed}"
