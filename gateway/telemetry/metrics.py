"""Operational numbers, one table: each process counts in its own mapped files, for all to read.

The files (prometheus-client's multiprocess mode) lie in `state/metrics` and are read by the
supervisor, so that `/metrics` answers whatever else is dead. A file is named by its process's role,
not its pid: a restarted worker goes on counting where it stopped.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path
from typing import Any

LABELS_MAX = 2000
"""Label sets one process may make of one metric; more are counted under `other`."""

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "headworks_exchanges": ("Answers given.", ("model", "version", "arm", "status")),
    "headworks_refusals": ("Answers that the gateway made itself.", ("code",)),
    "headworks_clients_left": (
        "Exchanges whose client left or did not read before their end.",
        ("model", "code", "policy"),
    ),
    "headworks_endpoint_events": (
        "Of upstreams: retries, retries_denied by the budget, endpoints ejected_status and"
        " ejected_failure, kept since too many are out, panics (all are tried), tls_refused (new"
        " files do not fit, those of before are used).",
        ("model", "version", "event"),
    ),
    "headworks_shadow_dropped": ("Copies that were not sent.", ("model", "reason")),
    "headworks_context_dropped": ("Governance context from callers who may not send it.", ()),
    "headworks_rule_body_unread": (
        "Exchanges whose rule asked for a body that is too_long, not_json or has an encoding.",
        ("model", "reason"),
    ),
    "headworks_journal_records": ("Records written.", ()),
    "headworks_journal_bytes": ("Bytes written to journals.", ()),
    "headworks_journal_commits": ("Group commits.", ()),
    "headworks_journal_commit_seconds": ("Time from write to durable, summed over commits.", ()),
    "headworks_journal_stalls": ("Commits that lasted longer than journal.stall.", ()),
    "headworks_journal_refused": ("Records refused: full, stalled or failed.", ()),
    "headworks_journal_late": ("Commits that lasted longer than 50 ms.", ()),
    "headworks_journal_withheld": ("Records told withheld: the commit came too late.", ()),
    "headworks_journal_receipts": ("Receipts given.", ()),
    "headworks_journal_signatures": ("Signatures made for receipts, one a commit.", ()),
    "headworks_certificates_refused": (
        "Times that new files of the data port's certificate did not fit: it goes on with those of"
        " before.",
        (),
    ),
    "headworks_table_rejected": ("Revisions that a worker could not load.", ()),
    "headworks_sealed": ("Records sealed into the ledger.", ("kind",)),
    "headworks_comparisons": (
        "Shadows' answers compared: agree, disagree, or why not; with noise_, of second calls to"
        " the version that answered.",
        ("model", "version", "result"),
    ),
    "headworks_explained": ("Decisions explained.", ("model", "version", "method")),
    "headworks_inline_differs": (
        "Answers whose reasons differ from the explanation made later.",
        ("model", "version"),
    ),
    "headworks_explain_calls": (
        "Calls to upstreams to explain what they answered, by status.",
        ("status",),
    ),
    "headworks_not_explained": ("Decisions not explained.", ("reason",)),
    "headworks_windows": ("Monitoring windows judged.", ("model", "version", "state")),
    "headworks_windows_unjudged": (
        "Monitoring windows that could not be judged; the log says why.",
        (),
    ),
    "headworks_series_let_go": (
        "Series forgotten, since they were idle longest and others came: of windows, of pairs of "
        "versions, of labels by group.",
        ("of",),
    ),
    "headworks_series_refused": (
        "Decisions (labels) of series for which there is no room, since none was idle: of windows, "
        "of pairs of versions, of labels by group.",
        ("of",),
    ),
    "headworks_alerts": ("What happened to alerts.", ("model", "event")),
    "headworks_detector_unjudged": (
        "Windows that a detector of another family was not asked of in time.",
        (),
    ),
    "headworks_alerts_dropped": ("Causes without an alert, since there are too many.", ()),
    "headworks_webhook": (
        "Alerts sent: taken, refused, failed; dropped after an hour.",
        ("answer",),
    ),
    "headworks_labels": ("Labels of decisions that the analyst has taken.", ()),
    "headworks_labels_dropped": ("Labels that waited for a decision and were too many.", ()),
    "headworks_spans_dropped": ("Spans not sent to the collector.", ()),
    "headworks_rollout_moves": ("Moves of rollouts.", ("rollout", "move")),
    "headworks_rollout_unreadable": (
        "Records that a rollout could not count: erased, or not to be opened.",
        ("rollout",),
    ),
    "headworks_rollout_troubles": (
        "Times that a rollout could not be judged any more; it keeps its exposure.",
        ("rollout",),
    ),
    "headworks_witness_answers": ("What witnesses answered.", ("witness", "answer")),
    "headworks_restarts": ("Processes started again after their end.", ("role",)),
}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "headworks_shadow_sampling": (
        "Share of copies that are taken: less than 1 while the event loop lags.",
        ("worker",),
    ),
    "headworks_in_flight": ("Open exchanges.", ("worker",)),
    "headworks_journal_at_risk": (
        "Most answers of bounded models released before their flush, in the last second.",
        ("worker",),
    ),
    "headworks_disk_rung": (
        "What a store gives up: 0 nothing, 1 a word, 2 shadow and spare bodies, 3 answers.",
        ("store",),
    ),
    "headworks_disk_bytes": ("Bytes on disk.", ("store",)),
    "headworks_connections": ("Open connections of clients.", ("worker",)),
    "headworks_endpoints": (
        "Endpoints that are available, down or ejected.",
        ("model", "version", "state", "worker"),
    ),
    "headworks_lag_records": ("Records behind, by consumer.", ("consumer",)),
    "headworks_lag_seconds": ("Age of the oldest record not yet taken.", ("consumer",)),
    "headworks_lag_bytes": ("Journal bytes on disk.", ("consumer",)),
    "headworks_witness_lag_records": ("Leaves not yet cosigned.", ("witness",)),
    "headworks_witness_lag_seconds": ("For how long some leaf waits for it.", ("witness",)),
    "headworks_witness_alarms": ("Logs it says do not go on from what it saw.", ("witness",)),
    "headworks_rollout_weight_ppm": ("Share that the new version answers.", ("rollout",)),
    "headworks_file_refused": ("1 while the configuration file is not in force.", ()),
    "headworks_compiled_modules": ("Modules that run compiled; 0: from source.", ("worker",)),
    "headworks_process_up": ("1 while the process runs.", ("role",)),
}
HISTOGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "headworks_exchange_seconds": ("From arrival to the answer's release.", ("model", "version")),
}


class Metrics:
    """The table's metrics of one process. `folder` None: counted in memory only (tests)."""

    def __init__(self, role: str, folder: Path | None = None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        import prometheus_client
        from prometheus_client import values

        if folder is not None:
            values.ValueClass = values.MultiProcessValue(lambda: role)  # type: ignore[no-untyped-call]
        else:
            values.ValueClass = values.MutexValue
        registry = prometheus_client.CollectorRegistry()
        self.registry = registry
        self._metrics: dict[str, Any] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        for name, (text, labels) in COUNTERS.items():
            self._metrics[name] = prometheus_client.Counter(name, text, labels, registry=registry)
        for name, (text, labels) in GAUGES.items():
            self._metrics[name] = prometheus_client.Gauge(
                name, text, labels, registry=registry, multiprocess_mode="mostrecent"
            )
        for name, (text, labels) in HISTOGRAMS.items():
            self._metrics[name] = prometheus_client.Histogram(
                name, text, labels, registry=registry, buckets=BUCKETS
            )

        self.gathers = False
        self._gathering = threading.Lock()
        self._counted: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._answers: dict[tuple[str, str, str, int], list[float]] = {}

    def gather(self) -> None:
        """Count in memory from now on, until `tell`, which writes many for the price of one. Who
        asks for it calls that several times a second, and at the end."""
        self.gathers = True

    def tell(self) -> None:
        with self._gathering:
            counted, self._counted = self._counted, defaultdict(float)
        for (name, *labels), number in counted.items():
            self._child(name, tuple(labels)).inc(number)
        for (model, version, arm, status), (*numbers, seconds) in self._answers.items():
            told = (model, version, arm, str(status))
            self._child("headworks_exchanges", told).inc(sum(numbers))
            histogram = self._child("headworks_exchange_seconds", (model, version))
            self._add(histogram, numbers, seconds)
        self._answers.clear()

    def note_answer(self, model: str, version: str, arm: str, status: int, seconds: float) -> None:
        """An answer of the data path, told by the next `tell`."""
        answer = (model, version, arm, status)
        times = self._answers.get(answer)
        if times is None:
            times = self._answers[answer] = [0.0] * (len(BUCKETS) + 2)
        times[bisect_left(BUCKETS, seconds)] += 1
        times[-1] += seconds

    def _add(self, histogram: Any, numbers: list[float], seconds: float) -> None:
        """`numbers` of observations by bucket, of `seconds` in all: prometheus-client's own parts,
        since its public way takes them one by one."""
        histogram._sum.inc(seconds)
        for bucket, number in zip(histogram._buckets, numbers):
            if number:
                bucket.inc(number)

    def _child(self, name: str, labels: tuple[str, ...]) -> Any:
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            metric = self._metrics[name]
            if labels and len(self._children) >= LABELS_MAX:
                return metric.labels(*("other" for _ in labels))
            child = self._children[key] = metric.labels(*labels) if labels else metric
        return child

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        if self.gathers:
            with self._gathering:
                self._counted[(name, *labels)] += by
            return
        self._child(name, labels).inc(by)

    def set(self, name: str, value: float, *labels: str) -> None:
        self._child(name, labels).set(value)


def expose(folder: Path) -> bytes:
    """All processes' numbers, in Prometheus' text format."""
    import prometheus_client
    from prometheus_client import multiprocess

    registry = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    return prometheus_client.generate_latest(registry)
