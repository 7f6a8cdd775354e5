"""A small run of the benchmark without foreign peers: the real origin, gateway and generator."""

import time

import pytest

from load.benchmark import Field, Run, Size
from load.processes import cpu_by_role, table, tree
from load.scenario import SCENARIOS
from load.trial import Bench, Plan


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    folder = tmp_path_factory.mktemp("field")
    with Field(folder, folder, (), 1) as running:
        yield running


@pytest.fixture
def bench(field, tmp_path):
    return Bench(tmp_path, field.origin, None)


def test_each_contender_answers_each_of_its_scenarios_rightly(field, bench):
    """The origin and the gateway, every scenario they take; streams with all their events."""
    run = Run(field, bench, Size(1, 0.2, 1, 0.2, (4,), 0.2), tuple(SCENARIOS))
    for name in SCENARIOS:
        for contender in run.takers(name, 0):
            with run.awake(contender):
                assert bench.preflight(contender, SCENARIOS[name]) == ""
    ours = field.contenders["headworks"].paths
    assert set(ours) >= {"json-200", "json-16k", "binary-1m", "sse", "onnx"}


def test_a_trial_counts_answers_cpu_and_memory_by_role(field, bench):
    """Closed and open loop through the gateway: no errors, and each process's share of the CPU."""
    ours = field.contenders["headworks"]
    run = Run(field, bench, Size(1, 0.5, 1, 0.5, (4,), 0.5), ("json-200",))
    with run.awake(ours):
        closed = bench.run(ours, SCENARIOS["json-200"], Plan("json-200", 4, 0.5))
        opened = bench.run(ours, SCENARIOS["json-200"], Plan("json-200", 4, 0.5, rate=100.0))
        stream = bench.run(ours, SCENARIOS["sse"], Plan("sse", 4, 0.5))
    for sample in (closed, opened, stream):
        assert sample.errors == 0, sample.note
        assert sample.requests > 0
        assert sample.latency.p50 <= sample.latency.p99 <= sample.latency.p999
        assert set(sample.cpu) == {"worker", "governor", "analyst", "main"}
        assert sample.memory["worker"] > 10 * 2**20
    assert closed.cpu["worker"] > 0
    assert 20 < opened.requests < 100
    assert stream.first_event is not None


def test_a_frozen_contender_takes_no_time(field):
    """Frozen, a process tree's CPU time stands still."""
    ours = field.contenders["headworks"].server
    ours.freeze()
    before = cpu_by_role(ours.root)
    time.sleep(0.3)
    assert cpu_by_role(ours.root) == before


def test_errors_are_counted_not_passed_over(field, bench):
    """A wrong answer is an error and no request; preflight says what came."""
    direct = field.contenders["direct"]
    wrong = SCENARIOS["json-200"].__class__("json-200", "", "/", b"{}", b"never said")
    assert "200" in bench.preflight(direct, wrong)
    sample = bench.run(direct, wrong, Plan("json-200", 2, 0.2))
    assert sample.requests == 0
    assert sample.errors > 0
    assert "200 OK" in sample.note


def test_nothing_is_left_behind(tmp_path):
    """A field that ends takes its whole process trees with it, frozen ones included."""
    with Field(tmp_path, tmp_path, (), 1) as running:
        roots = [one.server.root for one in running.contenders.values()]
        family = {process.number for root in roots for process in tree(root)}
        assert len(family) > 4
    assert not family & set(table())
