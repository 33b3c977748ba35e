"""Rows of Parquet files, a batch at a time. Knows: pyarrow. Does not know: where rows go."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.errors import InputError
from service.jobs.arrow import arrow, parquet
from service.jobs.input_files import InputFiles
from service.jobs.line_sources import unfit
from service.jobs.rows import Row
from service.jobs.source import Source, SourceOptions

BATCH_ROWS: Final = 1024


class ArrowValues(Sequence[Any]):
    """The row at ``place`` of a batch, its values made Python's only where they are asked for."""

    def __init__(self, batch: Any, place: int) -> None:
        self.batch, self.place = batch, place

    def __len__(self) -> int:
        return int(self.batch.num_columns)

    def __getitem__(self, column: Any) -> Any:
        if not 0 <= column < len(self):
            raise IndexError(column)
        return self.batch.column(column)[self.place].as_py()


@dataclass(frozen=True, slots=True)
class ParquetRecord:
    """A row of a batch and its text, or why there is none."""

    values: ArrowValues
    text: Any
    reason: str = ""


class ParquetSource(Source):
    """Columns come through with their types.

    Attributes:
        schema, metadata: of the input, known after open(); the metadata of the first file, which is where pandas has
            its index and GeoParquet its columns.
    """

    schema: Any = None
    metadata: Any = None

    def __init__(self, files: InputFiles, options: SourceOptions) -> None:
        super().__init__(files, options)
        self._num_rows = 0

    def open(self) -> None:
        pa = arrow()
        self._num_rows = 0
        for name, stream in self.files.streams():
            file = _open(stream, name)
            schema = file.schema_arrow.remove_metadata()
            if self.schema is None:
                self.metadata = file.schema_arrow.metadata
            if self.schema is not None and not schema.equals(self.schema):
                raise InputError(f"{name} has another schema than the file before it")
            self.check_columns(tuple(schema.names), name)
            type = schema.field(self.options.column).type
            content = type.value_type if pa.types.is_dictionary(type) else type
            if not (pa.types.is_string(content) or pa.types.is_large_string(content)):
                raise InputError(f"{name}: column {self.options.column!r} holds {type}, not strings")
            self.schema, self.columns = schema, tuple(schema.names)
            self._num_rows += file.metadata.num_rows

    def count(self) -> int:
        return self._num_rows

    def records(self) -> Iterator[ParquetRecord]:
        pa = arrow()
        place = self.schema.get_field_index(self.options.column)
        for name, stream in self.files.streams():
            try:
                for batch in _open(stream, name).iter_batches(BATCH_ROWS):
                    yield from _records_of(batch, place)
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{name} cannot be read: {error}") from error

    def row(self, number: int, record: ParquetRecord) -> Row:
        reason = record.reason or ("" if record.text is None else unfit(record.text))
        num_bytes = 0 if reason or record.text is None else len(record.text.encode())
        if num_bytes > self.options.max_row_bytes:
            reason = f"the text has {num_bytes} bytes, more than the {self.options.max_row_bytes} allowed"
        text = None if reason else record.text
        return Row(number, text, reason, values=record.values, has_id="id" in (self.columns or ()))


def _open(stream: Any, name: str) -> Any:
    pa = arrow()
    try:
        # Without pre_buffer memory stays within what a batch needs, however large a row group is.
        return parquet().ParquetFile(stream, pre_buffer=False, buffer_size=1 << 16)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{name} is not a Parquet file that can be read: {error}") from error


def _records_of(batch: Any, place: int) -> Iterator[ParquetRecord]:
    column = batch.column(place)
    try:
        texts = column.to_pylist()
    except UnicodeDecodeError:
        yield from (_record_of(column, ArrowValues(batch, index)) for index in range(len(column)))
        return
    for index, text in enumerate(texts):
        yield ParquetRecord(ArrowValues(batch, index), text)


def _record_of(column: Any, values: ArrowValues) -> ParquetRecord:
    try:
        return ParquetRecord(values, column[values.place].as_py())
    except UnicodeDecodeError as error:
        return ParquetRecord(values, None, f"byte {error.start + 1} of the text is not valid UTF-8")
