"""otel-collector.yaml: it fits together, and it fits the demo's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from gateway.telemetry.spans import traces_url

ROOT = Path(__file__).parent.parent


@pytest.fixture
def collector() -> Any:
    return yaml.safe_load((ROOT / "otel-collector.yaml").read_text())


def test_pipelines_name_only_what_is_defined_and_leave_nothing_over(collector: Any):
    """A collector refuses an undefined part, and ignores a defined one that no pipeline names."""
    pipelines = collector["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        assert collector[kind].keys() == {name for line in pipelines for name in line[kind]}


def test_spans_and_scrapes_have_their_pipelines(collector: Any):
    """What comes by OTLP goes to traces, what is scraped to metrics, each in batches."""
    pipelines = collector["service"]["pipelines"]
    assert "otlp" in pipelines["traces"]["receivers"]
    assert "prometheus" in pipelines["metrics"]["receivers"]
    assert all(line["processors"][-1] == "batch" for line in pipelines.values())
    assert all(line["exporters"] == ["debug"] for line in pipelines.values())


def test_the_spans_of_the_comment_arrive_where_the_collector_listens(
    collector: Any, monkeypatch: pytest.MonkeyPatch
):
    """The OTLP URL that the file's comment gives is its HTTP receiver's; gRPC has its own port."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    text = (ROOT / "otel-collector.yaml").read_text()
    given = text.split("telemetry: {otlp: ")[1].split("}")[0]
    protocols = collector["receivers"]["otlp"]["protocols"]
    assert urlsplit(traces_url(given)).netloc == protocols["http"]["endpoint"]
    assert protocols["grpc"]["endpoint"] != protocols["http"]["endpoint"]


def test_the_scrape_goes_to_the_demos_admin_port(collector: Any):
    """`/metrics` is asked for where headworks.yaml says that the admin port is."""
    demo = yaml.safe_load((ROOT / "headworks.yaml").read_text())
    (job,) = collector["receivers"]["prometheus"]["config"]["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert job["static_configs"] == [{"targets": [demo["listen"]["admin"]]}]
