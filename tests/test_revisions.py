"""How a table comes into force: from whom, on what, and what is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from gateway.artifacts import Artifacts
from gateway.check import Checked, check
from gateway.condition import HeaderIs
from gateway.revision.edit import read_edit
from gateway.revision.revisions import (
    Clashing,
    Owned,
    Published,
    Revisions,
    end_rollout,
    set_rollout,
)
from gateway.routing.choice import choose
from gateway.split import Copied, Rollout
from gateway.table import Conflict, TableStore

TEXT = """
models:
  mortgage:
    unit: [header:x-applicant, exchange]
    versions: {v1: {upstream: 'http://a'}, v2: {upstream: 'http://b'}, v3: {upstream: 'http://c'}}
    rules:
      - {name: pilot, when: {header: {x-tenant: pilot}}, split: {v3: 100%}}
      - {name: everyone, split: {v1: 100%}, salt: pepper}
"""
TREES = Rollout("trees", 1, "v1", "v2", 50_000, 10_000, 1_000_000, 20_000)


class Place:
    """A folder with a file and the revisions that come of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0
        self.revisions = Revisions(
            TableStore(folder / "state"), Artifacts(folder / "state"), self.tick
        )

    def tick(self) -> int:
        self.now += 1
        return self.now

    def checked(self, text: str) -> Checked:
        (self.folder / "headworks.yaml").write_text(text)
        checked = check(self.folder / "headworks.yaml")
        assert not checked.problems, checked.problems
        return checked

    def adopt(self, text: str = TEXT) -> Published:
        return self.revisions.adopt(self.checked(text), author="ana", reason="reload")

    def roll(self, rollout: Rollout, expected: str | None = None) -> Published:
        return self.revisions.change(
            lambda document: set_rollout(document, "mortgage", "everyone", rollout),
            author="rollout trees", reason="step", origin="rollout", expected=expected,
        )  # fmt: skip

    def rule(self, name: str = "everyone"):  # type: ignore[no-untyped-def]
        current = self.revisions.tables.current
        assert current is not None
        model = self.revisions.tables.load(current).models["mortgage"]
        return model, next(rule for rule in model.rules if rule.name == name)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.adopt()
    return made


def test_an_unchanged_file_changes_nothing(place: Place) -> None:
    """Whoever reloads what is in force is told so; the revision stays."""
    before = place.revisions.tables.current
    assert place.adopt() == Published(before or "", False)


def test_a_rollout_has_its_rules_split(place: Place) -> None:
    """Canary, control and holdout with their arms, another salt, the candidate as a shadow."""
    place.roll(TREES)
    model, rule = place.rule()
    assert rule.salt == b"mortgage/everyone/trees#1"
    assert rule.shadows == (Copied("v2", 1_000_000),)
    found = {}
    for number in range(4000):
        headers = {b"x-applicant": b"unit-%d" % number}
        choice = choose(model, rule, headers, "e")
        found.setdefault((choice.version, choice.arm), []).append(choice.bucket_ppm)
    assert {key: (min(ppm) // 10_000, max(ppm) // 10_000) for key, ppm in found.items()} == {
        ("v2", "canary"): (0, 4),
        ("v1", "stable"): (5, 98),
        ("v1", "control"): (50, 54),
        ("v1", "holdout"): (99, 99),
    }


def test_a_rollout_is_in_the_revision_with_its_author(place: Place) -> None:
    """A step is a revision like any other: parent, author, reason, origin."""
    before = place.revisions.tables.current
    done = place.roll(TREES, before)
    document = orjson.loads(place.revisions.tables.read(done.revision))
    assert (document["author"], document["reason"], document["origin"]) == (
        "rollout trees", "step", "rollout",
    )  # fmt: skip
    assert (document["parent"], document["number"]) == (before, 1)


def test_who_did_not_know_the_revision_changes_nothing(place: Place) -> None:
    """Of two who changed the same revision the second is refused."""
    before = place.revisions.tables.current
    after = place.roll(TREES, before).revision
    with pytest.raises(Conflict, match=after):
        place.roll(TREES, before)
    assert place.revisions.tables.current == after


def test_a_reload_keeps_the_rollouts_that_run(place: Place) -> None:
    """A file that leaves the rule alone changes the rest and not the step."""
    place.roll(TREES)
    place.adopt(TEXT.replace("x-tenant: pilot", "x-tenant: beta"))
    assert place.rule()[1].rollout == TREES
    assert place.rule("pilot")[1].conditions == (HeaderIs(b"x-tenant", b"beta"),)


@pytest.mark.parametrize(
    "touched",
    [
        TEXT.replace("everyone, split: {v1: 100%}", "everyone, split: {v3: 100%}"),
        TEXT.replace("everyone, split: {v1: 100%}", "everyone, split: {v1: 90%, v2: 10%}"),
        TEXT.replace("salt: pepper", "salt: salt"),
        TEXT.replace("name: everyone", "name: all"),
        TEXT.replace("http://b", "http://other"),
        TEXT.replace("http://a", "http://other"),
        TEXT.replace("v2: {upstream: 'http://b'}, ", ""),
        TEXT.replace("unit: [header:x-applicant, exchange]", "unit: [exchange]"),
        TEXT + "    monitor: {groups: [race]}\n",
    ],
)
def test_a_file_that_touches_a_running_rollout_is_refused(place: Place, touched: str) -> None:
    """The rule is the rollout's; both are shown, the table stays."""
    place.roll(TREES)
    before = place.revisions.tables.current
    with pytest.raises(Owned, match="'everyone' of model 'mortgage'") as caught:
        place.adopt(touched)
    assert caught.value.ours["rollout"] == TREES.to_json()
    assert caught.value.theirs is None or caught.value.theirs["name"] == "everyone"
    assert place.revisions.tables.current == before


def edited(place: Place, text: str, expected: str | None = None) -> Published:
    revision, document = place.revisions.current()
    edit = read_edit(text.encode(), document)
    assert not edit.problems, edit.problems
    return place.revisions.edit(edit, author="ben", expected=expected or revision)


PILOT_V2 = """
reason: the pilot gets v2
models:
  mortgage:
    rules:
      - {name: pilot, when: {header: {x-tenant: pilot}}, split: {v2: 100%}}
      - {name: everyone, split: {v1: 100%}, salt: pepper}
"""


def test_an_edit_survives_the_file_it_does_not_concern(place: Place) -> None:
    """A reload, or a restart, of an unchanged file keeps it; so does one that changes other
    rules."""
    done = edited(place, PILOT_V2)
    assert (done.changed, place.rule("pilot")[1].stable) == (True, "v2")
    assert place.adopt() == Published(done.revision, False)
    place.adopt(TEXT.replace("salt: pepper", "salt: salt"))
    assert place.rule("pilot")[1].stable == "v2"
    assert place.rule("everyone")[1].salt == b"salt"


def test_a_file_that_changes_what_was_edited_is_refused(place: Place) -> None:
    """Both are shown; a file that says what the edit said is taken, and owns the rule again."""
    edited(place, PILOT_V2)
    with pytest.raises(Clashing, match="models.mortgage.rules.pilot") as caught:
        place.adopt(TEXT.replace("{v3: 100%}", "{v1: 100%}"))
    (clash,) = caught.value.clashes
    assert (clash.ours["split"], clash.theirs["split"]) == (
        [["v2", 1_000_000]], [["v1", 1_000_000]],
    )  # fmt: skip
    place.adopt(TEXT.replace("{v3: 100%}", "{v2: 100%}"))
    place.adopt(TEXT.replace("{v3: 100%}", "{v1: 100%}"))
    assert place.rule("pilot")[1].stable == "v1"


def test_a_file_may_not_take_away_what_an_edit_names(place: Place) -> None:
    """The version that only an edited rule has: the last good table stays, the rule is named."""
    edited(place, PILOT_V2.replace("{v2: 100%}", "{v3: 100%}").replace("pilot,", "beta,"))
    before = place.revisions.tables.current
    without = TEXT.replace(", v3: {upstream: 'http://c'}", "").replace("{v3: 100%}", "{v1: 100%}")
    with pytest.raises((ValueError, Clashing)):
        place.adopt(without)
    assert place.revisions.tables.current == before
    kept = TEXT.replace("pilot, when", "beta, when")
    place.adopt(kept)
    with pytest.raises(ValueError, match="rules.0.split.v3: no such version; known: v1, v2"):
        place.revisions.change(
            lambda document: document["models"]["mortgage"]["versions"].pop("v3"),
            author="ana", reason="v3 is gone", origin="api",
        )  # fmt: skip


def test_an_edit_may_not_touch_a_rollout(place: Place) -> None:
    """It may change another rule; the rollout that it was shown may be sent back as it was."""
    place.roll(TREES)
    edited(place, PILOT_V2)
    assert place.rule()[1].rollout == TREES
    with pytest.raises(Owned):
        edited(place, PILOT_V2.replace("salt: pepper", "salt: salt"))
    same = orjson.dumps(TREES.to_json()).decode()
    held = PILOT_V2.replace("salt: pepper", f"salt: pepper, rollout: {same}")
    assert not edited(place, held).changed
    with pytest.raises(Owned):
        edited(place, held.replace("50000", "60000"))


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("reason: why so\nmodels:\n  loans: {rules: []}", 3, "models.loans", "no such model"),
        (PILOT_V2.replace("{v2: 100%}", "{v9: 100%}"), 6,
         "models.mortgage.rules.0.split.v9", "no such version; known: v1, v2, v3"),
        (PILOT_V2.replace("salt", "slat"), 7, "models.mortgage.rules.1.slat", "salt is meant?"),
        (PILOT_V2.replace("header:", "context:"), 6,
         "models.mortgage.rules.0.when.context.x-tenant", "not in context.routable"),
        ("- a", 1, "(file)", "a mapping with `reason` and `models`"),
        ("{", 1, "(file)", "not YAML"),
    ],
)  # fmt: skip
def test_an_edit_that_is_wrong_says_where(
    place: Place, text: str, line: int, key: str, words: str
) -> None:
    """Line and key of the text that was sent, as for a file."""
    found = read_edit(text.encode(), place.revisions.current()[1])
    told = [(one.line, one.key) for one in found.problems if words in one.allowed]
    assert (line, key) in told, found.problems
    assert found.models == {}


def test_a_revert_brings_a_revision_back(place: Place) -> None:
    """As a new revision with an author and a reason; the unchanged file does not undo it."""
    first, _ = place.revisions.current()
    place.adopt(TEXT.replace("{v3: 100%}", "{v2: 100%}"))
    done = place.revisions.revert(first, author="ana", reason="it was worse")
    assert place.rule("pilot")[1].stable == "v3"
    document = orjson.loads(place.revisions.tables.read(done.revision))
    assert (document["origin"], document["number"]) == ("revert", 2)
    assert not place.adopt(TEXT.replace("{v3: 100%}", "{v2: 100%}")).changed
    assert place.rule("pilot")[1].stable == "v3"


def test_a_revert_never_widens_a_rollout(place: Place) -> None:
    """Back to a step: the smaller weight; to before its start: it ends; to a wider step: as is."""
    before, _ = place.revisions.current()
    narrow = place.roll(TREES).revision
    wide = place.roll(replace(TREES, weight_ppm=250_000)).revision
    place.revisions.revert(narrow, author="ana", reason="slower")
    assert place.rule()[1].rollout == TREES
    assert not place.revisions.revert(wide, author="ana", reason="again").changed
    done = place.revisions.revert(before, author="ana", reason="no more of it")
    assert (done.ended, place.rule()[1].rollout) == (("trees",), None)
    again = place.revisions.revert(wide, author="ana", reason="what was it")
    assert (again.changed, place.rule()[1].rollout) == (False, None)


def test_a_revert_ends_a_rollout_of_other_versions(place: Place) -> None:
    """The same rollout by name and number, but another model behind `to`: it does not stay."""
    narrow = place.roll(TREES).revision
    place.revisions.change(
        lambda document: document["models"]["mortgage"]["versions"]["v2"].update(
            endpoints=["http://other"]
        ),
        author="eve", reason="swap", origin="api",
    )  # fmt: skip
    done = place.revisions.revert(narrow, author="ana", reason="back")
    assert (done.ended, place.rule()[1].rollout) == (("trees",), None)


def test_revisions_are_found_by_what_people_say(place: Place) -> None:
    """By number, by the beginning of the digest, as current and previous."""
    first, _ = place.revisions.current()
    second = place.roll(TREES).revision
    find = place.revisions.find
    assert [find("current"), find("previous"), find("0"), find("1")] == [
        second,
        first,
        first,
        second,
    ]
    assert find(first[:20]) == first
    for text in ("7", "zz", "", "../" * 21 + "x"):
        with pytest.raises(LookupError, match="names"):
            find(text)
    assert [told["author"] for told in place.revisions.history()] == ["rollout trees", "ana"]


def test_a_rollout_that_ends_gives_its_rule_back(place: Place) -> None:
    """Promoted: all of the rule goes to the version; the salt is the file's again."""
    place.roll(TREES)
    place.revisions.change(
        lambda document: end_rollout(document, "mortgage", "everyone", "v2"),
        author="rollout trees", reason="promoted", origin="rollout",
    )  # fmt: skip
    rule = place.rule()[1]
    assert (rule.stable, rule.intervals, rule.rollout, rule.salt) == ("v2", (), None, b"pepper")


def test_a_rollout_wants_what_it_names(place: Place) -> None:
    """Versions that exist, a stable one that has all of the split, and a rule for itself."""
    with pytest.raises(ValueError, match="no version 'v9'"):
        place.roll(Rollout("trees", 1, "v1", "v9", 0, 0, 0, 0))
    with pytest.raises(ValueError, match="wants all of the split, not v1 1000000 ppm"):
        place.roll(Rollout("trees", 1, "v3", "v2", 0, 0, 0, 0))
    place.roll(TREES)
    with pytest.raises(Owned):
        place.roll(Rollout("other", 1, "v1", "v3", 0, 0, 0, 0))


def test_a_document_that_does_not_compile_gets_no_name(place: Place) -> None:
    """The last good revision stays in force and on disk alone."""
    before = place.revisions.tables.current
    folder = place.folder / "state" / "table" / "revisions"
    count = len(list(folder.iterdir()))
    with pytest.raises(ValueError, match="more than all buckets"):
        place.revisions.change(
            lambda document: document["models"]["mortgage"]["rules"][1].update(
                rollout=TREES.to_json() | {"weight_ppm": 1_000_000}
            ),
            author="ana", reason="by hand", origin="api",
        )  # fmt: skip
    assert place.revisions.tables.current == before
    assert len(list(folder.iterdir())) == count


def test_a_table_of_the_first_format_is_followed_by_the_file(tmp_path: Path) -> None:
    """A release that knows more keys takes the whole file anew; nothing clashes with the past."""
    place = Place(tmp_path)
    data = (Path(__file__).parent / "formats" / "table-1.json").read_bytes()
    revision = hashlib.sha256(data).hexdigest()
    tables = place.revisions.tables
    (tables.root / "revisions").mkdir(parents=True)
    tables.path(revision).write_bytes(data)
    (tables.root / "current").write_text(revision)
    done = place.adopt(TEXT)
    assert (done.changed, place.rule()[1].stable) == (True, "v1")
    assert [told["origin"] for told in place.revisions.history()] == ["file", "file"]
    back = place.revisions.revert(revision, author="ana", reason="the release before")
    model, rule = place.rule("pilot")
    assert (back.changed, rule.salt, list(model.versions)) == (True, b"pepper", ["v1", "v2", "v3"])
