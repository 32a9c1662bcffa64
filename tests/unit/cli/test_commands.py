"""The command line: help for everything, one line for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.commands import kite
from cli.logs import show
from libs.common.errors import SettingsError

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534
HELP_S_MAX = 1.0  # on a busy machine; a quiet one takes a tenth


def run(*arguments: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command as the launcher does."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KITE_")}
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        env=clean | {"KITE_HOME": str(home), "PYTHONPATH": str(ROOT)} | environ,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def verbs(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the words that call it."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from verbs(command, (*path, name))


@pytest.mark.parametrize(("words", "command"), list(verbs(kite)), ids=lambda value: str(value))
def test_every_verb_and_option_has_help(words: tuple[str, ...], command: click.Command) -> None:
    """A first sentence for the list, a text for every option."""
    assert command.help
    assert command.get_short_help_str()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(words)} {parameter.name}"


def test_help_is_quick_and_imports_no_client(tmp_path: Path) -> None:
    """Whoever asks for help does not wait for asyncio, databases and drawings."""
    begin_s = time.monotonic()
    done = run("--help", home=tmp_path)
    assert done.returncode == 0
    assert "./kite up" in done.stdout
    assert time.monotonic() - begin_s < HELP_S_MAX
    slow = "('asyncio', 'nats', 'rich', 'asyncpg')"
    probe = f"import cli.commands, sys; print([m for m in {slow} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


def test_the_list_of_verbs_is_not_cut(tmp_path: Path) -> None:
    """Each first sentence fits."""
    assert "..." not in run("--help", home=tmp_path).stdout.partition("Commands:")[2]


def test_the_version_is_that_of_the_project(tmp_path: Path) -> None:
    """Said in one place only."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert run("--version", home=tmp_path).stdout == f"kite {project['version']}\n"


def test_a_log_of_another_user_is_refused_in_one_line(tmp_path: Path) -> None:
    """As `status` and `down` do it."""
    logs = tmp_path / "home" / "logs"
    logs.mkdir(parents=True)
    (logs / "ingest.log").write_text("")
    root = os.geteuid() == 0
    logs.parent.chmod(0o700 if root else 0)
    try:
        if root:
            os.seteuid(NOBODY)
        with pytest.raises(SettingsError, match="belongs to another user"):
            show(logs, "ingest", count=1, following=False, as_json=False)
    finally:
        if root:
            os.seteuid(0)
        logs.parent.chmod(0o700)


def test_a_typo_gets_a_suggestion(tmp_path: Path) -> None:
    """Exit code 2, and the verb that was meant."""
    done = run("statsu", home=tmp_path)
    assert done.returncode == 2
    assert "status" in done.stderr
    assert "see ./kite --help" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistyped_option_gets_a_suggestion(tmp_path: Path) -> None:
    """The same for options."""
    done = run("up", "--ticker", "QQQ", home=tmp_path)
    assert done.returncode == 2
    assert "--tickers" in done.stderr
    assert done.stderr.endswith("? see ./kite up --help\n")


@pytest.mark.parametrize(
    "verb", [("down",), ("restart", "writer"), ("tail",), ("health",), ("db", "migrate")]
)
def test_verbs_that_need_a_stack_say_that_there_is_none(
    verb: tuple[str, ...], tmp_path: Path
) -> None:
    """One line, exit code 1, and nothing is made."""
    done = run(*verb, home=tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nothing is running" in done.stderr
    assert not (tmp_path / "home").exists()


def test_status_without_a_stack_is_json_all_the_same(tmp_path: Path) -> None:
    """A program reads the same fields, and the exit code says that nothing runs."""
    done = run("status", "--json", home=tmp_path)
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert answer["running"] is False
    assert answer["services"] == {}
    assert {"nats", "postgres", "gateway", "schwab"} <= answer.keys()


def test_mistakes_of_up_are_lines_and_start_nothing(tmp_path: Path) -> None:
    """All of them, exit code 2, and the home stays untouched."""
    done = run("up", "--tickers", "!!", "--speed", "-1", home=tmp_path / "home")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert all(line.startswith("kite: --") for line in done.stderr.splitlines())
    assert not (tmp_path / "home").exists()


def test_the_account_needs_credentials(tmp_path: Path) -> None:
    """The lines say which settings are missing."""
    done = run("up", "--schwab", home=tmp_path / "home")
    assert done.returncode == 2
    assert "KITE_SCHWAB_APP_KEY" in done.stderr


def test_the_account_needs_a_token(tmp_path: Path) -> None:
    """The line says where the file is looked for and how one is made, and shows no secret."""
    keys = {"KITE_SCHWAB_APP_KEY": "the-key", "KITE_SCHWAB_APP_SECRET": "the-secret"}
    done = run("up", "--schwab", home=tmp_path / "home", **keys)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "schwab-token.json" in done.stderr
    assert "the-secret" not in done.stderr


def test_doctor_looks_and_changes_nothing(tmp_path: Path) -> None:
    """Every finding has a name and a verdict; the home is not made."""
    done = run("doctor", "--json", home=tmp_path / "home")
    answer = json.loads(done.stdout)
    found = {finding["name"]: finding["verdict"] for finding in answer["findings"]}
    assert {"python", "nats-server", "postgres", "page", "data home", "clock"} <= found.keys()
    assert {"disk speed", "page port", "nats port", "postgres port"} <= found.keys()
    assert set(found.values()) <= {"ok", "warn", "fail"}
    assert done.returncode == (1 if "fail" in found.values() else 0)
    assert not (tmp_path / "home").exists()
