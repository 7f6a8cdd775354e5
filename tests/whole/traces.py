"""Looking for a person's data in files: as text in several encodings, packed, or in tables."""

import base64
import gzip
import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import duckdb
import zstandard

ZSTANDARD, GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08"
ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
UNPACKED_MAX = 1 << 22
ALL = "SELECT COLUMNS(*)::VARCHAR FROM {}"


def text_needles(text: str) -> set[bytes]:
    """UTF-8, -16, -32, hex, base64 at each of its three places, escapes of URLs and of JSON."""
    plain = text.encode()
    found = {text.encode(each) for each in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le")}
    found |= {plain.hex().encode(), plain.hex().upper().encode(), quote(text, safe="").encode()}
    found |= {json.dumps(text)[1:-1].encode(), "".join(f"%{each:02X}" for each in plain).encode()}
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            packed = encode(bytes(shift) + plain)
            found.add(packed[-(-shift * 8 // 6) : len(packed) - 4])
    return found


def number_needles(number: float) -> set[bytes]:
    """As text of seven digits, which every longer one begins with, and as doubles."""
    return text_needles(f"{number:.7g}") | {struct.pack("<d", number), struct.pack(">d", number)}


def unpacked(data: bytes) -> Iterator[bytes]:
    """The bytes, and what each stream of zstandard, gzip or zlib in them holds."""
    data = data.rstrip(b"\0") + bytes(4)  # journals are made longer than they are filled
    yield data
    ways = [(ZSTANDARD, _zstandard), (GZIP, _gzip), *((magic, _zlib) for magic in ZLIB)]
    for magic, unpack in ways:
        at = data.find(magic)
        while at >= 0:
            try:
                yield unpack(memoryview(data)[at : at + UNPACKED_MAX])
            except (zstandard.ZstdError, zlib.error):
                pass
            at = data.find(magic, at + 1)


def _zstandard(data: memoryview) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def _gzip(data: memoryview) -> bytes:
    return zlib.decompressobj(31).decompress(data, UNPACKED_MAX)


def _zlib(data: memoryview) -> bytes:
    return zlib.decompressobj().decompress(data, UNPACKED_MAX)


def rows_of(path: Path, aside: Path) -> bytes:
    """All that a table says, as text: columns are packed in ways that no search of bytes sees."""
    if path.suffix == ".parquet":
        with duckdb.connect() as opened:
            return str(opened.execute(ALL.format(f"'{path}'")).fetchall()).encode()
    copy = aside / path.name
    shutil.copy(path, copy)
    with duckdb.connect(str(copy), read_only=True) as opened:
        query = "SELECT table_name FROM duckdb_tables()"
        names = [name for (name,) in opened.execute(query).fetchall()]
        rows = [opened.execute(ALL.format(f'"{name}"')).fetchall() for name in names]
    return str(rows).encode()


def files_that_hold(folder: Path, needles: set[bytes], aside: Path) -> list[str]:
    """The files under a folder that hold any of the needles, in their bytes or their names."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        pieces = [str(path).encode(), *unpacked(path.read_bytes())]
        if path.suffix in (".parquet", ".duckdb"):
            pieces.append(rows_of(path, aside))
        if any(needle in piece for piece in pieces for needle in needles):
            found.append(str(path))
    return found


def assert_the_search_finds(folder: Path, text: str, number: float, needles: set[bytes]) -> None:
    """A search that finds nothing anywhere shows nothing: each way of hiding them is seen."""
    folder.mkdir()
    hidden = [
        text.encode("utf-16-le"), f'{{"a": {number}}}'.encode(), text.encode().hex().encode(),
        base64.b64encode(b"xy" + text.encode() + b"behind"), quote(text + " ü").encode(),
        gzip.compress(b"before " + text.encode()), b"head" + zlib.compress(str(number).encode()),
        bytes(9) + zstandard.compress(text.encode() * 3) + bytes(9), struct.pack("<d", number),
    ]  # fmt: skip
    for at, data in enumerate(hidden):
        (folder / str(at)).write_bytes(data)
    assert len(files_that_hold(folder, needles, folder.parent)) == len(hidden)
