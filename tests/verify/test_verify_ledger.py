"""A whole ledger recomputed: what holds holds, and no byte may be another."""

import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_maker import NAME, SEED, Maker, small_ledger

from gateway.ledger import note
from gateway.ledger.merkle import leaf_hash
from gateway.verify.ledger import find_policy, open_policy, verify_ledger, verify_log
from gateway.verify.verify_evidence import Wrong

NEW = "models/mortgage/2026q4"


def verified(maker, strict=False, leaves=True):
    root, bodies = maker.root, maker.state / "bodies" if leaves else None
    return verify_ledger(root, open_policy(find_policy(root)), bodies, strict, leaves)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One ledger that no test leaves changed."""
    return small_ledger(tmp_path_factory.mktemp("made"), quorum=True, order_records=50)


@pytest.fixture
def maker(tmp_path):
    """An unfinished ledger: root, and one model's log with three exchanges."""
    maker = Maker(tmp_path)
    maker.open(NEW)
    for number in range(3):
        maker.exchange(NEW, number)
    return maker


def kinds(report):
    return [(fault.log, fault.kind) for fault in report.faults]


def test_a_sound_ledger_holds(made):
    """Two models, two quarters, order files cut at 50, heartbeats, a witness: nothing to say."""
    report = verified(made, strict=True)
    assert report.faults == []
    assert report.notes == []
    assert report.leaves == len(made.orders)
    assert report.bodies == {"whole": 278}
    found = {log.log: (log.entries, log.signed, log.witnessed) for log in report.logs}
    assert found[NEW] == (271, 271, 271)
    assert found["models/mortgage/2026q3"] == (5, 5, 5)
    assert {log.log: log.root for log in report.logs} == {
        log: edge.root().hex() for log, edge in made.edges.items()
    }


def test_trees_alone_say_that_they_looked_at_no_leaf(maker):
    """A leaf that is of another model is properly ordered and signed: only its reader minds."""
    record = {"kind": "exchange", "id": "x", "model": "another"}
    maker.append(NEW, {"kind": "exchange", "record": record}, "worker-0.aa")
    maker.publish()
    maker.finish()
    trees = verified(maker, leaves=False)
    assert (trees.faults, trees.bodies) == ([], {})
    assert "what leaves say was not read" in trees.notes[-1]
    assert kinds(verified(maker)) == [(NEW, "leaf misplaced")]


AGREES = {"agree": True, "kind": "decision", "rows": 1, "severity": 0.0}


@pytest.mark.parametrize(
    ("comparison", "shadow", "holds"),
    [
        (AGREES, {"arm": "shadow", "primary": "y"}, True),
        ({"not_compared": "primary_missing"}, {"arm": "shadow", "primary": "y"}, True),
        (AGREES, {"arm": "stable"}, False),
        (AGREES, {"arm": "shadow"}, False),
        (AGREES | {"severity": 2}, {"arm": "shadow", "primary": "y"}, False),
        (AGREES | {"rows": 2, "disagree": 1}, {"arm": "shadow", "primary": "y"}, False),
        (AGREES | {"not_compared": "truncated"}, {"arm": "shadow", "primary": "y"}, False),
    ],
)
def test_a_comparison_belongs_to_a_shadow_and_fits_itself(maker, comparison, shadow, holds):
    """A leaf that compares names its primary, and does not contradict itself."""
    record = {"kind": "exchange", "id": "x", "model": "mortgage"} | shadow
    maker.append(NEW, {"kind": "exchange", "record": record, "comparison": comparison})
    maker.publish()
    maker.finish()
    assert kinds(verified(maker)) == ([] if holds else [(NEW, "comparison")])


@pytest.mark.parametrize("log", ["root", NEW])
def test_one_logs_folder_is_verified_alone(made, log):
    """A log's own folder is enough for tiles, bundles and signatures."""
    report = verify_log(made.root / log, open_policy(find_policy(made.root / log)))
    assert report.faults == []
    assert report.leaves == len(made.entries[log])


def test_a_mirror_without_tails_is_verified(made, tmp_path):
    """What a web server hands out (no tails, no order) is a log's folder too."""
    shutil.copytree(made.root / NEW, tmp_path / NEW, ignore=shutil.ignore_patterns("tail"))
    report = verify_log(tmp_path / NEW, open_policy(made.root / "policy"))
    assert report.faults == []
    assert report.leaves == 271


FILES = st.integers(0, 10**6)


@settings(max_examples=150, deadline=None)
@given(FILES, st.integers(0, 10**9), st.integers(1, 255), st.booleans())
def test_any_changed_byte_is_found(made, file, at, mask, leaves):
    """Whatever file and byte: exit code 1, with and without a look into the leaves."""
    files = [path for path in sorted(made.root.rglob("*")) if path.is_file()]
    path = files[file % len(files)]
    policy = open_policy(made.root / "policy") if path.name == "policy" else None
    data = path.read_bytes()
    at %= len(data)
    path.write_bytes(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
    try:
        if policy is None:
            assert not verified(made, strict=True, leaves=leaves).holds
        else:
            changed_policy_is_seen(made, policy)
    finally:
        path.write_bytes(data)


def changed_policy_is_seen(made, policy):
    """Refused; or it believes what the right one believes, under another name of a witness."""
    try:
        changed = open_policy(made.root / "policy")
    except Wrong:
        return
    assert changed.logs == policy.logs or not verified(made).holds


@settings(max_examples=60, deadline=None)
@given(FILES, st.one_of(st.none(), st.integers(0, 10**9)))
def test_any_missing_or_cut_file_is_found(made, file, length):
    """A file that is gone (None) or shorter is a fault, whichever it is."""
    files = [path for path in sorted(made.root.rglob("*")) if path.is_file()]
    files = [path for path in files if path.name != "policy" and not unneeded(path)]
    path = files[file % len(files)]
    data = path.read_bytes()
    if length is None:
        path.unlink()
    else:
        path.write_bytes(data[: length % len(data)])
    try:
        assert not verified(made).holds
    finally:
        path.write_bytes(data)


def unneeded(path: Path) -> bool:
    """Partial tiles of older checkpoints may go, and so may cosignatures."""
    return path.parent.suffix == ".p" or path.name == "witnessed"


def test_a_changed_entry_is_named(made):
    """File, log, index, leaf number and kind."""
    path = made.root / "models/mortgage/2026q4/tile/entries/000"
    data = path.read_bytes()
    at = data.index(b'"score":0.5', data.index(b'"sequence":44,')) + 9
    path.write_bytes(data[:at] + b"9" + data[at + 1 :])
    try:
        (fault,) = verified(made).faults
    finally:
        path.write_bytes(data)
    entry = made.entries[NEW][fault.index]
    place = made.orders[fault.number]
    assert (fault.log, fault.kind) == (NEW, "entry changed")
    assert fault.file == "models/mortgage/2026q4/tile/entries/000"
    assert place[:1] + place[2:3] == (NEW, fault.index)
    assert data.index(entry) < at < data.index(entry) + len(entry)


def test_an_operator_without_the_key_cannot_rewrite(maker):
    """Entry, order, tiles made anew and consistent: the signed root differs."""
    maker.publish()
    maker.finish()
    signed = {log: (maker.root / log / "checkpoint").read_bytes() for log in maker.entries}
    other = Maker(maker.state)
    other.open(NEW)
    for number in (0, 7, 2):
        other.exchange(NEW, number)
    other.publish()
    other.finish()
    for log, data in signed.items():
        (other.root / log / "checkpoint").write_bytes(data)
    assert kinds(verified(other)) == [(NEW, "root differs")]


def test_an_operator_with_the_key_cannot_rewrite_what_was_witnessed(maker):
    """All signed anew; the cosigned checkpoint still says the old root."""
    maker.publish(witness=True)
    maker.finish()
    seen = (maker.root / NEW / "witnessed").read_bytes()
    other = Maker(maker.state)
    other.open(NEW)
    for number in (0, 7, 2):
        other.exchange(NEW, number)
    other.publish()
    other.finish()
    (other.root / NEW / "witnessed").write_bytes(seen)
    assert kinds(verified(other)) == [(NEW, "root differs")]


def test_a_quorum_that_did_not_cosign(tmp_path):
    """A lost cosignature is a fault under the reader's own policy, a note under the ledger's."""
    maker = small_ledger(tmp_path, quorum=True)
    assert verified(maker, strict=True).faults == []
    path = maker.root / NEW / "witnessed"
    path.write_bytes(path.read_bytes().rsplit("\u2014".encode(), 1)[0])
    assert kinds(verified(maker, strict=True)) == [(NEW, "quorum")]
    report = verified(maker)
    assert kinds(report) == []
    assert [note.partition(":")[0] for note in report.notes] == [f"{NEW}/witnessed"]


def test_a_gap_leaf_in_the_journals_own_place(maker):
    """The sealer gives the gap's leaf the last lost sequence and the journal as its source."""
    told = {"kind": "gap", "record": {"first": 3, "upto": 7, "reason": "disk", "by": "a"}}
    maker.append("root", told, "worker-0.aa", skip=3)
    maker.exchange(NEW, 7)
    maker.publish()
    maker.finish()
    assert kinds(verified(maker)) == []


@pytest.mark.parametrize("told", [True, False])
def test_a_hole_needs_a_leaf_that_tells_of_it(maker, told):
    """Lost sequences are a fault unless a `gap` leaf names them."""
    maker.exchange(NEW, 3, skip=4)
    if told:
        maker.tell(
            "gap", {"journal": "worker-0", "first": 3, "upto": 7, "reason": "disk", "by": "a"}
        )
    maker.publish()
    maker.finish()
    report = verified(maker)
    assert kinds(report) == ([] if told else [(NEW, "hole")])
    if not told:
        assert (report.faults[0].index, "3 to 6" in report.faults[0].words) == (3, True)


def test_a_sequence_twice_is_a_fault(maker):
    """A journal's record sealed a second time is seen."""
    maker.exchange(NEW, 9, skip=-1)
    maker.publish()
    maker.finish()
    assert kinds(verified(maker)) == [(NEW, "sequence")]


def test_a_log_that_vanished_is_missed(made, tmp_path):
    """The folder of a log gone, without a retention leaf."""
    shutil.copytree(made.state, tmp_path / "s")
    shutil.rmtree(tmp_path / "s/ledger/models/cards")
    report = verify_ledger(tmp_path / "s/ledger", open_policy(made.root / "policy"))
    assert ("models/cards/2026q4", "missing") in kinds(report)


def test_a_log_that_retention_dropped_is_excused(maker):
    """The leaf comes first; then folder and bodies may go, and heartbeats forget the log."""
    maker.publish()
    maker.beat()
    maker.tell("retention", {"logs": [NEW], "bodies": ["mortgage/2026-11-23"]})
    edge = maker.edges.pop(NEW)
    maker.beat()
    maker.edges[NEW] = edge
    maker.publish()
    maker.finish()
    shutil.rmtree(maker.root / NEW)
    shutil.rmtree(maker.state / "bodies" / "mortgage")
    (maker.state / "bodies").mkdir(exist_ok=True)
    assert kinds(verified(maker)) == []


def test_heartbeats_that_shrink_are_faults(maker):
    """A heartbeat that knows fewer entries of a log than the one before."""
    maker.publish()
    maker.beat()
    root = maker.edges[NEW].root().hex()
    mine = leaf_hash(maker.entries["root"][0]).hex()
    maker.tell("heartbeat", {"logs": {f"{NAME}/root": [1, mine], f"{NAME}/{NEW}": [3, root]}})
    maker.publish()
    maker.finish()
    assert kinds(verified(maker)) == [("root", "log shrank")]


def test_heartbeats_that_forget_a_log_are_faults(maker):
    """A heartbeat without a log that the one before had, and no retention leaf between."""
    maker.publish()
    maker.beat()
    maker.tell("heartbeat", {"logs": {}})
    maker.publish()
    maker.finish()
    assert kinds(verified(maker)) == [("root", "log vanished")]


def test_a_log_opened_by_nobody_is_a_fault(tmp_path):
    """Leaves of a log before the root's leaf that opens it."""
    maker = Maker(tmp_path)
    maker.exchange(NEW, 0)
    maker.open(NEW)
    maker.publish()
    maker.finish()
    assert kinds(verified(maker)) == [(NEW, "not opened")]


def close(maker, note):
    maker.publish()
    size, root = maker.roots()[f"{NAME}/{NEW}"]
    told = {"origin": f"{NAME}/{NEW}", "size": size, "root": root, "checkpoint": note}
    maker.tell("log_closed", told)


def test_entries_after_a_close_are_a_fault(maker):
    """A closed log gets no more entries."""
    maker.publish()
    close(maker, (maker.root / NEW / "checkpoint").read_text())
    maker.exchange(NEW, 3)
    maker.publish()
    maker.finish()
    assert kinds(verified(maker)) == [(NEW, "after the close")]


def test_a_close_needs_its_checkpoint(maker):
    """The closing leaf holds the log's own signed word."""
    close(maker, "nothing signed\n")
    maker.publish()
    maker.finish()
    assert kinds(verified(maker)) == [("root", "close")]


def test_bodies_are_there_changed_or_erased(maker):
    """A changed blob is a fault, zeros under an erased key are counted, a lost file is a fault."""
    maker.publish()
    maker.finish()
    path = maker.state / "bodies/mortgage/2026-11-23.bodies"
    blob = len(path.read_bytes()) // 3
    data = path.read_bytes()
    path.write_bytes(data[: blob + 12] + bytes(blob - 12) + data[2 * blob :])
    assert kinds(verified(maker)) == [(NEW, "body changed")]
    maker.tell("erasure", {"numbers": [1], "files": ["mortgage/2026-11-23"]})
    maker.publish()
    maker.finish()
    path.write_bytes(data[: blob + 12] + bytes(blob - 12) + data[2 * blob :])
    report = verified(maker)
    assert (kinds(report), report.bodies) == ([], {"whole": 2, "erased": 1})
    path.unlink()
    assert kinds(verified(maker)) == [(NEW, "body missing")]


def test_a_damaged_key_is_named_and_a_missing_one_counted(maker, tmp_path):
    """Given the keys: each body's slot is looked at, unless a leaf says that its key was erased."""
    maker.publish()
    maker.finish()
    keys = tmp_path / "keys"
    (keys / "subjects").mkdir(parents=True)
    slots = [bytes([number + 1]) * 32 for number in range(3)]
    slots = [slot + struct.pack("<I", zlib.crc32(struct.pack("<Q", number) + slot))
             for number, slot in enumerate(slots)]  # fmt: skip
    path = keys / "subjects" / "00000000.keys"

    def told():
        root, bodies = maker.root, maker.state / "bodies"
        return verify_ledger(root, open_policy(find_policy(root)), bodies, keys=keys)

    path.write_bytes(b"".join(slots))
    assert (kinds(told()), told().bodies) == ([], {"whole": 3})
    path.write_bytes(slots[0] + bytes(36))
    assert (kinds(told()), told().bodies) == ([], {"whole": 1, "keyless": 2})
    rotten = bytearray(b"".join(slots))
    rotten[36 + 5] ^= 8
    path.write_bytes(rotten)
    (fault,) = told().faults
    assert (fault.kind, fault.index) == ("key damaged", 1)
    assert "00000000.keys: slot 1, at byte 36" in fault.words
    maker.tell("erasure", {"numbers": [1], "files": ["mortgage/2026-11-23"]})
    maker.publish()
    maker.finish()
    path.write_bytes(rotten)
    assert kinds(told()) == []


def test_what_a_crash_left_is_noted_not_blamed(maker):
    """Bytes behind the last record, entries behind the order, a mark too low, tiles unsigned."""
    maker.publish()
    maker.exchange(NEW, 3)
    maker.finish()
    last = max((maker.root / "order").iterdir())
    last.write_bytes(last.read_bytes() + b"torn")
    tail = maker.root / NEW / "tail/0"
    tail.write_bytes(tail.read_bytes() + b"\x00\x05ab")
    (maker.root / "committed").write_bytes(struct.pack("<Q", len(maker.orders) - 1))
    partial = maker.root / NEW / "tile/entries/000.p/4"
    partial.write_bytes(b"")
    (maker.root / NEW / ".checkpoint.0a.new").write_bytes(b"half")
    report = verified(maker)
    assert report.faults == []
    assert len(report.notes) == 3


def test_a_lost_durable_record_is_a_fault(maker):
    """The order's last record gone while `committed` says more."""
    maker.publish()
    maker.finish()
    last = max((maker.root / "order").iterdir())
    last.write_bytes(last.read_bytes()[:-32])
    assert ("order", "record damaged") in kinds(verified(maker))


def test_another_key_is_refused(maker):
    """A ledger signed by another key than the policy's is not believed."""
    maker.publish()
    maker.finish()
    key = note.SigningKey(f"{NAME}/root", note.SignatureType.ED25519, SEED[::-1])
    other = maker.state / "mine"
    other.write_text(f"log {key.verifier}\nquorum none\n")
    report = verify_ledger(maker.root, open_policy(other))
    assert {("root", "signature"), (NEW, "signature")} == set(kinds(report))


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "gateway", "ledger", *words], capture_output=True, text=True
    )


def test_the_command_says_it_in_words_and_json(made, tmp_path):
    """Exit codes 0, 1 and 2; JSON names the first fault of each log."""
    told = command("verify", str(made.root))
    assert told.returncode == 0, told.stderr
    assert re.search(r"everything holds", told.stdout)
    shutil.copytree(made.state, tmp_path / "s")
    tile = tmp_path / "s/ledger/models/mortgage/2026q4/tile/0/000"
    tile.write_bytes(b"x" + tile.read_bytes()[1:])
    told = command("verify", str(tmp_path / "s/ledger"), "--json")
    document = json.loads(told.stdout)
    assert (told.returncode, document["holds"], len(document["faults"])) == (1, False, 1)
    fault = document["faults"][0]
    assert (fault["log"], fault["index"], fault["kind"]) == (NEW, 0, "tile changed")
    assert command("verify", str(tmp_path)).returncode == 2
