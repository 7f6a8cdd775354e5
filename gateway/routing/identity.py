"""Who asks, and in whose name: bearer tokens to callers, context headers to context. Pure."""

from __future__ import annotations

import hashlib
import re

from gateway.errors import Refusal
from gateway.exchange import ANONYMOUS, NO_CONTEXT, Caller, Context
from gateway.table import Table

ROWS_MAX = 65_536
_GROUP = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")


def identify(table: Table, headers: dict[bytes, bytes]) -> Caller:
    """The caller of a bearer token. Without `callers:` everybody is anonymous, and a token is the
    upstream's business."""
    if not table.callers:
        return ANONYMOUS
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token:
        raise Refusal("unauthorised", "authorization: a bearer token is wanted")
    caller = table.callers.get(hashlib.sha256(token.strip()).hexdigest())
    if caller is None:
        raise Refusal("unauthorised", "authorization: the token belongs to no caller")
    return caller


def read_context(headers: dict[bytes, bytes], caller: Caller) -> tuple[Context, bool]:
    """Context of the exchange, and whether some was dropped since the caller may not send it."""
    subject = headers.get(b"x-headworks-subject")
    groups = headers.get(b"x-headworks-groups")
    if subject is None and groups is None:
        return NO_CONTEXT, False
    if "context" not in caller.may:
        return NO_CONTEXT, True
    subjects = tuple(_split("x-headworks-subject", subject)) if subject else ()
    return Context(subjects, tuple(_group(text) for text in _split_groups(groups))), False


def _split(name: str, value: bytes) -> list[str]:
    try:
        items = [item.strip() for item in value.decode("utf-8").split(";")]
    except UnicodeDecodeError:
        raise Refusal("bad_context", f"{name}: not UTF-8") from None
    if len(items) > ROWS_MAX:
        raise Refusal("bad_context", f"{name}: {len(items)} values; at most {ROWS_MAX} are taken")
    return items


def _split_groups(value: bytes | None) -> list[str]:
    return _split("x-headworks-groups", value) if value else []


def _group(text: str) -> dict[str, str]:
    """`race=black,age=62`."""
    groups: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = pair.partition("=")
        if not equals or not _GROUP.match(key) or not _GROUP.match(value) or key in groups:
            words = f"x-headworks-groups: {pair[:80]!r} is not key=value, or stands twice"
            raise Refusal("bad_context", words)
        groups[key] = value
    return groups


def check_rows(context: Context, rows: int) -> None:
    """One value for all rows, or one a row; another count is refused."""
    for name, count in (("subject", len(context.subjects)), ("groups", len(context.groups))):
        if count not in (0, 1, rows):
            words = f"x-headworks-{name}: {count} values for {rows} rows; 1 or {rows} are wanted"
            raise Refusal("bad_context", words)
