"""Our figures of groups against fairlearn's, in an interpreter of its own (HEADWORKS_FAIRLEARN, or
one is made): the real applications, who was denied, and a score's mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gateway.monitor import bias
from gateway.monitor.outcomes import judge_outcomes

SCRIPT = """
import json, sys
import numpy as np
from fairlearn.metrics import (MetricFrame, count, demographic_parity_ratio, selection_rate,
    demographic_parity_difference, equal_opportunity_difference, equalized_odds_difference,
    true_positive_rate, false_positive_rate)
told = json.load(sys.stdin)
good, favoured, group = (np.array(told[k]) for k in ("good", "favoured", "group"))
frame = MetricFrame(metrics={"rate": selection_rate, "n": count, "tpr": true_positive_rate,
    "fpr": false_positive_rate}, y_true=good, y_pred=favoured, sensitive_features=group)
asked = dict(y_true=good, y_pred=favoured, sensitive_features=group)
print(json.dumps({
    "by_group": {k: dict(v) for k, v in frame.by_group.T.to_dict().items()},
    "ratio": demographic_parity_ratio(**asked),
    "difference": demographic_parity_difference(**asked),
    "opportunity": equal_opportunity_difference(**asked),
    "odds": equalized_odds_difference(**asked),
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    if "HEADWORKS_FAIRLEARN" in os.environ:
        return Path(os.environ["HEADWORKS_FAIRLEARN"], "bin", "python")
    folder = tmp_path_factory.mktemp("fairlearn")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    inside = folder / "bin" / "python"
    subprocess.run([inside, "-m", "pip", "install", "--quiet", "fairlearn"], check=True)
    return inside


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_fairlearns(python, seed):
    """Rates, ratio and difference; equal opportunity and odds: to nine digits."""
    dice = np.random.default_rng(seed)
    n = 6000
    group = dice.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1])
    good = dice.random(n) < 0.7
    score = good * 0.8 + dice.normal(size=n) - 0.5 * (group == "b")
    favoured = score > 0
    told = {"good": good.astype(int).tolist(), "favoured": favoured.astype(int).tolist(),
            "group": group.tolist()}  # fmt: skip
    done = subprocess.run(
        [python, "-c", SCRIPT], input=json.dumps(told), capture_output=True, text=True, check=True
    )
    theirs = json.loads(done.stdout)

    members = [({"g": g}, not f) for g, f in zip(group.tolist(), favoured.tolist())]
    block = bias.count_groups(members, ("g",), ())
    ours = {one.value: one for one in bias.judge_key("g", [block], {}, {}).groups}
    rivals = [one.rivalry for one in ours.values() if one.rivalry is not None]
    for value, figures in theirs["by_group"].items():
        assert ours[value].rate == pytest.approx(figures["rate"], rel=1e-9)
        assert ours[value].n == figures["n"]
    assert min(r.ratio for r in rivals) == pytest.approx(theirs["ratio"], rel=1e-9)
    assert max(-r.difference for r in rivals) == pytest.approx(theirs["difference"], rel=1e-9)

    cases = {}
    for g, f, y in zip(group.tolist(), favoured.tolist(), good.tolist()):
        count, _ = cases.get((g, int(f), int(y)), (0, 0.0))
        cases[g, int(f), int(y)] = (count + 1, 0.0)
    seen = {value: one.n for value, one in ours.items()}
    found = judge_outcomes("v1", "stable", "g", seen, cases).groups
    gaps = [max(-(rate.difference or 0.0) for rate in rates) for rates in (
        [one.opportunity for one in found], [one.mistaken for one in found])]  # fmt: skip
    assert gaps[0] == pytest.approx(theirs["opportunity"], rel=1e-9)
    assert max(gaps) == pytest.approx(theirs["odds"], rel=1e-9)
