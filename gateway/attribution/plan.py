"""What it takes to explain one version's answers at once: a file that the analyst makes and workers
read, named by artifact and background.

A plan is derived: it holds nothing that its artifact and its background do not say, and is made
again where it is missing. It is data only; both sides compute with the same code of this package,
so that a worker's attributions are the analyst's to the bit.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.attribution.lookup import ColumnBits, Lookup
from gateway.attribution.weights import Weights
from gateway.disk import write_durably

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """`form` answers for the tensor `matrix` of `model`, which is the artifact's graph with that
    tensor among its outputs. `unavailable`: why there is none; the rest is empty then."""

    unavailable: str | None = None
    method: str = ""
    background: str = ""
    features: tuple[str, ...] = ()
    matrix: str = ""
    model: bytes = b""
    form: Weights | Lookup | None = None


def write_plan(path: Path, plan: Plan) -> None:
    path.parent.mkdir(exist_ok=True)
    write_durably(path, encode(plan))


def encode(plan: Plan) -> bytes:
    head = {"format": FORMAT, "unavailable": plan.unavailable, "method": plan.method,
            "background": plan.background, "features": plan.features, "matrix": plan.matrix,
            "form": type(plan.form).__name__}  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {
        "head": np.frombuffer(orjson.dumps(head), np.uint8),
        "model": np.frombuffer(plan.model, np.uint8),
    }
    if isinstance(plan.form, Weights):
        arrays |= {"weights": plan.form.weights, "means": plan.form.means,
                   "players": plan.form.players}  # fmt: skip
    elif plan.form is not None:
        arrays |= {"offsets": plan.form.offsets, "table": plan.form.table}
        for asked in plan.form.columns:
            arrays |= {f"cuts{asked.column}": asked.cuts, f"bits{asked.column}": asked.bits}
    written = io.BytesIO()
    np.savez(written, **arrays)  # type: ignore[arg-type]
    return written.getvalue()


def decode(data: bytes) -> Plan:
    """ValueError if it is no plan, or of a newer format."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            head = orjson.loads(arrays["head"].tobytes())
            if head["format"] > FORMAT:
                raise ValueError(f"plan format {head['format']} is newer than {FORMAT}")
            form = _form(head, arrays)
            told = (head["unavailable"], head["method"], head["background"])
            return Plan(*told, tuple(head["features"]), head["matrix"],
                        arrays["model"].tobytes(), form)  # fmt: skip
    except (KeyError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"no plan: {error}") from None


def _form(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Weights | Lookup | None:
    if head["form"] == "Weights":
        features = len(head["features"])
        return Weights(arrays["weights"], arrays["means"], arrays["players"], features)
    if head["form"] == "Lookup":
        numbers = sorted(int(name.removeprefix("cuts")) for name in arrays if name[:4] == "cuts")
        columns = tuple(
            ColumnBits(number, arrays[f"cuts{number}"], arrays[f"bits{number}"])
            for number in numbers
        )
        return Lookup(columns, arrays["offsets"], arrays["table"])
    return None
