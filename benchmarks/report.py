"""How a benchmark states a figure: one JSON line, with a baseline of the same run beside it.

The baseline is what somebody else's way reached in the same run, or a target. `Verdict` says which
of the two it is and how the figure stands to it; the table for people is made of that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["report", "show", "verdict"]

# Figures with a target, and the ratio to their baseline that meets it. Less is better for times
# and sizes, more for rates.
TARGETS: Mapping[str, float] = {
    "chain_catch_up": 0.5,
    "chart_first_render": 1.0,
    "chart_frames": 1.0,
    "drop_recovered": 1.0,
    "page_scripts": 1.0,
    "wire_to_pixel_p99": 1.0,
    "gap_filled": 1.25,
    "gateway_cpu": 1.0,
    "gateway_latency_p99": 1.0,
    "indicators_checkpoint": 1.0,
    "memory_core_services": 1.0,
    "memory_whole_stack": 1.0,
    "received_to_live_p99": 1.0,
    "received_to_row_p99": 1.0,
    "restore_whole_store": 1.0,
    "silence_noticed": 1.1,
    "up_again_to_ready": 1.0,
    "up_to_ready": 1.0,
    "writer_catch_up": 0.5,
    "writer_catch_up_candles": 0.5,
    "writer_commit_lag_p99": 1.0,
}
# Figures that explain others: nothing is won or lost in them.
EXPLAINING = (
    "capacity_",
    "chain_cpu_",
    "chain_stage_",
    "chain_catch_up_with_start",
    "gateway_cpu_",
    "gateway_latency_p99_",
    "wire_to_pixel_p50",
)
_STYLES = {"met": "green", "won": "green", "missed": "bold red", "lost": "yellow", "": "dim"}


@dataclass(frozen=True)
class Verdict:
    """One word on a figure, and the ratio that its target asks for, if it has one."""

    word: str
    wanted: str


def report(name: str, unit: str, value: float, baseline: float) -> None:
    """Print one figure and its ratio to the baseline, which is a measured rival or a target."""
    figure = {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "baseline": round(baseline, 3),
        "ratio": round(value / baseline, 3),
    }
    print(json.dumps(figure), flush=True)


def verdict(figure: Mapping[str, Any]) -> Verdict:
    """Return met or missed where there is a target, won or lost against a rival."""
    name, ratio = str(figure["name"]), float(figure["ratio"])
    more_is_better = str(figure["unit"]).endswith("/s")
    target = TARGETS.get(name)
    if target is None and name.startswith(EXPLAINING):
        return Verdict("", "")
    wanted = 1.0 if target is None else target
    good = ratio >= wanted if more_is_better else ratio <= wanted
    if target is None:
        return Verdict("won" if good else "lost", "")
    return Verdict("met" if good else "missed", f"{'≥' if more_is_better else '≤'} {target:g}")


def show(figures: Iterable[Mapping[str, Any]], console: Console) -> None:
    """Draw the figures for people: targets met or missed, rivals beaten or not."""
    table = Table("figure", title="Figures of this run, ratios to its baselines")
    for heading in ("value", "baseline", "ratio", "target"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    table.add_column("")
    for figure in figures:
        found = verdict(figure)
        table.add_row(
            str(figure["name"]), _number(figure["value"]), _number(figure["baseline"]),
            _number(figure["ratio"]), found.wanted, str(figure["unit"]), found.word,
            style=_STYLES[found.word],
        )  # fmt: skip
    console.print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
