"""Denoising auto-encoder (TSDAE): from the vector of a damaged text a decoder must restore the whole text.

    loss = cross entropy of the decoder's next token, given those before and the vector            Wang et al. 2021

The decoder is a language model with cross-attention to that one vector. It may share all weights with the encoder; it
is left behind after training.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.losses.base import Accepts, Loss
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.guided import texts_of
from sentence_transformers.losses.merged_forward import as_padded, embed_columns, unwrap

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sentence_transformers.encoders.sentence_transformer import SentenceTransformer

logger = logging.getLogger(__name__)


class DenoisingAutoEncoderLoss(Loss):
    """Restore texts from their vectors.

    Args:
        model: the model that is trained.
        decoder_name_or_path: the decoder; by default the same checkpoint as the encoder.
        tie_encoder_decoder: whether decoder and encoder share their weights; needs the same architecture.

    Raises:
        InputError: if the decoder has no such architecture, or cannot be tied to the encoder.
    """

    citation = cites("wang-2021-TSDAE")
    accepts = (Accepts(("damaged_sentence", "original_sentence")),)
    trains_copies = True

    def __init__(
        self, model: SentenceTransformer, decoder_name_or_path: str | None = None, tie_encoder_decoder: bool = True
    ) -> None:
        super().__init__(model)
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        encoder = model.transformers_model
        if encoder is None:
            raise InputError("DenoisingAutoEncoderLoss needs a model with a Transformer.")
        own = encoder.config.name_or_path
        name = decoder_name_or_path or own
        if decoder_name_or_path is None and not tie_encoder_decoder:
            logger.warning("decoder_name_or_path is not given; the decoder begins as the encoder, %s.", own)
        self.tie_encoder_decoder = tie_encoder_decoder
        self.decoder_name_or_path = name
        config = AutoConfig.from_pretrained(name)
        config.is_decoder = config.add_cross_attention = True
        try:
            self.decoder: Any = AutoModelForCausalLM.from_pretrained(name, config=config)
        except ValueError as error:
            raise InputError(f"{name} cannot be a decoder: {error}") from error
        tokenizer = AutoTokenizer.from_pretrained(name)
        self.need_retokenization = tokenizer.get_vocab() != model.tokenizer.get_vocab()
        self.tokenizer_encoder, self.tokenizer_decoder = model.tokenizer, tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
            self.decoder.config.pad_token_id = self.decoder.config.eos_token_id
        self.decoder.to(model.device)  # type: ignore[arg-type]
        if tie_encoder_decoder:
            if name != own:
                raise InputError(
                    f"The decoder {name} cannot share weights with the encoder {own}; they must be the same."
                )
            tie(self.decoder, encoder)

    @property
    def encoder(self) -> Any:
        """The model that is trained."""
        return self.model

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        damaged, original = list(sentence_features)
        (vectors,) = embed_columns(self.model, [damaged])
        target = self.retokenize(original) if self.need_retokenization else as_padded(self.model, original)
        ids, mask = target["input_ids"], target["attention_mask"]
        output = self.decoder(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            encoder_hidden_states=vectors[:, None],
            encoder_attention_mask=damaged_mask(vectors),
            use_cache=False,
        )
        wanted = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        return F.cross_entropy(output.logits.flatten(0, 1), wanted.flatten(), ignore_index=-100)

    def retokenize(self, sentence_features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The texts in the decoder's tokens, padded."""
        texts = texts_of(unwrap(self.model), sentence_features)
        tokens = self.tokenizer_decoder(texts, padding=True, truncation="longest_first", return_tensors="pt")
        device = sentence_features["input_ids"].device
        return {key: tokens[key].to(device) for key in ("input_ids", "attention_mask")}

    def get_config_dict(self) -> dict[str, Any]:
        return {"decoder_name_or_path": self.decoder_name_or_path, "tie_encoder_decoder": self.tie_encoder_decoder}


def damaged_mask(vectors: Tensor) -> Tensor:
    """(B, 1): the one vector that the decoder sees."""
    return torch.ones(len(vectors), 1, dtype=torch.int64, device=vectors.device)


def tie(decoder: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """Give the decoder the encoder's parameters, the very same objects, wherever it has parameters of that name.

    Raises:
        InputError: if a parameter of that name has another shape.
    """
    base = getattr(decoder, decoder.base_model_prefix)
    shared = dict(encoder.named_parameters())
    for name, parameter in list(base.named_parameters()):
        if name not in shared:
            continue
        if shared[name].shape != parameter.shape:
            raise InputError(f"The decoder's {name} has the shape {tuple(parameter.shape)}, the encoder's "
                             f"{tuple(shared[name].shape)}: they cannot share weights.")  # fmt: skip
        place, _, leaf = name.rpartition(".")
        base.get_submodule(place).register_parameter(leaf, shared[name])
    decoder.tie_weights()
    output = decoder.get_output_embeddings()
    if isinstance(output, nn.Linear) and getattr(decoder.config, "tie_word_embeddings", True):
        output.weight = base.get_input_embeddings().weight
