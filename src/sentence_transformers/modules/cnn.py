"""CNN: convolutions of several widths over the tokens of a text, side by side.

    y_t = [conv_1(x)_t ; … ; conv_K(x)_t]        H' = K · out_channels

Convolution k has a kernel of kernel_sizes[k] tokens, moves by stride_sizes[k] tokens, and sees p = ⌊(kernel − 1) / 2⌋
zeros on either side of the text. `token_embeddings` padded (B, L, H) or packed (T, H) become (B, L', H') or (T', H').
A text of l tokens has ⌊(l + 2p − kernel) / stride⌋ + 1 afterwards, and the attention mask or packing follows; with odd
kernels and stride 1 that is l. Even kernels lose a token, so a text shorter than them is filled up with zeros first.

Zeros begin where the text ends, not where its batch ends: a text has the same result alone and in any batch. (Version
6.2.0 let the last tokens of a text see the embeddings at padding positions.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from sentence_transformers._deprecation import legacy
from sentence_transformers.errors import InputError
from sentence_transformers.modules.base import Module
from sentence_transformers.modules.by_length import map_texts


class CNN(Module):
    """Convolutions over tokens.

    Args:
        in_embedding_dimension: H.
        out_channels: numbers per token from each convolution.
        kernel_sizes: width of each convolution in tokens; all odd or all even.
        stride_sizes: step of each convolution, all the same; None for 1.
    """

    config_keys: ClassVar[list[str]] = ["in_embedding_dimension", "out_channels", "kernel_sizes", "stride_sizes"]
    config_file_name = "cnn_config.json"
    config_key_renames: ClassVar[dict[str, str]] = {"in_word_embedding_dimension": "in_embedding_dimension"}
    takes_packed = True

    @legacy(in_word_embedding_dimension="in_embedding_dimension")
    def __init__(
        self,
        in_embedding_dimension: int,
        out_channels: int = 256,
        kernel_sizes: Sequence[int] = (1, 3, 5),
        stride_sizes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.in_embedding_dimension = in_embedding_dimension
        self.out_channels = out_channels
        self.kernel_sizes = list(kernel_sizes)
        self.embeddings_dimension = out_channels * len(self.kernel_sizes)
        self.convs = nn.ModuleList(
            nn.Conv1d(in_embedding_dimension, out_channels, kernel, padding=(kernel - 1) // 2)
            for kernel in self.kernel_sizes
        )
        self.stride_sizes = [1] * len(self.kernel_sizes) if stride_sizes is None else list(stride_sizes)

    @property
    def stride_sizes(self) -> list[int]:
        """The step of each convolution. May be set."""
        return [cast(nn.Conv1d, conv).stride[0] for conv in self.convs]

    @stride_sizes.setter
    def stride_sizes(self, sizes: Sequence[int]) -> None:
        check_sizes(self.kernel_sizes, list(sizes))
        for conv, size in zip(self.convs, sizes, strict=True):
            cast(nn.Conv1d, conv).stride = (size,)

    def forward(self, features: dict[str, Tensor | Any], **kwargs) -> dict[str, Tensor | Any]:
        return map_texts(features, self.convolve, self.embeddings_dimension)

    def convolve(self, texts: Tensor) -> Tensor:
        """(n, l, H) -> (n, l', H')."""
        missing = max(0, max(self.kernel_sizes) - texts.shape[1]) if self.kernel_sizes[0] % 2 == 0 else 0
        channels = nn.functional.pad(texts.transpose(1, 2), (0, missing))  # (n, H, l)
        return torch.cat([conv(channels) for conv in self.convs], dim=1).transpose(1, 2)

    def get_embedding_dimension(self) -> int:
        return self.embeddings_dimension


def check_sizes(kernel_sizes: list[int], stride_sizes: list[int]) -> None:
    """Raise `InputError` if the convolutions would give texts of different lengths."""
    if len(kernel_sizes) != len(stride_sizes):
        raise InputError(f"CNN needs one stride for each kernel, got {kernel_sizes=} and {stride_sizes=}.")
    if len({kernel % 2 for kernel in kernel_sizes}) > 1 or len(set(stride_sizes)) > 1:
        raise InputError(
            "CNN puts its convolutions side by side, so they must have equally many outputs: kernel sizes all odd or "
            f"all even, strides all the same. Got {kernel_sizes=} and {stride_sizes=}."
        )
