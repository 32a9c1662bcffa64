"""`./kite notify test` and `status`: what a person sees, and what a program reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.integration.notifier.stage import ROOT, Sink

CLOSED_PORT = 9  # discard, which nobody serves


def notify(*arguments: str, home: Path, file: Path | None) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KITE_")}
    own = {"KITE_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    named = {} if file is None else {"KITE_NOTIFY_FILE": str(file)}
    return subprocess.run(
        [sys.executable, "-m", "cli", "notify", *arguments],
        env=clean | own | named, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_every_channel_is_tried(tmp_path: Path) -> None:
    """A table, or JSON; exit code 1 when one did not take it, and no address anywhere."""
    file = tmp_path / "notify.toml"
    with Sink() as sink:
        file.write_text(
            f"""
            [channels.hook]
            url = "{sink.url("s3cret")}"
            [channels.dead]
            url = "json://127.0.0.1:{CLOSED_PORT}/s3cret"
            """
        )
        done = notify("test", home=tmp_path, file=file)
        assert done.returncode == 1, done.stderr
        hook, dead = (line.split() for line in done.stdout.splitlines()[2:])
        assert hook[:3] == ["hook", "JSON", "sent"]
        assert dead[:3] == ["dead", "JSON", "failed"]
        assert " ".join(dead[4:]) == "no connection or refused"
        one = notify("test", "hook", "--json", home=tmp_path, file=file)
        assert one.returncode == 0
        assert [each["outcome"] for each in json.loads(one.stdout)] == ["sent"]
        assert [each.title for each in sink.received] == ["Test of Alpha Kite Max"] * 2
        assert len({each.key for each in sink.received}) == 2
    assert "s3cret" not in done.stdout + done.stderr


def test_mistakes_are_lines(tmp_path: Path) -> None:
    """What is missing, misspelt or wrong, with exit code 2."""
    assert "KITE_NOTIFY_FILE: not set" in notify("test", home=tmp_path, file=None).stderr
    file = tmp_path / "notify.toml"
    file.write_text("")
    assert "no channel in it" in notify("test", home=tmp_path, file=file).stderr
    file.write_text('[channels.hook]\nurl = "json://localhost/"\n')
    done = notify("test", "hok", home=tmp_path, file=file)
    assert (done.returncode, done.stderr) == (2, "kite: hok: no such channel; there are hook\n")
    file.write_text('[channels.a]\nurl = "s3cret://"\n[channels.b]\nurl = "s3cret"\n')
    done = notify("test", home=tmp_path, file=file)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert "s3cret" not in done.stderr


def test_status_needs_a_running_stack(tmp_path: Path) -> None:
    """And says how to start one."""
    done = notify("status", home=tmp_path, file=None)
    assert done.returncode == 1
    assert "start it with ./kite up" in done.stderr
