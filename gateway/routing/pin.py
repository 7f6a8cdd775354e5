"""Pins of sessions: which version a session began with, signed, for a bounded time. Pure.

    1:<version>:<issued, seconds>:<first 18 bytes of HMAC-SHA256, base64url>

A pin is of one rule and, while a rollout runs, of one attempt of it: the MAC covers model, rule and
salt. It holds only while its version may still answer under the rule, so that a rollback voids the
pins of the version at once, and a later attempt does not bring them back.
"""

from __future__ import annotations

import base64
import hmac

from gateway.table import Model, Rule

AHEAD_S = 60
"""How much younger than now a pin may be: hosts' clocks differ."""
TOKEN_BYTES_MAX = 160


def sign_pin(key: bytes, model: Model, rule: Rule, version: str, now_s: int) -> bytes:
    said = f"1:{version}:{now_s}"
    return f"{said}:{_mac(key, model, rule, said)}".encode()


def read_pin(key: bytes, model: Model, rule: Rule, token: bytes, now_s: int) -> str | None:
    """The version; None: not a pin of this rule and attempt, too old, or void by now."""
    assert rule.sticky is not None
    if len(token) > TOKEN_BYTES_MAX or not token.isascii():
        return None
    said, _, mac = token.decode().rpartition(":")
    if not hmac.compare_digest(mac, _mac(key, model, rule, said)):
        return None
    _, version, issued = said.split(":")
    age = now_s - int(issued)
    if not -AHEAD_S <= age < rule.sticky.max_age or version not in rule.versions:
        return None
    return version


def _mac(key: bytes, model: Model, rule: Rule, said: str) -> str:
    covered = b"\0".join((b"headworks pin", model.name.encode(), rule.name.encode(), rule.salt))
    digest = hmac.digest(key, covered + b"\0" + said.encode(), "sha256")[:18]
    return base64.urlsafe_b64encode(digest).decode()


def cookie_name(model: Model) -> bytes:
    return b"headworks-" + model.name.encode()


def token_of(model: Model, rule: Rule, headers: dict[bytes, bytes]) -> bytes | None:
    """What the request carries in the place of a pin."""
    assert rule.sticky is not None
    if rule.sticky.by == "header":
        return headers.get(b"x-headworks-session")
    wanted = cookie_name(model)
    for pair in headers.get(b"cookie", b"").split(b";"):
        name, _, value = pair.strip().partition(b"=")
        if name == wanted:
            return value
    return None


def pin_header(model: Model, rule: Rule, token: bytes) -> tuple[bytes, bytes]:
    """The answer's header that gives the pin to the client."""
    assert rule.sticky is not None
    if rule.sticky.by == "header":
        return b"x-headworks-session", token
    kept = b"; Max-Age=%d; Path=/; HttpOnly; SameSite=Lax" % int(rule.sticky.max_age)
    return b"set-cookie", cookie_name(model) + b"=" + token + kept
