"""Damage to the bytes of a file: flipped, cut, moved, and protobuf fields that are dropped, doubled or changed."""

from collections.abc import Callable, Iterator

import numpy as np

Rng = np.random.Generator
DEEPEST = 4  # messages in messages that are taken apart
NUMBERS = (b"\x00", b"\x01", b"\xff" * 9 + b"\x01", b"\x80" * 9 + b"\x01", b"\x80\x80\x80\x80\x10", b"\xff" * 11)


def _flip(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for position in rng.integers(0, len(changed), rng.integers(1, 6)):
        changed[position] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(len(data)))]


def _splice(data: bytes, rng: Rng) -> bytes:
    start, length, place = (int(rng.integers(len(data))), int(rng.integers(1, 300)), int(rng.integers(len(data))))
    return data[:place] + data[start : start + length] + data[place:]


def _erase(data: bytes, rng: Rng) -> bytes:
    start = int(rng.integers(len(data)))
    return data[:start] + data[start + int(rng.integers(1, 200)) :]


def _append(data: bytes, rng: Rng) -> bytes:
    """A second message after the first, which protobuf merges."""
    return data + data[: int(rng.integers(len(data)))]


def _field(data: bytes, rng: Rng, depth: int = 0) -> bytes:
    """One field of a message, of the file or of what lies in it: gone, twice, elsewhere, or another."""
    fields = list(_fields(data))
    if not fields:
        return data
    at = int(rng.integers(len(fields)))
    number, kind, body = fields[at]
    if kind == 2 and depth < DEEPEST and rng.random() < 0.8 and len([*_fields(body)]) > 0:
        fields[at] = (number, kind, _field(body, rng, depth + 1))
        return _joined(fields)
    change = int(rng.integers(6))
    if change == 0:
        del fields[at]
    elif change == 1:
        fields.insert(int(rng.integers(len(fields) + 1)), fields[at])
    elif change == 2:
        fields[at] = (int(rng.integers(1, 30)), kind, body)
    elif change == 3:
        fields[at] = (number, 2, body[: len(body) // 2] if kind == 2 else body)
    elif change == 4:
        fields[at] = (number, 0, NUMBERS[int(rng.integers(len(NUMBERS)))])
    else:
        fields[at] = (number, 2, b"\xff\xfe" + body)
    return _joined(fields)


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, wire type and payload of each field; nothing where `data` is no message."""
    found, at = [], 0
    while at < len(data):
        key, at = _varint(data, at)
        start, kind = at, key & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            size, start = _varint(data, at)
            at = start + size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        if kind not in (0, 1, 2, 5) or not key >> 3 or at > len(data):
            return
        found.append((key >> 3, kind, data[start:at]))
    yield from found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
    return value, len(data) + 1  # broken, so past the end


def _joined(fields: list[tuple[int, int, bytes]]) -> bytes:
    return b"".join(
        _encoded(number << 3 | kind) + (_encoded(len(body)) if kind == 2 else b"") + body
        for number, kind, body in fields
    )


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


BYTES: dict[str, Callable[[bytes, Rng], bytes]] = {
    "flip": _flip,
    "cut": _cut,
    "splice": _splice,
    "erase": _erase,
    "append": _append,
    "field": _field,
}
