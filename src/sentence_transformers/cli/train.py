"""`train`: a training run described in a YAML file.

    model: all-MiniLM-L6-v2
    kind: dense                          # dense, sparse, cross or late; found out if left out
    train: pairs.csv                     # a file, a data set of the hub, or {name: file, …}
    eval: held_out.csv
    columns: [question, answer]          # the columns the loss takes, in its order; default: all
    loss:                                # a name, or a name and its arguments
      name: MatryoshkaLoss
      loss: MultipleNegativesRankingLoss
      matryoshka_dims: [384, 128]
    evaluator: {task: sts, data: stsb.csv}
    args: {output_dir: run, num_train_epochs: 1, per_device_train_batch_size: 16}
    output: my-model

A value that is {"name": …} or the name of a loss stands for that loss, {"load": …} for a model (a teacher, a guide).
Everything is checked before the first step.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentence_transformers.cli import options
from sentence_transformers.cli.exit_codes import complain, only_our_progress, usage_error
from sentence_transformers.cli.options import Kind

if TYPE_CHECKING:
    from sentence_transformers.cli.models import Loading
    from sentence_transformers.encoders.base import BaseModel
    from sentence_transformers.protocols import Evaluator

KEYS = ("model", "kind", "train", "eval", "columns", "split", "loss", "evaluator", "args", "output", "model_args")


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="What to train, on what, and how.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. args.max_steps=100; may be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in output_dir.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Check model, data and loss, and end.")] = False,
    device: options.Device = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Train a model as a YAML file says.

    The file has model, train (a data file), loss, args (of the trainer) and output; the documentation shows all keys.

    [bold]Example[/bold]: sentence-transformers train pairs.yaml --set args.num_train_epochs=2
    """
    from sentence_transformers.cli.models import Loading, kind_of, load

    only_our_progress()
    settings = read(config, changes or [])
    loading = Loading(device, offline=offline, trust_remote_code=trust_remote_code)
    kind = Kind(settings["kind"]) if "kind" in settings else kind_of(settings["model"], loading)
    datasets = {side: data_of(settings[side], settings, offline) for side in ("train", "eval") if settings.get(side)}
    evaluator = evaluator_of(settings.get("evaluator"), kind)
    model = load(settings["model"], loading, kind, **settings.get("model_args", {}))
    trainer = trainer_of(settings, kind, model, datasets, evaluator, loading)
    if check:
        rows = getattr(datasets["train"], "num_rows", "?")
        complain(f"All fits: {type(model).__name__}, {type(trainer.loss).__name__}, {rows} rows to train on.")
        return
    trainer.train(resume_from_checkpoint=resume or None)
    output = settings.get("output") or f"{trainer.args.output_dir}/final"
    model.save_pretrained(output)
    complain(f"Saved to {output}")


def read(path: Path, changes: list[str]) -> dict[str, Any]:
    """The settings in a file, with the changes of the command line."""
    import yaml

    if not path.is_file():
        raise usage_error(f"the file {str(path)!r} does not exist.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        for change in changes:
            key, equals, value = change.partition("=")
            if not equals:
                raise usage_error(f"{change!r} is not KEY=VALUE.", "--set")
            place = settings
            *outer, last = key.split(".")
            for name in outer:
                place = place.setdefault(name, {})
            place[last] = yaml.safe_load(value)
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise usage_error(f"{path} is not a YAML file of settings: {error}") from error
    if not isinstance(settings, dict):
        raise usage_error(f"{path} must hold settings by name.")
    if unknown := sorted(settings.keys() - set(KEYS)):
        raise usage_error(f"{path} has the unknown setting {unknown[0]!r}; known are {', '.join(KEYS)}.")
    if missing := [name for name in ("model", "train", "loss") if not settings.get(name)]:
        raise usage_error(f"{path} lacks {', '.join(missing)}.")
    if "kind" in settings and settings["kind"] not in list(Kind):
        raise usage_error(f"{path}: kind is {settings['kind']!r}; known are {', '.join(Kind)}.")
    return settings


def data_of(given: str | dict[str, str], settings: dict[str, Any], offline: bool) -> Any:
    """A data set, or several by name: files, or data sets of the hub."""
    from sentence_transformers.cli.mine import dataset_of
    from sentence_transformers.cli.row_readers import FORMATS, Rows

    if isinstance(given, dict):
        return {name: data_of(one, settings, offline) for name, one in given.items()}
    columns, path = settings.get("columns"), Path(str(given))
    if path.is_file() or path.suffix in FORMATS:
        return dataset_of(numbers_of(Rows(str(given)).table(columns)))
    from datasets import load_dataset

    found = load_dataset(str(given), split=settings.get("split", "train"))
    return found.select_columns(columns) if columns else found


def numbers_of(table: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Columns of a csv file that hold numbers only, as numbers."""
    for name, values in table.items():
        for kind in (int, float):
            try:
                table[name] = [kind(value) if isinstance(value, str) else value for value in values]
                break
            except ValueError:
                continue
    return table


def evaluator_of(given: dict[str, Any] | None, kind: Kind) -> Any:
    """The evaluator of a run, described as for `evaluate`."""
    from sentence_transformers.cli import evaluate

    if given is None:
        return None
    if not isinstance(given, dict) or given.keys() - {"task", "data", "columns", "split", "name"}:
        raise usage_error(f"evaluator must be task, data, and perhaps columns, split and name; got {given!r}.")
    if given.get("task") not in list(evaluate.Task):
        raise usage_error(f"evaluator: task is {given.get('task')!r}; known are {', '.join(evaluate.Task)}.")
    task = evaluate.Task(given["task"])
    evidence = evaluate.read(task, str(given.get("data")), given.get("columns"), given.get("split", "test"))
    return evaluate.evaluator_of(task, evidence, kind, name=given.get("name", ""))


def trainer_of(
    settings: dict[str, Any],
    kind: Kind,
    model: BaseModel,
    datasets: dict[str, Any],
    evaluator: Evaluator | None,
    loading: Loading,
) -> Any:
    """The trainer, which checks that all of it fits."""
    trainer_class, arguments_class = trainer_classes(kind)
    given = {"output_dir": "run", "report_to": "none"} | (settings.get("args") or {})
    try:
        args = arguments_class(**given)
    except TypeError as error:
        raise usage_error(f"args: {error}") from error
    return trainer_class(
        model=model,
        args=args,
        train_dataset=datasets["train"],
        eval_dataset=datasets.get("eval"),
        loss=built(settings["loss"], kind, model, loading, at="loss"),
        evaluator=evaluator,
    )


def built(value: object, kind: Kind, model: BaseModel, loading: Loading, at: str = "") -> Any:
    """A value of the file as an argument: losses by name, models to load, lists of either, or itself."""
    from sentence_transformers.cli.models import load

    losses = losses_of(kind)
    if isinstance(value, str) and (value in losses.__all__ or at == "loss"):
        value = {"name": value}
    if isinstance(value, list):
        return [built(one, kind, model, loading) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"load"}:
        return load(value["load"], loading)
    if "name" not in value:
        return {key: built(one, kind, model, loading) for key, one in value.items()}
    if value["name"] not in losses.__all__:
        raise usage_error(f"the loss {value['name']!r} is unknown; known are {', '.join(losses.__all__)}.")
    arguments = {key: built(one, kind, model, loading, key) for key, one in value.items() if key != "name"}
    try:
        return getattr(losses, value["name"])(model, **arguments)
    except TypeError as error:
        raise usage_error(f"{value['name']}: {error}") from error


def losses_of(kind: Kind) -> Any:
    """The package with the losses of a kind of model; each is loaded when it is asked for."""
    if kind == Kind.sparse:
        from sentence_transformers.sparse_encoder import losses as sparse

        return sparse
    if kind == Kind.cross:
        from sentence_transformers.cross_encoder import losses as cross

        return cross
    if kind == Kind.late:
        from sentence_transformers.multi_vector_encoder import losses as late

        return late
    from sentence_transformers import losses

    return losses


def trainer_classes(kind: Kind) -> tuple[Any, Any]:
    """The trainer of a kind of model, and its training arguments."""
    import sentence_transformers as library

    if kind == Kind.sparse:
        return library.SparseEncoderTrainer, library.SparseEncoderTrainingArguments
    if kind == Kind.cross:
        return library.CrossEncoderTrainer, library.CrossEncoderTrainingArguments
    if kind == Kind.late:
        return library.MultiVectorEncoderTrainer, library.MultiVectorEncoderTrainingArguments
    return library.SentenceTransformerTrainer, library.SentenceTransformerTrainingArguments
