"""The reference pages and the environment's names, made from the declarations in code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from gateway.card import Card
from gateway.declaration import duration_text, share_text, size_text
from gateway.errors import CODES
from gateway.rollout.guardsettings import DEFAULTS
from gateway.rollout.rolloutsettings import RolloutSettings
from gateway.settings import Settings
from gateway.telemetry.metrics import COUNTERS, GAUGES, HISTOGRAMS

PREFIX = "HEADWORKS_"


def fields(
    model: type[BaseModel], at: str = ""
) -> Iterator[tuple[str, Any, type[BaseModel] | None]]:
    """(dotted key, pydantic field, section below it) of every setting, depth first."""
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        many = (
            "[]"
            if "tuple" in str(field.annotation)
            else ".*"
            if "dict" in str(field.annotation)
            else ""
        )
        key = f"{at}{field.alias or name}" + (many if section else "")
        yield key, field, section
        if section is not None:
            yield from fields(section, key + ".")


def _section(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [_section(part) for part in get_args(annotation)]
    return next((section for section in found if section is not None), None)


def _is_plain(field: Any) -> bool:
    """Whether it may be written as one value: no section, or one that a text stands for."""
    return _section(field.annotation) is None or "Discriminator" in str(field.metadata)


def environment_names() -> dict[str, str]:
    """Environment variable -> dotted key, for settings outside lists and maps."""
    return {
        PREFIX + key.upper().replace(".", "_"): key
        for key, field, _ in fields(Settings)
        if _is_plain(field) and "[]" not in key and "*" not in key
    }


def pages() -> dict[str, str]:
    """The pages that are made from code: name below docs/ -> text."""
    return {
        "card.md": card_page(),
        "configuration.md": configuration_page(),
        "errors.md": errors_page(),
        "metrics.md": metrics_page(),
        "rollout-settings.md": rollout_page(),
    }


def errors_page() -> str:
    rows = [f"| `{code}` | {status} | {words} |" for code, (status, words) in CODES.items()]
    return "\n".join([
        "# Error codes",
        "",
        "Made from `gateway/errors.py` by `scripts/docs`; do not edit. An answer that the gateway",
        "makes itself carries one of these in `x-headworks-error`; an upstream's never does.",
        "",
        "| code | status | meaning |",
        "|---|---|---|",
        *rows,
    ]) + "\n"  # fmt: skip


def metrics_page() -> str:
    kinds = (("counter", COUNTERS), ("gauge", GAUGES), ("histogram", HISTOGRAMS))
    rows = [
        f"| `{name}{'_total' if kind == 'counter' else ''}` | {kind} |"
        f" {', '.join(f'`{label}`' for label in labels)} | {words} |"
        for kind, table in kinds
        for name, (words, labels) in table.items()
    ]
    return "\n".join([
        "# Metrics",
        "",
        "Made from `gateway/telemetry/metrics.py` by `scripts/docs`; do not edit. Served at",
        "`/metrics` of the admin port by the supervisor, whatever else is dead.",
        "",
        "| name | kind | labels | meaning |",
        "|---|---|---|---|",
        *rows,
    ]) + "\n"  # fmt: skip


def configuration_page() -> str:
    environment = {key: name for name, key in environment_names().items()}
    lines = [
        "# Configuration",
        "",
        "Made from `gateway/settings.py` and `gateway/modelsettings.py` by `scripts/docs`; do not",
        "edit. `headworks check` says what is wrong with a file, `headworks check --schema` prints",
        "this page as JSON Schema.",
        "",
        "Unknown keys are errors. Paths are relative to the file. A duration is written `50ms`,",
        "`2s`, `10m`, `1h`, `180d`; a size `512B`, `64KiB`, `1MiB`, `2GiB`; a share `5%` or",
        "`50000ppm`. `--set key=value` lays a value over the file's, and so does the environment",
        "variable where one is named.",
        "",
        "| key | default | meaning | environment |",
        "|---|---|---|---|",
    ]
    for key, field, _ in fields(Settings):
        default = _shown(field) if _is_plain(field) else ""
        variable = f"`{environment[key]}`" if key in environment else ""
        lines.append(f"| `{key}` | {default} | {field.description} | {variable} |")
    return "\n".join(lines) + "\n"


def card_page() -> str:
    rows = [
        f"| `{key}` | {'' if section and not field.is_required() else _shown(field)} |"
        f" {field.description} |"
        for key, field, section in fields(Card)
    ]
    return "\n".join([
        "# The card of a version",
        "",
        "Made from `gateway/card.py` by `scripts/docs`; do not edit. `card.yaml` lies beside",
        "`model.onnx`, or is named by `models.*.versions.*.card`. Unknown keys are errors;",
        "`headworks check` says what is wrong with one. `models/mortgage/v1/card.yaml` is one.",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
        *rows,
    ]) + "\n"  # fmt: skip


def rollout_page() -> str:
    rows = [
        f"| `{key}` | {_shown(field) if _is_plain(field) else ''} | {field.description} |"
        for key, field, _ in fields(RolloutSettings)
    ]
    names = ", ".join(f"`{name}`" for name in DEFAULTS)
    return "\n".join([
        "# The file of a rollout",
        "",
        "Made from `gateway/rollout/rolloutsettings.py` and `guardsettings.py` beside it by",
        "`scripts/docs`; do not edit. `docs/rollouts.md` says how a rollout works. Unknown keys",
        f"are errors. These guards are known by name alone: {names}.",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
        *rows,
    ]) + "\n"  # fmt: skip


def _shown(field: Any) -> str:
    if field.is_required():
        return "*needed*"
    value = field.default
    if value is None or value == () or value == {}:
        return "absent"
    if isinstance(value, float) and "_duration" in str(field.metadata):
        return f"`{duration_text(value)}`"
    if isinstance(value, int) and "_size" in str(field.metadata):
        return f"`{size_text(value)}`"
    if isinstance(value, int) and "share_ppm" in str(field.metadata):
        return f"`{share_text(value)}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(str(getattr(one, "name", one)) for one in value) + "]`"
    return f"`{value}`"
