"""The tables of the page on benchmarks are what a run measured."""

from __future__ import annotations

import fnmatch
import re

from benchmarks.page import PAGE, rewritten
from benchmarks.report import TARGETS

OLD = """Words.

<!-- machine -->
An old machine.

<!-- figures: writer_* -->
| old |
<!-- end -->

More words.

<!-- figures: kernel_* -->
| kept |
<!-- end -->
"""


def test_a_run_replaces_its_tables_and_no_others() -> None:
    """What was measured stands in its table; words and other tables stay."""
    figures = [
        {"name": "writer_catch_up", "value": 216_304.2, "unit": "rows/s", "baseline": 112_000.0,
         "ratio": 1.931},
        {"name": "writer_commit_lag_p99", "value": 260.5, "unit": "ms", "baseline": 250.0,
         "ratio": 1.042},
    ]  # fmt: skip
    page = rewritten(OLD, figures, "2 cores.")
    assert "| `writer_catch_up` | 216,000 rows/s | 112,000 | 1.93 | met (≥ 0.5) |\n" in page
    assert "| `writer_commit_lag_p99` | 260 ms | 250 | 1.04 | **missed (≤ 1)** |\n" in page
    assert "| old |" not in page
    assert "<!-- figures: kernel_* -->\n| kept |\n<!-- end -->" in page
    assert "<!-- machine -->\n2 cores.\n" in page
    assert rewritten(page, figures, "2 cores.") == page


def test_every_target_has_a_table() -> None:
    """The page has room for each figure that has a target."""
    patterns = " ".join(re.findall(r"<!-- figures: ([^>]+) -->", PAGE.read_text())).split()
    homeless = [
        name for name in TARGETS if not any(fnmatch.fnmatchcase(name, each) for each in patterns)
    ]
    assert homeless == []
