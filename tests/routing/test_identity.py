"""Who asks and in whose name: tokens, subjects, groups and their counts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import config, table

from gateway.errors import Refusal
from gateway.exchange import ANONYMOUS, Caller, Context
from gateway.routing.identity import check_rows, identify, read_context

MODEL = "versions: {v1: {upstream: 'http://a'}}\nrules: [{name: all, split: {v1: 100%}}]"
TABLE = table(config(MODEL))
OPEN = table(config(MODEL, callers=""))
TELLER = Caller("loans-app", frozenset(("context",)))
PLAIN = Caller("plain", frozenset())
HEADERS = {b"x-headworks-subject": b"ann;bob", b"x-headworks-groups": b"race=black,age=62;race=w"}


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_a_token_names_its_caller(scheme: bytes) -> None:
    """The scheme's case does not matter, the token's does; its digest is what the table knows."""
    caller = identify(TABLE, {b"authorization": scheme + b" demo-key"})
    assert caller == Caller("loans-app", frozenset(("context", "feedback", "force")))


@pytest.mark.parametrize(
    "value",
    [None, b"", b"Bearer", b"Bearer ", b"Bearer Demo-key", b"Basic demo-key", b"demo-key"]
    + [b"Bearer " + hashlib.sha256(b"demo-key").hexdigest().encode(), b"Bearer \xff\xfe"],
)
def test_any_other_token_is_a_401(value: bytes | None) -> None:
    """Nothing but the token itself opens: not its digest, not another scheme."""
    with pytest.raises(Refusal) as caught:
        identify(TABLE, {b"authorization": value} if value is not None else {})
    assert (caught.value.code, caught.value.status) == ("unauthorised", 401)
    assert "demo" not in caught.value.message.lower()


def test_without_callers_everybody_is_anonymous() -> None:
    """A token is the upstream's business then."""
    assert identify(OPEN, {b"authorization": b"Bearer demo-key"}) is ANONYMOUS


def test_context_is_one_value_a_row() -> None:
    """Values are split at `;`, groups at `,` and `=`."""
    context, dropped = read_context(HEADERS, TELLER)
    assert context == Context(("ann", "bob"), ({"race": "black", "age": "62"}, {"race": "w"}))
    assert not dropped


def test_context_of_others_is_dropped_and_said_so() -> None:
    """Whoever may not send context has none, even unreadable context is no error of theirs."""
    assert read_context(HEADERS, PLAIN) == (Context(), True)
    assert read_context({b"x-headworks-groups": b"\xff"}, PLAIN) == (Context(), True)
    assert read_context({}, PLAIN) == (Context(), False)


@pytest.mark.parametrize(
    "headers",
    [
        {b"x-headworks-groups": b"race"},
        {b"x-headworks-groups": b"race=black,race=white"},
        {b"x-headworks-groups": b"=black"},
        {b"x-headworks-groups": b"race="},
        {b"x-headworks-groups": b"race=a b"},
        {b"x-headworks-groups": b"race=" + b"a" * 65},
        {b"x-headworks-groups": b"race=\xff"},
        {b"x-headworks-subject": b"\xff"},
        {b"x-headworks-subject": b";" * 65_536},
    ],
)
def test_context_that_cannot_be_read_is_a_400(headers: dict[bytes, bytes]) -> None:
    """It is refused by the header's name, not guessed at."""
    with pytest.raises(Refusal) as caught:
        read_context(headers, TELLER)
    assert (caught.value.code, caught.value.status) == ("bad_context", 400)
    assert next(iter(headers)).decode() in caught.value.message


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 5))
def test_one_value_for_all_rows_or_one_a_row(subjects: int, groups: int, rows: int) -> None:
    """None, 1 and n values fit n rows; every other count is refused."""
    context = Context(("s",) * subjects, ({"race": "b"},) * groups)
    if subjects in (0, 1, rows) and groups in (0, 1, rows):
        check_rows(context, rows)
    else:
        with pytest.raises(Refusal, match=f"values for {rows} rows"):
            check_rows(context, rows)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_context_or_a_refusal(subject: bytes, groups: bytes) -> None:
    """Nothing that a caller sends raises anything but a bad_context."""
    headers = {b"x-headworks-subject": subject, b"x-headworks-groups": groups}
    try:
        context, dropped = read_context(headers, TELLER)
    except Refusal as refusal:
        code: str | None = refusal.code
    else:
        code = None
        assert not dropped
        assert len(context.subjects) == (subject.count(b";") + 1 if subject else 0)
        assert len(context.groups) == (groups.count(b";") + 1 if groups else 0)
    assert code in (None, "bad_context")
