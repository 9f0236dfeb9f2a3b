"""The wire format of protocol buffers: as much of it as reading the kubelet's answer needs.

Source: https://protobuf.dev/programming-guides/encoding/. Every library that reads it weighs more
than the daemon may.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_FIELD = 2**29 - 1


class Field(NamedTuple):
    """One field of a message: its number, and its bytes, or None for a number."""

    number: int
    value: memoryview | None


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message in their order; numbers are stepped over.

    Raises:
        ValueError: the bytes are not a message.
    """
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if not 1 <= number <= _MAX_FIELD:
            raise ValueError(f"a field has the number {number}")
        value = None
        if wire == _VARINT:
            _, position = _varint(message, position)
        elif wire == _BYTES:
            length, position = _varint(message, position)
            if length > end - position:
                raise ValueError("a field is longer than its message")
            value = message[position : position + length]
            position += length
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
            if position > end:
                raise ValueError("a number ends after its message")
        else:
            raise ValueError(f"wire type {wire} is not known")
        yield Field(number, value)


def text(value: memoryview | None) -> str:
    """A string field.

    Raises:
        ValueError: it is a number, or not UTF-8.
    """
    return submessage(value).tobytes().decode("utf-8")


def submessage(value: memoryview | None) -> memoryview:
    """A field that holds a message.

    Raises:
        ValueError: it is a number.
    """
    if value is None:
        raise ValueError("a field that should hold bytes holds a number")
    return value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A variable-length number of up to 64 bits, and the position after it."""
    value = shift = 0
    while position < len(message):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 2**64:
                break
            return value, position
        shift += 7
        if shift >= 70:
            break
    raise ValueError("a number does not end, or is too large")
