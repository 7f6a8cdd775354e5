"""Versions that run in the worker, under onnxruntime: one thread, sequential, no batching.

What is sent is checked here against the graph, tensor by tensor: the refusal names the tensor, what
was sent and what is expected. NaN is a missing value and goes to the model; an infinity is refused;
a score that is not finite is the model's failure, not an answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from gateway.artifacts import draws
from gateway.card import Card
from gateway.dataplane.inline import Inline
from gateway.dataplane.single import SingleRow
from gateway.errors import Refusal
from gateway.protocol import v2
from gateway.protocol.tensor import DTYPES, Tensor, Unreadable

ONNX_TYPES = {
    "tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(float16)": "FP16",
    "tensor(int64)": "INT64", "tensor(int32)": "INT32", "tensor(int16)": "INT16",
    "tensor(int8)": "INT8", "tensor(uint8)": "UINT8", "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32", "tensor(uint64)": "UINT64", "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}  # fmt: skip
NUMBERS: Mapping[str, tuple[type, ...]] = {
    name: (bool,) if name == "BOOL" else (float, int) if name.startswith("FP") else (int,)
    for name in DTYPES
}
"""What JSON values of a datatype are."""
RUNTIME = {
    "name": "onnxruntime", "version": onnxruntime.__version__,
    "provider": "CPUExecutionProvider", "threads": 1, "batch": False,
}  # fmt: skip
LOOP_NS = 2_000_000
"""A run expected to last longer than this leaves the event loop for a thread."""

STEP = 1.2

FEW = 16
"""So many numbers are sooner looked at one by one than by a reduction of numpy's."""


class Session:
    """One artifact, loaded and warm."""

    def __init__(self, folder: Path, model: str, version: str, card: Card) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self.model, self.version, self.card = model, version, card
        self.deterministic = not draws(folder / "model.onnx")
        self._session: Any = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        # Its wrapper asks the graph for each input's name at each run, for a check that `feeds` has
        # made already: half as dear as running a small model.
        self._run = getattr(self._session, "_sess", self._session).run
        self.inputs = {item.name: item for item in self._session.get_inputs()}
        self.outputs = [item.name for item in self._session.get_outputs()]
        self._dims = {name: item.shape for name, item in self.inputs.items()}
        self._fixed = {
            name: [(place, size) for place, size in enumerate(dims) if isinstance(size, int)]
            for name, dims in self._dims.items()
        }
        self._types = {name: ONNX_TYPES.get(item.type, "") for name, item in self.inputs.items()}
        self.single = SingleRow(self._types, self._dims)
        self._ns_a_row = 0.0
        self.inline: Inline | None = None
        for words in self.misfits():
            raise ValueError(f"{model}/{version}: {words}")

    def misfits(self) -> list[str]:
        """Where the card and the graph do not say the same."""
        carriers = {feature.carrier for feature in self.card.features}
        found = [
            f"input {name!r} is not on the card" for name in self.inputs if name not in carriers
        ]
        found += [f"feature tensor {name!r} is no input" for name in carriers - self.inputs.keys()]
        inputs, outputs = self.inputs.values(), self._session.get_outputs()
        for what, item in [("input", item) for item in inputs] + [("output", o) for o in outputs]:
            if item.type not in ONNX_TYPES:
                words = "is not served in the process: give the version an `upstream`"
                found.append(f"{what} {item.name!r}, a {item.type}, {words}")
        if self.card.outputs.score.tensor not in self.outputs:
            found.append(f"score tensor {self.card.outputs.score.tensor!r} is no output")
        return found

    def slow(self, rows: int) -> bool:
        """Whether a run of so many rows is expected to hold the loop for too long."""
        return self._ns_a_row * rows > LOOP_NS

    def feeds(self, request: v2.Request) -> dict[str, Any]:
        """Arrays for onnxruntime. Refusal `bad_tensor` names tensor, sent and expected."""
        if request.raw is not None:
            request = self._named(request.raw)
        unknown = request.inputs.keys() - self.inputs.keys()
        if unknown:
            words = f"tensor {min(unknown)!r} is unknown; expected: {', '.join(self.inputs)}"
            raise Refusal("bad_tensor", words)
        rows = request.rows
        with np.errstate(over="ignore"):  # what overflows is an infinity, and refused as one
            return {name: self._feed(name, request, rows) for name in self.inputs}

    def _feed(self, name: str, request: v2.Request, rows: int) -> Any:
        expected = self._types[name]
        dims = self._dims[name]
        tensor = request.inputs.get(name)
        if tensor is None:
            words = f"tensor {name!r} is missing; expected: {expected} {_shape(dims)}"
            raise Refusal("bad_tensor", words)
        shape = tensor.shape
        fits = len(shape) == len(dims)
        for place, size in self._fixed[name] if fits else ():
            fits = fits and shape[place] == size
        if tensor.datatype != expected or not fits or tensor.rows != rows or not rows:
            sent = f"{tensor.datatype} {list(tensor.shape)}"
            words = f"tensor {name!r}: sent {sent}, expected {expected} {_shape(dims, rows)}"
            raise Refusal("bad_tensor", words)
        return _array(tensor)

    def run(self, request: v2.Request) -> dict[str, Any]:
        """The outputs asked for, or all, as arrays; names that are none are refused."""
        wanted = self.outputs if request.outputs is None else list(request.outputs)
        for name in wanted:
            if name not in self.outputs:
                words = f"output {name[:80]!r} is unknown; expected: {', '.join(self.outputs)}"
                raise Refusal("bad_tensor", words)
        if request.raw is not None:
            request = self._named(request.raw)
        feeds = self.feeds(request)
        try:
            return self.compute(wanted, feeds, request.rows)
        except Refusal:
            raise
        except Exception as error:
            self._blame_categories(request)
            raise Refusal("model_failed", f"{type(error).__name__}: {error}") from error

    def compute(self, wanted: list[str], feeds: dict[str, Any], rows: int) -> dict[str, Any]:
        """The outputs wanted; whatever onnxruntime raises."""
        started = time.perf_counter_ns()
        values = self._run(wanted, feeds, None)
        spent = (time.perf_counter_ns() - started) / max(rows, 1)
        if not self._ns_a_row:
            self._ns_a_row = spent
        else:  # towards the median: a run that another process kept waiting is one step, not many
            self._ns_a_row *= STEP if spent > self._ns_a_row else 1 / STEP
        for name, array in zip(wanted, values):
            if array.dtype.kind == "f" and not _finite(array):
                raise Refusal("model_failed", f"output {name!r} is not finite")
        return dict(zip(wanted, values))

    def _named(self, raw: bytes) -> v2.Request:
        """A body that is nothing but the only input."""
        if len(self.inputs) != 1:
            words = f"a raw body is one tensor; expected: {', '.join(self.inputs)}"
            raise Refusal("bad_tensor", words)
        ((name, item),) = self.inputs.items()
        try:
            tensor = v2.raw_tensor(raw, name, self._types[name], _dims(item.shape))
        except Unreadable as error:
            raise Refusal("bad_tensor", str(error)) from None
        return v2.Request(None, {name: tensor}, None, True)

    def _blame_categories(self, request: v2.Request) -> None:
        """A model that fails on a category its card does not name was asked wrongly."""
        for feature in self.card.features:
            if feature.categories is None or feature.column is not None:
                continue
            for value in request.inputs[feature.carrier].data:
                said = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
                if said not in feature.categories:
                    words = f"tensor {feature.carrier!r}: sent {str(said)[:40]!r}, expected one of "
                    raise Refusal("bad_tensor", words + ", ".join(feature.categories))

    def metadata(self, versions: list[str]) -> dict[str, Any]:
        """What the graph says of itself."""
        outputs = self._session.get_outputs()
        return {
            "name": self.model,
            "versions": versions,
            "platform": "onnxruntime_onnx",
            "inputs": [_describe(item) for item in self.inputs.values()],
            "outputs": [_describe(item) for item in outputs],
        }


def _describe(item: Any) -> dict[str, Any]:
    datatype = ONNX_TYPES.get(item.type, item.type)
    return {"name": item.name, "datatype": datatype, "shape": _dims(item.shape)}


def _dims(shape: list[Any]) -> list[int]:
    """-1: of any size."""
    return [size if isinstance(size, int) else -1 for size in shape]


def _shape(dims: list[Any], rows: int | None = None) -> str:
    first = [rows if rows else "rows"] if dims and not isinstance(dims[0], int) else dims[:1]
    return "[" + ", ".join(str(size) for size in first + dims[1:]) + "]"


def _array(tensor: Tensor) -> Any:
    dtype = DTYPES[tensor.datatype]
    if tensor.datatype == "BYTES":
        return _strings(tensor)
    try:
        if isinstance(tensor.data, list):
            _check_numbers(tensor)
        array = np.asarray(tensor.data, dtype).reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError) as error:
        words = f"tensor {tensor.name!r}: a value is not {tensor.datatype}: {error}"
        raise Refusal("bad_tensor", words) from None
    if array.dtype.kind == "f" and _infinite(array):
        raise Refusal("bad_tensor", f"tensor {tensor.name!r}: an infinite value is not taken")
    return array


def _finite(array: Any) -> bool:
    if array.size <= FEW:
        return all(map(math.isfinite, array.ravel().tolist()))
    return bool(np.isfinite(array).all())


def _infinite(array: Any) -> bool:
    if array.size == 1:
        return math.isinf(array.item())
    if array.size <= FEW:
        return any(map(math.isinf, array.ravel().tolist()))
    return bool(np.isinf(array).any())


def _check_numbers(tensor: Tensor) -> None:
    """JSON values must be what the datatype says: numpy would take strings and cut fractions."""
    allowed = NUMBERS[tensor.datatype]
    for value in tensor.data:
        if type(value) not in allowed:
            words = f"tensor {tensor.name!r}: {str(value)[:40]!r} is not {tensor.datatype}"
            raise Refusal("bad_tensor", words)


def _strings(tensor: Tensor) -> Any:
    array = np.empty(len(tensor.data), dtype=object)
    for number, value in enumerate(tensor.data):
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError:
                raise Refusal("bad_tensor", f"tensor {tensor.name!r}: not UTF-8") from None
        if not isinstance(value, str):
            words = f"tensor {tensor.name!r}: {str(value)[:40]!r} is not BYTES (a string)"
            raise Refusal("bad_tensor", words)
        array[number] = value
    return array.reshape(tensor.shape)
