"""What people ask of rollouts: who may, and what becomes of it. In the sealing thread.

Narrowing takes one person, of any role, and no approval. Widening takes the role `sre` and is
written down first; where the file says `second_person` it is only asked for, and done when somebody
else approves. An approval is of one step of one digest of the file; never by its author.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.rollout.attempt import Asked, Attempt
from gateway.rollout.controller import Rollouts
from gateway.rollout.entry import artifacts_of, basis_of, is_swapped
from gateway.rollout.fitness import misfits
from gateway.rollout.guardsettings import EDITION
from gateway.rollout.lifecycle import (
    Phase,
    abort,
    go_on,
    is_approved,
    pause,
    resume,
)
from gateway.rollout.readiness import unready
from gateway.rollout.rolloutsettings import RolloutSettings
from gateway.yamlfile import Problem, check_document

FILE_BYTES_MAX = 16 * 1024
REASON_MAX = 500
LIVE_MAX = 50
ROLE = "sre"
"""Who may start, resume and promote."""


class Refused(Exception):
    """What is not done; `status` and `code` as the API says them, `problems` of a file."""

    def __init__(
        self, status: int, code: str, words: str, problems: Sequence[Problem] = ()
    ) -> None:
        super().__init__(words)
        self.status, self.code, self.problems = status, code, list(problems)


@dataclass(frozen=True, slots=True)
class Person:
    """`roles` None: nobody is named in the configuration, so that nobody can be told apart."""

    name: str
    roles: frozenset[str] | None


class Steward:
    def __init__(self, rollouts: Rollouts) -> None:
        self.rollouts = rollouts

    def start(self, text: bytes, shown: str, person: Person) -> Attempt:
        """Create a rollout from its file; it begins at once unless somebody has to approve."""
        self._may_expose(person)
        settings, tree = self._read(text, shown)
        self._check(settings, shown, person)
        _, document = self.rollouts.revisions.current()
        number = self.rollouts.next_number(settings.rollout)
        created = {
            "name": settings.rollout, "rollout": settings.rollout, "attempt": number,
            "event": "created", "at": self.rollouts.clock.steady(), "by": person.name,
            "edition": EDITION,
            "file": tree, "digest": settings.digest, "model": settings.model,
            "rule": settings.rule, "from": settings.from_, "to": settings.to,
            "artifacts": artifacts_of(document, settings),
            "basis": basis_of(document, settings),
            "revision": self.rollouts.revisions.tables.current,
        }  # fmt: skip
        self.rollouts.say(created)
        attempt = self.rollouts.attempts[settings.rollout]
        if attempt.plan.first == 0:
            self._widen(attempt, "start", person, settings.reason or "started")
        return attempt

    def _read(self, text: bytes, shown: str) -> tuple[RolloutSettings, dict[str, Any]]:
        if len(text) > FILE_BYTES_MAX:
            raise Refused(413, "request_too_large", f"a rollout has {FILE_BYTES_MAX} bytes at most")
        settings, tree, problems = check_document(text, shown, RolloutSettings)
        if settings is None:
            raise Refused(422, "bad_rollout", f"{len(problems)} problems", problems)
        told = {"guards": [guard.name for guard in settings.guards], **tree}
        return settings, orjson.loads(orjson.dumps(told, default=str))

    def _check(self, settings: RolloutSettings, shown: str, person: Person) -> None:
        """Whether it can be run here and now; nothing is changed if not."""
        live = [one for one in self.rollouts.attempts.values() if not one.is_over]
        for one in live:
            if one.name == settings.rollout:
                raise Refused(409, "rollout_runs", f"rollout {one.name!r} is {one.stage.phase}")
            if (one.settings.model, one.settings.rule) == (settings.model, settings.rule):
                words = f"rule {settings.rule!r} belongs to rollout {one.name!r}"
                raise Refused(409, "rule_taken", words)
        if len(live) >= LIVE_MAX:
            raise Refused(409, "too_many", f"{LIVE_MAX} rollouts run already")
        needed = settings.second_person or any(step.approval for step in settings.steps)
        if needed and person.roles is None:
            words = "approvals need `people` in the configuration"
            raise Refused(422, "bad_rollout", words, [_problem(shown, "steps", words)])
        _, document = self.rollouts.revisions.current()
        problems = [_problem(shown, key, words) for key, words in misfits(settings, document)]
        if not problems:
            why = unready(self.rollouts.state / "metrics", settings.model, settings.to)
            problems += [_problem(shown, "to", why)] if why is not None else []
        if problems:
            raise Refused(422, "bad_rollout", str(problems[0].allowed), problems)

    # Widening.

    def _may_expose(self, person: Person) -> None:
        """Where people are told apart, only whose task it is exposes others to a candidate."""
        if person.roles is not None and ROLE not in person.roles:
            raise Refused(403, "forbidden", f"the role {ROLE!r} is wanted")

    def _widen(self, attempt: Attempt, what: str, person: Person, why: str) -> None:
        """Do it, or ask for somebody else's yes."""
        DONE[what](self, attempt, person.name, why, check=True)
        if not attempt.settings.second_person:
            DONE[what](self, attempt, person.name, why, check=False)
            return
        self.rollouts.tell(attempt, "asked", person.name, {"what": what, "why": why})

    def _begin(self, attempt: Attempt, by: str, why: str, check: bool) -> None:
        if (gate := self.rollouts.gate(attempt)) is not None:
            role = attempt.plan.steps[gate - 1].approval
            words = f"step {gate} waits for the approval of a {role}"
            raise Refused(409, "not_approved", words)
        _, document = self.rollouts.revisions.current()
        if is_swapped(document, attempt):
            words = "its versions, units or groups have changed since it was created; start anew"
            raise Refused(409, "not_now", words)
        if not check:
            self.rollouts.begin(attempt, by, why)

    def _resume(self, attempt: Attempt, by: str, why: str, check: bool) -> None:
        if attempt.stage.phase is not Phase.HELD:
            words = f"only a held rollout is resumed; it is {attempt.stage.phase}"
            raise Refused(409, "not_now", words)
        if not check:
            self.rollouts.move(attempt, resume(attempt.plan, attempt.stage, why), by)

    def _promote(self, attempt: Attempt, by: str, why: str, check: bool) -> None:
        self._go(attempt, attempt.stage.step + 1, by, why, check)

    def _promote_fully(self, attempt: Attempt, by: str, why: str, check: bool) -> None:
        last = len(attempt.plan.steps) - 1
        self._go(attempt, last if attempt.stage.step < last else last + 1, by, why, check)

    def _go(self, attempt: Attempt, place: int, by: str, why: str, check: bool) -> None:
        """No approval is passed over."""
        if not attempt.is_exposed:
            words = f"nothing to promote: it is {attempt.stage.phase}"
            raise Refused(409, "not_now", words)
        now = self.rollouts.clock.steady()
        steps = attempt.plan.steps
        for gate in range(attempt.stage.step, min(place, len(steps))):
            if steps[gate].approval and not is_approved(attempt.plan, attempt.stage, gate, now):
                words = f"step {gate + 1} waits for the approval of a {steps[gate].approval}"
                raise Refused(409, "not_approved", words)
        if not check:
            self.rollouts.move(attempt, go_on(attempt.plan, attempt.stage, why, place), by)

    def approve(self, name: str, person: Person) -> Attempt:
        """Say yes: to what somebody else asked for, else to the next step that waits for it."""
        attempt = self._live(name)
        if person.roles is None:
            raise Refused(409, "no_people", "approvals need `people` in the configuration")
        drafted = attempt.stage.phase is Phase.DRAFT
        if attempt.asked is not None and not (drafted and self.rollouts.gate(attempt)):
            self._second(attempt, attempt.asked, person)
            return attempt
        place = self._gate(attempt, person)
        told = {"step": place, "digest": attempt.plan.digest, "roles": sorted(person.roles)}
        self.rollouts.tell(attempt, "approved", person.name, told)
        why = f"approved by {person.name}"
        if drafted:
            if self.rollouts.gate(attempt) is None:
                self._widen(attempt, "start", Person(attempt.author, None), why)
        elif attempt.stage.step == place and attempt.stage.phase is not Phase.HELD:
            self.rollouts.move(attempt, go_on(attempt.plan, attempt.stage, why), person.name)
        return attempt

    def _second(self, attempt: Attempt, asked: Asked, person: Person) -> None:
        if person.name in (asked.by, attempt.author):
            words = f"{person.name} wrote it or asked for it; somebody else has to approve"
            raise Refused(403, "same_person", words)
        why = f"{asked.why}; asked by {asked.by}, approved by {person.name}"
        DONE[asked.what](self, attempt, person.name, why, check=False)

    def _gate(self, attempt: Attempt, person: Person) -> int:
        steps, now = attempt.plan.steps, self.rollouts.clock.steady()
        for place in range(max(0, attempt.stage.step), len(steps)):
            role = steps[place].approval
            if role is None or is_approved(attempt.plan, attempt.stage, place, now):
                continue
            if person.name == attempt.author:
                raise Refused(403, "same_person", "who wrote a rollout never approves it")
            if role not in (person.roles or ()):
                raise Refused(403, "forbidden", f"the role {role!r} is wanted")
            return place
        raise Refused(409, "not_now", "no step of it waits for an approval")

    # What one person may do.

    def resume(self, name: str, person: Person, why: str) -> Attempt:
        attempt = self._live(name)
        self._may_expose(person)
        self._widen(attempt, "resume", person, why)
        return attempt

    def promote(self, name: str, person: Person, why: str, fully: bool = False) -> Attempt:
        attempt = self._live(name)
        self._may_expose(person)
        self._widen(attempt, "promote fully" if fully else "promote", person, why)
        return attempt

    def pause(self, name: str, person: Person, why: str) -> Attempt:
        attempt = self._live(name)
        self.rollouts.move(attempt, pause(attempt.stage, why), person.name)
        return attempt

    def abort(self, name: str, person: Person, why: str) -> Attempt:
        attempt = self._live(name)
        self.rollouts.move(attempt, abort(attempt.stage, why), person.name)
        return attempt

    def _live(self, name: str) -> Attempt:
        attempt = self.rollouts.attempts.get(name)
        if attempt is None:
            raise Refused(404, "unknown_rollout", f"no rollout {name[:80]!r} is known")
        if attempt.is_over:
            words = f"rollout {name!r} is over: {attempt.stage.phase}"
            raise Refused(409, "not_now", words)
        return attempt


DONE: Mapping[str, Callable[..., None]] = {
    "start": Steward._begin,
    "resume": Steward._resume,
    "promote": Steward._promote,
    "promote fully": Steward._promote_fully,
}


def _problem(shown: str, key: str, words: str) -> Problem:
    return Problem(shown, 1, key, "", words)


def read_reason(told: object) -> str:
    """1 to 500 characters. Refused otherwise."""
    if not isinstance(told, str) or not 0 < len(told.strip()) <= REASON_MAX:
        words = f"reason={str(told)[:40]!r}: 1 to {REASON_MAX} characters are wanted"
        raise Refused(400, "bad_parameter", words)
    return told.strip()
