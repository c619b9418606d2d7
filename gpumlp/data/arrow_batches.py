"""What the batches of an Arrow file claim, read from their descriptions alone: nothing is unpacked for it.

Source   the Arrow columnar format, "IPC File Format", "Compression" and "Block", with their FlatBuffers schemas
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

MAGIC = b"ARROW1"
FOOTER_DICTIONARIES, FOOTER_BATCHES = 2, 3  # fields of the table at the end of the file
MESSAGE_KIND, MESSAGE_HEADER = 1, 2
DICTIONARY_BATCH, RECORD_BATCH = 2, 3  # kinds of messages
DICTIONARY_DATA = 1  # field of a batch of a dictionary
BATCH_ROWS, BATCH_BUFFERS, BATCH_COMPRESSION = 0, 2, 3  # fields of a batch


class Batch(NamedTuple):
    """A batch: its rows, and the bytes that it takes once it is unpacked; 0 where it is not packed."""

    n_rows: int
    n_bytes: int


class _Object(NamedTuple):
    """A table of a FlatBuffer: fields, each of which may be absent."""

    content: Any
    at: int

    def place(self, field: int) -> int:
        """Return where a field stands; 0 if it is absent."""
        layout = self.at - _number("<i", self.content, self.at)
        n_fields = (_number("<H", self.content, layout) - 4) // 2
        offset = _number("<H", self.content, layout + 4 + 2 * field) if field < n_fields else 0
        return self.at + offset if offset else 0

    def number(self, field: int, kind: str) -> int:
        """Return a number, 0 by default."""
        place = self.place(field)
        return _number(kind, self.content, place) if place else 0

    def inner(self, field: int) -> _Object:
        """Return a table that must be there."""
        place = self.place(field)
        if not place:
            raise ValueError(f"field {field} is missing")
        return _Object(self.content, place + _number("<I", self.content, place))

    def structs(self, field: int, kind: str) -> Iterator[tuple[int, ...]]:
        """Yield the elements of a vector."""
        place = self.place(field)
        if place:
            start = place + _number("<I", self.content, place)
            n_bytes = _number("<I", self.content, start) * struct.calcsize(kind)
            yield from struct.iter_unpack(kind, _part(self.content, start + 4, n_bytes))


def batches_of(content: Any) -> tuple[list[Batch], list[Batch]]:
    """Return the batches of the rows and those of the dictionaries.

    content   the bytes of a file, as a memoryview
    Raises    ValueError or struct.error where they are not those of an Arrow file
    """
    n_tail = 4 + len(MAGIC)
    if bytes(content[: len(MAGIC)]) != MAGIC or bytes(content[-len(MAGIC) :]) != MAGIC:
        raise ValueError("no Arrow file")
    footer = _root(content, len(content) - n_tail - _number("<i", content, len(content) - n_tail))
    rows, dictionaries = (
        [_batch(content, offset, n_head) for offset, n_head, _ in footer.structs(field, "<qi4xq")]
        for field in (FOOTER_BATCHES, FOOTER_DICTIONARIES)
    )
    return rows, dictionaries


def _batch(content: Any, offset: int, n_head: int) -> Batch:
    """Read the description at `offset`, of `n_head` bytes, behind which the buffers stand."""
    marked = _number("<I", content, offset) == 0xFFFFFFFF
    message = _root(content, offset + (8 if marked else 4))
    batch = message.inner(MESSAGE_HEADER)
    kind = message.number(MESSAGE_KIND, "<B")
    if kind not in (DICTIONARY_BATCH, RECORD_BATCH):
        raise ValueError(f"a message of kind {kind} stands where a batch should")
    batch = batch.inner(DICTIONARY_DATA) if kind == DICTIONARY_BATCH else batch
    n_bytes = 0
    if batch.place(BATCH_COMPRESSION):
        for at, length in batch.structs(BATCH_BUFFERS, "<qq"):
            if length:
                n_bytes += max(_number("<q", content, offset + n_head + at), 0)  # -1: this one is not packed
    return Batch(batch.number(BATCH_ROWS, "<q"), n_bytes)


def _root(content: Any, at: int) -> _Object:
    return _Object(content, at + _number("<I", content, at))


def _number(kind: str, content: Any, at: int) -> int:
    if at < 0:
        raise ValueError("a place before the beginning")
    found: int = struct.unpack_from(kind, content, at)[0]
    return found


def _part(content: Any, start: int, n_bytes: int) -> Any:
    if start < 0 or start + n_bytes > len(content):
        raise ValueError("a list beyond the end")
    return content[start : start + n_bytes]
