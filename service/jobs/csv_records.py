"""Records of a CSV file as bytes: a record ends at the first line break that is in no quoted field (RFC 4180).

Knows: quotes. Does not know: columns, text.
"""

from collections.abc import Iterable, Iterator

from service.jobs.byte_lines import Line, Overlong

QUOTE = b'"'


def is_open_after(line: bytes, is_open: bool, delimiter: bytes = b",") -> bool:
    """Whether a quoted field is open at the end of ``line``, if one ``is_open`` at its start.

    A quote opens a field only as its first character; ``5" pipe`` is a field like any other.
    """
    if QUOTE not in line:
        return is_open
    position = 0
    while True:
        if is_open:
            position = line.find(QUOTE, position)
            if position < 0:
                return True
            is_doubled = line.startswith(QUOTE, position + 1)
            position += 2 if is_doubled else 1
            if is_doubled:
                continue
            is_open = False
        elif line.startswith(QUOTE, position):
            position += 1
            is_open = True
            continue
        position = line.find(delimiter, position)
        if position < 0:
            return False
        position += 1


def csv_records(lines: Iterable[Line], max_bytes: int) -> Iterator[Line]:
    """Records with their line endings; Overlong where one has more than ``max_bytes``."""
    parts: list[bytes] = []
    num_bytes, is_open, is_kept = 0, False, True
    for line in lines:
        if isinstance(line, Overlong):
            num_bytes += line.num_bytes
            is_open ^= bool(line.num_quotes % 2)
            is_kept = False
        else:
            num_bytes += len(line)
            is_open = is_open_after(line, is_open)
            is_kept = is_kept and num_bytes <= max_bytes + 1
            parts.append(line)
        if not is_kept:
            parts.clear()
        if not is_open:
            yield b"".join(parts) if is_kept else Overlong(num_bytes)
            parts, num_bytes, is_kept = [], 0, True
    if num_bytes:  # the file ends in a quoted field
        yield b"".join(parts) if is_kept else Overlong(num_bytes)
