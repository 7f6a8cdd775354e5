"""One log's files as c2sp.org/tlog-tiles and the growing tail lay them out, read and compared.

Invariant: no file in the folder is passed over. A tile or bundle is compared with what the entries
give, a name that no entry accounts for is a fault.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.verify.fault import Fault, Found
from gateway.verify.tree import WIDTH

LENGTH = struct.Struct(">H")
HASH_BYTES = 32
BUNDLE_BYTES_MAX = WIDTH * (2 + 65_535)
NUMBER = re.compile(r"(?:x[0-9]{3}/)*[0-9]{3}")
TEMPORARY = re.compile(r"\..*\.new")


def tile_name(kind: str, number: int) -> str:
    """`tile/<kind>/x001/x234/067`."""
    digits = f"{number:,}".split(",")
    return "/".join(["tile", kind, *(f"x{part:0>3}" for part in digits[:-1]), f"{digits[-1]:0>3}"])


def split(data: bytes) -> tuple[list[bytes], int]:
    """Whole entries of a bundle, and where the last of them ends."""
    entries: list[bytes] = []
    at, length, unpack = 0, len(data), LENGTH.unpack_from
    while at + 2 <= length and len(entries) < WIDTH:
        end = at + 2 + unpack(data, at)[0]
        if end > length:
            break
        entries.append(data[at + 2 : end])
        at = end
    return entries, at


def _shared(one: bytes, other: bytes) -> bytes:
    """What both begin with."""
    for at, (left, right) in enumerate(zip(one, other)):
        if left != right:
            return one[:at]
    return min(one, other, key=len)


@dataclass(frozen=True)
class LogFolder:
    """`root`: the log's folder; `name`: what it is called in the ledger."""

    root: Path
    name: str

    def file(self, name: str) -> str:
        return f"{self.name}/{name}"

    def fault(self, kind: str, words: str, file: str | None = None, index: int | None = None,
              number: int | None = None) -> Found:  # fmt: skip
        return Found(Fault(self.name, kind, words, file and self.file(file), index, number))

    def read(self, name: str, at_most: int) -> bytes | None:
        """A file's bytes, at most one more than `at_most`; None if there is none."""
        try:
            with (self.root / name).open("rb") as file:
                return file.read(at_most + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self.fault("unreadable", str(error.strerror), name) from None

    def bundle(self, number: int) -> tuple[str, bytes] | None:
        """The bundle's file and bytes: the full one, the growing one, the widest partial one."""
        full, tail = tile_name("entries", number), f"tail/{number}"
        for name in (full, tail, full):  # a tail may become a full bundle between two looks
            data = self.read(name, BUNDLE_BYTES_MAX)
            if data is not None:
                return name, data
        for width in reversed(self.widths(full)):
            name = f"{full}.p/{width}"
            data = self.read(name, BUNDLE_BYTES_MAX)
            if data is not None:
                return name, data
        return None

    def widths(self, name: str) -> list[int]:
        """Widths of the partial tiles beside a tile, rising."""
        try:
            names = os.listdir(self.root / f"{name}.p")
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(int(each) for each in names if re.fullmatch("[1-9][0-9]{0,2}", each))

    def entries(self) -> Iterator[bytes]:
        """Every whole entry, in order, until there is no more; nothing is verified."""
        number = 0
        while (found := self.bundle(number)) is not None:
            entries, _ = split(found[1])
            yield from entries
            if len(entries) < WIDTH:
                return
            number += 1

    def compare(self, kind: str, number: int, expected: bytes, ends: list[int], signed: int,
                covers: int, live: bool) -> None:  # fmt: skip
        """The tile (or bundle) of `number` and its partial forms against the expected bytes.

        `ends[width]`: where that many items end in them. `covers`: leaves that one item stands
        for; what lies beyond `signed` leaves may be unfinished, as a crash leaves it.
        """
        name = tile_name(kind, number)
        held = len(ends) - 1
        first = number * WIDTH * covers
        wanted = min(max(signed - first, 0) // covers, WIDTH)
        seen = set()
        for width in self.widths(name):
            if width > held:
                if not live:
                    raise self.fault("beyond the log", f"only {held} items are there",
                                     f"{name}.p/{width}")  # fmt: skip
                continue
            unsigned = first + width * covers > signed
            if self._same(f"{name}.p/{width}", expected[: ends[width]], kind, first, covers,
                          unsigned, live):  # fmt: skip
                seen.add(width)
        full = held == WIDTH and self._same(
            name, expected, kind, first, covers, first + WIDTH * covers > signed, live
        )
        if held < WIDTH and not live and (self.root / name).is_file():
            raise self.fault("beyond the log", f"only {held} items are there", name)
        if wanted and not full and wanted not in seen and not live:
            partial = f".p/{wanted}" if wanted < WIDTH else ""
            if kind == "entries" and (self.root / f"tail/{number}").is_file():
                return
            raise self.fault("missing", "what was signed needs it", f"{name}{partial}", first)

    def _same(self, name: str, expected: bytes, kind: str, first: int, covers: int,
              unsigned: bool, live: bool) -> bool:  # fmt: skip
        """Whether the file is there and whole; a fault if it is another."""
        data = self.read(name, len(expected))
        if data is None:
            return False
        if data == expected:
            return True
        if unsigned and expected.startswith(data):
            return False  # a crash came between the tile and its checkpoint
        if live and self.read(name, len(expected)) == expected:
            return True
        index = None
        if kind != "entries":
            items = range(0, len(expected), HASH_BYTES)
            for item, at in enumerate(items):
                if data[at : at + HASH_BYTES] != expected[at : at + HASH_BYTES]:
                    index = first + item * covers
                    break
        else:
            index = first + len(split(_shared(data, expected))[0])
        raise self.fault("tile changed", "it is not what the entries give", name, index)

    def stray(self, size: int) -> Iterator[Fault]:
        """Files that no entry of a log of `size` accounts for."""
        for path in self.root.rglob("*"):
            name = path.relative_to(self.root).as_posix()
            if path.is_dir() or TEMPORARY.fullmatch(path.name):
                continue
            if not self._known(name, size):
                yield Fault(self.name, "beyond the log", "no entry accounts for this file",
                            self.file(name))  # fmt: skip

    def _known(self, name: str, size: int) -> bool:
        if name in ("checkpoint", "witnessed", "closed") or re.fullmatch("tail/[0-9]+", name):
            return True
        if name.startswith("models/") or not name.startswith("tile/"):
            return False
        kind, _, rest = name.removeprefix("tile/").partition("/")
        place, _, width = rest.partition(".p/")
        if not NUMBER.fullmatch(place) or not re.fullmatch("[0-9]{1,2}|entries", kind):
            return False
        number = int(place.replace("x", "").replace("/", ""))
        if tile_name(kind, number) != f"tile/{kind}/{place}":
            return False
        level = 0 if kind == "entries" else int(kind)
        items = (size >> (8 * level)) - number * WIDTH
        if width:
            return width.isdecimal() and 0 < int(width) < WIDTH and int(width) <= items
        return items >= WIDTH and ".p/" not in rest
