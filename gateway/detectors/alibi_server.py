"""Runs in alibi-detect's own interpreter: arrays and JSON in by stdin, verdicts out by stdout.

It imports nothing of the gateway and unpickles nothing. A message is one line of JSON and then, if
the line says `bytes`, so many bytes of float64, little-endian, row by row. Each is answered by one
line of JSON: what was found, or `error`.
"""

import json
import math
import os
import sys
from functools import partial
from typing import Any

NEWEST_FREE = (0, 11, 4)
"""From 0.11.5 on alibi-detect is not free for production use (Business Source License 1.1)."""
ONLINE = ("CVMDriftOnline", "FETDriftOnline")
TRIES = 10
TORCH = ("MMDDrift", "LSDDDrift")
BYTES_AT_ONCE = 256 * 1024**2
"""Of comparisons of two values each, while thresholds of CVMDriftOnline are simulated."""


class Server:
    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def hello(self, asked: dict[str, Any], rows: Any) -> dict[str, Any]:
        """Refused where the version is one that its licence keeps from production."""
        import alibi_detect

        found = tuple(int(part) for part in alibi_detect.__version__.split(".")[:3])
        if found > NEWEST_FREE and not asked.get("licensed"):
            raise ValueError(
                f"alibi-detect {alibi_detect.__version__} is under the BSL 1.1: no production use "
                "without a licence (headworks detectors install alibi --licensed says there is one)"
            )
        return {"version": alibi_detect.__version__}

    def make(self, asked: dict[str, Any], rows: Any) -> dict[str, Any]:
        seeded(0)
        self._made[asked["key"]] = made(asked, rows)
        return {}

    def drop(self, asked: dict[str, Any], rows: Any) -> dict[str, Any]:
        del self._made[asked["key"]]
        return {}

    def judge(self, asked: dict[str, Any], rows: Any) -> dict[str, Any]:
        detector = self._made[asked["key"]]
        if asked["detector"] in ONLINE:
            return fed(detector, rows)
        import numpy as np

        seeded(asked["seed"])
        if asked["detector"] in TORCH:
            rows = rows.astype("float32")
        found = detector.predict(rows)["data"]
        return {
            "is_drift": bool(found["is_drift"]),
            "p_values": np.atleast_1d(found["p_val"]).astype(float).tolist(),
            "distances": finite(np.atleast_1d(found["distance"]).astype(float).tolist()),
            "threshold": float(found["threshold"]),
        }


def seeded(seed: int) -> None:
    """The same rows are judged alike after every restart."""
    import numpy as np

    np.random.seed(seed)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


def finite(numbers: list[float]) -> list[float | None]:
    """An odds ratio may be infinite or none at all, which JSON has no word for."""
    return [number if math.isfinite(number) else None for number in numbers]


def made(asked: dict[str, Any], rows: Any) -> Any:
    """The detector with its reference. Arguments are those of alibi-detect, by name."""
    import alibi_detect.cd as family

    name, arguments = asked["detector"], dict(asked["arguments"])
    kind = getattr(family, name)
    if name in ONLINE:
        defaults = {"ert": 1000, "window_sizes": [20, 40], "verbose": False}
        arguments = {**defaults, **arguments}
        if name == "CVMDriftOnline":
            each = (len(rows) + 2 * max(arguments["window_sizes"])) ** 2
            arguments.setdefault("batch_size", min(64, max(1, BYTES_AT_ONCE // each)))
        return begun(kind, rows, arguments)
    arguments = {"p_val": asked["alpha"], **arguments}
    if name == "TabularDrift":
        arguments["categories_per_feature"] = dict.fromkeys(asked["categories"])
    elif name == "CVMDrift":
        return Untied(kind, rows, arguments)
    elif name == "FETDrift":
        arguments.setdefault("alternative", "two-sided")
    elif name == "ClassifierDrift":
        from sklearn.linear_model import LogisticRegression

        arguments = {"backend": "sklearn", "preds_type": "probs", "n_folds": 5, **arguments}
        return kind(rows, LogisticRegression(max_iter=1000), **arguments)
    elif name in TORCH:
        arguments = {"backend": "pytorch", **arguments}
        rows = rows.astype("float32")
    return kind(rows, **arguments)


class Untied:
    """CVMDrift on ranks of reference and window together, equal values in an order by dice.

    Its law knows no ties: with those of a count or a rounded number it sees a drift in any two
    samples (scipy's mid-ranks). Where no values are equal ranks say what values say.
    """

    def __init__(self, kind: Any, reference: Any, arguments: dict[str, Any]) -> None:
        self._made, self._reference = partial(kind, **arguments), reference

    def predict(self, rows: Any) -> Any:
        import numpy as np

        both = np.concatenate([self._reference, rows])
        dice = np.random.random(both.shape)
        order = np.stack([np.lexsort(pair) for pair in zip(dice.T, both.T)], axis=1)
        ranks = np.argsort(order, axis=0).astype(float)
        count = len(self._reference)
        return self._made(ranks[:count]).predict(ranks[count:])


def begun(kind: Any, rows: Any, arguments: dict[str, Any]) -> Any:
    """An online detector. Its simulation now and then ends in a rounding error (a probability that
    is just below 0, in 0.11.4): it is tried again with other numbers."""
    import numpy as np

    seed = 0
    while True:
        np.random.seed(seed)
        try:
            return kind(rows, **arguments)
        except ValueError as error:
            seed += 1
            if seed == TRIES or "NaN" not in str(error):
                raise


def fed(detector: Any, rows: Any) -> dict[str, Any]:
    """One row after the other; a detector that alarmed begins anew."""
    alarms = []
    for place, row in enumerate(rows):
        if detector.predict(row)["data"]["is_drift"]:
            alarms.append(place)
            detector.reset_state()
        forget(detector)
    return {"is_drift": bool(alarms), "alarms": alarms, "p_values": [], "distances": []}


def forget(detector: Any) -> None:
    """It keeps all that it ever saw and copies it with each value, of which it reads the largest
    window and the newest statistics only."""
    detector.xs = detector.xs[-int(detector.max_ws) :]
    detector.test_stats = detector.test_stats[-1:]
    detector.drift_preds = detector.drift_preds[-1:]


def main() -> None:
    # What libraries print must not stand between the answers: they keep standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import numpy as np

    server = Server()
    for line in iter(sys.stdin.buffer.readline, b""):
        asked = json.loads(line)
        raw = sys.stdin.buffer.read(asked.get("bytes", 0))
        try:
            rows = np.frombuffer(raw, "<f8").reshape(asked["shape"]).copy() if raw else None
            operation = {"hello": server.hello, "make": server.make, "judge": server.judge,
                         "drop": server.drop}  # fmt: skip
            answer = operation[asked["op"]](asked, rows)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
