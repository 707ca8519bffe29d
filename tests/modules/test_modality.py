"""Which kind an input is, by the table of the interface."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers.base.modality import (
    format_modality,
    infer_batch_modality,
    infer_modality,
    is_audio_url_or_path,
    is_image_url_or_path,
    is_message_dict,
    is_video_url_or_path,
)

from sentence_transformers.errors import InputError

MESSAGE = {"role": "user", "content": "x"}
KINDS = [
    ("a", "text"),
    (("a", "b"), "text"),
    (["a", "b"], "text"),
    ({"text": "a"}, "text"),
    ({"text": "a", "image": "b.png"}, ("image", "text")),
    (MESSAGE, "message"),
    ([MESSAGE], "message"),
    ({"array": np.zeros(3), "sampling_rate": 16000}, "audio"),
    ({"array": np.zeros(3), "video_metadata": None}, "video"),
    (np.zeros(5), "audio"),
    (torch.zeros(2, 5), "audio"),
    (np.zeros((3, 4, 4)), "image"),
    (torch.zeros(2, 3, 4, 4), "video"),
    ("https://host/a.PNG?size=3", "image"),
    ("https://host/a b.png", "text"),
    ("https://host/a.mp3", "audio"),
    ("https://youtu.be/abc", "video"),
    ("http://[broken/a.png", "text"),
    ("data:image/png;base64,AAAA", "image"),
    ("missing.jpg", "text"),
    ("x" * 10_000 + ".jpg", "text"),
    ("\0.jpg", "text"),
]


@pytest.mark.parametrize(("sample", "kind"), KINDS, ids=lambda value: repr(value)[:20])
def test_kind_of_an_input(sample, kind):
    assert infer_modality(sample) == kind


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (3, "type int"),
        (None, "type NoneType"),
        ([], "type list"),
        ({}, "empty dictionary"),
        ({"query": "a"}, r"\['query'\]"),
        ({"array": np.zeros(3)}, "sampling_rate"),
        (np.zeros(()), "0 axes"),
    ],
)
def test_what_is_of_no_kind(sample, words):
    with pytest.raises(InputError, match=words):
        infer_modality(sample)


def test_files_that_exist(tmp_path):
    for name, test in (
        ("a.JPG", is_image_url_or_path),
        ("a.mkv", is_video_url_or_path),
        ("a.wav", is_audio_url_or_path),
    ):
        path = tmp_path / name
        assert not test(str(path))
        path.touch()
        assert test(str(path))


def test_kinds_that_a_model_does_not_take_are_text():
    assert infer_modality("https://host/a.png", ["text"]) == "text"
    assert infer_modality("https://host/a.png", ["text", "image"]) == "image"
    assert infer_batch_modality(["https://host/a.png", "b"], supported_modalities=["text"]) == "text"


def test_batches():
    assert infer_batch_modality([]) == "text"
    assert infer_batch_modality(["a", ("b", "c")]) == "text"
    assert infer_batch_modality(["a", np.zeros((3, 4, 4))]) == "message"
    assert format_modality(("text", "image")) == "text+image"
    assert format_modality("audio") == "audio"
    assert is_message_dict(MESSAGE)
    assert not is_message_dict({"role": "user"})
