"""SparseAutoEncoder: a dense vector as a sparse one, the k strongest of many learned features (CSR).

    x'  = x, or (x − mean) / (std + ε) with `normalize`
    pre = (x' − b_pre) Wᵀ + b_latent             W (hidden_dim, input_dim)
    z   = relu of the k largest entries of pre, the others 0                      -> sentence_embedding
    x̂   = z W + b_pre                            the same W; scaled back with `normalize`

For its loss, while gradients are recorded, the features also get the 4k strongest entries, the reconstructions from
both, and an auxiliary code of *dead* latents: those that have not been among the strongest for `dead_threshold` steps.

Wen et al. 2025, "Beyond Matryoshka", https://arxiv.org/abs/2503.01776; Gao et al. 2024, https://arxiv.org/abs/2406.04093.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.modules.base import Module


class TiedTranspose(nn.Module):
    """A linear map by the transpose of another linear layer's weight, which it shares."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """(…, out) -> (…, in) of the layer."""
        return F.linear(x, self.weight)

    @property
    def weight(self) -> Tensor:
        """(in, out)."""
        return self.linear.weight.t()

    @property
    def bias(self) -> Tensor:
        return self.linear.bias


class SparseAutoEncoder(Module):
    """Keep the k strongest of `hidden_dim` features of a vector.

    Args:
        input_dim: size of the vectors that come in.
        hidden_dim: number of features, the size of the result.
        k: entries that are kept; `max_active_dims` of `encode` takes its place.
        k_aux: entries of the auxiliary code of dead latents, in training.
        normalize: standardise each vector before it is encoded.
        dead_threshold: steps without being among the strongest after which a latent counts as dead.

    Raises:
        InputError: if a size is less than 1.
    """

    config_keys: ClassVar[list[str]] = ["input_dim", "hidden_dim", "k", "k_aux", "normalize", "dead_threshold"]
    forward_kwargs: ClassVar[set[str]] = {"max_active_dims"}
    takes_packed = True
    stats_last_nonzero: Tensor

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int = 512,
        k: int = 8,
        k_aux: int = 512,
        normalize: bool = False,
        dead_threshold: int = 30,
    ) -> None:
        super().__init__()
        for name, size in {"input_dim": input_dim, "hidden_dim": hidden_dim, "k": k}.items():
            if size < 1:
                raise InputError(f"{name} of a SparseAutoEncoder must be at least 1, got {size}.")
        self.input_dim, self.hidden_dim = input_dim, hidden_dim
        self.k, self.k_aux = k, k_aux
        self.normalize, self.dead_threshold = normalize, dead_threshold
        self.pre_bias = nn.Parameter(torch.zeros(input_dim))
        self.encoder = nn.Linear(input_dim, hidden_dim, bias=False)
        self.latent_bias = nn.Parameter(torch.zeros(hidden_dim))
        self.decoder = TiedTranspose(self.encoder)
        self.register_buffer("stats_last_nonzero", torch.zeros(hidden_dim, dtype=torch.long))

    def get_embedding_dimension(self) -> int:
        """`hidden_dim`."""
        return self.hidden_dim

    def save(self, output_path: str, safe_serialization: bool = True, **kwargs) -> None:
        """Write settings and weights into the folder `output_path`."""
        super().save(output_path, safe_serialization=safe_serialization)

    def encode_pre_act(self, x: Tensor) -> Tensor:
        """(B, input_dim) -> (B, hidden_dim), before any entry is dropped."""
        return F.linear(x - self.pre_bias, self.encoder.weight, self.latent_bias)

    def LN(self, x: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
        """Each row standardised, with its mean and its standard deviation (of n − 1): (B, d), (B, 1), (B, 1)."""
        mean = x.mean(dim=-1, keepdim=True)
        centred = x - mean
        std = centred.std(dim=-1, keepdim=True)
        return centred / (std + eps), mean, std

    def prepare(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The vectors as they are encoded, and what `decode` needs to undo that."""
        if not self.normalize:
            return x, {}
        x, mean, std = self.LN(x)
        return x, {"mu": mean, "std": std}

    def top_k(self, x: Tensor, k: int | None = None, compute_aux: bool = True) -> tuple[Tensor, Tensor | None]:
        """The k largest entries of each row, negative ones as 0; and the same of dead latents alone.

        In training with gradients the count of steps since a latent was last kept goes on.

        Returns:
            (B, hidden_dim), and the auxiliary code of the same shape, None without `compute_aux`.
        """
        latents = strongest(x, self.k if k is None else k)
        if self.training and torch.is_grad_enabled():
            self.stats_last_nonzero *= (latents == 0).all(dim=0).long()
            self.stats_last_nonzero += 1
        dead = self.stats_last_nonzero > self.dead_threshold
        return latents, strongest(x * dead, self.k_aux) if compute_aux else None

    def decode(self, latents: Tensor, info: dict[str, Tensor] | None = None) -> Tensor:
        """(B, hidden_dim) -> (B, input_dim)."""
        decoded = self.decoder(latents) + self.pre_bias
        return decoded * info["std"] + info["mu"] if info else decoded

    def forward(self, features: dict[str, Tensor | Any], max_active_dims: int | None = None) -> dict[str, Tensor | Any]:
        """Replace `sentence_embedding` (B, input_dim) by its code (B, hidden_dim)."""
        k = self.k if max_active_dims is None else max_active_dims
        backbone = features["sentence_embedding"]
        x, info = self.prepare(backbone)
        pre = self.encode_pre_act(x)
        if not torch.is_grad_enabled():
            features["sentence_embedding"] = strongest(pre, k)
            return features
        code, aux = self.top_k(pre, k)
        wide, _ = self.top_k(pre, 4 * k, compute_aux=False)
        decoded = self.decode(code, info)
        assert aux is not None
        features |= {
            "sentence_embedding": code,
            "sentence_embedding_backbone": backbone,
            "sentence_embedding_encoded": pre,
            "sentence_embedding_encoded_4k": wide,
            "auxiliary_embedding": aux,
            "decoded_embedding_k": decoded,
            "decoded_embedding_4k": self.decode(wide, info),
            "decoded_embedding_aux": (self.decoder(aux) + self.pre_bias) * info.get("std", 1),
            "decoded_embedding_k_pre_bias": self.decoder(code) * info.get("std", 1) + info.get("mu", 0),
        }
        return features


def strongest(x: Tensor, k: int) -> Tensor:
    """relu of the k largest entries of each row, zero elsewhere."""
    values, places = x.topk(min(k, x.shape[-1]), dim=-1)
    return torch.zeros_like(x).scatter(-1, places, values.relu())
