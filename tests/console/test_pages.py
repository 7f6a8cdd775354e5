"""The pages as the server sends them."""

import re
from html.parser import HTMLParser
from pathlib import Path

import httpx2
import pytest
from conftest import MARKUP_GROUP, MARKUP_HEADER, MARKUP_VALUE
from hypothesis import given
from hypothesis import strategies as st

from gateway.console import pages
from gateway.console.pages import FeatureRow, feature_rows, figure, p_value, percent

PAGES = ("/", "/models/mortgage", "/decisions/{denied}", "/decisions/{odd}", "/decisions/{refused}",
         "/shadow/mortgage", "/table", "/table/0?against=current", "/table/nowhere",
         "/models/nobody", "/decisions/nonsense", "/?status=x")  # fmt: skip


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data) -> None:
        self.words.append(data)


@pytest.mark.parametrize("path", PAGES)
def test_each_page_carries_its_policy(world, path):
    """Nothing foreign may be loaded or framed, nothing is sniffed, nothing is cached."""
    headers = world.get(path.format(**vars(world))).headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", PAGES)
def test_each_page_keeps_to_its_policy(world, path):
    """No inline script, style or handler, no foreign address; each table has caption and scopes."""
    found = Tags(world.get(path.format(**vars(world))).text).tags
    names = [tag for tag, _ in found]
    assert all("style" not in attributes for _, attributes in found)
    assert all(not name.startswith("on") for _, attributes in found for name in attributes)
    scripts = {attributes["src"] for tag, attributes in found if tag == "script"}
    assert {"/static/console.js"} <= scripts <= {"/static/console.js", "/static/change.js"}
    links = [attributes.get("href") or "" for _, attributes in found]
    assert [link for link in links if link and link[0] not in "/#"] == []
    assert names.count("caption") == names.count("table")
    assert all("scope" in attributes for tag, attributes in found if tag == "th")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200), ("/models/mortgage", 200), ("/decisions/{refused}", 200),
        ("/shadow/mortgage", 200), ("/shadow/nobody", 404), ("/table", 200), ("/table/0", 200),
        ("/table/nowhere", 404), ("/table?against=nowhere", 404),
        ("/models/nobody", 404), ("/decisions/nonsense", 400), ("/?since=tuesday", 400),
        ("/decisions/00000000-0000-7000-8000-000000000000", 404),
    ],
)  # fmt: skip
def test_pages_have_the_status_of_their_twin(world, path, status):
    """A wrong address is refused in words, with the status that the API gives."""
    assert world.get(path.format(**vars(world))).status_code == status


def test_nothing_is_revealed_without_a_purpose(world):
    """A form without words, or too few, is refused and shows nothing."""
    for purpose in ("", "why", "x" * 501):
        page = httpx2.post(
            f"{world.address}/decisions/{world.odd}", data={"purpose": purpose}, timeout=30
        )
        assert page.status_code == 400
        assert "purpose" in page.text
        assert not any("ben" in words for words in Tags(page.text).words)


@pytest.mark.parametrize(
    ("decision", "sent"),
    [
        ("odd", (MARKUP_HEADER, MARKUP_VALUE, "<u>ben</u>")),
        ("refused", (f"race={MARKUP_GROUP}",)),
    ],
)
def test_what_a_caller_sent_is_text(world, decision, sent):
    """Markup in a header, a subject, a group or a value is shown as it was sent, never obeyed."""
    path = f"/decisions/{getattr(world, decision)}"
    hidden, page = world.get(path).text, world.reveal(path).text
    parsed = Tags(page)
    for text in sent:
        assert text not in page
        assert not any(text in words for words in Tags(hidden).words)
        assert any(text in words for words in parsed.words)
    assert not {"b", "i", "u"} & {tag for tag, _ in parsed.tags}


@pytest.mark.parametrize(
    "path", ["/models/<b>x", "/decisions/<b>x", "/?outcome=<b>x", "/?since=<b>"]
)
def test_what_an_address_says_is_text(world, path):
    """Markup in an address comes back escaped."""
    page = world.get(path).text
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_no_template_trusts_a_value():
    """Escaping is never switched off."""
    templates = sorted((Path(pages.__file__).parent / "templates").iterdir())
    assert len(templates) >= 5
    assert all(not re.search(r"\|\s*safe\b|autoescape", file.read_text()) for file in templates)


def test_empty_filters_are_no_filters(world):
    """A form that was sent untouched shows what the plain page shows."""

    def shown(path: str) -> list[str]:
        """But for the moment at which the counts were found."""
        words = Tags(world.get(path).text).words
        (place,) = [at for at, word in enumerate(words) if "the catalog held at" in word]
        return words[: place + 1] + words[place + 2 :]

    assert shown("/?model=&version=&arm=&rule=&outcome=&status=&since=") == shown("/")


def test_a_filter_shows_its_decisions_only(world):
    """Only what is asked for is listed."""
    page = world.get("/?arm=shadow").text
    rows = re.findall(r"<td>v\d</td><td>(\w+)</td>", page)
    assert rows
    assert set(rows) == {"shadow"}


@given(st.dictionaries(st.text(min_size=1), st.floats(-1e6, 1e6), max_size=8),
       st.dictionaries(st.text(min_size=1), st.integers(), max_size=8))  # fmt: skip
def test_no_feature_is_lost_and_the_strongest_is_first(attributions, values):
    """Each feature has one row; rows fall in strength; what was only sent has no attribution."""
    explanation = {"attributions": attributions} if attributions else None
    rows = feature_rows({"explanation": explanation, "features": values}, None)
    strengths = [abs(row.attribution or 0.0) for row in rows]
    assert {row.name for row in rows} == {*attributions, *values}
    assert len(rows) == len({row.name for row in rows})
    assert strengths == sorted(strengths, reverse=True)
    assert all((row.attribution is None) == (row.name not in attributions) for row in rows)


def test_standard_errors_stay_with_their_feature():
    """Errors come in the order of the attributions and are not shuffled by the sorting."""
    explanation = {"attributions": {"a": 0.1, "b": -2.0}, "standard_errors": [0.01, 0.2]}
    assert feature_rows({"explanation": explanation, "features": None}, None) == [
        FeatureRow("b", "", "", None, -2.0, 0.2),
        FeatureRow("a", "", "", None, 0.1, 0.01),
    ]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "–"), (0, "0"), (12345, "12,345"), (0.040573746, "0.04057"), (-1.5, "−1.5"),
        (6.0, "6"), (1e300, "1e+300"), ("no", "no"), (True, "True"), (float("nan"), "nan"),
    ],
)  # fmt: skip
def test_figures_are_told_as_people_read_them(value, told):
    """Four significant digits, thousands apart, a dash for nothing, words as they are."""
    assert figure(value) == told


def test_shares_and_p_values_are_told():
    """Shares in per cent; a p-value is never told as 0."""
    assert (percent(0.0652), percent(None), percent(-0.127)) == ("6.52 %", "–", "−12.7 %")
    assert (p_value(0.0), p_value(0.0432), p_value(None)) == ("< 0.0001", "0.043", "–")
