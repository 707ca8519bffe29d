"""Pictures: what is drawn is what was given, and nothing that a text says can break out of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from sentence_transformers import SentenceTransformer
from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.plots import (
    COLOURS,
    MOST_CELLS,
    draw_map,
    draw_table,
    groups,
    plot_embeddings,
    plot_similarity,
    plot_training,
    project,
)

NASTY = "<script>alert(\"1\")</script> & 'more' for $5, \\frac{1}$"
ROWS = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32) * np.linspace(3, 0.1, 12, dtype=np.float32)


def elements(path: Path, tag: str) -> list[ElementTree.Element]:
    """The elements of an SVG file, which is thereby well-formed."""
    return list(ElementTree.fromstring(path.read_text(encoding="utf-8")).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def with_tooltip(path: Path, tag: str) -> dict[str, ElementTree.Element]:
    """Those that say something under the pointer, by what they say, in their order."""
    return {one[0].text or "": one for one in elements(path, tag) if len(one)}


def words(path: Path) -> list[str]:
    """What is written in an SVG file, without regard to spaces."""
    return [" ".join("".join(one.itertext()).split()) for one in elements(path, "text")]


def test_pca_is_the_eigenvectors_of_the_covariance() -> None:
    points, note = project(ROWS)
    values, vectors = np.linalg.eigh(np.cov(ROWS.T))
    expected = (ROWS - ROWS.mean(0)) @ vectors[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-4)
    shares = values[::-1][:2] / values.sum()
    assert note == f"principal components: {shares[0]:.0%} and {shares[1]:.0%} of the variance"
    np.testing.assert_array_equal(points, project(ROWS)[0])


@pytest.mark.parametrize("shape", [(2, 1), (2, 5), (5, 1)])
def test_pca_of_little(shape: tuple[int, int]) -> None:
    points, _ = project(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()


def test_tsne_keeps_groups_together() -> None:
    pytest.importorskip("sklearn")
    centres = np.eye(3, 8) * 20
    groups = np.repeat(np.arange(3), 10)
    points, _ = project(centres[groups] + 0.1 * np.random.default_rng(1).normal(size=(30, 8)), "tsne")
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(30) * 1e9
    assert (groups[distances.argmin(1)] == groups).all()


def test_map_as_svg(tmp_path: Path) -> None:
    """A mark for each point, in the colour of its label, with its text, where the projection says."""
    labels = ["a", "b", "a", "a"] * 10
    points = plot_embeddings(ROWS, tmp_path / "m.svg", labels, [f"{i} {NASTY}" for i in range(40)], title=NASTY)
    by_text = with_tooltip(tmp_path / "m.svg", "use")
    found = [by_text[f"{label}: {i} {NASTY}"] for i, label in enumerate(labels)]
    assert len(by_text) == len(found)
    for one, label in zip(found, labels, strict=True):
        assert f"fill: {COLOURS['ab'.index(label)]};" in one.get("style", "")
    for column, name, sign in ((0, "x", 1), (1, "y", -1)):  # down is positive in SVG
        drawn = [float(one.get(name, "nan")) for one in found]
        assert sign * np.corrcoef(drawn, points[:, column])[0, 1] > 0.9999
    assert words(tmp_path / "m.svg") == [project(ROWS)[1], "a (30)", "b (10)", NASTY]
    assert not elements(tmp_path / "m.svg", "script")


def test_map_as_page_and_png(tmp_path: Path) -> None:
    plot_embeddings(ROWS, tmp_path / "m.html", texts=[NASTY] * 40)
    page = (tmp_path / "m.html").read_text()
    assert "<script" not in page and page.count("<title>") == 41
    assert "http" not in page.replace('"http://www.w3.org/2000/svg"', "").replace('"http://www.w3.org/1999/xlink"', "")
    plot_embeddings(ROWS, tmp_path / "m.png", labels=["x"] * 40)
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("labels", [["x"] * 40, ["x", "y"] * 20, None])
def test_points_of_a_map(labels: list[str] | None) -> None:
    figure = Figure()
    tooltips = draw_map(figure, ROWS[:, :2], labels, None, "a note")
    (axes,) = figure.axes
    for (label, colour, members), line in zip(groups(labels or [""] * 40), axes.lines, strict=True):
        np.testing.assert_array_equal(np.stack(line.get_data(), 1), ROWS[members, :2])
        assert line.get_color() == colour
        assert tooltips.get(line.get_gid()) == (None if labels is None else [label] * len(members))
    assert axes.get_xlabel() == "a note" and (axes.get_legend() is None) == (labels is None)


def test_labels_beyond_the_colours_are_others() -> None:
    found = groups([str(min(i, 12)) for i in range(30)])
    assert len(found) == len(COLOURS)
    assert found[0][0] == "12"
    assert found[-1][0] == "6 others"
    assert sorted(i for _, _, places in found for i in places) == list(range(30))


def test_heat_map(tmp_path: Path) -> None:
    matrix = np.array([[1.0, 0.25], [0.25, 1.0]])
    plot_similarity(matrix, tmp_path / "h.svg", names := ["one", NASTY])
    cells = with_tooltip(tmp_path / "h.svg", "path")
    assert list(cells) == [f"{names[i]} | {names[j]}: {matrix[i, j]:.4f}" for i in range(2) for j in range(2)]
    filled = [one.get("style", "") for one in cells.values()]
    assert filled[0] == filled[3] and filled[0].startswith("fill: #0b4f8a;")
    shown = [NASTY[: width - 1] + "…" for width in (30, 40)]
    assert words(tmp_path / "h.svg") == ["one", shown[0], "one", shown[1], "1.00", "0.25", "0.25", "1.00"]
    plot_similarity(matrix[:1], tmp_path / "h.png", ["one"], ["a", "b"])
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (500, 500), (MOST_CELLS, 1)])
def test_any_table_fits_on_a_picture(shape: tuple[int, int]) -> None:
    """Beginning with the first row, at the top; names that have no room are left out."""
    figure = Figure()
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    rows, columns = (list(map(str, range(count))) for count in shape)
    assert len(draw_table(figure, values, rows, columns)["cells"]) == values.size
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.collections[0].get_array(), values)
    assert axes.yaxis_inverted() and max(figure.get_size_inches()) < 65
    assert len(figure.axes) == 1 + (shape[1] > 16)  # a scale where cells have no numbers
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert ticks[0].get_text() == "0" and len(ticks) <= 500


def test_training_curve_of_a_run(tmp_path: Path) -> None:
    history = [{"step": 5 * i, "loss": 1 / i, "epoch": 0.1} for i in (1, 2, 3)]
    history += [{"step": 10, "eval_sts_spearman_cosine": 0.5, "eval_runtime": 9.0}, {"step": 15, "eval_loss": 2.0}]
    for step, state in (
        (10, {"global_step": 10, "log_history": []}),
        (15, {"global_step": 15, "log_history": history}),
    ):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    plot_training(tmp_path, tmp_path / "c.svg")
    dots = list(with_tooltip(tmp_path / "c.svg", "use"))
    assert dots == ["Training Loss 5: 1", "Training Loss 10: 0.5", "Training Loss 15: 0.3333", "eval_loss 15: 2",
                    "sts_spearman_cosine 10: 0.5"]  # fmt: skip
    assert {"Loss", "Metrics", "step", "Training Loss", "sts_spearman_cosine"} <= set(words(tmp_path / "c.svg"))
    plot_training(tmp_path, tmp_path / "c.png", metrics=["sts_spearman_cosine"])
    with pytest.raises(InputError, match="no metric 'other'"):
        plot_training(tmp_path, tmp_path / "c.svg", metrics=["other"])


def trained(bert_folder: Path) -> SentenceTransformer:
    model = SentenceTransformer(str(bert_folder))
    for step in (10, 20):
        model.model_card_data.add_log(0.1, step, {"Training Loss": 1 / step})
    return model


def test_model_card_shows_the_curve(tmp_path: Path, bert_folder: Path) -> None:
    model = SentenceTransformer(str(bert_folder))
    model.save_pretrained(str(tmp_path / "before"))
    assert not (tmp_path / "before" / "training_curve.svg").exists()
    trained(bert_folder).save_pretrained(str(tmp_path / "after"))
    assert "(training_curve.svg)" in (tmp_path / "after" / "README.md").read_text()
    dots = with_tooltip(tmp_path / "after" / "training_curve.svg", "use")
    assert list(dots) == ["Training Loss 10: 0.1", "Training Loss 20: 0.05"]
    SentenceTransformer(str(tmp_path / "after"))


def test_model_card_without_matplotlib(tmp_path: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its table has the log, and no picture is missing."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    trained(bert_folder).save_pretrained(str(tmp_path / "after"))
    card = (tmp_path / "after" / "README.md").read_text()
    assert "## Training log" in card and "training_curve" not in card
    assert not (tmp_path / "after" / "training_curve.svg").exists()


CALLS: list[Callable[[Path], object]] = [
    lambda path: plot_embeddings(ROWS, path, ["x", "y"] * 20, ["a \x00 \ud800 text\n"] * 40, title="東京 \x0c\ud800"),
    lambda path: plot_similarity(ROWS[:3], path, ["\x01", "$x", "y$"], title="$\\no$ formula"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("suffix", [".svg", ".html", ".png"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_same_call_same_bytes(tmp_path: Path, call: Callable[[Path], object], suffix: str) -> None:
    """Whatever texts hold, in whatever threads; and matplotlib's settings stay those of the user."""
    before = dict(matplotlib.rcParams)
    paths = [tmp_path / f"{name}{suffix}" for name in "abcd"]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(call, paths))
    assert len({path.read_bytes() for path in paths}) == 1
    assert dict(matplotlib.rcParams) == before
    if suffix == ".svg":
        assert words(paths[0])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda path: plot_embeddings(ROWS, path / "m.gif"), "m.gif"),
        (lambda path: plot_embeddings(ROWS, path / "no" / "m.svg"), "does not exist"),
        (lambda path: plot_embeddings(ROWS[:1], path / "m.svg"), "two or more"),
        (lambda path: plot_embeddings(ROWS * np.nan, path / "m.svg"), "finite"),
        (lambda path: plot_embeddings(ROWS, path / "m.svg", labels=["a"]), "1 labels"),
        (lambda path: plot_embeddings(ROWS, path / "m.svg", method="mds"), "'mds'"),
        (lambda path: plot_similarity(ROWS[0], path / "m.svg"), "shape"),
        (lambda path: plot_similarity(ROWS, path / "m.svg", ["a"]), "1 rows"),
        (lambda path: plot_training(path, path / "m.svg"), "trainer_state.json"),
    ],
)
def test_bad_input(tmp_path: Path, call, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call(tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    for suffix in ("svg", "html", "png"):
        with pytest.raises(MissingExtraError, match="pip install 'matplotlib'"):
            plot_similarity(np.eye(2), tmp_path / f"m.{suffix}")
    assert not list(tmp_path.iterdir())


def test_benchmark_chart_is_that_of_the_newest_results() -> None:
    from benchmarks import chart

    results = json.loads(chart.newest().read_text())
    for picture, bars in ((chart.PICTURE, chart.bars(results)), (chart.WAYS_PICTURE, chart.way_bars())):
        written = words(picture)
        for column in (0, 2):
            expected = [" ".join(row[column].split()) for row in bars]
            assert [word for word in written if word in expected] == expected, "run python -m benchmarks.chart"
    assert chart.readme_table() in chart.README.read_text(), "run python -m benchmarks.chart"
