"""Pictures: what is drawn is what was given, and nothing that a text says can break out of it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from sentence_transformers import SentenceTransformer
from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.plots import plot_embeddings, plot_similarity, plot_training
from sentence_transformers.plots.charts import COLOURS, Scatter, ticks
from sentence_transformers.plots.projection import project

NASTY = "<script>alert(\"1\")</script> & 'more'"
ROWS = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32) * np.linspace(3, 0.1, 12, dtype=np.float32)


def elements(path: Path, tag: str) -> list[ElementTree.Element]:
    """The elements of an SVG file, which is thereby well-formed."""
    return list(ElementTree.fromstring(path.read_text()).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


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
    """A circle for each point, in the colour of its label, with its text, where the projection says."""
    labels = ["a", "b", "a", "a"] * 10
    points = plot_embeddings(ROWS, tmp_path / "m.svg", labels, [f"{i} {NASTY}" for i in range(40)], title=NASTY)
    circles = [one for one in elements(tmp_path / "m.svg", "circle") if len(one)]
    by_text = {one[0].text: one for one in circles}
    found = [by_text[f"{label}: {i} {NASTY}"] for i, label in enumerate(labels)]
    assert [one.get("fill") for one in found] == [COLOURS["ab".index(label)] for label in labels]
    for column, name in ((0, "cx"), (1, "cy")):
        drawn = [float(one.get(name) or 0) for one in found]
        assert abs(np.corrcoef(drawn, points[:, column])[0, 1]) > 0.9999
    assert not elements(tmp_path / "m.svg", "script")


def test_map_as_page_and_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_embeddings(ROWS, tmp_path / "m.html", texts=[NASTY] * 40)
    page = (tmp_path / "m.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    plot_embeddings(ROWS, tmp_path / "m.png", labels=["x"] * 40)
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


def test_labels_beyond_the_colours_are_others() -> None:
    chart = Scatter([(0.0, 0.0)] * 30, [str(min(i, 12)) for i in range(30)])
    groups = chart.groups()
    assert len(groups) == len(COLOURS)
    assert groups[0][0] == "12"
    assert groups[-1][0] == "6 others"
    assert sorted(i for _, _, places in groups for i in places) == list(range(30))


def test_heat_map(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    matrix = np.array([[1.0, 0.25], [0.25, 1.0]])
    plot_similarity(matrix, tmp_path / "h.svg", ["one", NASTY])
    cells = [one for one in elements(tmp_path / "h.svg", "rect") if len(one)]
    names = ["one", NASTY]
    wanted = [f"{names[i]} | {names[j]}: {matrix[i, j]:.4f}" for i in range(2) for j in range(2)]
    assert [one[0].text for one in cells] == wanted
    assert cells[0].get("fill") == cells[3].get("fill") == "#0b4f8a"
    plot_similarity(matrix[:1], tmp_path / "h.png", ["one"], ["a", "b"])
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")


def test_training_curve_of_a_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    history = [{"step": 5 * i, "loss": 1 / i, "epoch": 0.1} for i in (1, 2, 3)]
    history += [{"step": 10, "eval_sts_spearman_cosine": 0.5, "eval_runtime": 9.0}, {"step": 15, "eval_loss": 2.0}]
    for step, state in (
        (10, {"global_step": 10, "log_history": []}),
        (15, {"global_step": 15, "log_history": history}),
    ):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    plot_training(tmp_path, tmp_path / "c.svg")
    dots = [one[0].text for one in elements(tmp_path / "c.svg", "circle")]
    assert dots == ["Training Loss 5: 1", "Training Loss 10: 0.5", "Training Loss 15: 0.3333", "eval_loss 15: 2",
                    "sts_spearman_cosine 10: 0.5"]  # fmt: skip
    plot_training(tmp_path, tmp_path / "c.png", metrics=["sts_spearman_cosine"])
    with pytest.raises(InputError, match="no metric 'other'"):
        plot_training(tmp_path, tmp_path / "c.svg", metrics=["other"])


def test_model_card_shows_the_curve(tmp_path: Path, bert_folder: Path) -> None:
    model = SentenceTransformer(str(bert_folder))
    model.save_pretrained(str(tmp_path / "before"))
    assert not (tmp_path / "before" / "training_curve.svg").exists()
    for step in (10, 20):
        model.model_card_data.add_log(0.1, step, {"Training Loss": 1 / step})
    model.save_pretrained(str(tmp_path / "after"))
    assert "(training_curve.svg)" in (tmp_path / "after" / "README.md").read_text()
    assert len(elements(tmp_path / "after" / "training_curve.svg", "circle")) == 2
    SentenceTransformer(str(tmp_path / "after"))


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
    with pytest.raises(MissingExtraError, match="pip install 'matplotlib'"):
        plot_similarity(np.eye(2), tmp_path / "m.png")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.3, 0.2), (5, 5000), (1e-6, 3e-6), (2, 2)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 8
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)


def test_benchmark_chart_is_that_of_the_newest_results() -> None:
    from benchmarks import chart

    from sentence_transformers.plots import svg

    results = json.loads(chart.newest().read_text())
    assert chart.PICTURE.read_text() == svg.draw(chart.bars(results)), "run python -m benchmarks.chart"
    assert chart.WAYS_PICTURE.read_text() == svg.draw(chart.way_bars()), "run python -m benchmarks.chart"
    assert chart.readme_table() in chart.README.read_text(), "run python -m benchmarks.chart"
