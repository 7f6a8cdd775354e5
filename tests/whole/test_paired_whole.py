"""Pairs by group through a real gateway: its shadow declines more of one group."""

import httpx2
from gateway_process import KEY, body

COUNT = 520


def test_pairs_of_versions_are_told_by_group(make_gateway):
    """Five hundred decisions of two groups: what both versions said is counted to the last."""
    gateway = make_gateway(
        edit=lambda text: text.replace("split: {v1: 95%, v2: 5%}", "split: {v1: 100%}")
    ).start()
    url = f"http://{gateway.data}/v2/models/mortgage/infer"
    with httpx2.Client(headers=KEY, timeout=20) as client:
        for number in range(COUNT):
            race = "black" if number % 2 else "other"
            content = body(lvr=0.5 + number % 20 * 0.03)
            answer = client.post(
                url, content=content, headers={"x-headworks-groups": f"race={race}"}
            )
            assert answer.status_code == 200
    gateway.wait_settled()
    (report,) = gateway.api("/api/v1/monitor/mortgage")["pairs"]
    assert (report["version"], report["against"], report["decisions"]) == ("v3", "v1", 500)
    groups = {one["value"]: one["paired"] for one in report["groups"]}
    assert {value: one["n"] for value, one in groups.items()} == {"black": 250, "other": 250}
    for one in groups.values():
        assert one["n"] == sum(one[k] for k in ("both", "only_first", "only_second", "neither"))
        assert one["interval"][0] <= one["difference"] <= one["interval"][1]
    (shadow,) = gateway.api("/api/v1/shadow/mortgage")["shadows"]
    flips = sum(shadow["directions"].values())
    told = sum(one["only_first"] + one["only_second"] for one in groups.values())
    assert 0 < told <= flips
