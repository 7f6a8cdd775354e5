"""Applicants who do not exist, with the habits of those who did.

Per race a Gaussian copula: each column keeps the distribution observed in its group, and latent
normals keep the columns' dependence. The parameters are tables per column and one correlation
matrix per group; no person's row is in them. Nothing is asked of scikit-learn here, so that load
tests and demos can draw.

`dmi` is always `no`: when a live request is sent no insurer has answered yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Floats = npt.NDArray[np.float64]

GRID = np.linspace(-3.2, 3.2, 65)
"""Latent values at which quantiles are kept: dense in the tails, where ratios run up to 3."""
DECIMALS = 4
CORRELATION_MAX = 0.95
EIGENVALUE_MIN = 1e-3

OTHER_DEBT = "other_debt"
"""`dir` less `hir`. It is drawn in place of `dir`, since hardly anybody pays less for all debts
than for housing alone, and two separate draws would do so often. The sum of both draws is then
bent to the distribution of `dir` itself."""
BEND_DRAWS, BEND_SEED = 50_000, 1990


def fit(forms: Mapping[str, npt.NDArray[np.generic]], race: npt.NDArray[np.str_]) -> dict[str, Any]:
    """Parameters for `draw`, fit for JSON. `forms` holds the eleven columns, shape (rows,) each."""
    columns = list(forms)
    groups = {}
    for group in sorted(set(race.tolist())):
        members = race == group
        groups[group] = _fit_group(_latent_columns(forms, members))
        groups[group]["bend"] = _fit_bend(groups[group], np.asarray(forms["dir"])[members])
        groups[group]["share"] = round(float(members.mean()), DECIMALS)
    return {"format": 1, "columns": columns, "groups": groups}


def draw(
    parameters: Mapping[str, Any], count: int, rng: np.random.Generator
) -> dict[str, list[Any]]:
    """`count` applicants: the eleven columns and `race`, one list each, in random order."""
    groups = parameters["groups"]
    shares = np.array([group["share"] for group in groups.values()])
    race = rng.choice(list(groups), size=count, p=shares / shares.sum())
    drawn: dict[str, npt.NDArray[np.object_]] = {
        name: np.empty(count, dtype=object) for name in parameters["columns"]
    }
    for name, group in groups.items():
        members = np.flatnonzero(race == name)
        for column, values in _draw_group(group, len(members), rng).items():
            drawn[column][members] = values
    result = {column: values.tolist() for column, values in drawn.items()}
    return {**result, "race": race.tolist()}


def _latent_columns(
    forms: Mapping[str, npt.NDArray[np.generic]], members: npt.NDArray[np.bool_]
) -> dict[str, npt.NDArray[np.generic]]:
    columns = {name: values[members] for name, values in forms.items() if name != "dmi"}
    debt = np.asarray(columns.pop("dir"), np.float64) - np.asarray(columns["hir"], np.float64)
    return {OTHER_DEBT: np.maximum(debt, 0.0).round(6), **columns}


def _fit_group(columns: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Any]:
    tables, scores = {}, []
    for name, values in columns.items():
        values_seen, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        edges = np.concatenate([[0.0], np.cumsum(counts) / len(values)])
        scores.append(_bin_means(edges)[place])
        continuous = len(values_seen) > len(GRID)
        tables[name] = _quantiles(values) if continuous else _steps(values_seen, edges)
    lower = np.linalg.cholesky(_correlation(np.array(scores)))
    return {"tables": tables, "cholesky": [row[: i + 1] for i, row in enumerate(_rounded(lower))]}


def _fit_bend(group: Mapping[str, Any], debts: npt.NDArray[np.generic]) -> dict[str, Any]:
    """Quantiles of the sum as it is drawn, and those that `dir` has."""
    columns = _draw_columns(group, BEND_DRAWS, np.random.default_rng(BEND_SEED))
    drawn = np.asarray(columns["hir"], np.float64) + np.asarray(columns[OTHER_DEBT], np.float64)
    return {"from": _quantiles(drawn)["quantiles"], "to": _quantiles(debts)["quantiles"]}


def _quantiles(values: npt.NDArray[np.generic]) -> dict[str, Any]:
    levels = ndtr(GRID)
    levels[0], levels[-1] = 0.0, 1.0
    return {"quantiles": _rounded(np.quantile(np.asarray(values, np.float64), levels))}


def _steps(values_seen: npt.NDArray[np.generic], edges: Floats) -> dict[str, Any]:
    """Latent cut points between the values of a column that has few."""
    return {"values": values_seen.tolist(), "cuts": _rounded(ndtri(edges[1:-1]))}


def _bin_means(edges: Floats) -> Floats:
    """E[Z | Z in the bin] of a standard normal, for the bins between the probabilities `edges`."""
    density = np.exp(-(ndtri(edges[1:-1]) ** 2) / 2) / np.sqrt(2 * np.pi)
    padded = np.concatenate([[0.0], density, [0.0]])
    return np.asarray((padded[:-1] - padded[1:]) / np.diff(edges), np.float64)


def _correlation(scores: Floats) -> Floats:
    """Latent correlations, shape (columns, columns), positive definite.

    cov(S, T) / (var S var T) for bin means S and T: the first-order polychoric correlation, which
    gives back what few distinct values take away. It overshoots for strong ties, hence the bound.
    """
    covariance = np.cov(scores, bias=True)
    variance = np.diag(covariance)
    latent = np.clip(covariance / np.outer(variance, variance), -CORRELATION_MAX, CORRELATION_MAX)
    np.fill_diagonal(latent, 1.0)
    values, vectors = np.linalg.eigh(latent)
    near = (vectors * np.maximum(values, EIGENVALUE_MIN)) @ vectors.T
    scale = np.sqrt(np.diag(near))
    return np.asarray(near / np.outer(scale, scale), np.float64)


def _draw_group(
    group: Mapping[str, Any], count: int, rng: np.random.Generator
) -> dict[str, npt.NDArray[np.generic]]:
    columns = _draw_columns(group, count, rng)
    housing = np.asarray(columns["hir"], np.float64)
    total = housing + np.asarray(columns.pop(OTHER_DEBT), np.float64)
    debts = np.interp(total, group["bend"]["from"], group["bend"]["to"]).round(DECIMALS)
    columns["dir"], columns["hir"] = debts, np.minimum(housing, debts)
    return columns


def _draw_columns(
    group: Mapping[str, Any], count: int, rng: np.random.Generator
) -> dict[str, npt.NDArray[np.generic]]:
    rows = group["cholesky"]
    lower = np.zeros((len(rows), len(rows)))
    for number, row in enumerate(rows):
        lower[number, : number + 1] = row
    latent = lower @ rng.standard_normal((len(rows), count))
    columns: dict[str, npt.NDArray[np.generic]] = {"dmi": np.full(count, "no")}
    for (name, table), z in zip(group["tables"].items(), latent, strict=True):
        if "quantiles" in table:
            columns[name] = np.interp(z, GRID, table["quantiles"]).round(DECIMALS)
        else:
            columns[name] = np.array(table["values"])[np.searchsorted(table["cuts"], z)]
    return columns


def _rounded(values: npt.ArrayLike) -> list[Any]:
    rounded: list[Any] = (np.asarray(values, np.float64).round(DECIMALS) + 0.0).tolist()
    return rounded
