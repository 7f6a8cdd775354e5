"""Spans as a collector gets them: a real HTTP server decodes what a real exporter sends."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from gateway.dataplane.account import Account
from gateway.telemetry import spans as module
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import RECORDS_WAITING_MAX, Spans, span_count, spans_of, traces_url

ARRIVED_NS = 1_760_000_000_000_000_000
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01".encode()
NOWHERE = Resource({})


class Ticking:
    """Each reading is a millisecond after the last."""

    def __init__(self) -> None:
        self.now = ARRIVED_NS - 1_000_000

    def steady(self) -> int:
        self.now += 1_000_000
        return self.now

    def wall(self) -> int:
        return ARRIVED_NS


def record(traceparent: bytes = TRACEPARENT, **fields: Any) -> dict[str, Any]:
    """The header of an exchange that lasted 1 ms, as the data path writes it, with `fields`."""
    headers = [(b"traceparent", traceparent), (b"x-headworks-subject", b"secret-subject")]
    account = Account(
        Ticking(), "POST", "/v2/models/mortgage/infer", "q=secret", headers, dict(headers)
    )
    account.status, account.attempts, account.upstream_ns = 200, 1, 400_000
    answered = {"model": "mortgage", "version": "v2", "arm": "canary", "rule": "everyone",
                "operation": "infer", "protocol": "v2", "caller": "loans-app"}  # fmt: skip
    return account.header() | answered | fields


class Collector:
    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()

    @property
    def spans(self) -> list[Span]:
        return [span for request in self.requests for part in request.resource_spans
                for scope in part.scope_spans for span in scope.spans]  # fmt: skip

    @property
    def resource(self) -> dict[str, str]:
        return attributes(self.requests[0].resource_spans[0].resource)


def attributes(holder: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value")))
            for pair in holder.attributes}  # fmt: skip


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.gate.wait(10)
            if self.path == "/v1/traces" and collector.status == 200:
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                collector.headers.append(dict(self.headers.items()))
            try:
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()
            except ConnectionError:
                pass

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    try:
        yield collector, f"http://127.0.0.1:{server.server_port}"
    finally:
        collector.gate.set()
        server.shutdown()
        server.server_close()
        serving.join()


def dropped(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("headworks_spans_dropped_total") or 0.0


def eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine's, and no wait for other records."""
    for name in list(module.environ):
        if name.startswith("OTEL_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


def sent(*records: dict[str, Any]) -> tuple[Collector, Metrics]:
    """What a collector has got when these records were offered and all is closed."""
    metrics = Metrics("test")
    with collecting() as (collector, url):
        spans = Spans(url, metrics)
        for each in records:
            spans.offer(each)
        spans.close(5)
    return collector, metrics


def both(told: dict[str, Any]) -> tuple[ReadableSpan, ReadableSpan]:
    exchange, call = spans_of(told, NOWHERE)
    return exchange, call


def test_an_exchange_arrives_with_the_records_own_ids_and_times():
    """Trace and parent are the caller's, span id and times the record's, to the microsecond."""
    told = record()
    collector, metrics = sent(told)
    exchange, call = collector.spans
    assert exchange.trace_id.hex() == call.trace_id.hex() == TRACE
    assert exchange.span_id.hex() == told["trace"]["traceparent"][36:52]
    assert exchange.parent_span_id.hex() == PARENT
    assert exchange.flags & SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    assert exchange.kind == Span.SPAN_KIND_SERVER
    assert exchange.start_time_unix_nano == ARRIVED_NS
    assert exchange.end_time_unix_nano == ARRIVED_NS + 1_000_000
    assert call.parent_span_id == exchange.span_id
    assert call.kind == Span.SPAN_KIND_CLIENT
    assert call.end_time_unix_nano - call.start_time_unix_nano == 400_000
    assert call.end_time_unix_nano == exchange.end_time_unix_nano
    assert dropped(metrics) == 0


def test_attributes_have_their_conventional_names_and_nothing_else_is_told():
    """HTTP facts go by the semantic conventions, ours by `headworks.`; no path, query, header."""
    told = record(revision="3f" * 32)
    collector, _ = sent(told)
    exchange = collector.spans[0]
    assert exchange.name == "POST mortgage/infer"
    assert attributes(exchange) == {
        "http.request.method": "POST", "http.response.status_code": 200,
        "headworks.id": told["id"], "headworks.model": "mortgage", "headworks.version": "v2",
        "headworks.arm": "canary", "headworks.rule": "everyone", "headworks.revision": "3f" * 32,
        "headworks.caller": "loans-app", "headworks.protocol": "v2",
        "headworks.operation": "infer",
    }  # fmt: skip
    assert b"secret" not in collector.requests[0].SerializeToString()
    assert collector.resource["service.name"] == "headworks"


def test_a_strangers_path_and_method_do_not_pass():
    """An unknown method is `_OTHER`, an unknown operation `other`, in names and in values."""
    exchange = spans_of(record(method="JOHN", operation="ssn/123", attempts=0), NOWHERE)[0]
    assert exchange.name == "HTTP mortgage/other"
    assert exchange.attributes["http.request.method"] == "_OTHER"
    assert "JOHN" not in exchange.to_json()
    assert "123" not in str(exchange.attributes["headworks.operation"])


def test_an_exchange_without_a_trace_of_its_callers_is_a_root():
    """No traceparent came: the span has no parent and its trace is the exchange's id."""
    told = record(b"none")
    exchange, call = both(told)
    assert exchange.parent is None
    assert f"{exchange.context.trace_id:032x}" == told["id"].replace("-", "")
    assert call.parent.span_id == exchange.context.span_id


def test_a_refusal_before_the_call_is_one_span():
    """Nobody was called, so there is no call; our code is the error's type, 401 no server error."""
    (span,) = spans_of(record(attempts=0, status=401, error="unauthorised"), NOWHERE)
    assert span.attributes["error.type"] == "unauthorised"
    assert span.status.status_code is StatusCode.UNSET


def test_a_failed_upstream_fails_both_spans():
    """An upstream that did not answer has no status of its own; the answer's 504 is ours."""
    exchange, call = both(record(status=504, error="upstream_timeout"))
    assert exchange.status.status_code is call.status.status_code is StatusCode.ERROR
    assert exchange.attributes["http.response.status_code"] == 504
    assert "http.response.status_code" not in call.attributes
    assert call.attributes["error.type"] == "upstream_timeout"


def test_an_upstreams_404_is_the_calls_error_only():
    """A client's span fails from 400 on, a server's from 500 on."""
    exchange, call = both(record(status=404))
    assert "error.type" not in exchange.attributes
    assert exchange.status.status_code is StatusCode.UNSET
    assert call.attributes["error.type"] == "404"
    assert call.status.status_code is StatusCode.ERROR


def test_a_session_in_the_worker_is_no_client():
    """What ran in the worker is internal and has nothing of HTTP."""
    _, call = both(record(runtime={"name": "onnxruntime"}))
    assert (call.name, call.kind) == ("run", SpanKind.INTERNAL)
    assert not [name for name in call.attributes if name.startswith("http.")]


def test_a_shadow_hangs_below_its_primary():
    """A shadow's parent is the primary's span, of this very service; nobody is served by it."""
    exchange, _ = both(record(arm="shadow", primary="the-primary"))
    assert exchange.kind is SpanKind.INTERNAL
    assert not exchange.parent.is_remote
    assert exchange.attributes["headworks.shadow.primary"] == "the-primary"


def test_a_streams_call_lasts_as_long_as_the_stream():
    """`upstream_us` of a stream ends with its head, the call with its last byte."""
    exchange, call = both(record(stream=True))
    assert (call.start_time, call.end_time) == (exchange.start_time, exchange.end_time)


def test_the_same_record_makes_the_same_spans():
    """The analyst may fold a leaf twice: ids do not depend on when or how often."""
    told = record()
    first, second = both(told), both(told)
    assert [span.to_json() for span in first] == [span.to_json() for span in second]
    assert first[0].context.span_id != first[1].context.span_id


@given(total=st.integers(0, 10**10), upstream=st.integers(0, 10**10), stream=st.booleans())
def test_a_call_lies_within_its_exchange(total: int, upstream: int, stream: bool):
    """Whatever the two clocks measured, the call never leaves the exchange, and time runs on."""
    timings = {"total_us": total, "upstream_us": upstream}
    told = record(timings=timings, stream=stream)
    exchange, call = both(told)
    assert exchange.start_time <= call.start_time <= call.end_time <= exchange.end_time
    assert span_count(told) == 2


@pytest.mark.parametrize("flags", [b"00", b"02"])
def test_what_is_not_sampled_makes_no_span(flags: bytes):
    """The sampled flag is the caller's decision; an unsampled exchange is no loss either."""
    collector, metrics = sent(record(TRACEPARENT[:-2] + flags), record(TRACEPARENT[:-2] + b"03"))
    assert len(collector.spans) == 2
    assert dropped(metrics) == 0


@pytest.mark.parametrize("trace", [None, "00-x", {}, {"traceparent": None}, {"traceparent": "00"}])
def test_a_record_without_a_trace_makes_no_span(trace: Any):
    """Records that no exchange wrote are let alone, whatever they hold."""
    collector, metrics = sent(record() | {"trace": trace}, {"kind": "start"})
    assert collector.spans == []
    assert dropped(metrics) == 0


def test_a_record_nobody_can_read_costs_only_itself():
    """A broken record among good ones is counted; the thread goes on."""
    broken = record(timings=None)
    collector, metrics = sent(record(), broken, record())
    assert len(collector.spans) == 4
    assert dropped(metrics) == 2


def test_the_environment_is_laid_over_the_file(monkeypatch: pytest.MonkeyPatch):
    """Headers, service name and resource attributes of OTEL_* reach the collector."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=loans")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "front-door")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    collector, _ = sent(record())
    assert collector.headers[0]["x-team"] == "loans"
    assert collector.resource["service.name"] == "front-door"
    assert collector.resource["deployment.environment.name"] == "test"


def test_the_environments_endpoint_is_taken_first(monkeypatch: pytest.MonkeyPatch):
    """The base URLs get /v1/traces, the URL for traces alone is taken as it is."""
    assert traces_url("http://a:1/") == "http://a:1/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:2")
    assert traces_url("http://a:1") == "http://b:2/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:3/here")
    assert traces_url("http://a:1") == "http://c:3/here"


def test_a_disabled_sdk_sends_and_counts_nothing(monkeypatch: pytest.MonkeyPatch):
    """OTEL_SDK_DISABLED=true is a wish, not a loss."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    collector, metrics = sent(record())
    assert collector.spans == []
    assert dropped(metrics) == 0


def test_a_limit_that_is_no_number_is_said_and_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A typing error in the environment costs a line in the log, not the analyst."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "0")
    collector, _ = sent(record())
    assert len(collector.spans) == 2
    assert (
        f"OTEL_BSP_MAX_QUEUE_SIZE=0 is not a number above 0; {RECORDS_WAITING_MAX}" in caplog.text
    )


def test_a_full_queue_drops_at_once_and_counts(monkeypatch: pytest.MonkeyPatch):
    """While the collector thinks, four records wait, no offer does, and the sum comes out even."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    metrics = Metrics("test")
    with collecting() as (collector, url):
        collector.gate.clear()
        spans = Spans(url, metrics)
        started = time.monotonic()
        for _ in range(200):
            spans.offer(record())
        assert time.monotonic() - started < 1
        assert dropped(metrics) >= 2 * (200 - 4 - 2 * 2)
        collector.gate.set()
        spans.close(5)
    assert len(collector.spans) + dropped(metrics) == 400
    assert len(collector.spans) >= 8


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_collector_that_is_down_costs_counted_drops():
    """Nobody listens: offers return at once, closing keeps its time, every span is counted."""
    metrics = Metrics("test")
    spans = Spans(f"http://127.0.0.1:{free_port()}", metrics)
    started = time.monotonic()
    for _ in range(50):
        spans.offer(record())
    assert time.monotonic() - started < 0.5
    spans.close(0.2)
    assert time.monotonic() - started < 2
    assert dropped(metrics) == 100


def test_a_collector_that_never_answers_does_not_hold_the_end():
    """A batch under way when time is up is counted once, whatever becomes of it later."""
    metrics = Metrics("test")
    with collecting() as (collector, url):
        collector.gate.clear()
        spans = Spans(url, metrics)
        spans.offer(record())
        assert eventually(lambda: spans._under_way == 2)
        spans.offer(record())
        started = time.monotonic()
        spans.close(0.2)
        assert time.monotonic() - started < 1
        assert dropped(metrics) == 4
        collector.gate.set()
        spans._thread.join(5)
        assert dropped(metrics) == 4


def test_a_refusing_collector_is_told_of_once(caplog: pytest.LogCaptureFixture):
    """Each refused span is counted; the log has the reason once, and the recovery once."""
    metrics = Metrics("test")
    with collecting() as (collector, url):
        collector.status = 401
        spans = Spans(url, metrics)
        for lost in (2, 4, 6):
            spans.offer(record())
            assert eventually(lambda lost=lost: dropped(metrics) == lost)
        collector.status = 200
        spans.offer(record())
        spans.close(5)
    assert len(collector.spans) == 2
    warned = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert [text for text in warned if "401" in text] == [warned[0]]
    assert [text for text in warned if "spans" in text and url in text] == warned[1:]
    assert warned[1].startswith("spans do not reach")
    assert warned[2:] == [f"spans reach {url}/v1/traces again"]
