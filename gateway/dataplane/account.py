"""The account of one exchange: what is known of it so far, and the record it becomes.

The story (`handler.py`) fills it in as it goes; a refusal at any point leaves an account that says
how far the exchange came. The header is in clear and holds nothing personal; caller's ids, path,
kept headers, subjects and groups, the bucket (a hash of the unit, which can be guessed from it) and
the commitment's salt go into the sealed context.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.clock import Clock, isoformat
from gateway.condition import ABSENT
from gateway.dataplane.headers import kept
from gateway.dataplane.upload import Upload, too_large
from gateway.exchange import (
    NO_CONTEXT,
    Caller,
    Choice,
    Context,
    Headers,
    Randomness,
    Reply,
    exchange_id,
)
from gateway.journal.receipt import Receipt
from gateway.journal.record import EMPTY, SALT_BYTES, Part, commitment, encode_parts
from gateway.protocol import explainer, v2
from gateway.protocol.dialect import Dialect
from gateway.protocol.message import Message
from gateway.routing.body import NoDocument, read_document
from gateway.table import Model, Version

if TYPE_CHECKING:
    from gateway.dataplane.backend import Backend

FORMAT = 1
NOTHING: Mapping[str, Any] = {}
UNASKED = object()
RANDOM = Randomness()
_TRACEPARENT = re.compile(rb"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")


class Account:
    __slots__ = (
        "answered_ns", "arrived_ns", "attempts", "caller", "choice", "clock", "context", "deadline",
        "dialect", "error", "explained", "extra", "first", "frugal", "headers", "held_bytes", "id",
        "inference", "kind", "limits", "method", "model", "operation", "parent", "parsed", "path",
        "patience_s", "pin", "primary", "query", "receipt", "request", "response",
        "response_headers", "revision", "runtime", "salt", "sequence", "status", "streamed",
        "target", "timeouts", "trace", "unread", "upload", "upstream_ns", "used", "version",
        "wall_ns",
    )  # fmt: skip

    def __init__(
        self, clock: Clock, method: str, path: str, query: str, headers: Headers,
        first: dict[bytes, bytes],
    ) -> None:  # fmt: skip
        """`first`: the first value of each header."""
        self.clock = clock
        self.arrived_ns, self.wall_ns = clock.steady(), clock.wall()
        self.answered_ns = self.upstream_ns = 0
        random = RANDOM.take(10 + SALT_BYTES)
        self.id = exchange_id(self.wall_ns, random[:10])
        self.salt = random[10:].hex()
        self.method, self.path, self.query, self.headers = method, path, query, headers
        self.target = path
        self.dialect: Dialect = v2
        self.sequence: str | None = None
        self.patience_s: float | None = None
        self.first = first
        self.trace, self.parent = _trace(self.id, self.first)
        self.revision: str | None = None
        self.caller: Caller | None = None
        self.context: Context = NO_CONTEXT
        self.model: Model | None = None
        self.operation: str | None = None
        self.limits: Mapping[str, int] = NOTHING  # of the rule, or of the model
        self.timeouts: Mapping[str, float] = NOTHING
        self.pin: tuple[bytes, bytes] | None = None  # the header that gives a session one
        self.parsed: Any = UNASKED
        self.unread: str | None = None  # why a rule that asked for the body's JSON got none
        self.version: Version | None = None
        self.choice: Choice | None = None
        self.request = b""
        self.inference: v2.Request | None = None  # `request` as read, for a shadow to use again
        self.upload: Upload | None = None  # in place of `request`, of a body that passes by
        self.deadline: float | None = None  # loop.time(), one for all attempts and the fallback
        self.response: Part = EMPTY
        self.response_headers: Headers = []
        self.status = 0
        self.error: str | None = None
        self.attempts = 0
        self.runtime: dict[str, Any] | None = None
        self.primary: str | None = None
        self.extra: dict[str, Any] = {}
        self.explained: dict[str, Any] | None = None  # of an explainer's answer what may be kept
        self.kind = "exchange"  # what its final record is; feedback is one too
        self.receipt: Receipt | None = None
        self.frugal = False
        # What is let go of after the last byte.
        self.held_bytes = 0  # room for `request`, or for what is kept of `upload`
        self.used: list[Backend] = []
        self.streamed: list[Backend] = []

    def let_go(self) -> None:
        for backend in self.used:
            backend.users -= 1
        for backend in self.streamed:
            backend.in_flight -= 1

    def shadowed(self, version: Version, *, noise: bool = False) -> Account:
        """A new account for a copy of this exchange: its own id and times, the same request."""
        copy = Account(self.clock, self.method, self.path, self.query, self.headers, self.first)
        copy.revision, copy.caller, copy.context = self.revision, self.caller, self.context
        copy.model, copy.operation, copy.request = self.model, self.operation, self.request
        copy.dialect, copy.target = self.dialect, self.target
        copy.limits, copy.timeouts = self.limits, self.timeouts
        copy.inference = self.inference
        copy.version, copy.primary = version, self.id
        copy.trace, copy.parent = _trace_of(self.trace, copy.id), self.trace[36:52].decode()
        assert self.choice is not None
        copy.choice = replace(self.choice, version=version.name, arm="shadow")
        if noise:
            copy.extra["noise"] = True
        return copy

    def message(self) -> Message:
        """The request as readers take it."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in self.first.items()
        }
        return Message(self.request, headers)

    def bound_body(self, at_most: int) -> None:
        """Of a body that was taken, or begun, before its rule was known."""
        if self.upload is not None:
            self.upload.bound(at_most)
        elif len(self.request) > at_most:
            raise too_large(at_most)

    def document(self) -> Any:
        """The request as JSON, read once and only where a rule asks; ABSENT: none that is read."""
        if self.parsed is UNASKED:
            try:
                if self.upload is not None:
                    raise NoDocument("too_long")
                self.parsed = read_document(self.dialect, self.message(), self.limits["hold"])
            except NoDocument as error:
                self.parsed, self.unread = ABSENT, error.reason
        return self.parsed

    def take(self, reply: Reply) -> None:
        """The answer that is about to be released."""
        self.status, self.response_headers = reply.status, reply.headers
        if reply.trailers:
            self.response_headers = reply.headers + reply.trailers
        self.response = Part.of(reply.body, self.answer_bytes())
        if self.operation == "explain" and self.status == 200:
            self.explained = explainer.told(reply.body)

    def answer_bytes(self) -> int:
        """How much of the answer is kept: of an explainer's none, it holds other people's rows.
        What we say ourselves holds nobody's."""
        explained = self.operation == "explain" and self.error is None
        return 0 if explained else self.kept_bytes()

    def kept_bytes(self) -> int:
        """How much of a body is kept: on a disk with little room, nothing that no decision is made
        of."""
        if self.frugal and not (self.status == 200 and self.operation in self.dialect.INFERENCES):
            return 0
        return self.limits["keep"] if self.limits else 65536

    def entry(self, kind: str = "exchange") -> tuple[dict[str, Any], bytes]:
        """Header and sealed part, as `Journal.append` takes them; the one commits to the other."""
        parts = self.parts()
        header = self.header(kind)
        header["commitment"] = commitment(parts)
        if self.upload is not None and kind == self.kind:
            self.upload.tally.forget()  # it may wait long for its commit: not twice in memory
        return header, parts

    def note_departure(self, left: str | None, sent: int) -> None:
        """How the client left before it was answered, if it did, and what it was given."""
        if left is not None and self.model is not None:
            policy = self.model.on_disconnect
            self.extra["client"] = {"left": left, "policy": policy, "sent": sent}

    def header(self, kind: str = "exchange") -> dict[str, Any]:
        self.answered_ns = self.clock.steady()
        header: dict[str, Any] = {
            "format": FORMAT,
            "kind": kind,
            "id": self.id,
            "at": self.arrived_ns,
            "wall": isoformat(self.wall_ns),
            "method": self.method,
            "status": self.status,
            "error": self.error,
            "caller": self.caller.name if self.caller else None,
            "revision": self.revision,
            "attempts": self.attempts,
            "timings": {
                "total_us": (self.answered_ns - self.arrived_ns) // 1000,
                "upstream_us": self.upstream_ns // 1000,
            },
            "trace": {"parent": self.parent, "traceparent": self.trace.decode()},
            "bytes": {
                "request": self.upload.tally.length if self.upload else len(self.request),
                "response": self.response.length,
            },
        }
        if self.model is not None:
            # The rest of a path is the caller's text: whole in the context, never in clear.
            said = self.operation if self.operation in self.dialect.METHODS else "other"
            header["model"], header["protocol"] = self.model.name, self.dialect.NAME
            header["operation"] = said
        if self.version is not None:
            header["version"], header["artifact"] = self.version.name, self.version.artifact
        if (choice := self.choice) is not None:
            header["arm"], header["rule"] = choice.arm, choice.rule
            header["unit"] = choice.unit_kind
        if self.primary is not None:
            header["primary"] = self.primary
        if self.runtime is not None:
            header["runtime"] = self.runtime
        header.update(self.extra)
        return header

    def parts(self) -> bytes:
        dropped = self.model.dropped if self.model else frozenset[bytes]()
        request_id = self.first.get(b"x-request-id")
        context: dict[str, Any] = {
            "path": self.path,
            "query": self.query,
            "request_id": request_id.decode("latin-1") if request_id else None,
            "request_headers": kept(self.headers, dropped),
            "response_headers": kept(self.response_headers, dropped),
            "subjects": self.context.subjects,
            "groups": self.context.groups,
            "bucket": self.choice.bucket_ppm if self.choice else None,
            "salt": self.salt,
        }
        if self.choice is not None and self.choice.unit_digest is not None:
            context["unit"] = self.choice.unit_digest
        if self.sequence is not None:
            context["sequence"] = self.sequence  # what its copies are drawn by
        if self.explained is not None:
            context["explained"] = self.explained
        keep = self.kept_bytes()
        request = self.upload.tally.part(keep) if self.upload else Part.of(self.request, keep)
        return encode_parts(context, request, self.response)


def _trace(identity: str, first: dict[bytes, bytes]) -> tuple[bytes, str | None]:
    """Our `traceparent`, and the span it was called from. The trace is the caller's, if any."""
    hexadecimal = identity.replace("-", "").encode()
    told = first.get(b"traceparent")
    match = _TRACEPARENT.match(told) if told is not None else None
    if match is None or match[1] == b"0" * 32 or match[2] == b"0" * 16:
        return b"00-" + hexadecimal + b"-" + hexadecimal[16:] + b"-01", None
    return b"00-%b-%b-%b" % (match[1], hexadecimal[16:], match[3]), match[2].decode()


def _trace_of(parent: bytes, identity: str) -> bytes:
    """The same trace, a span of its own."""
    return parent[:36] + identity.replace("-", "").encode()[16:] + parent[52:]
