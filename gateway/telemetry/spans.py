"""Spans made from the records, after the fact: no tracing code runs while a request is answered.

The analyst offers each sealed exchange. Ids, parent, sampling and times are the record's own, so a
span made twice from one leaf has the same ids both times. Nothing here waits for a collector: what
does not fit the queue, or does not arrive, is counted in `headworks_spans_dropped` and gone. Spans
carry names and numbers of the record's clear header, never a path, a body, a subject or a group.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import re
import threading
from collections.abc import Mapping
from math import inf
from os import environ
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
)
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME, SERVICE_VERSION
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway import __version__
from gateway.telemetry.metrics import Metrics

Record = Mapping[str, Any]
Attributes = dict[str, str | int | bool]

RECORDS_WAITING_MAX = 2048
"""Records waiting for the thread; OTEL_BSP_MAX_QUEUE_SIZE says otherwise."""
RECORDS_AT_ONCE = 256
"""Records of one export, of at most two spans each; or OTEL_BSP_MAX_EXPORT_BATCH_SIZE."""
DELAY_MS = 1000
"""How long a record waits for others to share its export; or OTEL_BSP_SCHEDULE_DELAY."""

METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY")
)
OPERATIONS = frozenset(("infer", "metadata", "ready"))
"""Any other is the rest of a stranger's path: without bound, and perhaps personal."""
FIELDS = {
    "id": "id", "model": "model", "version": "version", "arm": "arm", "rule": "rule",
    "revision": "revision", "caller": "caller", "protocol": "protocol",
    "primary": "shadow.primary",
}  # fmt: skip
"""Fields of the header that become `headworks.` attributes."""
ANSWER_FAILED, CALL_FAILED = 500, 400
"""Status from which a server's and a client's span count as failed (semantic conventions, HTTP)."""
SCOPE = InstrumentationScope("headworks", __version__)

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_exporter_log = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
log = logging.getLogger("headworks.spans")


class Spans:
    """Sends the spans of the records it is offered, from a thread of its own.

    `endpoint` is the OTLP/HTTP collector's base URL. As everywhere in the program the environment
    is laid over the file: OTEL_EXPORTER_OTLP_(TRACES_)ENDPOINT, _HEADERS, _TIMEOUT, _COMPRESSION,
    _CERTIFICATE, _CLIENT_KEY and _CLIENT_CERTIFICATE, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
    OTEL_BSP_* and OTEL_SDK_DISABLED mean what OpenTelemetry's specification says. A sampler is not
    asked: whether a trace is sampled was said in `traceparent` when the exchange began.
    """

    def __init__(self, endpoint: str, metrics: Metrics) -> None:
        self._metrics = metrics
        self._at_once = _limit("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", RECORDS_AT_ONCE)
        self._delay_s = _limit("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS) / 1000
        self._waiting: queue.Queue[Record] = queue.Queue(
            _limit("OTEL_BSP_MAX_QUEUE_SIZE", RECORDS_WAITING_MAX)
        )
        self._closing = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._abandoned = False
        self._failing = False
        self._under_way = 0
        self._resource = _resource()
        self._url = traces_url(endpoint)
        self._exporter = OTLPSpanExporter(self._url)
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        if not self._closing:
            _exporter_log.addFilter(self._is_news)
            self._thread.start()

    def __repr__(self) -> str:
        return f"<Spans to {self._url}, {self._waiting.qsize()} records waiting>"

    def offer(self, record: Record) -> None:
        """Take the record of an exchange; never waits, never raises."""
        if self._closing or not is_sampled(record):
            return
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self._drop(span_count(record))
            return
        if self._waiting.qsize() >= self._at_once:
            self._wake.set()

    def close(self, timeout: float) -> None:
        """Send what waits, for at most `timeout` seconds; what is left then is counted."""
        if not self._thread.is_alive():
            return
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        with self._lock:
            self._abandoned = True
            self._drop(self._under_way + _span_counts(self._take()))
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        _exporter_log.removeFilter(self._is_news)

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wake.wait(self._delay_s)
            self._wake.clear()
            closing = self._closing
            while batch := self._next_batch():
                self._send(batch)

    def _next_batch(self) -> list[Record]:
        """Under the lock, so that `close` finds each record in the queue or under way."""
        with self._lock:
            batch = [] if self._abandoned else self._take(self._at_once)
            self._under_way = _span_counts(batch)
            return batch

    def _take(self, at_most: float = inf) -> list[Record]:
        taken: list[Record] = []
        while len(taken) < at_most:
            try:
                taken.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return taken

    def _send(self, batch: list[Record]) -> None:
        spans = self._readable(batch)
        sent = self._export(spans) if spans else True
        with self._lock:
            if not self._abandoned:
                self._drop(self._under_way - (len(spans) if sent else 0))
            self._under_way = 0
        if sent and self._failing:
            log.warning("spans reach %s again", self._url)
        elif not sent and not self._failing:
            log.warning("spans do not reach %s; until they do they are only counted", self._url)
        self._failing = not sent

    def _readable(self, batch: list[Record]) -> list[ReadableSpan]:
        spans: list[ReadableSpan] = []
        for record in batch:
            try:
                spans += spans_of(record, self._resource)
            except (LookupError, TypeError, ValueError, AttributeError):
                log.exception("no span can be made of the record %s", record.get("id"))
        return spans

    def _export(self, spans: list[ReadableSpan]) -> bool:
        try:
            return self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception:
            # The thread outlives whatever the exporter's transport may raise.
            log.exception("the exporter failed")
            return False

    def _drop(self, count: int) -> None:
        if count:
            self._metrics.count("headworks_spans_dropped", by=count)

    def _is_news(self, _: logging.LogRecord) -> bool:
        """The exporter says why an export failed; while it goes on failing, once is enough."""
        return not self._failing


def is_sampled(record: Record) -> bool:
    """Whether the exchange's `traceparent` has the sampled flag (W3C Trace Context, 3.2.2.5)."""
    trace = record.get("trace")
    traceparent = trace.get("traceparent") if isinstance(trace, Mapping) else None
    found = _TRACEPARENT.fullmatch(str(traceparent))
    return found is not None and bool(int(found[3], 16) & TraceFlags.SAMPLED)


def span_count(record: Record) -> int:
    """How many spans the record makes: the exchange, and its upstream part if it came so far."""
    return 2 if record.get("attempts") else 1


def _span_counts(records: list[Record]) -> int:
    return sum(span_count(record) for record in records)


def spans_of(record: Record, resource: Resource) -> list[ReadableSpan]:
    """The exchange's span and, where a version was called, that call's span below it.

    Raises LookupError, TypeError, ValueError or AttributeError if the record is not an exchange's.
    """
    found = _TRACEPARENT.fullmatch(record["trace"]["traceparent"])
    if found is None:
        raise ValueError("trace.traceparent is not a traceparent")
    trace, flags = int(found[1], 16), TraceFlags(int(found[3], 16))
    is_shadow = record.get("primary") is not None
    parent = record["trace"]["parent"]
    end = record["at"] + record["timings"]["total_us"] * 1000
    own = SpanContext(trace, int(found[2], 16), is_remote=False, trace_flags=flags)
    exchange = ReadableSpan(
        _name(record),
        context=own,
        # A shadow's parent is its primary's span, which this gateway made.
        parent=SpanContext(trace, int(parent, 16), is_remote=not is_shadow) if parent else None,
        resource=resource,
        attributes=_error(record, ANSWER_FAILED) | _http(record) | _own(record),
        kind=SpanKind.INTERNAL if is_shadow else SpanKind.SERVER,
        status=_status(record, ANSWER_FAILED),
        start_time=record["at"],
        end_time=end,
        instrumentation_scope=SCOPE,
    )
    return [exchange, _call(record, own, resource, end)] if record["attempts"] else [exchange]


def _call(record: Record, parent: SpanContext, resource: Resource, end: int) -> ReadableSpan:
    """The call of the version: to an upstream, or of a session in the worker.

    The record has the call's duration. It is written as soon as the call is over, so that their
    ends are one; of a stream it has only the time to the head, and the call began near the start.
    """
    start = end - record["timings"]["upstream_us"] * 1000
    digest = hashlib.blake2b(b"call of %d" % parent.span_id, digest_size=8).digest()
    identity = int.from_bytes(digest, "big")
    in_worker = record.get("runtime") is not None
    attributes = _error(record, CALL_FAILED) | _own(record)
    if not in_worker:
        attributes |= _http(record)
    if record["error"] is not None:
        attributes.pop(HTTP_RESPONSE_STATUS_CODE, None)  # It is ours, and no upstream's.
    return ReadableSpan(
        "run" if in_worker else _method(record),
        context=SpanContext(parent.trace_id, identity, False, parent.trace_flags),
        parent=parent,
        resource=resource,
        attributes=attributes,
        kind=SpanKind.INTERNAL if in_worker else SpanKind.CLIENT,
        status=_status(record, CALL_FAILED),
        start_time=record["at"] if record.get("stream") else max(record["at"], start),
        end_time=end,
        instrumentation_scope=SCOPE,
    )


def _name(record: Record) -> str:
    """`{method} {target}`, of few values: the target is not the path, which may name a person."""
    model = record.get("model")
    method = _method(record)
    return method if model is None else f"{method} {model}/{_operation(record)}"


def _method(record: Record) -> str:
    return record["method"] if record["method"] in METHODS else "HTTP"


def _operation(record: Record) -> str:
    return record["operation"] if record["operation"] in OPERATIONS else "other"


def _http(record: Record) -> Attributes:
    """Semantic conventions of HTTP; a method they do not know is `_OTHER`, and not repeated."""
    method = record["method"] if record["method"] in METHODS else "_OTHER"
    return {HTTP_REQUEST_METHOD: method, HTTP_RESPONSE_STATUS_CODE: record["status"]}


def _error(record: Record, failed_from: int) -> Attributes:
    """Our code where the answer is our own, the status where it is a version's."""
    if record["error"] is not None:
        return {ERROR_TYPE: record["error"]}
    return {ERROR_TYPE: str(record["status"])} if record["status"] >= failed_from else {}


def _own(record: Record) -> Attributes:
    told: Attributes = {
        f"headworks.{name}": record[field]
        for field, name in FIELDS.items()
        if record.get(field) is not None
    }
    if record.get("operation") is not None:
        told["headworks.operation"] = _operation(record)
    return told


def _status(record: Record, failed_from: int) -> Status:
    return Status(StatusCode.ERROR if record["status"] >= failed_from else StatusCode.UNSET)


def traces_url(endpoint: str) -> str:
    """Where traces go: the environment's own URL for them, or /v1/traces below the base URL."""
    if whole := environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return whole
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or endpoint
    return base.rstrip("/") + "/v1/traces"


def _resource() -> Resource:
    named = {SERVICE_NAME: "headworks", SERVICE_VERSION: __version__}
    return Resource.create({**named, **OTELResourceDetector().detect().attributes})


def _limit(name: str, default: int) -> int:
    text = environ.get(name, "")
    if text and not (text.isascii() and text.isdigit() and int(text)):
        log.warning("%s=%s is not a number above 0; %d is taken", name, text, default)
        return default
    return int(text or default)
