"""SetFit: few-shot classification; the encoder is trained on pairs by our trainer, then a logistic regression."""

import tempfile

from common import expect, model_folder, posts, same
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments


def accuracy(predicted: list[int], labels: list[int]) -> dict[str, float]:
    """A metric of our own: SetFit would ask the hub for its code."""
    return {"accuracy": sum(int(a) == int(b) for a, b in zip(predicted, labels, strict=True)) / len(labels)}


texts, labels = posts("train", each=8, longest=300)
test_texts, test_labels = posts("test", each=30, longest=300)
train = Dataset.from_dict({"text": texts, "label": labels})
test = Dataset.from_dict({"text": test_texts, "label": test_labels})
model = SetFitModel.from_pretrained(str(model_folder()))
before = model.model_body.encode(test_texts[:2])
settings = TrainingArguments(output_dir=tempfile.mkdtemp(), batch_size=16, num_epochs=1, max_steps=12, report_to="none")
trainer = Trainer(model=model, args=settings, train_dataset=train, eval_dataset=test, metric=accuracy)
trainer.train()
measured = trainer.evaluate()["accuracy"]
expect(measured > 0.75, "accuracy on 120 posts in 4 groups after 8 examples of each", round(measured, 3))
after = model.model_body.encode(test_texts[:2])
expect(not same(before, after, 1e-3), "the encoder was trained")
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    again = SetFitModel.from_pretrained(folder)
    expect(same(after, again.model_body.encode(test_texts[:2])), "the saved model embeds the same")
    expect((again.predict(test_texts) == model.predict(test_texts)).all(), "and predicts the same")
