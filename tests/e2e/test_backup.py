"""The machine is lost: everything killed, the home wiped, and the copy is all there is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e import oracle
from tests.e2e.recorded import INDA, INDA_DAYS, count_candles, cut, played, wait_until_played
from tests.e2e.stack import REPOSITORY, Stack
from tests.e2e.test_real_days import assert_rows_equal
from tests.integration.backup.places import PLACES, Kept
from tests.servers import temporary_home
from tests.waiting import eventually


@pytest.fixture
def home() -> Iterator[Path]:
    """A data home that the database's account can reach."""
    with temporary_home() as path:
        yield path


@pytest.fixture
def elsewhere() -> Iterator[Kept]:
    """A bucket on a server of its own."""
    with PLACES["s3"]() as kept:
        yield kept


def environment(home: Path, kept: Kept) -> dict[str, str]:
    """What a person sets to reach the place."""
    settings = kept.settings
    return {
        **os.environ,
        "KITE_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "KITE_BACKUP_URL": kept.address,
        "KITE_BACKUP_S3_ENDPOINT_URL": settings.backup_s3_endpoint_url,
        "KITE_BACKUP_S3_ACCESS_KEY_ID": settings.backup_s3_access_key_id,
        "KITE_BACKUP_S3_SECRET_ACCESS_KEY": settings.backup_s3_secret_access_key,
    }


def command(*arguments: str) -> list[str]:
    """`./kite db …`."""
    return [sys.executable, "-m", "cli", "db", *arguments]


def db(home: Path, kept: Kept, *arguments: str) -> dict[str, Any]:
    """Run one command that must go well, and return its JSON."""
    done = subprocess.run(
        command(*arguments, "--json"),
        env=environment(home, kept), cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    secret = kept.settings.backup_s3_secret_access_key
    assert secret not in done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def kill_at(home: Path, kept: Kept, moment: Path, *arguments: str) -> None:
    """Begin a command and kill it with -9 as soon as a path is there."""
    process = subprocess.Popen(
        command(*arguments), env=environment(home, kept), cwd=REPOSITORY,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    eventually(lambda: moment.exists() or process.poll() is not None, 60, f"{moment} is there")
    assert process.poll() is None, "it was over before it could be killed"
    process.kill()
    process.wait()


def lose_the_machine(stack: Stack) -> None:
    """Kill every process of the stack at once, and wipe the disk."""
    family = stack.processes()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # some die with their supervisor
            process.kill()
    psutil.wait_procs(family, 20)
    shutil.rmtree(stack.home)
    stack.home.mkdir(mode=0o755)


@pytest.mark.timeout(600)
def test_the_copy_alone_is_enough(home: Path, elsewhere: Kept, tmp_path: Path) -> None:
    """Copied under load to S3, restored on an empty machine, and in the end nothing is missing."""
    recording = cut(INDA, INDA_DAYS[:4], tmp_path)
    expected = oracle.candles(oracle.minute_bars(recording))
    with played(home, recording) as stack:
        eventually(lambda: count_candles(stack) > 300, 120, "some of it is stored")
        made = db(home, elsewhere, "backup", "--verify")
        assert made["rows"] > 300
        assert count_candles(stack) < len(expected), "it was copied when all was over"
        lose_the_machine(stack)
    store = home / made["store"]
    staged = store.with_name(f".{store.name}.restoring")
    kill_at(home, elsewhere, staged / "postgres", "restore")
    assert not store.exists(), "half a store looks like a whole one"
    restored = db(home, elsewhere, "restore")
    assert restored["backup"] == made["backup"]
    assert restored["digest"] == made["digest"]
    assert not staged.exists()
    with played(home, recording) as stack:
        wait_until_played(stack, "INDA", expected)
        assert_rows_equal(stack, "INDA", expected)
        again = db(home, elsewhere, "backup", "--retain", "last=1")
        assert again["removed"] == [made["backup"]]
        deep = db(home, elsewhere, "verify", "--deep")
        assert deep["restored"]
        assert deep["digest"] == again["digest"]
        eventually(lambda: _reconciled(stack), 120, "streams and rows agree")


def _copying(process: subprocess.Popen[bytes], place: Path) -> bool:
    """Whether a backup is under way, or over already."""
    return process.poll() is not None or any(place.glob(".partial-*/rows/*"))


def _reconciled(stack: Stack) -> bool:
    """Whether the writer has compared streams and rows since, and found them equal."""
    checks = json.loads(stack.kite("health", "--json").stdout)["checks"]
    verdict: dict[str, Any] = next(check for check in checks if check["name"] == "reconciled")
    return bool(verdict.get("ok"))


@pytest.mark.timeout(300)
def test_a_backup_that_is_killed_is_none(home: Path) -> None:
    """What it leaves counts for nothing, and the next one goes through."""
    place = home / "backups"
    with Stack(home, "--tickers", "QQQ", "--port", "0", "--nats-port", "0", "--postgres-port",
               "0") as stack:  # fmt: skip
        for _ in range(3):
            process = subprocess.Popen(
                command("backup"), env={**os.environ, "KITE_HOME": str(home)}, cwd=REPOSITORY,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            copying = partial(_copying, process, place)
            eventually(copying, 30, "rows are being copied")
            process.send_signal(signal.SIGKILL)
            process.wait()
        names = [
            entry["backup"] for entry in json.loads(stack.kite("db", "backups", "--json").stdout)
        ]
        for name in names:  # it may have been faster than we were
            assert stack.kite("db", "verify", "--name", name).returncode == 0
        done = stack.kite("db", "backup", "--json")
        assert done.returncode == 0, done.stderr
        listed = json.loads(stack.kite("db", "backups", "--json").stdout)
        assert listed[-1]["backup"] == json.loads(done.stdout)["backup"]
        refused = stack.kite("db", "restore")
        assert refused.returncode == 2
        assert "the stack runs on" in refused.stderr
        assert len([line for line in refused.stderr.splitlines() if line]) == 1
