"""The ledger's way to its witnesses: each log's newest checkpoint is shown to each of them.

A round, every ten seconds: for each log, its checkpoint is read once and sent to all witnesses that
have not cosigned it, side by side, with the proof that their last one is its prefix; what they
answer is checked and kept in `state/ledger/<log>/witnessed`.

Invariants:
1. Nobody waits for a round: it reads files that are there and writes one that only readers of
   evidence use. It may be cancelled anywhere and begun again; what is known is on disk and in the
   witnesses' own answers (409 tells the size to go on from).
2. A proof is sent only if our own tiles give our own checkpoint's root. So a 422, or a 409 with a
   size beyond ours, says that the witness saw another past than this ledger has: an alarm.
3. A witness that is down, slow or talks nonsense costs the others at most one time limit a round;
   it is asked again later and later, up to five minutes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from gateway.clock import Clock
from gateway.disk import write_durably
from gateway.ledger import note
from gateway.ledger.checkpoint import Checkpoint
from gateway.ledger.merkle import prove_consistency, root_of
from gateway.ledger.note import Malformed, Note, Unsigned, VerifierKey
from gateway.ledger.tiles import TILE_WIDTH, ReadTile, Tile, TileDamaged, nodes_from
from gateway.outbound.standing import NANO, LogStanding, WitnessStanding
from gateway.telemetry.metrics import Metrics
from gateway.witness.answer import (
    Cosignature,
    cosignatures,
    kept,
    read_conflict,
    read_cosignature,
)
from gateway.witness.submission import Submission

ROUND_S = 10.0
TIMEOUT_S = 5.0
LATER_S = 60
"""When a log is tried again that a witness does not accept."""
BACKOFF_S = (10, 20, 60, 120, 300)
TRIES = 3
ANSWER_BYTES_MAX = 64 * 1024
ROOT = "root"
log = logging.getLogger("headworks.witnesses")


class _Trouble(Exception):
    """No cosignature. `answer` is what is counted; `of_log`: other logs may fare better."""

    def __init__(self, answer: str, words: str, of_log: bool = False) -> None:
        super().__init__(words)
        self.answer, self.of_log = answer, of_log


class _Fork(Exception):
    """The witness saw another past than this ledger has."""


@dataclass(frozen=True)
class Snapshot:
    """A log's checkpoint as it was read: one for all witnesses of a round."""

    folder: Path
    note: Note
    point: Checkpoint


def read_tile_of(folder: Path) -> ReadTile:
    """Tiles of the log at `folder`; the full one stands in for a partial one that is gone."""

    def read(tile: Tile) -> bytes:
        try:
            return (folder / tile.path).read_bytes()
        except FileNotFoundError:
            if tile.width == TILE_WIDTH:
                raise
            return (folder / Tile(tile.level, tile.number).path).read_bytes()

    return read


def prove(snapshot: Snapshot, known: int) -> tuple[bytes, ...]:
    """The proof from `known` leaves to the snapshot's; _Trouble where our tiles do not give it."""
    point = snapshot.point
    try:
        node = nodes_from(point.size, read_tile_of(snapshot.folder))
        if root_of(point.size, node) != point.root:
            raise _Trouble("not_sent", f"{point.origin}: tiles and checkpoint differ", of_log=True)
        return prove_consistency(known, point.size, node) if known else ()
    except (OSError, TileDamaged) as error:
        raise _Trouble("not_sent", f"{point.origin}: {error}", of_log=True) from error


def read_snapshot(folder: Path) -> Snapshot | None:
    """The newest checkpoint of the log at `folder`; None where there is none to be read."""
    try:
        signed = note.read((folder / "checkpoint").read_bytes())
        return Snapshot(folder, signed, Checkpoint.read(signed.text))
    except FileNotFoundError:
        return None
    except (OSError, Malformed) as error:
        log.error("%s/checkpoint: %s", folder, error)
        return None


Held = dict[VerifierKey, tuple[Checkpoint, int]]
"""By witness: the checkpoint of `witnessed` that it cosigned, and when (POSIX seconds)."""


class Witnesses:
    """All witnesses of one ledger. `ledger`: the folder state/ledger; `quorum`: of settings."""

    def __init__(
        self,
        ledger: Path,
        witnesses: Sequence[tuple[str, str]],
        quorum: int,
        metrics: Metrics,
        clock: Clock,
        round_s: float = ROUND_S,
    ) -> None:
        """`witnesses`: (vkey, url) of each. Malformed for a vkey that is none."""
        self.ledger, self.quorum, self.metrics, self.clock = ledger, quorum, metrics, clock
        self.round_s = round_s
        self.standings = [
            WitnessStanding(VerifierKey.parse(vkey), url.rstrip("/")) for vkey, url in witnesses
        ]
        self.keys = [standing.key for standing in self.standings]
        self._clients: dict[VerifierKey, httpx2.AsyncClient] = {}

    async def keep_witnessed(self, stopping: asyncio.Event) -> None:
        """Rounds until told to stop; may be cancelled at any time. Raises nothing of its own."""
        async with AsyncExitStack() as stack:
            for key in self.keys:
                limits = httpx2.Limits(max_connections=2, max_keepalive_connections=1)
                client = httpx2.AsyncClient(timeout=TIMEOUT_S, limits=limits)
                self._clients[key] = await stack.enter_async_context(client)
            while self.standings and not stopping.is_set():
                try:
                    await self._round(stopping)
                except Exception:  # a full disk, a folder taken away: the next round may do better
                    log.exception("a round of the witnesses failed")
                self._tell_numbers()
                try:
                    await asyncio.wait_for(stopping.wait(), self.round_s)
                except TimeoutError:
                    pass

    def document(self) -> dict[str, Any]:
        """For /api/v1/status: figures by witness; `words` make it yellow, `red` red."""
        now = self.clock.steady()
        return {
            "quorum": self.quorum,
            "witnesses": [standing.document(now) for standing in self.standings],
            "words": [words for each in self.standings for words in each.words(now)],
            "red": [alarm for each in self.standings for alarm in each.alarms()],
        }

    def _tell_numbers(self) -> None:
        now = self.clock.steady()
        for each in self.standings:
            name = each.key.name
            self.metrics.set("headworks_witness_lag_seconds", each.lag_s(now), name)
            self.metrics.set("headworks_witness_lag_records", each.lag_leaves(), name)
            self.metrics.set("headworks_witness_alarms", len(each.alarms()), name)

    async def _round(self, stopping: asyncio.Event) -> None:
        known = {origin for standing in self.standings for origin in standing.logs}
        looks = await asyncio.to_thread(lambda: list(self._look(known)))
        for standing in self.standings:
            for gone in standing.logs.keys() - {snapshot.point.origin for snapshot, _ in looks}:
                del standing.logs[gone]
            for snapshot, held in looks:
                self._see(standing, snapshot, held.get(standing.key))
        snapshots = [snapshot for snapshot, _ in looks]
        spent = dict.fromkeys(self.keys, 0.0)
        for snapshot in sorted(snapshots, key=self._waiting):
            if stopping.is_set():
                return
            now = self.clock.steady()
            due = [
                each for each in self.standings
                if self._is_due(each, snapshot.point.origin, now) and spent[each.key] < ROUND_S
            ]  # fmt: skip
            if due:
                answers = await asyncio.gather(*(self._ask(each, snapshot) for each in due))
                for each, (_, seconds) in zip(due, answers):
                    spent[each.key] += seconds
                fresh = [cosigned for cosigned, _ in answers if cosigned is not None]
                await asyncio.to_thread(self._keep, snapshot, fresh)

    def _look(self, known: set[str]) -> Iterator[tuple[Snapshot, Held]]:
        """The newest checkpoint of every log; of logs not yet known, what `witnessed` holds."""
        for folder in (self.ledger / ROOT, *sorted(self.ledger.glob("models/*/[!.]*"))):
            snapshot = read_snapshot(folder)
            if snapshot is not None:
                new = snapshot.point.origin not in known
                yield snapshot, _held(folder, self.keys) if new else {}

    def _see(
        self, standing: WitnessStanding, snapshot: Snapshot, held: tuple[Checkpoint, int] | None
    ) -> None:
        """Take down a log's newest checkpoint; `held`: what was cosigned before a restart."""
        now, point = self.clock.steady(), snapshot.point
        each = standing.logs.setdefault(point.origin, LogStanding(point))
        each.newest = point
        since = now
        if held is not None:
            each.cosigned, at = held
            each.known = each.cosigned.size
            standing.at = max(standing.at or 0, at)
            if snapshot.folder.name == ROOT:  # it alone has a leaf a minute, so this tells how long
                since = min(now, at * NANO)
        if each.news and each.waits_since is None:
            each.waits_since = since

    def _waiting(self, snapshot: Snapshot) -> tuple[bool, int]:
        """The root first: its heartbeats name the sizes of all; then who waits longest."""
        waits = [each.logs[snapshot.point.origin].waits_since for each in self.standings]
        since = min((wait for wait in waits if wait is not None), default=self.clock.steady())
        return snapshot.folder.name != ROOT, since

    def _is_due(self, standing: WitnessStanding, origin: str, now: int) -> bool:
        each = standing.logs[origin]
        return each.news and now >= max(standing.not_before, each.not_before)

    async def _ask(
        self, standing: WitnessStanding, snapshot: Snapshot
    ) -> tuple[Cosignature | None, float]:
        """Its cosignature, or None and the reason taken down; the seconds it took."""
        begun = self.clock.steady()
        each = standing.logs[snapshot.point.origin]
        name, answer = standing.key.name, "cosigned"
        cosigned = None
        try:
            cosigned = await self._submit(standing, each, snapshot)
        except _Fork as error:
            answer = "fork"
            each.alarm = f"witness {name}: {error}"
            each.not_before = self.clock.steady() + LATER_S * NANO
            log.critical("%s", each.alarm)
        except _Trouble as error:
            answer = error.answer
            self._take_down(standing, each, error)
        else:
            each.cosigned, each.known = snapshot.point, snapshot.point.size
            each.waits_since = each.alarm = each.trouble = standing.trouble = None
            standing.failures, standing.at = 0, cosigned[1].timestamp
        self.metrics.count("headworks_witness_answers", name, answer)
        return cosigned, (self.clock.steady() - begun) / NANO

    def _take_down(self, standing: WitnessStanding, each: LogStanding, error: _Trouble) -> None:
        now = self.clock.steady()
        if error.of_log:
            each.trouble = str(error)
            each.not_before = now + LATER_S * NANO
        else:
            standing.trouble = str(error)
            pause = BACKOFF_S[min(standing.failures, len(BACKOFF_S) - 1)]
            standing.failures += 1
            standing.not_before = now + pause * NANO
        log.warning("witness %s did not cosign: %s", standing.key.name, error)

    async def _submit(
        self, standing: WitnessStanding, each: LogStanding, snapshot: Snapshot
    ) -> Cosignature:
        """Until it cosigned, going on from the size it says; _Fork or _Trouble otherwise."""
        point, name = snapshot.point, standing.key.name
        for _ in range(TRIES):
            if each.known > point.size:
                each.known = 0  # asked with 0 it says what it has seen
            proof = await asyncio.to_thread(prove, snapshot, each.known)
            body = Submission(each.known, proof, snapshot.note).encode()
            status, answer = await self._post(standing, body)
            if status == 200:
                return _cosignature(point, answer, standing.key)
            if status == 422 or (status == 409 and _size(answer) > point.size):
                await self._accuse(snapshot, status, answer)
            if status != 409:
                _refuse(status, answer, point.origin)
            told = _size(answer)
            if each.cosigned is not None and told < each.cosigned.size:
                standing.forgot = (
                    f"witness {name} cosigned {each.cosigned.size} leaves of {point.origin} "
                    f"and remembers {told}: its state was lost or set back"
                )
            each.known = told
        raise _Trouble("conflict", f"{point.origin}: others submit it too", of_log=True)

    async def _accuse(self, snapshot: Snapshot, status: int, answer: bytes) -> None:
        """_Fork, unless the ledger has grown past what the witness has seen in the meantime."""
        point = snapshot.point
        if status == 422:
            words = answer[:200].decode(errors="replace").strip()
            raise _Fork(f"{point.origin} with {point.size} leaves does not continue what it "
                        f"cosigned: {words}")  # fmt: skip
        told = _size(answer)
        newest = await asyncio.to_thread(read_snapshot, snapshot.folder)
        if newest is None or newest.point.size < told:
            raise _Fork(f"{point.origin} had {told} leaves when it was cosigned, and has "
                        f"{point.size} now: an older state is in use")  # fmt: skip
        raise _Trouble("conflict", f"{point.origin}: a newer checkpoint was sent", of_log=True)

    async def _post(self, standing: WitnessStanding, body: bytes) -> tuple[int, bytes]:
        client = self._clients[standing.key]
        headers = {"accept-encoding": "identity", "content-type": "text/plain; charset=utf-8"}
        got = bytearray()
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                client.stream(
                    "POST", f"{standing.url}/add-checkpoint", content=body, headers=headers
                ) as answer,
            ):
                async for chunk in answer.aiter_raw():
                    got += chunk
                    if len(got) > ANSWER_BYTES_MAX:
                        raise _Trouble("nonsense", f"its answer is over {ANSWER_BYTES_MAX} bytes")
                return answer.status_code, bytes(got)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise _Trouble("slow", f"no answer within {TIMEOUT_S:g} s") from error
        except (httpx2.HTTPError, OSError) as error:
            raise _Trouble("unreachable", f"{type(error).__name__} {error}".strip()) from error

    def _keep(self, snapshot: Snapshot, fresh: list[Cosignature]) -> None:
        held = _read_witnessed(snapshot.folder)
        chosen = kept(held, snapshot.note, fresh, self.keys, self.quorum)
        if chosen is not None and snapshot.folder.is_dir():
            write_durably(snapshot.folder / "witnessed", chosen.encode())


def _read_witnessed(folder: Path) -> Note | None:
    try:
        held = note.read((folder / "witnessed").read_bytes())
        Checkpoint.read(held.text)
    except FileNotFoundError:
        return None
    except Malformed as error:
        log.error("%s/witnessed is made again: %s", folder, error)
        return None
    return held


def _held(folder: Path, keys: Sequence[VerifierKey]) -> Held:
    held = _read_witnessed(folder)
    if held is None:
        return {}
    point = Checkpoint.read(held.text)
    return {signed.key: (point, signed.timestamp or 0) for _, signed in cosignatures(held, keys)}


def _size(answer: bytes) -> int:
    try:
        return read_conflict(answer)
    except Malformed as error:
        raise _Trouble("nonsense", f"409 without a size: {error}") from error


def _cosignature(point: Checkpoint, answer: bytes, key: VerifierKey) -> Cosignature:
    try:
        return read_cosignature(point.text, answer, key)
    except (Malformed, Unsigned) as error:
        raise _Trouble("nonsense", f"what it answered is no cosignature: {error}") from error


def _refuse(status: int, answer: bytes, origin: str) -> None:
    words = answer[:200].decode(errors="replace").strip()
    if status in (400, 403, 404, 507):
        raise _Trouble("refused", f"{origin}: {status} {words}", of_log=True)
    raise _Trouble("failed", f"status {status} {words}")
