"""The controller on real journals and a real ledger: what it does with what was sealed."""

from __future__ import annotations

import runpy

import pytest
from site_of_rollouts import ANA, BEN, FILE, ROOT, Answer, Site

from gateway.check import check
from gateway.revision.revisions import Owned
from gateway.rollout.chronicle import Chronicle
from gateway.rollout.recomputation import Unknown, recompute, recorded_blocks
from gateway.rollout.rolloutsettings import RolloutSettings
from gateway.rollout.simulation import simulate
from gateway.rollout.standing import standing
from gateway.yamlfile import check_document


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.loop.run_until_complete(made.journal.close())
    made.loop.close()


def test_a_healthy_version_comes_to_everybody(site):
    """Step by step, each move a leaf, and in the end the rule is its own again, with all on v2."""
    site.start()
    assert site.entry()["weight_ppm"] == 100_000
    site.serve(16)
    assert [phase for _, phase in site.moves()] == [
        "approved", "running", "running", "baking", "promoted",
    ]  # fmt: skip
    assert (site.entry(), site.split()) == (None, [["v2", 1_000_000]])


def test_failures_are_rolled_back_at_once(site):
    """Two blocks with a fifth of failures: everybody is on v1 again, and the leaf says why."""
    site.start()
    site.serve(2)
    site.serve(4, lambda version, n: Answer(500 if version == "v2" else 200), 400)
    assert site.moves()[-1] == ("roll_back", "rolled_back")
    assert (site.entry(), site.split()) == (None, [["v1", 1_000_000]])
    last = site.leaves("rollout")[-1]
    assert "failed" in last["why"]
    assert last["by"] == "controller"
    assert not list((site.keys / "rollouts").iterdir())
    assert [path.name for path in (site.state / "rollouts").iterdir() if path.is_file()] == [
        "state.json"
    ]


def test_who_observes_moves_nothing(site):
    """`mode: observe`: the same verdicts, told as what it would do; every move is a person's."""
    site.start("mode: observe\n" + FILE)
    site.serve(2)
    site.serve(4, lambda version, n: Answer(500 if version == "v2" else 200), 400)
    assert (site.stage.phase, site.stage.step) == ("running", 0)
    told = standing(site.attempt, site.clock.now, {})
    assert told["would"].startswith("roll_back: ")
    site.steward.promote("trees", ANA, "as planned")
    assert site.entry()["weight_ppm"] == 500_000


@pytest.mark.long
def test_a_biased_version_is_stopped_by_its_groups(site):
    """v2 denies one group alone: fairness finds it, and the leaf has the group's numbers."""
    text = FILE.replace("guards: [errors]", "guards: [{name: fairness, by: race, on_fail: rollback,"
                        " min_per_group: 40}]")  # fmt: skip

    def biased(version, n):
        race = ("black", "white")[n % 2]
        denied = n % 10 < 2 or (version == "v2" and race == "black" and n % 4 == 1)
        return Answer(score=0.9 if denied or (version == "v2" and n % 4 == 0) else 0.1, race=race)

    site.start(text.replace("weight: 10%", "weight: 50%").replace("weight: 50%, min: 3s, "
               "require: []}\n  - {weight: 50%", "weight: 40%, min: 60s, require: []}\n"
               "  - {weight: 50%"))  # fmt: skip
    site.serve(40, biased, 200)
    last = site.leaves("rollout")[-1]
    assert (last["phase"], last["why"]) == ("rolled_back", "worse by the evidence: fairness")
    assert last["verdicts"][0]["verdict"] == "worse"


def test_the_ledger_gives_the_same_verdicts_and_counts(site):
    """`verify`: each verdict, each decision and, while records are kept, each count again; another
    count in the ledger is found, and so is a move that the evidence does not ask for."""
    site.start()
    site.serve(16)
    report = recompute(site.state, site.keys, "trees")
    assert report.problems == []
    assert (report.moves, report.decisions, report.phase) == (5, 3, "promoted")
    assert report.counts == report.blocks == len(site.leaves("evidence"))
    assert recompute(site.state, None, "trees").counts == 0
    with pytest.raises(Unknown):
        recompute(site.state, None, "bushes")


def test_what_was_changed_in_the_ledger_is_found(site, monkeypatch):
    """Fewer failures in one block, and the rollback is not what follows."""
    site.start()
    site.serve(4, lambda version, n: Answer(500 if version == "v2" else 200), 400)
    assert recompute(site.state, None, "trees").problems == []
    leaves = Chronicle.leaves

    def changed(self, name, attempt=None):
        for leaf in leaves(self, name, attempt):
            if leaf.kind == "evidence":
                leaf.record["block"]["canary"].pop("bad_exchanges", None)
            yield leaf

    monkeypatch.setattr(Chronicle, "leaves", changed)
    found = recompute(site.state, None, "trees").problems
    assert any("roll_back" in words and "the evidence asks" in words for words in found), found


def test_recorded_evidence_under_other_guards(site):
    """The same traffic, a stricter limit: it says when it would have rolled back."""
    site.start("mode: observe\n" + FILE)
    site.serve(6, lambda version, n: Answer(500 if n % 9 == 0 and version == "v2" else 200), 400)
    strict = "limits: [{metric: bad_ratio, above: 5%, for: 3 blocks}]\n" + FILE
    settings = check_document(strict.encode(), "x", RolloutSettings)[0]
    told = simulate(settings, recorded_blocks(site.state, "trees"))
    assert told["blocks"] == len(site.leaves("evidence"))
    assert [act["do"] for act in told["acts"]] == ["rollback"]


def test_a_unit_counts_once_and_limits_count_all(site):
    """Returning users: the second exchange of a unit is an exchange and no unit."""
    site.start(FILE.replace("weight: 10%, min: 3s", "weight: 10%, min: 90s"))
    site.serve(2)
    site.units = 0
    site.serve(2)
    sums = site.attempt.judging.counts()
    told = sums["canary"]["exchanges"] + sums["control"]["exchanges"]
    known = sums["canary"]["units"] + sums["control"]["units"]
    assert told == 2 * known > 0


def test_labels_join_the_evidence(site):
    """By the decision's id, once each, over a governor's death; from both arms, right and wrong."""
    text = FILE.replace("guards: [errors]", "guards: [{name: accuracy, label_delay: 0s}]")
    site.start(text.replace("weight: 10%, min: 3s", "weight: 40%, min: 90s"))
    site.serve(2)
    told = [(identity, 0, "deny") for identity, *_ in site.answered]
    site.feedback(told)
    site.serve(1)
    site.die()
    site.open()
    site.feedback(told)
    site.serve(1)
    arms = site.attempt.judging
    for arm, version in ((arms.canary, "v2"), (arms.control, "v1")):
        known = [score for _, found, score in site.answered[:80] if found == version]
        assert 0 < arm.right + arm.wrong <= len(known)
        assert arm.right > 0
        assert arm.wrong > 0
    assert recompute(site.state, site.keys, "trees").problems == []
    site.steward.abort("trees", ANA, "enough")
    site.turn()
    assert not list((site.state / "rollouts").glob("*.answers"))


def test_labels_of_a_shadow_s_pairs_join_the_evidence(site):
    """By the primary's id, of pairs of which one alone was right; all in one file, over a
    governor's death. Nobody is exposed, and the shadow that is less often right is taken back."""
    guard = "{name: accuracy, phase: shadow, worse_than: -1pp}"
    text = FILE.replace("guards: [errors]", f"guards: [{guard}]")
    site.start(text.replace("steps:\n", "steps:\n  - {shadow: 100%, min: 60s, max: 90s}\n"))

    def answer(version: str, n: int) -> Answer:
        return Answer(score=0.9 if n % 2 else 0.1) if version == "v1" else Answer(score=0.1)

    site.serve(6, answer, 60)
    labels = [(identity, 0, "deny" if n % 3 else "approve")
              for n, (identity, *_) in enumerate(site.answered)]  # fmt: skip
    site.die()
    site.open()
    site.feedback([*labels, *labels[:50]])
    site.serve(2, answer, 10)
    counts = [one["block"]["pairs"] for one in site.leaves("evidence")]
    assert sum(one.get("labels", 0) for one in counts) == len(labels)
    denied = [n for n in range(len(labels)) if (n + 1) % 2]  # by v1; v2 approves everybody
    right = sum(labels[n][2] == "deny" for n in denied)
    assert sum(one.get("only_primary_right", 0) for one in counts) == right
    assert sum(one.get("only_shadow_right", 0) for one in counts) == len(denied) - right
    last = site.leaves("rollout")[-1]
    assert (last["phase"], last["why"]) == ("rolled_back", "worse by the evidence: accuracy")
    assert "points of wrong answers against v1" in last["verdicts"][0]["words"]
    assert not any(version == "v2" for _, version, _ in site.answered)
    assert recompute(site.state, site.keys, "trees").problems == []


@pytest.mark.parametrize(
    ("guard", "sick"),
    [
        ("{name: slower, metric: latency, stat: p95, worse_than: x1.5}",
         lambda version, n: Answer(us=(9000 if version == "v2" else 2000) + n % 50 * 10)),
        ("{name: errors, worse_than: +0.2pp, critical: true}",
         lambda version, n: Answer(422 if version == "v2" and n % 6 == 0 else 200)),
    ],
)  # fmt: skip
def test_what_is_slow_or_refuses_is_found_by_its_guard(site, guard, sick):
    """No limit is passed, no answer is a 5xx; the evidence says it, and the leaf in words."""
    text = FILE.replace("guards: [errors]", f"guards: [{guard}]")
    site.start(text.replace("weight: 10%, min: 3s", "weight: 40%, min: 90s"))
    for _ in range(40):
        site.serve(1, sick, 120)
        if site.attempt.is_over:
            break
    last = site.leaves("rollout")[-1]
    assert (last["phase"], last["why"].partition(":")[0]) == (
        "rolled_back",
        "worse by the evidence",
    )
    assert "as good as certain" in last["verdicts"][0]["words"]
    assert site.split() == [["v1", 1_000_000]]


ON_ALERT = "on_alert: hold\nalerts: [drift/]\n" + FILE.replace("min: 3s", "min: 90s")


def tell_alert(site, cause: str, version: str, event: str = "opened", state: str = "open") -> None:
    about = {"id": f"mortgage/{version}:{cause}", "model": "mortgage", "version": version,
             "cause": cause, "severity": "critical", "state": state}  # fmt: skip
    site.sealer.notary.tell("alert", {"event": event, "alert": about, "name": cause})
    site.sealer.ledger.commit()


def test_an_alert_of_the_new_version_is_a_cause(site):
    """`on_alert: hold`, for the causes that the file names; the rollout says which."""
    site.start(ON_ALERT)
    tell_alert(site, "drift/lvr", "v1")
    tell_alert(site, "quality/lvr", "v2")
    site.serve(2)
    assert site.stage.phase == "running"
    tell_alert(site, "drift/lvr", "v2")
    site.serve(1)
    assert (site.stage.phase, site.stage.held.kind) == ("held", "alert")
    assert site.rollouts.words() == ["rollout trees is held: alert: drift/lvr (critical)"]
    site.steward.resume("trees", ANA, "known, and harmless")
    site.serve(2)
    assert (site.stage.phase, site.stage.overruled) == (
        "running", frozenset({"mortgage/v2:drift/lvr"}),
    )  # fmt: skip


def test_an_alert_that_is_over_is_none_whatever_is_said_of_it(site):
    """Muting one that is resolved, before the rollout or in it, does not hold it."""
    tell_alert(site, "drift/lvr", "v2")
    tell_alert(site, "drift/lvr", "v2", "resolved", "resolved")
    tell_alert(site, "drift/lvr", "v2", "muted", "resolved")
    site.start(ON_ALERT)
    site.serve(2)
    tell_alert(site, "drift/lvr", "v2", "muted", "resolved")
    site.serve(2)
    assert (site.stage.phase, site.attempt.alerts) == ("running", {})


def test_an_alert_that_was_open_before_is_a_cause(site):
    """Told while no rollout ran, when the governor reads nothing: it holds the first step."""
    site.serve(1)
    tell_alert(site, "drift/lvr", "v2")
    site.rollouts._skip()
    site.start(ON_ALERT)
    site.serve(2)
    assert (site.stage.phase, site.stage.held.kind) == ("held", "alert")


def test_an_alert_while_a_draft_waits_is_a_cause(site):
    """Opened between the file and its approval, when the governor reads nothing either."""
    site.start(ON_ALERT.replace("steps:\n", "steps:\n  - {approval: sre}\n"))
    tell_alert(site, "drift/lvr", "v2")
    site.rollouts._skip()
    site.steward.approve("trees", BEN)
    site.serve(2)
    assert (site.stage.phase, site.stage.held.kind) == ("held", "alert")


def test_two_writers(site):
    """A file that touches the rule of a running rollout is refused; one that does not is taken, and
    the rollout goes on as it was."""
    site.start(FILE.replace("min: 3s", "min: 90s"))
    site.serve(2)
    before = site.entry()
    text = (site.folder / "headworks.yaml").read_text()

    def adopt(changed: str):
        (site.folder / "headworks.yaml").write_text(changed)
        checked = check(site.folder / "headworks.yaml")
        assert not checked.problems, checked.problems
        return site.revisions.adopt(checked, author="eve", reason="reload")

    with pytest.raises(Owned):
        adopt(text.replace("split: {v1: 100%}", "split: {v3: 100%}"))
    assert adopt(text + "    retention: 30d\n").changed
    site.serve(2)
    assert (site.entry(), site.stage.phase) == (before, "running")


def test_a_snapshot_that_cannot_be_read_is_made_anew(site):
    """From the ledger: the same stage, the same counts; the old file is set aside."""
    site.start(FILE.replace("min: 3s", "min: 90s"))
    site.serve(3)
    before = site.attempt.to_json()
    site.die()
    (site.state / "rollouts" / "state.json").write_bytes(b'{"format": 1, "attempts": [{}]}')
    site.open()
    after = site.attempt.to_json()
    for name in ("stage", "judging", "tally", "found", "finding"):
        assert after[name] == before[name], name
    assert list((site.state / "rollouts").glob("*.set-aside"))


def test_a_shadow_is_stopped_before_it_answers_anybody(site, capsys):
    """By paired answers; `verify` agrees, and so does a stranger's script in plain Python."""
    text = FILE.replace("guards: [errors]", "guards: [{name: flips, max: 5%, on_fail: rollback}]")
    site.start(text.replace("steps:\n", "steps:\n  - {shadow: 100%, min: 60s, max: 90s}\n"))
    for _ in range(25):
        site.serve(
            1, lambda version, n: Answer(score=0.9 if version == "v2" and n % 3 else 0.1), 60
        )
        if site.attempt.is_over:
            break
    last = site.leaves("rollout")[-1]
    assert (last["phase"], last["why"]) == ("rolled_back", "worse by the evidence: flips")
    assert not any(version == "v2" for _, version, _ in site.answered)
    assert recompute(site.state, site.keys, "trees").problems == []
    path = ROOT / "examples" / "recompute_flips.py"
    scope = runpy.run_path(str(path))
    assert scope["main"](site.state / "ledger" / "root", "trees", "flips") == 0
    assert "1 values compared, 0 differ" in capsys.readouterr().out
