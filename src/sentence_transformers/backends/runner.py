"""How one transformer computes: a `Runner` for each way.

    BertCpuRunner   the BERT family on CPU, packed batches, without transformers    (backends.bert_cpu)
    TorchRunner     a model of transformers, packed or padded batches               (backends.torch_runner)
    GraphRunner     a graph of ONNX Runtime or OpenVINO, padded batches             (backends.graph)

`modules.transformer.Transformer` has a `ModelRunner` (made when it is first needed), and where the checkpoint allows a
`BertNetwork`, which gives a `BertCpuRunner` as long as nothing is in its way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from sentence_transformers.backends.capabilities import Capabilities
from sentence_transformers.backends.deferred_logits import DeferredLogits
from sentence_transformers.backends.tasks import position_offset
from sentence_transformers.errors import ModelFormatError


class RunOptions(NamedTuple):
    """What a runner is asked for besides the batch.

    Attributes:
        output: where the output is: keys and indices, one after the other.
        accepted: names of the features that the model is given, of those that it takes; None for all.
        padding_id: the token that fills up padded batches.
        deferred_logits: stop before the product with the vocabulary.
    """

    output: Sequence[str | int]
    accepted: set[str] | None = None
    padding_id: int = 0
    deferred_logits: bool = False


class Runner(Protocol):
    """One way in which a transformer computes."""

    def run(self, features: dict[str, Any], options: RunOptions) -> Tensor | DeferredLogits:
        """(B, L, …) of a padded batch, (T, …) of a packed one, (B, labels) of a classifier."""


class ModelRunner:
    """Calls a model as transformers models are called, on padded batches, and knows of it what its config says.

    Args:
        model: has a config, and takes and gives entries by name.
        name: folder or hub id, for messages.

    Attributes:
        arguments: names of the features that the model takes.
        fixed: number of texts and of tokens of each batch, where the model takes no others.
        architecture: name of the class of the model.
        hidden_size: H.
        vocabulary_size: V.
        vocabulary_rows: tokens that the table of word vectors has rows for; None where there is no such table.
        num_labels: scores per text of a classifier.
        max_position_embeddings: as the config says, if it does.
        position_offset: position of a text's first token.
        learned_positions: tokens that the table of learned positions has rows for; None for rotary, relative and
            computed ones.
        capabilities: what trials have shown of it.
    """

    arguments: set[str]

    def __init__(self, model: Any, name: str) -> None:
        self.model: Any = model
        self.name = name
        self.capabilities = Capabilities()

    @property
    def fixed(self) -> tuple[int | None, int | None]:
        found: tuple[int | None, int | None] = getattr(self.model, "fixed", (None, None))
        return found

    def why_padded(self, transformer: Any) -> str | None:
        """Why the model does not run packed; None if it does."""
        return "a graph takes padded batches"

    @property
    def defers(self) -> bool:
        """Whether the model stops before its last product when it is told to."""
        return False

    def run(self, features: dict[str, Any], options: RunOptions) -> Tensor | DeferredLogits:
        return self.output(self.model(**self.inputs(features, options.accepted)), options)

    def inputs(self, features: Mapping[str, Any], accepted: set[str] | None = None) -> dict[str, Any]:
        """Arguments of the model for a padded batch."""
        names = [key for key in features if (key in self.arguments and key != "logits_to_keep") or key == "input_ids"]
        return {key: features[key] for key in names if accepted is None or key in accepted}

    def output(self, outputs: Mapping[str, Any], options: RunOptions) -> Any:
        """What is used of the model's outputs.

        Raises:
            ModelFormatError: if it is not there.
        """
        value: Any = outputs
        for key in options.output:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError) as error:
                raise ModelFormatError(
                    f"{self.name}: modality_config names the output {options.output!r:.80} of a {self.architecture}; "
                    f"its outputs are {list(outputs)}, and {key!r:.80} is not in what comes before it."
                ) from error
        return value

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def text_config(self) -> Any:
        config = self.config
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    @property
    def saved_config(self) -> dict[str, Any]:
        return dict(self.config.to_dict())

    @property
    def architecture(self) -> str:
        return type(self.model).__name__

    @property
    def hidden_size(self) -> int:
        return int(self.text_config.hidden_size)

    @property
    def vocabulary_size(self) -> int:
        return int(self.text_config.vocab_size)

    @property
    def vocabulary_rows(self) -> int | None:
        try:
            table = self.model.get_input_embeddings().weight
        except (AttributeError, NotImplementedError):
            return None
        return len(table) if table.dim() == 2 else None

    @property
    def num_labels(self) -> int:
        return int(self.config.num_labels)

    @property
    def max_position_embeddings(self) -> int | None:
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def position_offset(self) -> int:
        return position_offset(self.config)

    @property
    def learned_positions(self) -> int | None:
        return None
