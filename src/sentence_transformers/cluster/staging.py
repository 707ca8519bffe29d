"""Data sets in memory or behind a library, put into Parquet files that all machines read: `sources` knows files alone.

A Ray or Hugging Face data set is walked once, chunk by chunk, in its order; each chunk becomes a file. When a job goes
on, the data set is walked again and compared with the files that are there: another content is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from sentence_transformers.cluster.sources import Columns, parquet
from sentence_transformers.errors import InputError
from sentence_transformers.util.atomic import replacing

if TYPE_CHECKING:
    from typing import TypeAlias

    import datasets
    from ray.data import Dataset as RayDataset
    from typing_extensions import TypeIs

    AnyDataset: TypeAlias = datasets.Dataset | datasets.IterableDataset | RayDataset


def is_of_ray(source: object) -> TypeIs[RayDataset]:
    """Whether this is a data set of Ray."""
    return hasattr(source, "iter_batches")


def is_dataset(source: object) -> TypeGuard[AnyDataset]:
    """Whether this is a data set of Ray or Hugging Face."""
    return is_of_ray(source) or (hasattr(source, "column_names") and hasattr(source, "iter"))


def spool(source: AnyDataset, folder: Path, columns: Columns, rows: int) -> list[str]:
    """The columns of a data set as files of `rows` rows.

    Raises:
        InputError: if a column is missing, or a file is there and holds something else.
    """
    check(source, columns)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, table in enumerate(chunks(source, list(dict.fromkeys(columns.names)), rows)):
        path = folder / f"{number:06d}.parquet"
        if path.is_file():
            if not parquet().read_table(path).equals(table):
                raise InputError(
                    f"The job in {folder.parent} has another input: it differs from row {number * rows:,} on."
                )
        else:
            with replacing(path) as fresh:
                parquet().write_table(table, fresh)
        paths.append(str(path.resolve()))
    return paths


def check(source: AnyDataset, columns: Columns) -> None:
    """`InputError` if a column is missing; it lists what is there."""
    names = source.columns() if is_of_ray(source) else source.column_names
    if missing := [name for name in columns.names if names is not None and name not in names]:
        raise InputError(f"The data set has no column {missing[0]!r}; it has {', '.join(map(repr, names))}.")


def chunks(source: AnyDataset, names: list[str], rows: int) -> Iterator[Any]:
    """Arrow tables of `rows` rows, in the order of the data set."""
    import pyarrow as pa

    if is_of_ray(source):
        with in_order(source):
            tables: Iterable[Any] = source.select_columns(names).iter_batches(batch_size=rows, batch_format="pyarrow")
            for table in tables:
                yield table.select(names).combine_chunks().replace_schema_metadata(None)  # equal tables are equal bytes
        return
    for batch in source.select_columns(names).iter(batch_size=rows):
        yield pa.table({name: list(batch[name]) for name in names})


@contextmanager
def in_order(source: RayDataset) -> Iterator[None]:
    """Blocks of a Ray Dataset come in its order, not as they are ready: the number of a row is its id."""
    options = source.context.execution_options
    before, options.preserve_order = options.preserve_order, True
    try:
        yield
    finally:
        options.preserve_order = before
