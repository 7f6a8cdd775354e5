"""Guards and limits as an SRE writes them: short where usual, refused with a reason where wrong."""

import pytest
from pydantic import ValidationError

from gateway.rollout.guardsettings import DEFAULTS, JudgeSettings


def judge(*guards, **rest):
    return JudgeSettings.model_validate({"guards": guards, **rest})


def test_names_alone_are_enough():
    """Three words make three guards, with limits, evidence and health as usual."""
    settings = judge("errors", "latency_p95", "disagreement")
    errors, latency, disagreement = settings.guards
    assert errors.critical
    assert (0.002, False) == (errors.worse_than.amount, errors.worse_than.factor)
    assert ("p95", 1.15, True) == (
        latency.stat, latency.worse_than.amount, latency.worse_than.factor)  # fmt: skip
    assert (20_000, "hold", True) == (
        disagreement.max, disagreement.on_fail, disagreement.of_pairs)  # fmt: skip
    assert (0.02, 0.05, 10, 60, 200) == tuple(settings.evidence.model_dump().values())
    assert ["bad_ratio", "arm_degraded"] == [limit.metric for limit in settings.limits]
    assert (200_000, 2) == (settings.limits[0].above, settings.limits[0].for_)
    assert 30.0 == settings.limits[1].for_


def test_a_default_can_be_changed():
    """A named guard keeps what is not said, and loses its defaults with another metric."""
    (errors,) = judge({"name": "errors", "worse_than": "+1pp"}).guards
    assert (0.01, True) == (errors.worse_than.amount, errors.critical)
    (slow,) = judge({"name": "errors", "metric": "latency", "worse_than": "x2"}).guards
    assert ("p95", False) == (slow.statistic, slow.critical)


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_every_named_guard_is_right(name):
    """Defaults pass their own checks; fairness wants to know by which group."""
    assert name == judge({"name": name, **({"by": "race"} if name == "fairness" else {})}
                         ).guards[0].name  # fmt: skip


@pytest.mark.parametrize(
    ("guards", "said"),
    [
        ([], "at least one guard"),
        (["error"], "'error' is no guard by name alone; these are: errors, latency_p95"),
        (["errors", "errors"], "guards named twice: errors"),
        (["fairness"], "by is for positive_rate_gap, which wants it"),
        ([{"name": "errors", "by": "race"}], "by is for positive_rate_gap"),
        ([{"name": "errors", "worse_than": "0.2%"}], "a tolerance is wanted, as +0.2pp"),
        ([{"name": "errors", "worse_than": "x1.2"}], "is a difference, as +0.2pp, not x1.2"),
        ([{"name": "errors", "worse_than": "-1pp"}], "is worse when higher"),
        ([{"name": "errors", "worse_than": "+100pp"}], "no difference of shares"),
        ([{"name": "accuracy", "worse_than": "+1pp"}], "is worse when lower"),
        ([{"name": "latency_p95", "worse_than": "+5pp"}], "is a factor, as x1.15"),
        ([{"name": "latency_p95", "worse_than": "x0.9"}], "not in x1 .. x100"),
        ([{"name": "latency_p95", "stat": "psi_to_reference"}], "stat psi_to_reference is not of"),
        ([{"name": "disagreement", "max": "100%"}], "max is below 100%"),
        ([{"name": "disagreement", "phase": "canary"}], "phase canary has none"),
        ([{"name": "latency_p95", "phase": "shadow"}], "latency is not compared in pairs"),
        ([{"name": "g", "metric": "flips"}], "flips wants max"),
        ([{"name": "g", "metric": "bad_ratio"}], "bad_ratio wants worse_than"),
        ([{"name": "flips", "corrected": True}], "corrected is for disagree"),
        ([{"name": "latency_p95", "independent": True}], "independent is for"),
        ([{"name": "errors", "label_delay": "1h"}], "label_delay is for label_correct"),
        ([{"name": "errors", "share_of_alpha": 0.7},
          {"name": "latency_p95", "share_of_alpha": 0.7}], "share_of_alpha sums to 1.4"),
        ([{"name": "errors", "share_of_alpha": 0.9999999999}, "latency_p95"],
         "leaves nothing for latency_p95"),
        ([{"name": "errors", "colour": "red"}], "colour"),
    ],
)  # fmt: skip
def test_a_wrong_guard_says_why(guards, said):
    """The refusal names the guard and what is wanted."""
    with pytest.raises(ValidationError) as refused:
        judge(*guards)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"metric": "bad_ratio", "above": "5s"}, "a share is wanted, as 20%, not '5s'"),
        ({"metric": "bad_ratio"}, "a share is wanted"),
        ({"metric": "latency_p99", "above": "20%"}, "a duration is wanted, as 5s"),
        ({"metric": "bad_ratio", "above": "20%", "for": "30s"}, "a number of blocks is wanted"),
        ({"metric": "arm_degraded", "above": "20%"}, "arm_degraded has no above"),
    ],
)
def test_a_wrong_limit_says_why(limit, said):
    """Shares for ratios, durations for latencies."""
    with pytest.raises(ValidationError) as refused:
        judge("errors", limits=[limit])
    assert said in str(refused.value)


def test_limits_as_written_in_the_study():
    """The full schema's limits and health are read."""
    settings = judge(
        "errors",
        limits=[
            {"metric": "bad_ratio", "above": "20%", "for": "2 blocks", "min_requests": 30},
            {"metric": "arm_degraded", "for": "30s"},
            {"metric": "latency_p99", "above": "5s", "for": "3 blocks"},
        ],
        health={
            "sample_ratio": "hold",
            "no_traffic": {"after": "15m", "do": "hold"},
            "shadow_coverage": {"below": "95%", "do": "hold"},
        },
    )
    assert (5.0, 3) == (settings.limits[2].above, settings.limits[2].for_)
    assert (900.0, 950_000) == (
        settings.health.no_traffic.after,
        settings.health.shadow_coverage.below,
    )
