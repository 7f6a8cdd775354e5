"""What people may do with rollouts, alone and together, and what they may not."""

from __future__ import annotations

import orjson
import pytest
from site_of_rollouts import ANA, BEN, CONFIG, FILE, Site

from gateway.rollout.attempt import Attempt
from gateway.rollout.narrowing import abort_offline
from gateway.rollout.recomputation import recompute
from gateway.rollout.standing import standing
from gateway.rollout.steward import Person, Refused
from gateway.table import Conflict

EVE = Person("eve", frozenset({"auditor"}))
NOBODY = Person("local", None)
GATED = FILE.replace("  - {weight: 50%", "  - {approval: sre, expires: 20s}\n  - {weight: 50%")


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.loop.run_until_complete(made.journal.close())
    made.loop.close()


def refusal(act, *arguments) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        act(*arguments)
    return caught.value.status, caught.value.code


def test_a_step_waits_for_another_person(site):
    """Not its author, not without the role; then it goes on at once, and the leaf says who."""
    site.start(GATED)
    site.serve(8)
    assert (site.stage.step, site.entry()["weight_ppm"]) == (1, 100_000)
    assert refusal(site.steward.approve, "trees", ANA) == (403, "same_person")
    assert refusal(site.steward.approve, "trees", EVE) == (403, "forbidden")
    assert refusal(site.steward.promote, "trees", ANA, "hurry") == (409, "not_approved")
    site.steward.approve("trees", BEN)
    assert (site.stage.step, site.entry()["weight_ppm"]) == (2, 500_000)
    approved, moved = site.leaves("rollout")[-2:]
    assert (approved["event"], approved["by"], moved["by"]) == ("approved", "ben", "ben")
    assert approved["digest"] == site.attempt.plan.digest


def test_how_a_step_was_left_is_told(site):
    """By a person's word, or by the evidence, or left out: nothing says that it was shown safe when
    it was not, and a snapshot keeps it."""
    site.start(GATED.replace("  - {approval", "  - {weight: 20%, min: 1h}\n  - {approval"))
    site.steward.promote("trees", ANA, "hurry")
    how = [one["how"] for one in standing(site.attempt, 0, {})["plan"]]
    assert how == ["promoted by ana", None, None, None, None]
    site.steward.promote("trees", BEN, "hurry")
    site.steward.approve("trees", BEN)
    site.serve(12)
    told = Attempt.from_json(site.attempt.to_json(), lambda *_: (None, None))
    how = [one["how"] for one in standing(told, 0, {})["plan"]]
    assert how[1:4] == ["promoted by ben", "approved by ben", "the step's time has passed"]


def test_each_revision_is_a_leaf(site):
    """The first one and each that a rollout published: by whom, why, after which one."""
    site.start()
    site.serve(8)
    site.steward.abort("trees", EVE, "enough")
    site.turn()
    leaves = site.leaves("revision")
    assert [one["parent"] for one in leaves] == [None, *(one["id"] for one in leaves[:-1])]
    assert leaves[-1]["id"] == site.tables.current
    told = [(one["author"], one["origin"]) for one in leaves]
    assert told[0] == ("ana", "file")
    assert told[-1] == ("eve", "rollout")
    assert leaves[-1]["reason"] == "rollout trees: abort: enough"
    assert len(leaves) == 5


def test_an_approval_that_does_not_come_holds(site):
    """The exposure stays that of the step before, and the file's way out is taken."""
    site.start(GATED)
    site.serve(28, a_second=4)
    assert (site.stage.phase, site.stage.held.kind) == ("held", "inconclusive")
    assert site.entry()["weight_ppm"] == 100_000


def test_widening_may_need_two(site):
    """`second_person`: start, resume and promote are asked for, and done when another approves;
    pausing and aborting never wait."""
    site.start("second_person: true\n" + FILE)
    assert (site.stage.phase, site.entry()) == ("draft", None)
    assert refusal(site.steward.approve, "trees", ANA) == (403, "same_person")
    site.steward.approve("trees", BEN)
    assert (site.stage.phase, site.entry()["weight_ppm"]) == ("running", 100_000)
    site.steward.pause("trees", EVE, "lunch")
    site.steward.resume("trees", BEN, "back")
    assert site.stage.phase == "held"
    assert refusal(site.steward.approve, "trees", BEN) == (403, "same_person")
    site.steward.approve("trees", EVE)
    assert site.stage.phase == "running"
    site.steward.abort("trees", EVE, "enough")
    assert (site.stage.phase, site.entry(), site.split()) == ("aborted", None, [["v1", 1_000_000]])


def test_the_leaf_names_the_guards(site):
    """What a file leaves to the defaults is written down: defaults may change, leaves may not."""
    site.start(FILE.replace("guards: [errors]\n", ""))
    created = site.rollouts.attempts["trees"].created
    assert created["file"]["guards"] == ["errors", "latency_p95"]


def test_a_rollout_is_judged_to_its_end_by_what_it_began_with(site):
    """The leaf names the edition of the forms; one of before, which names none, keeps its own."""
    site.start(FILE.replace("guards: [errors]", "guards: [errors, latency_p95, flips]"))
    created = site.attempt.created
    assert created["edition"] == 2
    for edition, part in ((2, 1 / 13), (1, 1 / 4)):
        leaf = {key: value for key, value in created.items() if edition > 1 or key != "edition"}
        plan = Attempt(leaf, None).judging.plan
        assert plan.alphas[2] == pytest.approx(0.02 * part)
        assert (plan.questions[2].bursts is None) == (edition == 1)


def test_exposing_people_takes_the_role(site):
    """Who is no sre may pause and abort, and neither start, resume nor promote."""
    with pytest.raises(Refused, match="'sre' is wanted"):
        site.start(person=EVE)
    site.start()
    assert refusal(site.steward.promote, "trees", EVE, "hurry") == (403, "forbidden")
    site.steward.pause("trees", EVE, "lunch")
    assert refusal(site.steward.resume, "trees", EVE, "back") == (403, "forbidden")
    site.steward.abort("trees", EVE, "enough")
    assert site.stage.phase == "aborted"


def swap(site) -> None:
    """Another artifact under the candidate's name, by a way that asks nobody."""

    def change(document):
        versions = document["models"]["mortgage"]["versions"]
        versions["v2"] = versions["v3"]

    site.revisions.change(change, author="eve", reason="a fix", origin="api")


def test_another_artifact_is_another_rollout(site):
    """A candidate that was swapped answers nobody on the evidence of the one before it."""
    site.start(GATED)
    site.serve(2)
    swap(site)
    site.serve(1)
    last = site.leaves("rollout")[-1]
    assert (last["phase"], last["by"], site.entry()) == ("aborted", "eve", None)
    assert last["why"] == "another revision changed its versions: a fix"


def recount(site) -> None:
    """Other units."""
    site.revisions.change(
        lambda document: document["models"]["mortgage"].update(unit=["exchange"]),
        author="eve", reason="others", origin="api",
    )  # fmt: skip


@pytest.mark.parametrize("change", [swap, recount])
def test_an_approval_is_of_what_there_was(site, change):
    """Another candidate, or other units, while it waited for its approval: it does not begin."""
    site.start(FILE.replace("steps:\n", "steps:\n  - {approval: sre}\n"))
    change(site)
    assert refusal(site.steward.approve, "trees", BEN) == (409, "not_now")
    assert (site.stage.phase, site.entry()) == ("draft", None)


def test_attempts_are_never_numbered_twice(site, monkeypatch):
    """Not when the former ones are no longer shown, and over a governor's death."""
    monkeypatch.setattr("gateway.rollout.controller.OVER_MAX", 0)
    for number in (1, 2, 3):
        site.start()
        assert site.attempt.number == number
        site.steward.abort("trees", EVE, "enough")
        site.turn()
        assert site.rollouts.attempts == {}
        site.die()
        site.open()


def test_a_narrowing_of_what_is_unknown_is_recorded(site):
    """A table with a rollout that the state has lost: whoever ends it is in the ledger, once."""
    site.start()
    site.serve(2)
    site.die()
    abort_offline(site.state, "trees", "eve (offline)", "fire", site.clock.now, site.clock.wall)
    told = {"format": 1, "reached": site.sealer.ledger.number - 1, "attempts": []}
    (site.state / "rollouts" / "state.json").write_bytes(orjson.dumps(told))
    site.open()
    site.turn()
    done = [one for one in site.leaves("rollout") if one.get("move") == "abort"]
    assert [(one["by"], one["attempt"]) for one in done] == [("eve (offline)", 1)]
    assert (site.rollouts.attempts, site.entry()) == ({}, None)
    report = recompute(site.state, site.keys, "trees")
    assert (report.problems, report.phase) == ([], "aborted")


def test_sessions_that_keep_their_version_are_not_compared(tmp_path):
    """On a sticky rule only guards of pairs are taken."""
    sticky = "split: {v1: 100%}, sticky: {max_age: 1h}"
    site = Site(tmp_path, CONFIG.replace("split: {v1: 100%}", sticky))
    with pytest.raises(Refused) as caught:
        site.start()
    assert [one.key for one in caught.value.problems] == ["rule"]
    assert "sticky" in caught.value.problems[0].allowed
    pairs = FILE.replace("[errors]", "[{name: flips, max: 5%}]")
    site.start(pairs.replace("steps:\n", "steps:\n  - {shadow: 100%, min: 1s, require: []}\n"))
    assert site.stage.phase == "shadowing"
    site.loop.run_until_complete(site.journal.close())
    site.loop.close()


def test_who_is_not_told_apart_approves_nothing(site):
    """Without `people` in the configuration a file that needs approvals is refused."""
    with pytest.raises(Refused, match="people"):
        site.start(GATED, person=NOBODY)
    assert site.rollouts.attempts == {}


def test_a_rule_taken_back_is_an_abort(site):
    """An old revision brought back over a rollout's head: recorded as that person's abort."""
    before = site.tables.current
    site.start()
    site.serve(2)
    site.revisions.revert(before, author="eve", reason="revert")
    site.serve(1)
    last = site.leaves("rollout")[-1]
    assert (last["phase"], last["by"], "revert" in last["why"]) == ("aborted", "eve", True)
    assert site.entry() is None


def test_a_smaller_weight_brought_back_is_a_pause(site):
    """Held at that weight, by whoever did it; `resume` goes on with the step's own."""
    site.start()
    before = site.tables.current
    site.serve(5)
    assert site.entry()["weight_ppm"] == 500_000
    site.revisions.revert(before, author="eve", reason="too fast")
    site.serve(1)
    assert (site.stage.phase, site.stage.step, site.entry()["weight_ppm"]) == ("held", 1, 100_000)
    assert "too fast" in site.stage.held.why
    site.serve(3)
    assert site.entry()["weight_ppm"] == 100_000
    site.steward.resume("trees", BEN, "seen")
    assert (site.stage.phase, site.entry()["weight_ppm"]) == ("running", 500_000)


HEALTH = FILE.replace("after: 1h", "after: 3s").replace("50%, min: 3s", "50%, min: 60s")


def test_what_was_narrowed_while_held_stays_narrow(site):
    """Held for its health, then brought back to a smaller weight: that is a person's hold, and
    traffic that returns does not undo it."""
    site.start(HEALTH)
    before = site.tables.current
    site.serve(5)
    site.serve(6, a_second=0)
    assert (site.stage.held.kind, site.entry()["weight_ppm"]) == ("health", 500_000)
    site.revisions.revert(before, author="eve", reason="too fast")
    site.serve(6)
    assert (site.stage.phase, site.stage.held.kind) == ("held", "person")
    assert (site.leaves("rollout")[-1]["by"], site.entry()["weight_ppm"]) == ("eve", 100_000)


def test_a_pause_outlasts_health(site):
    """Whoever pauses what is held already keeps it from going on by itself."""
    site.start(HEALTH)
    site.serve(5)
    site.serve(6, a_second=0)
    site.steward.pause("trees", EVE, "we look first")
    site.serve(6)
    assert (site.stage.held.kind, site.stage.held.why) == ("person", "we look first")
    site.steward.resume("trees", BEN, "seen")
    assert site.stage.phase == "running"


def test_a_step_that_was_not_published_does_not_undo_a_narrowing(site, monkeypatch):
    """A governor ends behind the leaf of a wider step; a revision makes it narrower meanwhile: the
    next governor does not publish the step."""
    text = FILE.replace(
        "  - {weight: 10%", "  - {weight: 5%, min: 3s, require: []}\n  - {weight: 10%"
    )
    site.start(text)
    before = site.tables.current
    site.serve(5)
    assert (site.stage.step, site.entry()["weight_ppm"]) == (1, 100_000)

    def conflict(*arguments):
        raise Conflict("not now")

    monkeypatch.setattr(site.rollouts, "_publish", conflict)
    site.serve(4)
    assert (site.stage.step, site.entry()["weight_ppm"]) == (2, 100_000)
    site.die()
    site.revisions.revert(before, author="eve (offline)", reason="fire")
    site.open()
    site.serve(3)
    assert (site.stage.phase, site.entry()["weight_ppm"]) == ("held", 50_000)
    site.steward.resume("trees", BEN, "seen")
    assert (site.stage.phase, site.entry()["weight_ppm"]) == ("running", 500_000)


def test_it_begins_when_all_have_approved_that_come_first(site):
    """Two roles before the first weight: one of them is not enough."""
    gates = "steps:\n  - {approval: sre}\n  - {approval: reviewer}\n"
    site.start(FILE.replace("steps:\n", gates))
    site.steward.approve("trees", BEN)
    assert (site.stage.phase, site.entry()) == ("draft", None)
    assert refusal(site.steward.approve, "trees", BEN) == (403, "forbidden")
    site.steward.approve("trees", Person("rita", frozenset({"reviewer"})))
    assert (site.stage.phase, site.stage.step, site.entry()["weight_ppm"]) == (
        "running", 2, 100_000,
    )  # fmt: skip


def test_an_abort_without_the_governor_is_recorded_when_it_is_back(site):
    """The table is narrow at once; the returning governor makes it a leaf, once."""
    site.start()
    site.serve(2)
    site.die()
    clock = site.clock
    abort_offline(site.state, "trees", "eve (offline)", "fire", clock.steady(), clock.wall)
    assert (site.entry(), site.split()) == (None, [["v1", 1_000_000]])
    site.open()
    site.serve(1)
    done = [one for one in site.leaves("rollout") if one.get("move") == "abort"]
    assert [(one["by"], one["why"]) for one in done] == [("eve (offline)", "fire")]
    assert site.stage.phase == "aborted"
    site.start()
    assert site.attempt.number == 2


def test_several_run_at_once_and_one_a_rule(tmp_path):
    """On rules of their own; a rule has one, a name has one."""
    rules = "- {name: pilot, when: {header: {x-t: a}}, split: {v1: 100%}}, {name: everyone"
    site = Site(tmp_path, CONFIG.replace("[{name: everyone", f"[{rules[2:]}"))
    site.start()
    other = FILE.replace("trees", "pilot").replace("rule: everyone", "rule: pilot")
    assert site.steward.start(other.encode(), "p.yaml", ANA).stage.phase == "running"
    third = FILE.replace("trees", "third")
    assert refusal(site.steward.start, third.encode(), "t.yaml", ANA) == (409, "rule_taken")
    assert refusal(site.steward.start, FILE.encode(), "t.yaml", ANA) == (409, "rollout_runs")
    site.serve(4)
    assert [one.stage.step for one in site.rollouts.attempts.values()] == [1, 1]
    site.loop.run_until_complete(site.journal.close())
    site.loop.close()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("model: mortgage", "model: credit", "no model 'credit'; known: mortgage"),
        ("to: v2", "to: v9", "no such version; known: v1, v2, v3"),
        ("rule: everyone", "rule: all", "no such rule; known: everyone"),
        ("from: v1", "from: v3", "the rule's stable version is v1"),
        ("guards: [errors]", "guards: [{name: fairness, by: age}]", "no group of monitor.groups"),
        ("weight: 10%", "weight: 0%", "above 0%"),
        ("weight: 10%", "wait: 10%", "wait"),
    ],
)
def test_what_cannot_run_here_is_refused(site, before, after, said):
    """With the key and the reason; nothing is started, nothing recorded."""
    with pytest.raises(Refused) as caught:
        site.start(FILE.replace(before, after))
    assert caught.value.status == 422
    assert said in "; ".join(str(one) for one in caught.value.problems)
    assert (site.rollouts.attempts, site.leaves("rollout"), site.entry()) == ({}, [], None)
