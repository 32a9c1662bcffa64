"""How a benchmark states a figure: one JSON line, with a baseline of the same run beside it."""

from __future__ import annotations

import json

__all__ = ["report"]


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
