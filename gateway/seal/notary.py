"""What the ledger says of itself: its key, logs opened and closed, heartbeats, checkpoints.

Invariants:
1. A log's first leaf comes behind a `log_opened` leaf of the root log; a quarter that is over gets
   a `log_closed` leaf with its final checkpoint: no log can appear or vanish unseen.
2. A heartbeat binds size and root of every log into the root log, idle or not: silence shows, and
   so does a log that was cut.
3. Checkpoints are made of committed leaves only, at most one an interval and log.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

import orjson

from gateway import __version__
from gateway.clock import Clock, isoformat
from gateway.disk import write_durably
from gateway.ledger.entries import EntryReader
from gateway.ledger.log import Ledger
from gateway.ledger.names import ROOT, log_of, origin_of, over
from gateway.ledger.signer import Signer
from gateway.seal.leaf import encode_leaf
from gateway.settings import LedgerSettings


def encode_policy(log: str, witnesses: Sequence[str], needed: int) -> bytes:
    """c2sp.org/tlog-policy: the log, its witnesses, how many of them are needed."""
    names = [f"w{number}" for number in range(1, len(witnesses) + 1)]
    lines = [f"log {log}", *(f"witness {name} {vkey}" for name, vkey in zip(names, witnesses))]
    if needed:
        lines += [f"group witnesses {needed} {' '.join(names)}", "quorum witnesses"]
    else:
        lines.append("quorum none")
    return ("\n".join(lines) + "\n").encode()


class Notary:
    def __init__(
        self, ledger: Ledger, signer: Signer, clock: Clock, settings: LedgerSettings
    ) -> None:
        self.ledger, self.signer, self.clock, self.settings = ledger, signer, clock, settings
        self._checkpoint_ns = int(settings.checkpoint * 1e9)
        self._heartbeat_ns = int(settings.heartbeat * 1e9)
        self._signed_at = 0
        self._beat_at = clock.steady()
        self.name = signer.key.name
        self._unopened = self._find_unopened()

    def _find_unopened(self) -> set[str]:
        """Logs that the order names and the root log does not open: a crash came between the two
        in the commit that was to open them. They have no leaf yet."""
        logs = self.ledger.logs.items()
        empty = {origin_of(self.name, log): log for log, held in logs if not held.size}
        empty.pop(origin_of(self.name, ROOT), None)
        if empty and ROOT in self.ledger.logs:
            reader = EntryReader(self.ledger.root / ROOT)
            for index in range(self.ledger.logs[ROOT].size):
                if b'"kind":"log_opened"' in (entry := reader.read(index)):
                    empty.pop(orjson.loads(entry)["record"]["origin"], None)
            reader.close()
        return set(empty.values())

    def begin(self, restarts: int) -> None:
        """The first leaves of a start; of a new ledger its key before them."""
        vkey = str(self.signer.key.verifier(ROOT))
        if self.ledger.number == 0:
            self.tell("key", {"name": self.name, "vkey": vkey})
        self._write_policy(vkey)
        self.tell("start", {"version": __version__, "host": socket.gethostname(),
                            "pid": os.getpid(), "restarts": restarts})  # fmt: skip
        self.ledger.commit()

    def _write_policy(self, vkey: str) -> None:
        """Whom to believe, for whoever fetches the ledger; their own copy is the one that counts
        (c2sp.org/tlog-policy)."""
        text = encode_policy(vkey, [one.vkey for one in self.settings.witnesses],
                             self.settings.needed)  # fmt: skip
        path = self.ledger.root / "policy"
        if not path.exists() or path.read_bytes() != text:
            write_durably(path, text)

    def end(self) -> None:
        """The last leaf of a clean stop, and a checkpoint of all."""
        self.tell("stop", {})
        self.ledger.commit()
        self.signer.sign(self.signer.news())

    def tell(self, kind: str, record: dict[str, Any]) -> int:
        """Queue a leaf of the root log; its number."""
        told = {"at": self.clock.steady(), "wall": isoformat(self.clock.wall()), **record}
        text = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
        return self.ledger.append(ROOT, encode_leaf(kind, text))

    def log(self, model: str | None) -> str:
        """The log for a leaf that is sealed now, opened if it is new."""
        log = log_of(model, self.clock.steady())
        if log != ROOT and (log not in self.ledger.logs or log in self._unopened):
            self._unopened.discard(log)
            vkey = str(self.signer.key.verifier(log))
            self.tell("log_opened", {"origin": origin_of(self.name, log), "vkey": vkey})
        return log

    def beat(self) -> None:
        """A heartbeat, if it is time for one."""
        now = self.clock.steady()
        if now - self._beat_at >= self._heartbeat_ns:
            self._beat_at = now
            roots = {origin_of(self.name, log): [size, root]
                     for log, (size, root) in self.signer.roots().items()}  # fmt: skip
            self.tell("heartbeat", {"logs": roots})

    def publish(self) -> None:
        """Checkpoints of what was committed, if there is news and it is time."""
        now = self.clock.steady()
        if now - self._signed_at < self._checkpoint_ns:
            return
        self._signed_at = now
        self._close_past(now)
        if news := self.signer.news():
            self.signer.sign(news)

    def status(self) -> dict[str, Any]:
        """What was last signed of each log."""
        return {
            "name": self.name,
            "logs": {log: {"size": size, "root": root}
                     for log, (size, root) in list(self.signer.roots().items())},
        }  # fmt: skip

    def _close_past(self, now: int) -> None:
        for log in list(self.ledger.logs):
            marker = self.ledger.root / log / "closed"
            if over(log, now) and log not in self._unopened and not marker.exists():
                self.signer.sign([log])
                size, root = self.signer.roots()[log]
                checkpoint = (self.ledger.root / log / "checkpoint").read_text()
                self.tell("log_closed", {"origin": origin_of(self.name, log), "size": size,
                                         "root": root, "checkpoint": checkpoint})  # fmt: skip
                self.ledger.commit()
                write_durably(marker, b"")
