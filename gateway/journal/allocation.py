"""Making and closing segments: all that may wait for the disk, so none of it runs in the loop.

The next segment is made, with its key and its name durable, before it is needed. Changing over
closes the old one at its length, durably, before the new one's head may say that it did; the head
is durable before anything is written behind it: a segment of zeros holds no record.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.disk import sync_folder
from gateway.journal.directory import JournalFolder
from gateway.journal.segment import SegmentHead

PIECES_AT_ONCE, GATHERED_BYTES = 1000, 65536
"""Linux takes 1,024 pieces; what is short is sooner joined than gathered."""


@dataclass(slots=True)
class OpenSegment:
    """A preallocated segment of `size` bytes; its head is all that may have been written to it."""

    number: int
    descriptor: int
    cipher: AESGCM
    size: int
    salt: int = 0  # given when it is begun

    def write(self, pieces: list[bytes], offset: int) -> int:
        """One write of all the pieces, the large ones gathered by the kernel without another copy;
        their size."""
        size = sum(map(len, pieces))
        if size < GATHERED_BYTES or len(pieces) > PIECES_AT_ONCE:
            written = os.pwrite(self.descriptor, b"".join(pieces), offset)
        else:
            written = os.pwritev(self.descriptor, pieces, offset)
        if written != size:
            raise OSError("a write to the journal was short")
        return size


def make_segment(folder: JournalFolder, number: int, size: int) -> OpenSegment:
    """A preallocated file of zeros, with its key and its name durable."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(folder.segment(number), flags, 0o600)
    try:
        cipher = folder.make_key(number)  # behind O_EXCL: a key in use is never overwritten
        os.posix_fallocate(descriptor, 0, size)
        os.fsync(descriptor)
        sync_folder(folder.path)
    except OSError:
        os.close(descriptor)
        folder.destroy(number)
        raise
    return OpenSegment(number, descriptor, cipher, size)


def begin_segment(
    folder: JournalFolder, segment: OpenSegment, first_sequence: int, now_ns: int
) -> None:
    """Say durably that the segment is in use: its milestone first, then its head."""
    segment.salt = int.from_bytes(os.urandom(4), "little")
    head = SegmentHead(segment.salt, first_sequence, now_ns, folder.identity.encode()).encode()
    folder.begin(segment.number, first_sequence)
    if os.pwrite(segment.descriptor, head, 0) != len(head):
        raise OSError("the write of a segment's head was short")
    os.fdatasync(segment.descriptor)


def close_segment(descriptor: int, length: int) -> None:
    """Cut the preallocated rest, durably."""
    try:
        os.ftruncate(descriptor, length)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Allocation:
    """One thread that makes the next segment ahead of time and changes over to it."""

    def __init__(self, folder: JournalFolder, size: int) -> None:
        self._folder, self._size = folder, size
        self._thread = ThreadPoolExecutor(1, "segment")
        self._prepared: Future[OpenSegment] | None = None

    def prepare(self, number: int) -> None:
        """Have segment `number` made, unless that is under way or done."""
        if self._prepared is None:
            self._prepared = self._thread.submit(make_segment, self._folder, number, self._size)

    def change(
        self, old: OpenSegment, length: int, first_sequence: int, needed: int, now_ns: int
    ) -> Future[OpenSegment]:
        """Close `old` at its length; the next one, with room for `needed` bytes.

        Where there is no room for the next one, `old` stays open.
        """
        if self._prepared is not None and self._prepared.done() and self._prepared.exception():
            self._prepared = None  # the disk may have room by now
        self.prepare(old.number + 1)
        prepared, self._prepared = self._prepared, None
        assert prepared is not None

        def work() -> OpenSegment:
            following = prepared.result()  # the one thread has finished it: it came before us
            if following.size < needed:
                os.posix_fallocate(following.descriptor, 0, needed)
                following.size = needed
            close_segment(old.descriptor, length)
            begin_segment(self._folder, following, first_sequence, now_ns)
            return following

        return self._thread.submit(work)

    def close(self) -> None:
        """Destroy what was prepared and not needed."""
        self._thread.shutdown(wait=True)
        if self._prepared is not None and self._prepared.exception() is None:
            unused = self._prepared.result()
            os.close(unused.descriptor)
            self._folder.destroy(unused.number)
