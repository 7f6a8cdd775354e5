"""How a version did on people it was not trained on, in figures for its card."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from form import People
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

DECIMALS = 4


def measure(people: People, scores: npt.NDArray[np.float32], threshold: float) -> dict[str, Any]:
    """Figures over all and by group; denied means score >= threshold.

    `approval_gap` is the approval rate of others less that of black applicants, `approval_ratio`
    the rate of black applicants over that of others (the four-fifths rule asks for 0.8).
    """
    scored = scores.astype(np.float64)
    members = {f"race={race}": people.race == race for race in ("black", "other")}
    by_group = {
        name: _figures(people.denied[member], scored[member], threshold)
        for name, member in members.items()
    }
    black, other = (float(np.mean(scored[member] < threshold)) for member in members.values())
    return {
        "overall": _figures(people.denied, scored, threshold),
        "by_group": by_group,
        "approval_gap": round(other - black, DECIMALS),
        "approval_ratio": round(black / other, DECIMALS),
    }


def _figures(
    denied: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], threshold: float
) -> dict[str, Any]:
    decided = scores >= threshold
    figures = {
        "auc": roc_auc_score(denied, scores),
        "log_loss": log_loss(denied, scores),
        "brier": brier_score_loss(denied, scores),
        "accuracy": np.mean(decided == denied),
        "denial_rate": np.mean(decided),
        "approval_rate": np.mean(~decided),
        "denials_caught": np.mean(decided[denied]),
    }
    return {"n": len(denied), **{name: round(float(x), DECIMALS) for name, x in figures.items()}}
