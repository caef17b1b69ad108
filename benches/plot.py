#!/usr/bin/env python3
"""Draws how cost grows, from what `cargo bench --bench retry_load -- --full` measured, into data/growth.svg.

Needs matplotlib: `pip install matplotlib`.
"""

import json
import pathlib
import re

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

ROOT = pathlib.Path(__file__).resolve().parent.parent

PANELS = [
    ("accept, {} batches", "retries accepted, by batches stored", "batches"),
    ("complete, {} essays", "retries completed, by essays of a batch", "essays"),
    ("complete, {} connections", "retries completed, by connections", "connections"),
]


def series(figures, name):
    """The figures whose names differ only in a number: it, and their values."""
    pattern = re.compile(re.escape(name).replace(r"\{\}", r"(\d+)"))
    found = ((pattern.fullmatch(key), figure) for key, figure in figures.items())
    pairs = sorted((int(match[1]), figure["value"]) for match, figure in found if match)
    return [number for number, _ in pairs], [value for _, value in pairs]


def main():
    figures = json.loads((ROOT / "target/retry_load.json").read_text())
    # The same input gives the same file.
    plt.rcParams["svg.hashsalt"] = "rephase"
    figure, panels = plt.subplots(1, len(PANELS), figsize=(15, 4.5), layout="constrained")
    for panel, (name, title, unit) in zip(panels, PANELS):
        numbers, rates = series(figures, name)
        panel.plot(numbers, rates, "o-", color="tab:blue")
        panel.set(title=title, xlabel=unit, xscale="log", ylim=(0, max(rates) * 1.1))
        panel.set_ylabel("a second", color="tab:blue")
        numbers, times = series(figures, name + ", p50")
        times_panel = panel.twinx()
        times_panel.plot(numbers, times, "s--", color="tab:orange")
        times_panel.set_ylim(0, max(times) * 1.1)
        times_panel.set_ylabel("p50, ms", color="tab:orange")
    figure.savefig(ROOT / "data/growth.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
