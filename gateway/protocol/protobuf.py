"""The protobuf wire format, as much of it as inference messages use. Pure.

The messages of the inference protocol are few and their field numbers are published and fixed, so
they are read and written here by number, without stubs: no generated code to keep in step with a
protobuf runtime, nothing to import in the governor, tensors as views instead of copies.
`tests/protocol/test_grpc_messages.py` holds every message against NVIDIA's own stubs, both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gateway.protocol.tensor import Unreadable

VARINT, FIXED64, COUNTED, FIXED32 = 0, 1, 2, 5
VARINT_BYTES = 10


def fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value): an int of a varint, else a view of the value's bytes."""
    for number, wire, value, _, _ in spans(data):
        yield number, wire, value


def spans(data: memoryview) -> Iterator[tuple[int, int, Any, int, int]]:
    """Fields with the place where each begins and ends."""
    at = 0
    while at < len(data):
        begin = at
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, wire, value, begin, at
            continue
        if wire == COUNTED:
            size, at = _varint(data, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise Unreadable(f"not protobuf: wire type {wire}")
        if not number or size > len(data) - at:
            raise Unreadable("not protobuf: a field is longer than its message")
        yield number, wire, data[at : at + size], begin, at + size
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(VARINT_BYTES):
        if at + place >= len(data):
            break
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + place + 1
    raise Unreadable("not protobuf: a number has no end")


def text(number: int, wire: int, value: Any) -> str:
    if wire != COUNTED:
        raise Unreadable(f"not protobuf: field {number} is no text")
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise Unreadable(f"not protobuf: field {number} is not UTF-8") from None


def counted(number: int, wire: int, value: Any) -> memoryview:
    if wire != COUNTED:
        raise Unreadable(f"not protobuf: field {number} is no message or bytes")
    view: memoryview = value
    return view


def signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def varints(data: memoryview) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Packed varints, all at once: a tensor may hold millions."""
    found = np.frombuffer(data, np.uint8)
    if not len(found):
        return np.zeros(0, np.uint64)
    ends = np.flatnonzero(found < 0x80)
    if not len(ends) or ends[-1] != len(found) - 1:
        raise Unreadable("not protobuf: a number has no end")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > VARINT_BYTES:
        raise Unreadable("not protobuf: a number has no end")
    places = np.arange(len(found)) - np.repeat(starts, lengths)
    pieces = (found & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.asarray(np.add.reduceat(pieces, starts), np.uint64)


def encode_varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(number: int, value: bytes | str | int | bool) -> bytes:
    """One field; numbers as varints, text and bytes counted. Empty ones are written too."""
    if isinstance(value, int):
        return encode_varint(number << 3) + encode_varint(int(value))
    sent = value.encode() if isinstance(value, str) else value
    return encode_varint(number << 3 | COUNTED) + encode_varint(len(sent)) + sent


def packed(number: int, values: list[int]) -> bytes:
    """A repeated field of numbers, packed as proto3 does."""
    return encode(number, b"".join(map(encode_varint, values))) if values else b""
