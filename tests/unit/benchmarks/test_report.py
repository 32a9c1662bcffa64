"""Figures of benchmarks: their lines, and what is said about them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.report import TARGETS, report, show, verdict


def figure(name: str, unit: str, ratio: float) -> dict[str, object]:
    """Return a figure with this ratio."""
    return {"name": name, "value": ratio * 100, "unit": unit, "baseline": 100, "ratio": ratio}


def test_a_figure_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Name, value, unit, baseline and their ratio, in this order, on a line of its own."""
    report("writer_catch_up", "rows/s", 50_000, 100_000)
    line = capsys.readouterr().out
    assert line.endswith("}\n")
    assert list(json.loads(line).items()) == [
        ("name", "writer_catch_up"), ("value", 50_000), ("unit", "rows/s"),
        ("baseline", 100_000), ("ratio", 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "unit", "ratio", "word"),
    [
        ("writer_catch_up", "rows/s", 0.5, "met"),
        ("writer_catch_up", "rows/s", 0.499, "missed"),
        ("up_to_ready", "s", 1.0, "met"),
        ("up_to_ready", "s", 1.001, "missed"),
        ("kernel_ticks_talipp", "rows/s", 1.3, "won"),
        ("kernel_bars_nautilus", "rows/s", 0.6, "lost"),
        ("messages_cpu_faststream_120b", "us/message", 0.2, "won"),
        ("messages_cpu_nats_py_120b", "us/message", 1.2, "lost"),
        ("chain_cpu_writer", "us/event", 0.3, ""),
    ],
)
def test_the_verdict_knows_targets_from_rivals(
    name: str, unit: str, ratio: float, word: str
) -> None:
    """A target is met or missed, a rival beaten or not, and less is better for times."""
    assert verdict(figure(name, unit, ratio)).word == word


def test_every_target_belongs_to_a_figure() -> None:
    """No target outlives the benchmark that measured it."""
    folder = Path(__file__).resolve().parents[3] / "benchmarks"
    code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("bench_*.py"))
    assert [name for name in TARGETS if f'"{name}"' not in code] == []


def test_the_table_names_what_was_missed() -> None:
    """Each figure has a row, with the target and one word."""
    out = io.StringIO()
    show(
        [figure("writer_catch_up_candles", "rows/s", 0.39), figure("up_to_ready", "s", 0.8)],
        Console(file=out, width=120),
    )
    candles, ready = (
        line for line in out.getvalue().splitlines() if "│ " in line[:2] or "_" in line
    )
    assert "writer_catch_up_candles" in candles
    assert "≥ 0.5" in candles
    assert "missed" in candles
    assert "met" in ready
