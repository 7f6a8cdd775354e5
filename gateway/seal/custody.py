"""What may be destroyed, and what must not: erasure, legal hold, retention; the governor's.

All of it runs in the sealing thread. Every act is a leaf of the root log: an erasure, a retention
and a release before they are carried out, a hold after it is in force, so that a crash at any
point leaves what is held, held, and completes what was said.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gateway.ledger.bodies import BodyReader, body_files
from gateway.ledger.entries import EntryReader, Gone, LedgerDamaged
from gateway.ledger.erasure import Erasure, Export
from gateway.ledger.evidence import Missing, find_exchange
from gateway.ledger.holds import Deferred, HeldExchange, Hold, Holds
from gateway.ledger.mending import mend, unsound
from gateway.ledger.names import ROOT
from gateway.ledger.retention import Log, drop_bodies, drop_log, due, sweep
from gateway.seal.sealer import Sealer

STEPS_MAX = 10_000
RETENTION_EVERY_NS = 3600 * 10**9
SUBJECT_MAX = 8192
DECISIONS_MAX = 1000
log = logging.getLogger("headworks.custody")


class Refused(Exception):
    """An act that is not done; `status` and `code` as the API says them."""

    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__(words)
        self.status, self.code = status, code


class Custody:
    def __init__(self, sealer: Sealer) -> None:
        self.sealer, self.state = sealer, sealer.state
        self.erasure = Erasure(sealer.state, sealer.keys, sealer.subjects)
        self.holds = Holds(sealer.state)
        self._bodies = BodyReader(sealer.state, sealer.keys)
        self._looked_at = 0

    def resume(self) -> None:
        """Complete what leaves say and a crash, or a restored backup, left undone."""
        if self.holds.damage is not None:
            log.critical("nothing is erased or retired: %s", self.holds.damage)
        sweep(self.state / "ledger" / "models")
        for index, leaf in self._root_leaves(self.erasure.position, b'"kind":"erasure"'):
            self._mend()
            done = self.erasure.carry_out(index + 1, leaf["record"]["numbers"])
            if done.keys or done.blobs:
                log.warning("erasure of leaf %d of root is completed: %s", index, done)
        self.erasure.carry_out(self._root_size(), ())

    def _mend(self) -> None:
        """Erasure and retention go by the indexes of the bodies: a damaged one is made again."""
        for file in unsound(self.state):
            self.sealer.bodies.let_go(file)
            logs = {name: log.size for name, log in self.sealer.ledger.logs.items()}
            lost = mend(self.state, file, logs)
            log.critical("the index of bodies/%s was damaged and is made again from the ledger; "
                         "%d bytes that no leaf names are overwritten", file, lost)  # fmt: skip

    def _root_size(self) -> int:
        held = self.sealer.ledger.logs.get(ROOT)
        return held.size if held else 0

    def _root_leaves(self, start: int, mark: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
        """Leaves of root from `start` on whose bytes hold `mark`."""
        reader = EntryReader(self.state / "ledger" / ROOT)
        for index in range(start, self._root_size()):
            entry = reader.read(index)
            if mark in entry:
                yield index, orjson.loads(entry)
        reader.close()

    def _say(self, kind: str, record: dict[str, Any]) -> int:
        """A durable leaf of root; its index there."""
        self.sealer.notary.tell(kind, record)
        self.sealer.ledger.commit()
        return self._root_size() - 1

    def find(self, subject: str) -> dict[str, Any]:
        """A subject's token and what is held under it."""
        if not 0 < len(subject) <= SUBJECT_MAX:
            raise Refused(400, "bad_parameter", f"subject: 1 to {SUBJECT_MAX} characters")
        token = self.sealer.subjects.token(subject)
        plan = self.erasure.plan([] if token is None else self.sealer.subjects.all_of([token]))
        return {"token": token, "count": plan.blobs, "bytes": plan.bytes, "files": plan.files}

    def resolve(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Decisions named by their ids, found in the ledger's files; for any thread: it may take
        seconds."""
        ids = [asked["decision"]] if "decision" in asked else asked.get("decisions") or []
        if not isinstance(ids, list) or len(ids) > DECISIONS_MAX:
            raise Refused(400, "bad_parameter", f"decisions: at most {DECISIONS_MAX} ids")
        return asked | {"exchanges": [self._exchange(one) for one in ids]}

    def _exchange(self, identity: object) -> HeldExchange:
        text = str(identity).partition("/")[0]
        try:
            leaf, _ = find_exchange(self.state / "ledger", str(uuid.UUID(text)))
        except (ValueError, Missing):
            words = f"no decision {str(identity)[:80]!r} is in the ledger"
            raise Refused(404, "unknown_decision", words) from None
        body = leaf.document.get("body")
        if body is None:
            raise Refused(404, "nothing_held", f"nothing is held of {text}")
        try:
            return HeldExchange(text, body["file"], self._bodies.numbers(body))
        except ValueError as error:
            raise Refused(404, "nothing_held", f"{text}: {error}") from None

    def erase(self, asked: Mapping[str, Any], by: str) -> dict[str, Any]:
        """Erase `token` or the one subject of `decision`; what was destroyed."""
        reason = _reason(asked)
        self._seal_all()
        try:
            self._mend()
        except (LedgerDamaged, Gone, ValueError) as error:
            words = (
                f"nothing is erased: an index of bodies is damaged, and the ledger, too: {error}"
            )
            raise Refused(503, "index_damaged", words) from None
        self._check_holds()
        numbers = self.sealer.subjects.all_of(self._numbers(asked))
        plan = self.erasure.plan(numbers, self._exports())
        if plan.empty:
            raise Refused(404, "nothing_held", "nothing is left to erase")
        told = plan.to_json() | {"by": by, "reason": reason}
        if held := self.holds.against(numbers, plan.files):
            return self._defer(numbers, told, held, by, reason)
        index = self._say("erasure", told)
        done = self.erasure.carry_out(index + 1, numbers)
        return told | {"keys": done.keys, "blobs": done.blobs, "leaf": index, "deferred": False}

    def _defer(
        self, numbers: tuple[int, ...], told: dict[str, Any], held: tuple[Hold, ...], by: str,
        reason: str,
    ) -> dict[str, Any]:  # fmt: skip
        names = [hold.id for hold in held]
        deferred = Deferred(str(uuid.uuid4()), numbers, reason, by, self.sealer.clock.steady())
        self.holds.defer(deferred)
        index = self._say("erasure_deferred", told | {"id": deferred.id, "holds": names})
        return told | {"keys": 0, "blobs": 0, "leaf": index, "deferred": True, "holds": names}

    def _seal_all(self) -> None:
        """A record sealed after the erasure would get a new key: nothing may wait."""
        for _ in range(STEPS_MAX):
            if not self.sealer.step():
                return
        raise Refused(503, "busy", "records come faster than they are sealed: try again")

    def _numbers(self, asked: Mapping[str, Any]) -> tuple[int, ...]:
        token, exchanges = asked.get("token"), asked["exchanges"]
        if isinstance(token, int) and not isinstance(token, bool) and token >= 0 and not exchanges:
            return (token,)
        if token is not None or len(exchanges) != 1:
            words = "a token (a whole number) or a decision is wanted, one of both"
            raise Refused(400, "bad_parameter", words)
        numbers: tuple[int, ...] = exchanges[0].numbers
        if len(numbers) > 1:
            words = f"the decision is of several subjects; say which token: {list(numbers)}"
            raise Refused(409, "several_subjects", words)
        return numbers

    def _exports(self) -> list[Export]:
        return [
            Export(record["id"], record["model"], frozenset(record["days"]), record["values"])
            for _, leaf in self._root_leaves(0, b'"kind":"export"')
            for record in [leaf["record"]]
        ]

    def _check_holds(self) -> None:
        """Whatever a leaf put under hold and none released has to be known, or nothing may go: a
        file of holds may rot, be lost, or come from an old backup."""
        if self.holds.damage is not None:
            raise Refused(503, "holds_damaged", self.holds.damage)
        try:
            held = {leaf["record"]["id"] for _, leaf in self._root_leaves(0, b'"kind":"hold"')}
            if held <= self.holds.holds.keys():
                return
            for _, leaf in self._root_leaves(0, b'"kind":"release"'):
                held.discard(leaf["record"]["id"])
        except (LedgerDamaged, Gone) as error:
            words = f"nothing may be destroyed: what is held cannot be read: {error}"
            raise Refused(503, "holds_damaged", words) from None
        if unknown := held - self.holds.holds.keys():
            words = f"hold {min(unknown)} of the ledger is not in holds.json: restore it"
            raise Refused(503, "holds_damaged", words)

    def told_holds(self) -> dict[str, Any]:
        """Holds in force and erasures that wait for their release."""
        return {
            "holds": [
                {"id": hold.id, "model": hold.model, "reason": hold.reason, "by": hold.by,
                 "exchanges": [exchange.id for exchange in hold.exchanges]}
                for hold in self.holds.holds.values()
            ],
            "deferred": [
                {"id": one.id, "tokens": list(one.numbers), "reason": one.reason, "by": one.by}
                for one in self.holds.deferred.values()
            ],
        }  # fmt: skip

    def change_hold(self, asked: Mapping[str, Any], by: str) -> dict[str, Any]:
        """`action`: hold (a model, or decisions) or release (a hold)."""
        reason, action = _reason(asked), asked.get("action")
        self._check_holds()
        if action == "hold":
            return self._hold(asked.get("model"), asked["exchanges"], reason, by)
        if action == "release":
            return self._release(str(asked.get("hold")), reason, by)
        raise Refused(400, "bad_parameter", f"action={str(action)[:40]!r}: hold or release")

    def _hold(
        self, model: str | None, exchanges: list[HeldExchange], reason: str, by: str
    ) -> dict[str, Any]:
        if model is not None and model not in self._models():
            raise Refused(404, "unknown_model", f"model {str(model)[:80]!r} is not configured")
        now = self.sealer.clock.steady()
        hold = Hold(str(uuid.uuid4()), reason, by, now, model, tuple(exchanges))
        self.holds.hold(hold)
        self._say("hold", {"id": hold.id, "model": model, "reason": reason, "by": by,
                           "exchanges": [one.id for one in exchanges]})  # fmt: skip
        return {"hold": hold.id}

    def _release(self, identity: str, reason: str, by: str) -> dict[str, Any]:
        if identity not in self.holds.holds:
            raise Refused(404, "unknown_hold", f"hold {identity[:80]!r} is not in force")
        self._say("release", {"id": identity, "reason": reason, "by": by})
        self.holds.release(identity)
        return {"hold": identity, "erased": self._complete_deferred()}

    def _complete_deferred(self) -> list[str]:
        erased = []
        self._mend()
        for waiting in list(self.holds.deferred.values()):
            plan = self.erasure.plan(waiting.numbers, self._exports())
            if self.holds.against(waiting.numbers, plan.files):
                continue
            told = plan.to_json() | {"by": waiting.by, "reason": waiting.reason, "id": waiting.id}
            self.erasure.carry_out(self._say("erasure", told) + 1, waiting.numbers)
            self.holds.done(waiting.id)
            erased.append(waiting.id)
        return erased

    def _models(self) -> Mapping[str, Any]:
        revision = self.sealer.tables.current
        if revision is None:
            return {}
        found: Mapping[str, Any] = self.sealer.tables.load(revision).document["models"]
        return found

    def retire(self) -> None:
        """Each hour: destroy what is older than its model's retention and not held."""
        now = self.sealer.clock.steady()
        if now - self._looked_at < RETENTION_EVERY_NS:
            return
        self._looked_at = now
        rules = {name: float(model["retention"]) for name, model in self._models().items()}
        if not rules:
            return
        rules["-"] = max(rules.values())
        logs = [self._log(name) for name in self.sealer.ledger.logs if name != ROOT]
        found = due(logs, body_files(self.state), self.holds.holds.values(), now, rules)
        if not (found.bodies or found.logs):
            return
        try:
            self._check_holds()
        except Refused as error:
            log.critical("nothing is retired: %s", error)
            return
        try:
            self._mend()
        except (LedgerDamaged, Gone, ValueError):
            log.exception("nothing is retired: an index of bodies is damaged, and the ledger, too")
            return
        self._say("retention", {"bodies": found.bodies, "logs": [one.name for one in found.logs]})
        for file in found.bodies:
            self.sealer.bodies.forget(file)
        drop_bodies(self.state, self.sealer.subjects, found.bodies)
        for one in found.logs:
            self.sealer.notary.signer.forget(one.name)
            self.sealer.ledger.forget(one.name)
            drop_log(self.state / "ledger" / one.name)

    def _log(self, name: str) -> Log:
        _, model, quarter = name.split("/")
        closed = (self.state / "ledger" / name / "closed").exists()
        return Log(model, quarter, closed)


def _reason(asked: Mapping[str, Any]) -> str:
    reason = asked.get("reason")
    if not isinstance(reason, str) or not 5 <= len(reason.strip()) <= 500:
        words = f"reason={str(reason)[:40]!r}: 5 to 500 characters are wanted"
        raise Refused(400, "bad_parameter", words)
    return reason.strip()
