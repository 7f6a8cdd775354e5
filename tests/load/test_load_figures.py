"""The benchmark's pure parts: what it computes, parses and prints."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load import headworks, hotspots, instructions, machinecode, memory, wrk
from load.figures import Latency, Spread, latency, percentile, ratios, spread
from load.goals import goals, judge
from load.obstacles import obstacles
from load.page import page, panels
from load.processes import parse_stat
from load.results import Results, read
from load.scenario import CHUNKS, SCENARIOS, events, request_bytes
from load.tables import Samples, cpu_path, number, per_second, ranged, table
from load.trial import Sample

VALUES = st.lists(st.floats(1e-6, 10), min_size=1, max_size=300)


def sample(contender="headworks", number=0, *, rate=0.0, cpu=100.0, count=3000, p50=500.0,
           concurrency=32, scenario="json-200"):  # fmt: skip
    return Sample(contender, scenario, concurrency, number, rate, count, 0, 1.0, {"worker": cpu},
                  {"worker": 80 * 2**20}, Latency(p50, 4 * p50, 8 * p50), None, 0.2)  # fmt: skip


@given(VALUES, st.floats(0.01, 1.0))
def test_a_percentile_is_a_value_that_enough_others_do_not_exceed(values, share):
    """Nearest rank: it is one of the values, and at least that share lies at or below it."""
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-9
    assert sum(value < found for value in ordered) < share * len(ordered) + 1e-9


def test_percentiles_are_microseconds():
    """A thousand values from 1 ms to 1 s have the percentiles one can name."""
    found = latency([i / 1000 for i in range(1000, 0, -1)])
    assert found == Latency(pytest.approx(500_000), pytest.approx(990_000), pytest.approx(999_000))


def test_ratios_are_taken_within_rounds():
    """What slows both of a round falls out; rounds that one of them lacks do not count."""
    ours, theirs = {0: 2.0, 1: 20.0, 2: 5.0}, {0: 1.0, 1: 10.0, 3: 1.0}
    assert ratios(ours, theirs) == Spread(2.0, 2.0, 2.0)
    assert ratios({0: 1.0}, {1: 1.0}) is None
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


WRK = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 32 connections
FIGURES {"requests":3000,"microseconds":1500000,"p50":900,"p99":4000,"p999":6000,"connect":0,\
"read":2,"write":0,"status":500,"timeout":0}
"""


def test_what_wrk_printed_is_read():
    """Answers that are not 2xx or 3xx are errors, not requests."""
    found = wrk.parse(WRK)
    assert (found.requests, found.errors, found.seconds) == (2500, 502, 1.5)
    assert found.latency == Latency(900.0, 4000.0, 6000.0)
    assert found.sample == "2 read, 500 status"


def test_wrk_that_did_not_end_is_an_error():
    """Without our line there are no figures."""
    with pytest.raises(ValueError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused")


def test_a_process_may_be_called_anything():
    """Parentheses and spaces in a name do not shift the fields."""
    rest = " ".join(str(n) for n in range(4, 53))
    name, parent, cpu, pages = parse_stat(f"17 (a) b (c) S 3 {rest}")
    assert (name, parent, pages) == ("a) b (c", 3, 23)
    assert cpu == pytest.approx((13 + 14) * 1e4)


def test_a_later_run_is_further_rounds():
    """Its rounds lie behind the former's, so ratios stay within rounds, and both are named."""
    one = Results("a", {}, "monday", "c1", {"envoy": "1"}, samples=[
        sample("headworks", cpu=10.0), sample("envoy", cpu=5.0),
    ])  # fmt: skip
    two = Results("b", {}, "tuesday", "c2", {"envoy": "2"}, samples=[
        sample("headworks", cpu=30.0), sample("envoy", cpu=10.0),
    ])  # fmt: skip
    both = one.joined(two)
    assert [each.round for each in both.samples] == [0, 0, 1, 1]
    found = Samples(both.samples).ratio(
        ("headworks", "json-200"), ("envoy", "json-200"), 32, cpu_path
    )
    assert (found.least, found.most) == (2.0, 3.0)
    assert (both.commit, both.date) == ("c1 and c2", "monday and tuesday")
    assert both.versions == {"envoy": "2"}
    assert one.joined(one).commit == "c1"


def test_what_stands_in_the_way_is_reckoned():
    """Five times 1,000 requests a second at 200 µs are one core; a commit of 0.4 ms is waited for
    one and a half times; what was reached is not told."""

    def half(name, p50, **commits):
        return replace(sample(name, rate=500.0, p50=p50), **commits)

    slow = Results("a", {"cores": 2}, "", "", titles={"mlserver": "MLServer"}, samples=[
        sample("headworks", cpu=200.0, count=3000), sample("mlserver", count=1000),
        half("direct", 100.0), half("headworks", 1100.0, commits=1500, commit_s=0.6),
    ])  # fmt: skip
    told = obstacles(slow, Samples(slow.samples))
    assert "5 × MLServer would be 5,000 requests/s" in told
    assert "one costs 200 µs, so they would take 1.0 of the machine's 2 cores" in told
    assert "a commit lasts 0.40 ms at half of saturation and holds 2.00 records" in told
    assert "0.60 of the 1.00 ms" in told
    assert "Envoy" not in told
    assert "Envoy, one thread that keeps nothing, adds 3.60 (3.60–3.60) ms" in obstacles(
        slow, Samples([*slow.samples, half("envoy", 1000.0)])
    )
    fast = replace(slow, samples=[sample("headworks", count=6000), sample("mlserver", count=1000)])
    assert obstacles(fast, Samples(fast.samples)) == ""


def test_callgrind_dumps_are_read():
    """The last total of a dump counts; a dump without one is refused."""
    assert instructions.total("events: Ir\nfn=(1)\n16 400\ntotals: 1200\n") == 1200
    with pytest.raises(ValueError, match="no total"):
        instructions.total("events: Ir\n")


def test_hot_spots_leave_waiting_threads_out():
    """Only stacks of the event loop count, and a stage holds all that is below it."""
    loop = "main (x:1);Runner.run (asyncio/runners.py:86)"
    lines = [
        f"{loop};Handler._story (gateway/dataplane/handler.py:97);f (orjson.py:1) 30",
        f"{loop};Handler._story (gateway/dataplane/handler.py:97) 10",
        "Thread.run (threading.py:971);_worker (concurrent/futures/thread.py:69) 500",
    ]
    found = hotspots.parse(lines)
    assert (found.samples, found.own) == (40, 0.25)
    assert dict(found.stages) == {"the story up to the upstream": 1.0}
    assert found.top[0] == ("f (orjson.py:1)", 0.75)
    with pytest.raises(ValueError, match="no sample"):
        hotspots.parse(lines[2:])


def test_machine_code_is_told_by_what_it_is():
    """Each sample falls under one place; ours are those of the compiled folder, whatever its path;
    what is no sample's line is passed over."""
    place = "/srv/gateway/__compiled__/gateway__mypyc.cpython-311-x86_64-linux-gnu.so"
    uvloop = "/srv/.venv/lib/python3.11/site-packages/uvloop/loop.cpython-311-x86_64-linux-gnu.so"
    lines = [
        f"     7f8e171cf326 CPyDef_dataplane___handler___Handler____story ({place})",
        f"     7f8e171cf326 CPyDef_dataplane___handler___Handler____story ({place})",
        f"     7f8e171cf326 CPyDict_GetItem ({place})",
        " ffffffff816e1f36 tcp_sendmsg_locked ([kernel.kallsyms])",
        " 7f0000000000 _PyEval_EvalFrameDefault (/usr/local/lib/libpython3.11.so.1.0)",
        " 7f0000000000 _PyObject_Malloc (/usr/bin/python3.11)",
        " 7f0000000000 [unknown] ([vdso])",
        " 7f0000000000 malloc (/usr/lib/x86_64-linux-gnu/libc.so.6)",
        f" 7f0000000000 __pyx_f_6uvloop_4loop_write ({uvloop})",
        "",
        "# cpu-clock",
    ]
    found = machinecode.parse(lines)
    places = {name.partition(":")[0]: share for name, share in found.places}
    assert places == {
        "our compiled functions": 2 / 9, "the kernel": 2 / 9, "the interpreter's loop": 1 / 9,
        "Python's runtime": 1 / 9, "the C library": 1 / 9, "uvloop": 1 / 9,
        "mypyc's runtime, which lies beside them": 1 / 9,
    }  # fmt: skip
    assert (found.samples, found.own, found.interpreted) == (9, 2 / 9, 1 / 9)
    assert found.top[0] == ("dataplane.handler.Handler._story (our compiled functions)", 2 / 9)
    with pytest.raises(ValueError, match="no sample"):
        machinecode.parse(lines[-2:])


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda one: one.name)
def test_requests_state_their_length(scenario):
    """Each request is whole: head, one length, and the body of that length."""
    head, _, body = request_bytes(scenario, "/p", "h", {"x-a": "b"}).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /p HTTP/1.1\r\nhost: h\r\n")
    assert head.count(b"content-length: %d" % len(body)) == 1
    assert body == scenario.body


def test_bodies_have_the_sizes_that_are_named():
    """200 B, 16 KB and 1 MB; a stream has its chunks and its end."""
    assert 200 <= len(SCENARIOS["json-200"].body) < 210
    assert 16_384 <= len(SCENARIOS["json-16k"].body) < 16_400
    assert 1 << 20 <= len(SCENARIOS["binary-1m"].body) < (1 << 20) + 200
    assert len(events()) == CHUNKS + 1
    assert json.loads(SCENARIOS["sse"].body)["stream"] is True


def test_a_model_that_is_refused_is_left_out_with_the_reason(tmp_path):
    """`headworks check` decides, and its words are kept."""
    bad = headworks.proxied(1, durability="whatever")
    words = headworks.check(tmp_path, headworks.document(tmp_path, (1, 2), {"m": bad}, 1))
    assert "models.m.durability" in words
    assert "whatever" in words
    good = headworks.document(tmp_path, (1, 2), {"m": headworks.proxied(1)}, 1)
    assert headworks.check(tmp_path, good) == ""


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (1234.5, "1,234"), (12.34, "12.3"), (1.234, "1.23"),
                        (0.5, "0.50"), (99.96, "100.0")],
)  # fmt: skip
def test_numbers_are_short(value, text):
    """Three digits and no more; nothing is a dash."""
    assert number(value) == text


def test_a_cell_of_a_table_may_hold_a_bar():
    """Text cannot break a table."""
    assert table(("a", "b"), [("x|y", "1")]).splitlines()[-1] == "| x\\|y | 1 |"
    assert ranged(Spread(2.0, 1.0, 3.0), " ×") == "2.00 × (1.00–3.00)"


def test_a_goal_is_met_at_its_bound_and_missed_by_a_factor():
    """At most, at least, and not measured."""
    assert judge("x", Spread(1.5, 1, 2), most=1.5).verdict == "met"
    assert judge("x", Spread(3.0, 1, 4), most=1.5).verdict == "**missed** by 2.00 ×"
    assert judge("x", Spread(2.5, 1, 4), least=5).verdict == "**missed** by 2.00 ×"
    assert judge("x", None, least=5).verdict == "not measured"


def some_samples() -> Samples:
    cells = []
    for round_ in range(3):
        cells += [
            sample("headworks", round_, cpu=120.0 + round_),
            sample("envoy", round_, cpu=60.0),
        ]
        cells += [sample("direct", round_, rate=100.0, p50=100.0)]
        cells += [sample("headworks", round_, rate=100.0, p50=500.0 + 100 * round_)]
    return Samples(cells)


def test_added_latency_is_over_direct_at_the_same_rate():
    """The open loop is no cell of the closed one, and is compared with its own direct."""
    samples = some_samples()
    assert samples.added("headworks", "p50") == Spread(*map(pytest.approx, (0.5, 0.4, 0.6)))
    assert samples.rounds("headworks", "json-200", 32, cpu_path) == {0: 120, 1: 121, 2: 122}
    assert samples.middle("direct", "json-200", 32, per_second) is None


def test_goals_and_page_say_what_was_measured(tmp_path):
    """From samples through JSON to the page: ratio, verdict, what was left out and why."""
    results = Results("scripts/benchmark", {"cpu": "c", "cores": 2, "memory_gib": 1, "kernel": "k",
                      "python": "3", "load_before": 0}, "2026-11-23", "abc",
                      titles={"headworks": "Headworks", "envoy": "Envoy"},
                      skipped={"Portkey": "node is not installed"},
                      samples=list(some_samples().all))  # fmt: skip
    results.write(tmp_path / "results.json")
    again = read(tmp_path / "results.json")
    assert again == results
    first = next(iter(goals(Samples(again.samples))))
    assert first.found == "2.02 × (2.00–2.03)"
    text = page(again, "performance.svg")
    assert "| Envoy | 32 | 3,000 |" in text
    assert "**Portkey**: node is not installed" in text
    assert "![CPU a request and added latency](performance.svg)" in text
    assert {bar["name"] for bar in panels(again)[0]["bars"]} == {"Headworks", "Envoy"}


def test_memory_is_judged_behind_its_first_quarter() -> None:
    """A worker that fills its caches first is flat; one that grows on is not."""
    assert memory.deviation([50, 100, 100, 102, 98, 100, 101, 99]) == pytest.approx(0.02)
    assert memory.deviation([50, 100, 110, 120, 130, 140, 150, 160]) > 0.05
