"""Rows and their outcomes as Parquet.

A Parquet file has its index at its end, so it cannot be gone on with after a kill. While the job runs, rows go to a
file of Arrow streams (IPC), each whole by itself and put after the one before; at the end that file becomes Parquet in
one pass. Knows: pyarrow. Does not know: checkpoints.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from service.jobs.arrow import arrow, parquet
from service.jobs.parquet_source import ArrowValues, ParquetSource
from service.jobs.rows import Outcome, Row
from service.jobs.source import Source
from service.jobs.writers import Pairs

# Rows and bytes after which a row group ends, whichever comes first.
GROUP_ROWS: Final = 65_536
GROUP_BYTES: Final = 64 * 1024 * 1024


class ArrowWriter:
    """Makes Arrow streams of rows; finish() makes Parquet of them."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def header(self) -> bytes:
        return self.encode(())

    def encode(self, pairs: Pairs) -> bytes:
        pa = arrow()
        table = self._carried([row for row, _ in pairs])
        id_name, *others = self._source.options.added
        if id_name not in table.column_names:
            table = table.append_column(id_name, pa.array([row.number for row, _ in pairs], pa.int64()))
        types = (pa.string(), pa.float64(), pa.list_(pa.string()))
        added = [[item.text, item.score, list(item.flags)] for _, item in pairs]
        for place, (name, type) in enumerate(zip(others, types, strict=True)):
            table = table.append_column(name, pa.array([values[place] for values in added], type))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table.combine_chunks())
        return bytes(sink.getvalue())

    def unwritable(self, row: Row, outcome: Outcome) -> str:
        return ""

    def finish(self, streams: Path, target: Path) -> None:
        """Makes ``target`` of the file of streams, the same bytes every time. Raises OSError."""
        groups = _groups(streams)
        first = next(groups)
        with target.open("wb") as file:
            metadata = self._source.metadata if isinstance(self._source, ParquetSource) else None
            with parquet().ParquetWriter(file, first.schema.with_metadata(metadata)) as writer:
                writer.write_table(first)
                for group in groups:
                    writer.write_table(group)
            file.flush()
            os.fsync(file.fileno())

    def _carried(self, rows: list[Row]) -> Any:
        pa = arrow()
        if isinstance(self._source, ParquetSource):
            return pa.Table.from_batches(list(_slices(rows)), schema=self._source.schema)
        columns = self._source.columns or ()
        unread = [None] * len(columns)
        values = [row.values or unread for row in rows]
        strings = [pa.array([row[place] for row in values], pa.string()) for place in range(len(columns))]
        return pa.table(dict(zip(columns, strings, strict=True)))


def _slices(rows: list[Row]) -> Iterator[Any]:
    """The rows' batches, cut to runs of neighbours."""
    start: ArrowValues | None = None
    length = 0
    for row in rows:
        if not isinstance(row.values, ArrowValues):
            raise RuntimeError("a row of a Parquet file came without its batch. This is a bug.")
        if start is not None and row.values.batch is start.batch and row.values.place == start.place + length:
            length += 1
            continue
        if start is not None:
            yield start.batch.slice(start.place, length)
        start, length = row.values, 1
    if start is not None:
        yield start.batch.slice(start.place, length)


def _groups(streams: Path) -> Iterator[Any]:
    """Tables of about a row group each; at least one, be it empty."""
    pa = arrow()
    parts: list[Any] = []
    with pa.OSFile(str(streams)) as file:
        while file.tell() < file.size():
            part = pa.ipc.open_stream(file).read_all()
            parts.append(part)
            if sum(map(len, parts)) >= GROUP_ROWS or sum(part.nbytes for part in parts) >= GROUP_BYTES:
                yield pa.concat_tables(parts).unify_dictionaries()
                parts = []
    if parts:
        yield pa.concat_tables(parts).unify_dictionaries()
