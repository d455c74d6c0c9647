"""A small writer of VRS files, the container of Aria recordings: enough for projectaria-tools to open and decode them.

Layout (facts read from the open-source `vrs` library and checked by opening the result): a file header of 80 bytes, a
description record that names the streams and their tags, the data records, an index record at the end. Every record
begins with a header of 32 bytes; a record's content is a block of fixed fields and strings, described by a JSON in the
stream's tags, followed by the bytes of an image. Everything is little-endian and uncompressed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

HEADER_BYTES = 80
RECORD_HEADER = struct.Struct("<IIiIdHBBI")
"""Size of the record, size of the one before, stream type, format version, time in seconds, stream instance, record
type, compression, size when expanded."""
FILE_HEADER = struct.Struct("<4s4sQIIqqqQQQ4s4s")
MAGIC = (b"Visi", b"onRe", b"cord")
VERSION = b"VRS1"

_INDEX_STREAM, _DESCRIPTION_STREAM = 1, 2
_NO_TIME = 1.7976931348623157e308
_TAGS_TYPE = 3
_FORMAT_VERSION = 2
"""Of the index, of the description and of the records here."""
_FIELD_CODES = {"uint32_t": "I", "uint64_t": "Q", "int64_t": "q", "double": "d", "float": "f", "uint8_t": "B"}


class RecordType(IntEnum):
    """Kinds of records of a stream."""

    STATE = 1
    CONFIGURATION = 2
    DATA = 3


class DataLayout:
    """Fields of a record, in order.

    Args:
        fields: names and C types (`uint32_t`, `uint64_t`, `int64_t`, `double`, `float`, `uint8_t`).
        strings: names of the strings that follow them.
    """

    def __init__(self, fields: Mapping[str, str], strings: Sequence[str] = ()) -> None:
        self.fields, self.strings = dict(fields), tuple(strings)
        self._struct = struct.Struct("<" + "".join(_FIELD_CODES[kind] for kind in self.fields.values()))

    @property
    def size(self) -> int:
        """Bytes of the fixed fields."""
        return self._struct.size

    def describe(self) -> str:
        """The JSON that a stream's tags hold about it."""
        pieces: list[dict[str, str | int]] = []
        offset = 0
        for name, kind in self.fields.items():
            pieces.append({"name": name, "type": f"DataPieceValue<{kind}>", "offset": offset})
            offset += struct.calcsize("<" + _FIELD_CODES[kind])
        pieces += [{"name": name, "type": "DataPieceString", "index": index} for index, name in enumerate(self.strings)]
        return json.dumps({"data_layout": pieces}, separators=(",", ":"))

    def pack(self, values: Mapping[str, float], strings: Mapping[str, str] | None = None) -> bytes:
        """Bytes of one record's fields; strings that are not given are empty."""
        packed = self._struct.pack(*(values[name] for name in self.fields))
        if not self.strings:
            return packed
        texts = [(strings or {}).get(name, "").encode() for name in self.strings]
        index, offset = b"", 0
        for text in texts:
            index += struct.pack("<II", offset, len(text))
            offset += len(text)
        return packed + index + b"".join(texts)


@dataclass(frozen=True)
class StreamTags:
    """A stream of a file.

    Attributes:
        type_id: kind of device (214: Aria's colour camera).
        instance: number among streams of that kind.
        tags: the recorder's own tags.
        vrs_tags: tags of the container: layouts of the records, names.
    """

    type_id: int
    instance: int
    tags: Mapping[str, str]
    vrs_tags: Mapping[str, str]


class VrsWriter:
    """Writes one file, record after record in the order of their times; `close` writes the index.

    Args:
        file: an empty file, open for writing; it stays open.
        tags: tags of the file.
        streams: its streams.
    """

    def __init__(self, file: BinaryIO, tags: Mapping[str, str], streams: Sequence[StreamTags]) -> None:
        self._file = file
        self._streams = sorted(streams, key=lambda stream: (stream.type_id, stream.instance))
        self._index: list[bytes] = []
        self._previous_bytes = 0
        file.write(bytes(HEADER_BYTES))
        body = struct.pack("<I", len(self._streams))
        for stream in self._streams:
            body += struct.pack("<iH", stream.type_id, stream.instance)
            body += _packed_tags(stream.tags) + _packed_tags(stream.vrs_tags)
        self._write(_DESCRIPTION_STREAM, 0, _NO_TIME, _TAGS_TYPE, body + _packed_tags(tags))
        self._first_record = file.tell()

    def record(self, stream: StreamTags, kind: RecordType, time_s: float, content: bytes) -> None:
        """Append a record of a stream."""
        size = self._write(stream.type_id, stream.instance, time_s, kind, content)
        self._index.append(struct.pack("<dIBiH", time_s, size, kind, stream.type_id, stream.instance))

    def close(self) -> None:
        """Write the index and the file's header."""
        index_at = self._file.tell()
        body = struct.pack("<I", len(self._streams))
        body += b"".join(struct.pack("<iH", stream.type_id, stream.instance) for stream in self._streams)
        body += struct.pack("<I", len(self._index)) + b"".join(self._index)
        self._write(_INDEX_STREAM, 0, _NO_TIME, _TAGS_TYPE, body)
        self._file.seek(0)
        # The creation id is a time elsewhere; a fixed one keeps the bytes equal.
        identity = 1
        self._file.write(
            FILE_HEADER.pack(
                MAGIC[0],
                MAGIC[1],
                identity,
                HEADER_BYTES,
                RECORD_HEADER.size,
                index_at,
                HEADER_BYTES,
                self._first_record,
                0,
                0,
                0,
                MAGIC[2],
                VERSION,
            )
        )

    def _write(self, type_id: int, instance: int, time_s: float, kind: int, content: bytes) -> int:
        size = RECORD_HEADER.size + len(content)
        header = RECORD_HEADER.pack(size, self._previous_bytes, type_id, _FORMAT_VERSION, time_s, instance, kind, 0, 0)
        self._file.write(header + content)
        self._previous_bytes = size
        return size


def _packed_tags(tags: Mapping[str, str]) -> bytes:
    def packed(text: str) -> bytes:
        encoded = text.encode()
        return struct.pack("<I", len(encoded)) + encoded

    return struct.pack("<I", len(tags)) + b"".join(packed(key) + packed(tags[key]) for key in sorted(tags))
