"""What the pages say is true of a running stack: the README's example, the list of metrics."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.stack import Stack
from tests.servers import temporary_home
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
DOCUMENTED = re.compile(r"^\| `(kite_\w+)` \|", re.MULTILINE)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A running demo."""
    free_ports = ("--port", "0", "--nats-port", "0", "--postgres-port", "0")
    with temporary_home() as home, Stack(home, "--tickers", "QQQ", *free_ports) as running:
        yield running


def test_the_readme_s_python_example_prints_ticks(stack: Stack, tmp_path: Path) -> None:
    """Copied into a file and run with the address that status shows, it prints live values."""
    (example,) = PYTHON_BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-u", str(script)],
        env=os.environ | {"NATS_URL": stack.status()["nats"]},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert re.fullmatch(r"\d{13} \d+\.\d+ (\d+\.\d+|None) (\d+\.\d+|None)\n", line)


def test_every_link_between_pages_leads_somewhere() -> None:
    """Relative links in all pages name files that are there."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert len(pages) > 10
    assert dead == []


def test_every_metric_is_on_its_page_and_nothing_else(stack: Stack) -> None:
    """docs/metrics.md names exactly what the services export."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    documented = set(DOCUMENTED.findall(page))
    urls = [entry["metrics"] for entry in stack.status()["services"].values()]

    def exported() -> set[str]:
        texts = [httpx.get(url).text for url in urls]
        families = [family for text in texts for family in text_string_to_metric_families(text)]
        return {family.name for family in families if family.name.startswith("kite_")}

    eventually(lambda: exported() >= documented, 30, "everything documented is exported")
    assert exported() == documented
