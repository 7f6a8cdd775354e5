"""The plot of a run, as SVG: CPU a request and added latency. Runs where matplotlib is.

    .benchmark/plot/bin/python load/plot.py figures.json performance.svg

`figures.json` is what `load/page.py` says is to be drawn: bars with a value and its extremes.
"""

import json
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "headworks"

from matplotlib import pyplot  # noqa: E402 - the backend is chosen first

OURS, THEIRS = "#1f6f8b", "#b9c3c9"


def draw(axes, panel: dict) -> None:
    bars = panel["bars"]
    names = [bar["name"] for bar in bars]
    values = [bar["median"] for bar in bars]
    below = [bar["median"] - bar["least"] for bar in bars]
    above = [bar["most"] - bar["median"] for bar in bars]
    colours = [OURS if bar["ours"] else THEIRS for bar in bars]
    axes.barh(names, values, xerr=[below, above], color=colours, error_kw={"lw": 1, "capsize": 2})
    if panel["log"]:
        axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_title(panel["title"], fontsize=10, loc="left")
    axes.tick_params(labelsize=8)
    for place, value in enumerate(values):
        words = f" {value:,.0f}" if value >= 100 else f" {value:.3g}"
        axes.annotate(words, (max(value, 1e-3), place), fontsize=7, va="bottom")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main() -> None:
    source, target = sys.argv[1:]
    with open(source) as told:
        panels = json.load(told)
    figure, every = pyplot.subplots(len(panels), 1, figsize=(8, 2.6 * len(panels)), squeeze=False)
    for axes, panel in zip(every[:, 0], panels):
        draw(axes, panel)
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
