"""How often does the classifier of a `SoftmaxLoss` find the right class?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.data import DataLoader

from sentence_transformers.errors import InputError
from sentence_transformers.evaluation.base import Measured, MetricsEvaluator, file_name
from sentence_transformers.util.tensor import batch_to_device

if TYPE_CHECKING:
    from sentence_transformers.encoders.sentence_transformer import SentenceTransformer


class LabelAccuracyEvaluator(MetricsEvaluator):
    """Accuracy of a `SoftmaxLoss`.

    Args:
        dataloader: batches of `InputExample` of two texts and a class.
        name: put before the names of the metrics.
        softmax_model: the loss, whose forward without labels gives (vectors, logits).
        write_csv: whether a call with an output folder adds a row to the CSV file.
    """

    def __init__(
        self, dataloader: DataLoader, name: str = "", softmax_model: nn.Module | None = None, write_csv: bool = True
    ) -> None:
        super().__init__()
        if softmax_model is None:
            raise InputError(
                "LabelAccuracyEvaluator needs softmax_model, the SoftmaxLoss whose classifier is measured."
            )
        self.dataloader, self.name, self.softmax_model, self.write_csv = dataloader, name, softmax_model, write_csv
        self.csv_file = file_name("accuracy_evaluation", name)
        self.csv_headers = ["epoch", "steps", "accuracy"]
        self.primary_metric = "accuracy"

    def _evaluate(self, model: SentenceTransformer) -> Measured:
        model.eval()
        self.dataloader.collate_fn = model.smart_batching_collate
        right = total = 0
        for features, labels in self.dataloader:
            columns = [batch_to_device(column, model.device) for column in features]
            with torch.no_grad():
                _, logits = self.softmax_model(columns, labels=None)
            right += int((logits.argmax(1).cpu() == labels.cpu()).sum())
            total += len(labels)
        if not total:
            raise InputError("The data loader gave no batches.")
        return {"accuracy": right / total}, [right / total]
