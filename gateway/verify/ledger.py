"""A whole ledger, or one log of it, recomputed from its files alone.

The order of work: signatures, then what the root log says of all logs, then every leaf in the one
order, each log growing beside the others. Memory: one bundle a log, and 48 bytes for each heartbeat
that had news of a log. Nothing here knows the code that wrote the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gateway.verify.bodies import Bodies
from gateway.verify.chronicle import HOLES_MAX, Chronicle
from gateway.verify.fault import Fault, Found, LogReport, Report
from gateway.verify.folder import TEMPORARY, LogFolder
from gateway.verify.keys import Keys
from gateway.verify.log import Claim, LogCheck
from gateway.verify.order import (
    NO_SOURCE,
    OrderFile,
    Record,
    order_fault,
    read_committed,
)
from gateway.verify.tree import WIDTH
from gateway.verify.verify_evidence import (
    Checkpoint,
    Policy,
    Wrong,
    open_checkpoint,
    parse_policy,
    parse_vkey,
    read_file,
)

ROOT = "root"
LOG = re.compile(r"root|models/[^/]+/[0-9]{4}q[1-4]")
POLICY_BYTES_MAX = 1024**2


def open_policy(path: Path) -> Policy:
    """Wrong: it cannot be read or is none."""
    return parse_policy(read_file(path, POLICY_BYTES_MAX))


def find_policy(folder: Path) -> Path | None:
    """The ledger's policy, in the folder or above it."""
    for place in (folder, *folder.resolve().parents):
        if (place / "policy").is_file():
            return place / "policy"
    return None


def is_ledger(folder: Path) -> bool:
    return (folder / "order").is_dir() or (folder / "committed").is_file()


def written_now(folder: Path) -> bool:
    """Whether a writer of this machine holds the ledger. Asks the kernel's list, takes no lock."""
    try:
        status = (folder / "lock").stat()
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    return any(line.split()[5].endswith(f":{status.st_ino}") for line in locks.splitlines()
               if len(line.split()) > 5)  # fmt: skip


def checkpoints(
    folder: LogFolder, policy: Policy, report: LogReport, notes: list[str], strict: bool
) -> list[Claim]:
    """What the log's signed notes claim. Found: one of them is not what it should be.

    The ledger's own policy may have changed since an old log was witnessed, so that its quorum is
    noted; the reader's own (`strict`) is kept to the letter.
    """
    claims = []
    # The newer file last: a live log's checkpoint may only grow between the two looks.
    for name in ("witnessed", "checkpoint"):
        data = folder.read(name, POLICY_BYTES_MAX)
        if data is None:
            continue
        told = _open(folder, name, data, report.origin, policy)
        claims.append(Claim(told.size, told.root, name, folder.file(name)))
        for signer in told.unknown:
            notes.append(f"{folder.file(name)}: a signature of {signer} is by no key of the policy")
        if name == "witnessed":
            report.witnessed, report.witnesses = told.size, told.times
            continue
        report.signed = told.size
        if told.size < report.witnessed:
            raise folder.fault("log shrank", f"{report.witnessed} entries were witnessed", name)
    if not policy.satisfied(set(report.witnesses)):
        words = f"{policy.quorum} did not cosign as the policy's quorum asks"
        if strict:
            raise folder.fault("quorum", words, "witnessed")
        notes.append(f"{folder.file('witnessed')}: {words}")
    return sorted(claims, key=lambda claim: claim.size)


def _open(folder: LogFolder, name: str, data: bytes, origin: str, policy: Policy) -> Checkpoint:
    try:
        told = open_checkpoint(data, policy)
    except Wrong as wrong:
        raise folder.fault("signature", str(wrong), name) from None
    if told.origin != origin:
        raise folder.fault("signature", f"it is of {told.origin}, not of {origin}", name)
    return told


def verify_log(folder: Path, policy: Policy, strict: bool = False) -> Report:
    """One log's folder: tiles, bundles and signatures; no order, no leaves' meaning."""
    report = Report(str(folder))
    parts = folder.resolve().parts
    name = ROOT if parts[-1] == ROOT else "/".join(parts[-3:])
    files = LogFolder(folder, name)
    mine = LogReport(name, policy.logs[0].name.removesuffix(ROOT) + name)
    claims: list[Claim] = []
    early = None
    try:
        claims = checkpoints(files, policy, mine, report.notes, strict)
        if not claims:
            raise files.fault("missing", "nothing is signed", "checkpoint")
    except Found as found:
        early = found.fault
    check = LogCheck(files, mine, [claims], None, written_now(find_root(folder)))
    check.finish_alone()
    mine.fault = check.fault or early
    report.logs, report.leaves = [mine], mine.entries
    report.notes += check.notes
    report.faults = [mine.fault] if mine.fault else []
    return report


def find_root(folder: Path) -> Path:
    """The ledger that a log's folder lies in."""
    parents = folder.resolve().parents
    return next((place for place in parents if is_ledger(place)), folder)


class LedgerCheck:
    """One verification; `run` once. `bodies`: the folder of the blobs, None to leave them; `keys`:
    the folder of their keys, likewise; `leaves`: whether what leaves say is read."""

    def __init__(
        self, folder: Path, policy: Policy, bodies: Path | None, strict: bool, leaves: bool,
        keys: Path | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.policy, self.strict, self.leaves = folder, policy, strict, leaves
        self.report = Report(str(folder))
        self.live = written_now(folder)
        self.prefix = policy.logs[0].name.removesuffix(ROOT)
        self.chronicle = Chronicle(ROOT, self.prefix)
        self.bodies = (
            Bodies(bodies, self.chronicle, Keys(keys) if keys else None) if bodies else None
        )
        self.checks: dict[str, LogCheck] = {}
        self.early: dict[str, Fault] = {}
        self.last: dict[str, int] = {}
        self.holes: list[tuple[str, int, int, int, str, int]] = []
        self.count = 0
        self._claims: dict[str, list[Claim]] = {}
        self._reports: dict[str, LogReport] = {}

    def run(self) -> Report:
        for name in self._names():
            self._open_signed(name)
        whole = True
        try:
            committed = read_committed(self.folder)
        except Found as found:
            committed, whole = 0, False
            self.report.faults.append(found.fault)
        self.chronicle.read(LogFolder(self.folder / ROOT, ROOT).entries())
        for name in self._reports:
            self._check(name)
        try:
            self._walk(committed)
        except Found as found:
            whole = False
            self.report.faults.append(found.fault)
        for check in self.checks.values():
            (check.finish if whole else check.finish_alone)()
        self._conclude(committed if whole else None)
        return self.report

    def _names(self) -> list[str]:
        found = [path.relative_to(self.folder).as_posix()
                 for path in sorted(self.folder.glob("models/*/*")) if path.is_dir()]  # fmt: skip
        return [ROOT, *(name for name in found if LOG.fullmatch(name))]

    def _open_signed(self, name: str) -> None:
        report = self._reports[name] = LogReport(name, self.prefix + name)
        try:
            self._claims[name] = checkpoints(
                LogFolder(self.folder / name, name), self.policy, report, self.report.notes,
                self.strict,
            )  # fmt: skip
        except Found as found:
            self.early[name] = found.fault

    def _check(self, name: str) -> LogCheck:
        """The log's check, made when it is first needed."""
        report = self._reports.setdefault(name, LogReport(name, self.prefix + name))
        files = LogFolder(self.folder / name, name)
        said = self.chronicle.of(report.origin)
        spoken = (Claim(size, root, f"the heartbeat at root entry {index}", "root")
                  for index, size, root in said.pending())  # fmt: skip
        final = [] if said.final is None else [
            Claim(said.final[0], said.final[1], f"log_closed at {said.closed}")
        ]  # fmt: skip
        check = self.checks[name] = LogCheck(
            files, report, [self._claims.get(name, []), spoken, final], self.bodies, self.live,
            leaves=self.leaves,
        )  # fmt: skip
        check.gone = not files.root.is_dir() and said.dropped is not None
        return check

    def _walk(self, committed: int) -> None:
        """Every leaf, in the one order."""
        paths = sorted((self.folder / "order").glob("*.order"))
        for path in paths:
            file = OrderFile(path)
            if file.first != self.count:
                raise order_fault("order cut", f"it goes on at leaf {file.first}", file.name,
                                  self.count)  # fmt: skip
            self._enter(file)
            for records in file.records(self.count):
                self._take(file, records)
            if file.rest and path != paths[-1]:
                raise order_fault("record damaged", "it does not have its checksum", file.name,
                                  self.count)  # fmt: skip
            if file.rest and self.count >= committed and not self.live:
                self.report.notes.append(f"{file.name}: {file.rest} bytes behind the last record, "
                                         "never acknowledged")  # fmt: skip
        if self.count < committed:
            name = f"order/{paths[-1].name}" if paths else "order"
            raise order_fault("record damaged", f"{committed} leaves are committed, the order has "
                              f"{self.count}", name, self.count)  # fmt: skip

    def _enter(self, file: OrderFile) -> None:
        for name, size in file.logs.items():
            if not LOG.fullmatch(name) or "/../" in name:
                raise order_fault("head damaged", f"no log is called {name!r}", file.name)
            check = self.checks.get(name) or self._check(name)
            if check.next != size:
                raise order_fault("head differs", f"{name} had {check.next} entries, not {size}",
                                  file.name, self.count)  # fmt: skip
        for source, sequence in file.sources.items():
            if self.last.setdefault(source, -1) != sequence:
                raise order_fault("head differs", f"{source} had come to {self.last[source]}, not "
                                  f"{sequence}", file.name, self.count)  # fmt: skip

    def _take(self, file: OrderFile, records: list[Record]) -> None:
        checks = [self.checks[name] for name in file.logs]
        sources, last, number = list(file.sources), self.last, self.count
        for log, source, place, sequence, crc, _ in records:
            if log >= len(checks) or (source >= len(sources) and source != NO_SOURCE):
                raise order_fault("record damaged", "its log or source is not in the head",
                                  file.name, number)  # fmt: skip
            check = checks[log]
            if place != check.next:
                raise order_fault("order cut", f"{check.folder.name} has {check.next} entries, the "
                                  f"next is said to be {place}", file.name, number)  # fmt: skip
            if place == 0 and check.model is not None:
                self._see_opened(check, number)
            check.next = place + 1
            name = None
            if source != NO_SOURCE:
                name = sources[source]
                if sequence != last[name] + 1:
                    self._see_hole(name, sequence, check.folder.name, place, number)
                last[name] = sequence
            if check.gone:
                number += 1
                continue
            check.told.append((crc, number, name, sequence))
            number += 1
            if len(check.told) == WIDTH:
                self.count = number
                check.flush()
        self.count = number

    def _see_opened(self, check: LogCheck, number: int) -> None:
        """A log's first leaf comes behind the root's leaf that opens it, under the one key."""
        said = self.chronicle.of(check.report.origin)
        root = self.checks[ROOT].next if ROOT in self.checks else 0
        name = check.folder.name
        if said.opened is None or said.opened >= root:
            words = "the root log does not open it before its first leaf"
            self.early.setdefault(name, Fault(name, "not opened", words, None, 0, number))
            return
        try:
            right = parse_vkey(said.vkey) == self.policy.key_of(check.report.origin)
        except Wrong:
            right = False
        if not right:
            words = f"{name} was opened with a key that is not the policy's"
            self.early.setdefault(name, Fault(ROOT, "key differs", words, None, said.opened))

    def _see_hole(self, source: str, sequence: int, log: str, index: int, number: int) -> None:
        """Journals have a name and an identity; what is said about one (`damage:`) has holes."""
        last = self.last[source]
        if sequence <= last:
            self.early.setdefault(log, Fault(log, "sequence", f"{source}: {sequence} after {last}",
                                             None, index, number))  # fmt: skip
        elif "." in source and ":" not in source and len(self.holes) < HOLES_MAX:
            self.holes.append((source, last + 1, sequence, index, log, number))

    def _conclude(self, committed: int | None) -> None:
        report = self.report
        report.leaves = self.count
        if committed is not None:
            self._see_committed(committed)
        for source, first, upto, index, log, number in self.holes:
            if not self.chronicle.excused(source, first, upto):
                words = f"{source}: {first} to {upto - 1} are missing, and no leaf says why"
                self.early.setdefault(log, Fault(log, "hole", words, None, index, number))
        self._see_key()
        self._see_closed()
        for name in sorted(self.checks, key=lambda each: (each != ROOT, each)):
            check = self.checks[name]
            fault = check.fault or self.early.get(name) or self._unsigned(check)
            if name == ROOT and fault is None:
                fault = self.chronicle.fault
            check.report.fault = fault
            report.logs.append(check.report)
            report.notes += check.notes
            if fault is not None:
                report.faults.append(fault)
        self._see_vanished()
        report.faults += self._strays()
        if self.live:
            report.notes.append("a writer is at work: what it has written since is not looked at")
        if not self.leaves:
            report.notes.append("trees, signatures and order only: what leaves say was not read, "
                                "but for the root log's")  # fmt: skip
        if self.bodies is not None:
            report.bodies = dict(self.bodies.counts)
            self.bodies.close()

    def _see_committed(self, committed: int) -> None:
        signed = sum(each.signed for each in self._reports.values())
        if committed < signed:
            words = f"it says {committed} leaves, and {signed} are signed"
            self.report.faults.append(Fault("order", "committed", words, "committed"))
        elif committed < self.count and not self.live:
            self.report.notes.append(f"committed: {self.count - committed} whole leaves behind the "
                                     "mark; the next start takes them up")  # fmt: skip

    def _see_key(self) -> None:
        if self.chronicle.key is None:
            return
        try:
            right = parse_vkey(self.chronicle.key) == self.policy.logs[0]
        except Wrong:
            right = False
        if not right:
            fault = Fault(
                ROOT, "key differs", "the first leaf has another key than the policy", None, 0
            )
            self.early.setdefault(ROOT, fault)

    def _see_closed(self) -> None:
        """A closed log has no more entries, and its last checkpoint says what the leaf says."""
        for name, check in self.checks.items():
            said = self.chronicle.of(check.report.origin)
            if said.final is None:
                continue
            size, root, note = said.final
            if check.next > size and not check.stopped:
                words = f"it was closed with {size} entries"
                self.early.setdefault(name, Fault(name, "after the close", words, None, size))
            try:
                told = open_checkpoint(note, self.policy)
                right = (told.origin, told.size, told.root) == (check.report.origin, size, root)
            except Wrong:
                right = False
            if not right:
                words = f"the leaf that closes {name} has no checkpoint that says the same"
                self.early.setdefault(name, Fault(ROOT, "close", words, None, said.closed))

    def _unsigned(self, check: LogCheck) -> Fault | None:
        """A log without a checkpoint that had one: somebody told of its root, or of two sizes."""
        if check.gone or check.report.signed:
            return None
        said = self.chronicle.of(check.report.origin)
        if said.size or said.final is not None or len(check.folder.widths("tile/entries/000")) > 1:
            return Fault(check.folder.name, "missing", "its entries were signed",
                         check.folder.file("checkpoint"))  # fmt: skip
        if check.next:
            self.report.notes.append(f"{check.folder.name}: nothing is signed yet")
        return None

    def _see_vanished(self) -> None:
        for origin, said in self.chronicle.said.items():
            name = origin.removeprefix(self.prefix)
            if name not in self.checks and said.size and said.dropped is None:
                words = f"the root log knows {said.size} entries"
                self.report.faults.append(Fault(name, "log vanished", words, name))

    def _strays(self) -> Iterator[Fault]:
        """Files beside the logs that are nobody's."""
        known = {"committed", "policy", "lock"}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if path.is_dir() or TEMPORARY.fullmatch(path.name) or name in known:
                continue
            if re.match(r"models/[^/]+/\.[^/]+\.dropped/", name):
                continue  # retention drops a log: the next start completes it
            mine = re.match(r"(root|models/[^/]+/[^/]+)/", name)
            if mine and LOG.fullmatch(mine[1]) or re.fullmatch(r"order/[0-9]{20}\.order", name):
                continue
            yield Fault("order", "unknown file", "nothing accounts for it", name)


def verify_ledger(
    folder: Path, policy: Policy, bodies: Path | None = None, strict: bool = False,
    leaves: bool = True, keys: Path | None = None,
) -> Report:  # fmt: skip
    """Everything that can be recomputed. The policy's first log is the root log; `strict`: it is
    the reader's own, and its quorum has to be met in every log. Without `leaves` the trees, their
    signatures and the order are recomputed, but only the root log's leaves are read."""
    return LedgerCheck(folder, policy, bodies, strict, leaves, keys).run()
