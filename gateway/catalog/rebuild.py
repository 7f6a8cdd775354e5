"""The catalog made again from the ledger, beside the one in use.

Rows come from leaves alone (`rows.py`), so the same leaves give the same rows. The new file follows
the ledger in a thread while the old one goes on; the last stretch and the exchange of files are
done between two chunks of the fold, and readers find either file whole.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from gateway.catalog.leaves import read_whole
from gateway.catalog.rows import rows_of
from gateway.catalog.store import Catalog
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader

CHUNK = 16_384
"""Leaves a transaction: they fill row groups, which then skip the write-ahead log."""


class Rebuild:
    """One rebuild; `follow` in any one thread, `finish` once it is done."""

    def __init__(self, state: Path, bodies: BodyReader) -> None:
        self.path = state / "catalog" / "catalog.rebuild.duckdb"
        self._forget()
        self._catalog = Catalog(self.path)
        self._reader = LedgerReader(state)
        self._bodies = bodies
        self.stopping = threading.Event()

    def _forget(self) -> None:
        for path in (self.path, self.path.with_name(self.path.name + ".wal")):
            path.unlink(missing_ok=True)

    @property
    def reached(self) -> int:
        return self._reader.next - 1

    def follow(self, reached: int) -> None:
        """Take in the leaves up to and with number `reached`."""
        while self._reader.next <= reached and not self.stopping.is_set():
            at_most = min(CHUNK, reached + 1 - self._reader.next)
            for number, leaf in read_whole(self._reader, self._bodies, at_most):
                for table, row in rows_of(number, leaf):
                    self._catalog.add(table, row)
            self._catalog.commit(self._reader.next - 1, {})

    def finish(self, old: Catalog, path: Path) -> Catalog:
        """Take the old one's place at the leaf that it has reached, with its state."""
        self.follow(old.reached)
        self._catalog.commit(old.reached, old.state)
        self._catalog.close()
        self._reader.close()
        old.close()
        path.with_name(path.name + ".wal").unlink(missing_ok=True)
        os.replace(self.path, path)
        return Catalog(path)
