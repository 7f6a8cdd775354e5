"""The pages in a real browser: drawn, refreshed, usable without a mouse, and quiet."""

import json

import httpx2
import pytest
from conftest import MARKUP_HEADER, MARKUP_VALUE
from gateway_process import body


@pytest.mark.parametrize(
    "path",
    ["/", "/models/mortgage", "/decisions/{denied}", "/decisions/{odd}", "/decisions/{refused}"],
)
def test_pages_load_without_complaint(world, browser, path):
    """The console reports neither an error nor a breach of the policy, and the state is told."""
    browser.open(world.address + path.format(**vars(world)))
    browser.wait_for("document.getElementById('state').innerText.startsWith('green')")
    assert browser.problems == []


def test_the_whole_is_drawn_from_the_status(world, browser):
    """The overview names each process with its id, as the status does."""
    browser.open(world.address + "/")
    browser.wait_for("document.querySelectorAll('#whole tbody tr').length === 3")
    shown = browser.text("#whole tbody")
    for role, process in world.get("/api/v1/status").json()["processes"].items():
        assert role in shown
        assert str(process["pid"]) in shown


def test_a_new_decision_appears_by_itself(world, browser):
    """A decision made while the page is open is listed without the page being loaded again."""
    browser.open(world.address + "/")
    browser.evaluate("window.sameDocument = true")
    fresh = world.send(body(), x_applicant="eve")
    browser.wait_for(f"document.getElementById('newest').innerText.includes('{fresh}')")
    assert browser.evaluate("window.sameDocument") is True


def test_a_list_holds_still_while_it_is_used(world, browser):
    """Rows do not move away from the reader's focus, and move on when it leaves."""
    browser.open(world.address + "/")
    browser.evaluate("document.querySelector('[data-hold] a').focus()")
    fresh = world.send(body(), x_applicant="joe")
    world.gateway.wait_settled()
    browser.evaluate("new Promise(done => setTimeout(done, 2500))")
    assert fresh not in browser.text("#newest")
    browser.evaluate("document.activeElement.blur()")
    browser.wait_for(f"document.getElementById('newest').innerText.includes('{fresh}')")


def test_a_page_says_when_nobody_answers(world, browser):
    """Without an answer the state says so, instead of the last one, and recovers by itself."""
    browser.open(world.address + "/")
    browser.wait_for("document.getElementById('state').innerText.startsWith('green')")
    cut = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.tell("Network.emulateNetworkConditions", offline=True, **cut)
    browser.wait_for("document.getElementById('state').innerText.includes('does not answer')")
    browser.tell("Network.emulateNetworkConditions", offline=False, **cut)
    browser.wait_for("document.getElementById('state').innerText.startsWith('green')")


def test_markup_from_callers_makes_nothing(world, browser):
    """The browser builds no element and runs nothing from what a caller sent."""
    browser.open(f"{world.address}/decisions/{world.odd}")
    assert MARKUP_VALUE not in browser.text("main")
    browser.evaluate("document.querySelector('form.reveal input').value = 'a test reads it'")
    browser.evaluate("document.querySelector('form.reveal button').click()")
    browser.wait_for("document.querySelector('main') && !document.querySelector('form.reveal')")
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    shown = browser.text("main")
    assert MARKUP_VALUE in shown
    assert MARKUP_HEADER in shown
    assert (
        browser.evaluate("document.querySelectorAll('main b, main i, main u, main script').length")
        == 0
    )
    assert "owned" not in browser.evaluate("document.title")


def test_the_policy_stops_an_inline_script(world, browser):
    """Were markup ever to slip through, its script would not run."""
    browser.open(world.address + "/")
    browser.evaluate(
        "{ const made = document.createElement('script'); made.textContent = 'window.owned = 1';"
        "  document.body.append(made); }"
    )
    assert browser.evaluate("window.owned === undefined") is True


def test_bars_are_as_long_as_their_numbers(world, browser):
    """Each attribution has a bar, to its side of the middle, in proportion to the longest."""
    found = world.get(f"/api/v1/decisions/{world.denied}").json()["explanation"]["attributions"]
    browser.open(f"{world.address}/decisions/{world.denied}")
    bars = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('tr:has(td.picture rect)')].map(row => ["
        " row.querySelector('th').firstChild.data,"
        " ['x', 'width'].map(name => +row.querySelector('rect').getAttribute(name))]))"
    )
    longest = max(abs(value) for value in found.values())
    assert set(bars) == set(found)
    for name, (x, width) in bars.items():
        assert width == pytest.approx(100 * abs(found[name]) / longest, abs=0.01)
        assert x == (0 if found[name] >= 0 else pytest.approx(-width))


def test_the_first_key_leads_to_the_content(world, browser):
    """With Tab and Enter alone a reader skips the header."""
    browser.open(world.address + "/")
    browser.press("Tab", 9)
    assert browser.evaluate("document.activeElement.className") == "skip"
    browser.press("Enter", 13)
    browser.wait_for("location.hash === '#main'")


@pytest.mark.parametrize("path", ["/", "/models/mortgage", "/decisions/{denied}"])
def test_pages_fit_a_telephone(world, browser, path):
    """Wide tables scroll in their own frame; the page never scrolls sideways."""
    size = {"height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.tell("Emulation.setDeviceMetricsOverride", width=360, **size)
    try:
        browser.open(world.address + path.format(**vars(world)))
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    finally:
        browser.tell("Emulation.clearDeviceMetricsOverride")


def test_dark_and_light_follow_the_reader(world, browser):
    """The page's ground is dark for who prefers it dark, and light otherwise."""
    browser.open(world.address + "/")
    seen = {}
    for scheme in ("dark", "light"):
        browser.tell("Emulation.setEmulatedMedia",
                     features=[{"name": "prefers-color-scheme", "value": scheme}])  # fmt: skip
        ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        seen[scheme] = sum(int(part) for part in ground[4:-1].split(","))
    assert seen["dark"] < 200 < seen["light"]


def change(browser, rules: str, reason: str) -> None:
    """Write rules and a reason into the form of the page, and send it."""
    browser.wait_for("document.querySelector('form.change') !== null")
    for name, value in (("rules", rules), ("reason", reason)):
        place = f"document.querySelector('form.change').elements.{name}.value"
        browser.evaluate(f"{place} = {json.dumps(value)}")
    browser.evaluate("document.querySelector('form.change button').click()")


def test_rules_are_changed_and_brought_back_on_the_page(world, browser):
    """A mistake names its line and changes nothing; an edit for a table that is no more in force
    shows what the other one changed; both ways go through the API's one door."""
    told = "document.querySelector('form.change [role=status]')?.innerText"
    browser.open(world.address + "/table")
    before = world.get("/api/v1/table").json()
    rules = browser.evaluate("document.querySelector('form.change').elements.rules.value")

    def more(share: int) -> str:
        return rules.replace("v1: 95%", f"v1: {100 - share}%").replace("v2: 5%", f"v2: {share}%")

    change(browser, rules.replace("v2: 5%", "v9: 5%"), "a version that is not")
    browser.wait_for(f"{told}?.includes('line ') && {told}?.includes('v9')")
    assert world.get("/api/v1/table").json()["revision"] == before["revision"]

    change(browser, more(6), "a little more of it")
    browser.wait_for("document.querySelector('dl')?.innerText.includes('a little more of it')")
    after = world.get("/api/v1/table").json()
    assert (after["parent"], after["reason"]) == (before["revision"], "a little more of it")

    tag = {"if-match": f'"{after["revision"]}"'}
    back = f"{world.address}/api/v1/revisions/{before['revision']}/revert"
    assert httpx2.post(back, json={"reason": "back again"}, headers=tag).status_code == 200
    change(browser, more(7), "made for another table")
    browser.wait_for(f"{told}?.includes('is in force, not')")
    browser.open(world.address + "/table")
    browser.wait_for("document.querySelector('form.revert') !== null")
    form = "document.querySelector('form.revert')"
    browser.evaluate(f"{form}.elements.revision.value = '{after['revision']}'")
    browser.evaluate(f"{form}.elements.reason.value = 'six were right'")
    browser.evaluate(f"{form}.querySelector('button').click()")
    browser.wait_for("document.querySelector('dl')?.innerText.includes('six were right')")
    assert browser.problems == []
