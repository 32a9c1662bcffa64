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

from cli import node
from tests.e2e.stack import Stack
from tests.servers import temporary_home
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(python|js)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_NUMBER = r"\d+(\.\d+)?"
TICK = rf"\d{{13}} {_NUMBER} ({_NUMBER}|None|null)( ({_NUMBER}|None))?\n"
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
DOCUMENTED = re.compile(r"^\| `(kite_\w+)` \|", re.MULTILINE)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A running demo with a notifier that tells nobody."""
    free_ports = ("--port", "0", "--nats-port", "0", "--postgres-port", "0")
    file = str(ROOT / "deploy" / "docker" / "notify.toml")
    with (
        temporary_home() as home,
        Stack(home, "--tickers", "QQQ", *free_ports, KITE_NOTIFY_FILE=file) as running,
    ):
        yield running


def examples(language: str) -> list[str]:
    """Return the README's programs in this language."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [code for found, code in BLOCK.findall(text) if found == language]


def first_lines(command: list[str], script: Path, stack: Stack, count: int) -> list[str]:
    """Run a program with the addresses that status shows; return what it prints first."""
    status = stack.status()
    process = subprocess.Popen(
        [*command, str(script)],
        env=os.environ | {"NATS_URL": status["nats"], "KITE_URL": status["gateway"]},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(count)]
        process.kill()
    return lines


def test_the_readme_s_nats_example_prints_ticks(stack: Stack, tmp_path: Path) -> None:
    """Copied into a file and run with the address that status shows, it prints live values."""
    script = tmp_path / "example.py"
    script.write_text(next(code for code in examples("python") if "nats" in code), encoding="utf-8")
    (line,) = first_lines([sys.executable, "-u"], script, stack, 1)
    assert re.fullmatch(TICK, line)


@pytest.mark.parametrize("language", ["python", "js"])
def test_the_readme_s_clients_of_the_gateway_go_on_where_the_snapshot_ends(
    stack: Stack, tmp_path: Path, language: str
) -> None:
    """In both languages: what there is, and then what comes."""
    script = tmp_path / {"python": "client.py", "js": "client.mjs"}[language]
    script.write_text(next(code for code in examples(language) if "/live" in code))
    run = {"python": [sys.executable, "-u"], "js": [wheel_node()]}[language]
    count, *ticks = first_lines(run, script, stack, 3)
    assert re.fullmatch(r"\d+ ticks until now\n", count)
    assert all(re.fullmatch(TICK, line) for line in ticks), ticks


def wheel_node() -> str:
    """Return the Node that came with pip: the machine's own may lack a WebSocket."""
    found = node.of_pip()
    assert found is not None
    return found.node


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


def is_optional(section: str) -> bool:
    """Whether a section is about what runs in containers, and only maybe here."""
    return section.partition("\n")[0] in ("notifier", "backup")


def test_every_metric_is_on_its_page_and_nothing_else(stack: Stack) -> None:
    """docs/metrics.md names exactly what the services export; of those that run here."""
    services = stack.status()["services"]
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    documented = {
        name
        for section in page.split("\n## ")[1:]
        if section.partition("\n")[0] in services or not is_optional(section)
        for name in DOCUMENTED.findall(section)
    }
    urls = [entry["metrics"] for entry in services.values()]

    def exported() -> set[str]:
        texts = [httpx.get(url).text for url in urls]
        families = [family for text in texts for family in text_string_to_metric_families(text)]
        return {family.name for family in families if family.name.startswith("kite_")}

    eventually(lambda: exported() >= documented, 30, "everything documented is exported")
    assert exported() == documented
