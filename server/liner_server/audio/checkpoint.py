"""Reads the variables of a TensorFlow checkpoint, without TensorFlow.

A checkpoint (format V2) is an index, a LevelDB table from a variable's name to where it lies, and
a file of raw little-endian values. Only uncompressed tables of float32 variables are read: what
the installed wheels hold.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from liner_server.audio.spectra import Floats

_FLOAT32 = 1
_FOOTER_BYTES = 48
_DTYPE, _SHAPE, _OFFSET, _SIZE = 1, 2, 4, 5
"""Fields of a BundleEntryProto."""


def load_checkpoint(folder: Path) -> dict[str, Floats]:
    """Return the float32 variables of the checkpoint in a folder by name.

    Raises:
        ValueError: it is not a checkpoint of the kind read here.

    """
    index = (folder / ".index").read_bytes()
    data = (folder / ".data-00000-of-00001").read_bytes()
    variables = {}
    try:
        for name, entry in _entries(index):
            facts = dict(_fields(entry))
            if not name or facts.get(_DTYPE) != _FLOAT32:
                continue
            sizes = [dict(_fields(_bytes(d))).get(1, 0) for n, d in _fields(_bytes(facts[_SHAPE]))
                     if n == _SHAPE]  # fmt: skip
            values = np.frombuffer(
                data, "<f4", _number(facts[_SIZE]) // 4, _number(facts.get(_OFFSET, 0))
            )
            variables[name.decode()] = values.reshape([_number(size) for size in sizes])
    except (IndexError, KeyError, struct.error, TypeError) as error:
        raise ValueError(f"{folder.name} is not a checkpoint that can be read") from error
    return variables


def _entries(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield every key and value of a LevelDB table."""
    footer, place = index[-_FOOTER_BYTES:], 0
    handles = []
    # Offset and size of the block about blocks, then of the block that lists the data blocks.
    for _ in range(4):
        value, place = _varint(footer, place)
        handles.append(value)
    for _, where in _block(index, handles[2], handles[3]):
        offset, place = _varint(where, 0)
        size, _ = _varint(where, place)
        yield from _block(index, offset, size)


def _block(index: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of one block; each key repeats the start of the one before."""
    if index[offset + size]:
        raise ValueError("the table is compressed")
    block = index[offset : offset + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    end, place, key = len(block) - 4 - 4 * restarts, 0, b""
    while place < end:
        shared, place = _varint(block, place)
        fresh, place = _varint(block, place)
        length, place = _varint(block, place)
        key = key[:shared] + block[place : place + fresh]
        place += fresh
        yield key, block[place : place + length]
        place += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the field numbers and values of a protobuf message; fixed-width ones are passed."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        match tag & 7:
            case 0:
                value, place = _varint(message, place)
                yield tag >> 3, value
            case 2:
                length, place = _varint(message, place)
                yield tag >> 3, message[place : place + length]
                place += length
            case 1:
                place += 8
            case 5:
                place += 4
            case kind:
                raise ValueError(f"wire type {kind}")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    shift = value = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise TypeError("not a number")
    return value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("not bytes")
    return value
