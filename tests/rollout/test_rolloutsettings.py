"""The file of a rollout: six lines are enough, and what is wrong is named."""

from __future__ import annotations

import pydantic
import pytest
import yaml

from gateway.rollout.lifecycle import Phase
from gateway.rollout.rolloutsettings import RolloutSettings, settings_of

SIX = """\
rollout: mortgage-v2
model: mortgage
rule: everyone
from: v1
to: v2
steps: [shadow 30m, 1% 10m, approval sre, 50% 2h, 100% 24h]
"""
MINUTE = 60 * 10**9


def read(text: str, **more) -> RolloutSettings:
    return RolloutSettings.model_validate(yaml.safe_load(text) | more)


def test_six_lines_are_a_whole_rollout():
    """Phases, exposures and times follow from six lines; an approval keeps the exposure before."""
    settings = read(SIX)
    steps = settings.plan("ana").steps
    assert [step.phase for step in steps] == [
        Phase.SHADOWING, Phase.RUNNING, Phase.RUNNING, Phase.RUNNING, Phase.BAKING,
    ]  # fmt: skip
    assert [step.weight_ppm for step in steps] == [0, 10_000, 10_000, 500_000, 990_000]
    assert [step.least_ns // MINUTE for step in steps] == [30, 10, 0, 120, 24 * 60]
    assert [bool(step.require) for step in steps] == [
        True, False, False, True, False,
    ]  # fmt: skip
    assert steps[2].approval == "sre"


@pytest.mark.parametrize("step", ["shadow 30m", {"shadow": "50%", "min": "30m"}])
def test_who_copies_and_names_no_guard_has_the_pairs_judged(step):
    """Labels in another order have neither errors nor latency: only pairs stop them."""
    settings = read(SIX, steps=[step, "50% 1h", "100% 1h"])
    assert [one.name for one in settings.guards] == ["errors", "latency_p95", "disagreement"]
    assert settings.plan("ana").steps[0].require == {"disagreement"}
    alone = read(SIX, steps=["50% 1h", "100% 1h"])
    assert [one.name for one in alone.guards] == ["errors", "latency_p95"]
    assert [one.name for one in read(SIX, guards=["errors"]).guards] == ["errors"]


def test_a_step_waits_long_enough_for_what_it_requires():
    """24 times its `min`, but never less than warm-up and half an hour of blocks; nothing waits
    for ever without being asked to, and nothing of before waits longer."""
    settings = read(SIX, steps=["shadow 30s", "5% 2m", "50% 2h", "100% 2m"])
    most = [step.most_ns and step.most_ns // 10**9 for step in settings.plan("ana").steps]
    assert most == [60 + 1800, 48 * 60, 48 * 3600, None]
    before = settings.plan("ana", edition=1).steps
    assert [step.most_ns // 10**9 for step in before[:2]] == [24 * 30, 48 * 60]
    said = read(SIX, steps=[{"shadow": "100%", "min": "30s", "max": "1m"}, "100% 2m"])
    assert said.plan("ana").steps[0].most_ns == MINUTE


def test_steps_say_how_much_evidence_there_will_be():
    """By their `min`, less the warm-up of each kind; an approval and the bake give none."""
    settings = read(SIX, steps=["shadow 2m", "5% 2m", "approval sre", "50% 2m", "100% 2h"])
    assert (6, 18) == (settings.blocks_planned(True), settings.blocks_planned(False))
    bare = read(SIX, steps=[{"weight": "50%"}, "100% 2m"])
    assert (None, None) == (bare.blocks_planned(True), bare.blocks_planned(False))


def test_a_leaf_that_names_no_guards_means_the_two_of_its_time():
    """Leaves of before keep their meaning, hence their digest; newer ones name their guards."""
    old = settings_of({"file": yaml.safe_load(SIX)})
    assert old.digest == read(SIX, guards=["errors", "latency_p95"]).digest


def test_sugar_means_the_same():
    """The short and the long way to write it have one digest; another weight has another."""
    long = read(SIX, steps=[
        {"shadow": "100%", "min": "30m"}, {"weight": "10000ppm", "min": "600s"},
        {"approval": "sre"}, {"weight": "50%", "min": "2h"}, {"weight": "100%", "bake": "24h"},
    ])  # fmt: skip
    assert long.digest == read(SIX).digest
    assert read(SIX.replace("1% 10m", "2% 10m")).digest != long.digest


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"steps": ["5% soon", "100%"]}, "a duration with its unit"),
        ({"steps": ["shadow5", "100%"]}, "is wanted, or a mapping"),
        ({"steps": ["5% 1h", "2% 1h", "100%"]}, "greater than the one before"),
        ({"steps": ["5% 1h"]}, "the last one is 100%"),
        ({"steps": ["5% 1h", "shadow 1h", "100%"]}, "before the first weight"),
        ({"steps": ["100%", "approval"]}, "nothing comes after"),
        ({"steps": [{"weight": "5%", "require": ["speed"]}, "100%"]}, "speed is no guard"),
        ({"steps": [{"weight": "5%", "min": "2h", "max": "1h"}, "100%"]}, "`max` is shorter"),
        ({"steps": [{"weight": "5%", "shadow": "5%"}, "100%"]}, "one of `shadow`"),
        ({"steps": [{"weight": "5%", "weigth": "5%"}, "100%"]}, "extra"),
        ({"steps": ["99.5% 1h", "100%"]}, "less the `holdout`"),
        ({"to": "v1"}, "the same version"),
        ({"baseline": "equal"}, "extra"),
    ],
)
def test_what_is_wrong_is_named(changed, said):
    """Each mistake in words of its own."""
    with pytest.raises(pydantic.ValidationError) as caught:
        read(SIX, **changed)
    assert said.lower() in str(caught.value).lower()
