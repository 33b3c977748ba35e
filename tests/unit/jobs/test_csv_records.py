"""Records end where Python's csv module says they end."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from service.jobs.byte_lines import ByteLines, Overlong
from service.jobs.csv_records import csv_records

FIELDS = st.text(alphabet='ab,"\n5 ', max_size=8)


def records_of(content: bytes, max_bytes: int = 1000) -> list[bytes | Overlong]:
    return list(csv_records(ByteLines(io.BytesIO(content), "a.csv", max_bytes), max_bytes))


@given(st.lists(st.lists(FIELDS, min_size=2, max_size=3), max_size=6))
def test_what_the_csv_module_writes_is_taken_apart_where_it_was_put_together(rows: list[list[str]]):
    written = []
    for row in rows:
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerow(row)
        written.append(stream.getvalue().encode())
    found = records_of(b"".join(written))
    assert found == written
    assert [next(csv.reader([record.decode().removesuffix("\n")], strict=True)) for record in found] == rows


def test_a_quote_inside_a_field_opens_nothing():
    assert records_of(b'5" pipe,a\nb,c\n') == [b'5" pipe,a\n', b"b,c\n"]


def test_an_overlong_record_is_dropped_to_its_end():
    long = b'"' + b"x" * 50 + b"\n" + b'y""' * 50 + b'\n",end\n'
    assert records_of(b"a,b\n" + long + b"c,d\n", max_bytes=60) == [b"a,b\n", Overlong(len(long)), b"c,d\n"]


def test_an_open_quote_at_the_end_is_one_record():
    assert records_of(b'a,"b\nc,d\n') == [b'a,"b\nc,d\n']
