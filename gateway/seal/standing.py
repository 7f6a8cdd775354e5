"""The alerts that are not over, as their leaves have them, for whoever may not widen then.

They are known from sealing: the governor asks nobody, and least of all the analyst. What is kept
besides, `state/alerts.json`, says up to which leaf it was looked; what came later is read again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import orjson

from gateway.disk import write_durably
from gateway.ledger.log import LedgerReader

KEEP_EVERY = 100_000
"""Leaves after which it is kept again, though nothing changed."""
LOOKED_FOR = 500_000
"""Leaves that are looked through where nothing was kept."""
ALERT_KEYS = ("model", "version", "cause", "state", "severity")
log = logging.getLogger("headworks.sealer")


class StandingAlerts:
    """`alerts` by their ids, each with `since` when it stands (ns; 0: a former release's). It is
    replaced and never changed, so any thread may read it."""

    def __init__(self, state: Path, reached: int) -> None:
        """`reached`: the ledger's end."""
        self._path = state / "alerts.json"
        self.alerts: dict[str, dict[str, Any]] = {}
        self._kept = self._load(reached)
        self._changed = False
        reader = LedgerReader(state, self._kept)
        for _, text in reader.read(reached - self._kept):
            if b'"kind":"alert"' in text:
                self.take(orjson.loads(text)["record"])
        reader.close()

    def _load(self, reached: int) -> int:
        try:
            told = orjson.loads(self._path.read_bytes())
            self.alerts = dict(told["alerts"])
            return min(int(told["reached"]), reached)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("alerts.json: %s; the newest %d leaves are looked through", error,
                        LOOKED_FOR)  # fmt: skip
        return max(0, reached - LOOKED_FOR)

    def take(self, record: dict[str, Any]) -> None:
        """The record of a leaf of an alert."""
        alert = record.get("alert")
        if not isinstance(alert, dict):
            return
        others = {key: told for key, told in self.alerts.items() if key != alert["id"]}
        if alert["state"] != "resolved":
            before = self.alerts.get(alert["id"])
            since = alert.get("updated_at", 0) if before is None else before.get("since", 0)
            others[alert["id"]] = {key: alert[key] for key in ALERT_KEYS} | {"since": since}
        self.alerts, self._changed = others, True

    def keep(self, reached: int) -> None:
        """After a commit up to a leaf."""
        if self._changed or reached - self._kept >= KEEP_EVERY:
            told = {"reached": reached, "alerts": self.alerts}
            try:
                write_durably(self._path, orjson.dumps(told, option=orjson.OPT_SORT_KEYS))
            except OSError as error:  # a full disk, perhaps: the leaves say it too
                log.warning("alerts.json is not kept: %s", error)
            self._kept, self._changed = reached, False
