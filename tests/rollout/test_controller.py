"""The controller on real journals and a real ledger: what it does with what was sealed."""

from __future__ import annotations

import pytest
from site_of_rollouts import Answer, Site


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
