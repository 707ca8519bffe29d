"""Quantisation: bit by bit from the formula, and recorded codes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from sentence_transformers.errors import InputError
from sentence_transformers.quantization import quantize_embeddings

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "search.npz")
VECTORS = GOLDEN["vectors"]
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
DTYPES = {"float32": np.float32, "int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_codes_of_the_existing_library(dtype, precision):
    vectors = VECTORS.astype(dtype)
    found = quantize_embeddings(vectors, precision)
    assert found.dtype == DTYPES[precision]
    np.testing.assert_array_equal(found[:20], GOLDEN[f"quantize/{dtype}/{precision}"])
    calibrated = quantize_embeddings(vectors[:8], precision, calibration_embeddings=VECTORS)
    np.testing.assert_array_equal(calibrated, GOLDEN[f"calibrated/{dtype}/{precision}"])


def test_bytes_follow_the_formula():
    low, high = np.array([-1.0, 0.0]), np.array([1.0, 51.0])
    codes = np.arange(-3, 260)[:, None]
    middles = low + (codes + 0.5) * (high - low) / 255  # the middle of each step
    found = quantize_embeddings(middles, "uint8", ranges=np.stack([low, high]))
    np.testing.assert_array_equal(found, np.repeat(codes.clip(0, 255), 2, axis=1))
    signed = quantize_embeddings(middles, "int8", ranges=np.stack([low, high]))
    np.testing.assert_array_equal(signed, found - 128.0)


def test_a_constant_dimension_has_code_zero():
    found = quantize_embeddings(np.array([[1.0, 0.0], [1.0, 1.0]]), "uint8", calibration_embeddings=np.eye(2) * 0 + 1)
    assert found[:, 0].tolist() == [0, 0]


def test_bits_are_signs():
    embeddings = [[1.0, -1.0, 0.0, 2.0, 3.0, -4.0, -5.0, 6.0, 1.0, -1.0]]
    assert quantize_embeddings(np.array(embeddings), "ubinary").tolist() == [[0b10011001, 0b10000000]]
    assert quantize_embeddings(np.array(embeddings), "binary").tolist() == [[0b10011001 - 128, 0]]


FORMS = {
    "tensor": torch.tensor,
    "with gradient": lambda a: torch.tensor(a, requires_grad=True),
    "list of arrays": list,
    "list of tensors": lambda a: list(torch.tensor(a)),
    "nested lists": np.ndarray.tolist,
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", FORMS)
def test_equivalent_inputs(form, precision):
    expected = quantize_embeddings(VECTORS, precision)
    found = quantize_embeddings(FORMS[form](VECTORS), precision)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, expected)


def test_bfloat16_is_computed_in_float32():
    rounded = torch.tensor(VECTORS).bfloat16()
    expected = quantize_embeddings(rounded.float().numpy(), "int8")
    np.testing.assert_array_equal(quantize_embeddings(rounded, "int8"), expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_token_embeddings_share_their_ranges(precision):
    whole = quantize_embeddings(VECTORS, precision)
    parts = quantize_embeddings([VECTORS[:1], VECTORS[1:1], VECTORS[1:]], precision)
    assert [part.shape[0] for part in parts] == [1, 0, 119]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    halves = [VECTORS[:50], VECTORS[50:]]
    joined = quantize_embeddings(VECTORS[:9], precision, calibration_embeddings=halves)
    np.testing.assert_array_equal(joined, quantize_embeddings(VECTORS[:9], precision, calibration_embeddings=VECTORS))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_shapes_of_single_and_empty(precision):
    width = 2 if "binary" in precision else 13
    ranges = np.stack([VECTORS.min(0), VECTORS.max(0)])
    assert quantize_embeddings(VECTORS[0], precision, ranges=ranges).shape == (width,)
    empty = quantize_embeddings(VECTORS[:0], precision)
    assert (empty.shape, empty.dtype) == ((0, width), DTYPES[precision])


@pytest.mark.parametrize("rows, warns", [(99, True), (100, False)])
def test_few_embeddings_are_worth_a_warning(rows, warns, caplog):
    with caplog.at_level(logging.WARNING):
        quantize_embeddings(VECTORS[:rows], "int8")
    assert (f"from {rows} embeddings" in caplog.text) == warns
    caplog.clear()
    quantize_embeddings(VECTORS[:2], "int8", calibration_embeddings=VECTORS[:rows])
    assert (f"from {rows} embeddings" in caplog.text) == warns
    caplog.clear()
    quantize_embeddings(VECTORS[:2], "int8", calibration_embeddings=VECTORS[:100])
    quantize_embeddings(VECTORS[:2], "binary")
    assert not caplog.records


@pytest.mark.parametrize(
    "embeddings, precision, options, message",
    [
        (VECTORS, "int4", {}, "int4"),
        (VECTORS[:1], "int8", {}, "single"),
        (VECTORS[0], "uint8", {}, "single"),
        (np.zeros((2, 8), np.int8), "binary", {}, "int8"),
        (np.zeros((2, 8), np.uint8), "float32", {}, "uint8"),
        (["a"], "binary", {}, "float"),
        ([[1.0], [1.0, 2.0]], "binary", {}, "one dimension"),
        (VECTORS, "int8", {"ranges": np.zeros((3, 13))}, r"\(2, 13\)"),
        (VECTORS, "int8", {"ranges": np.zeros((2, 12))}, r"\(2, 13\)"),
        (VECTORS, "int8", {"calibration_embeddings": VECTORS[:, :5]}, r"\(M, 13\).*\(120, 5\)"),
        (VECTORS, "int8", {"calibration_embeddings": VECTORS * np.inf}, "calibration_embeddings.*row 0"),
        (np.where(np.arange(120)[:, None] == 7, np.nan, VECTORS), "binary", {}, "row 7 holds NaN.*1 rows"),
        ([VECTORS, VECTORS * np.inf], "float32", {}, r"embeddings\[1\].*infinity"),
        (VECTORS * np.nan, "int8", {}, "NaN"),
    ],
)
def test_invalid_arguments(embeddings, precision, options, message):
    with pytest.raises(InputError, match=message):
        quantize_embeddings(embeddings, precision, **options)


@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_an_empty_list_stays_one(precision) -> None:
    assert quantize_embeddings([], precision) == []
