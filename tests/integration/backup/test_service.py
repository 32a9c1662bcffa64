"""The backup service as the process that it is: what it does at once, and what it says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli.servers.host import LOOPBACK, choose_port
from cli.servers.nats import NatsServer
from tests.databases import Database
from tests.integration.backup import stage
from tests.servers import temporary_home
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 60


class Process:
    """One backup service, with its log and its metrics."""

    def __init__(self, root: Path, server: NatsServer, dsn: str, **settings: str) -> None:
        self.port = choose_port()
        self._log = root / "service.log"
        environment = {
            "PATH": os.environ["PATH"], "KITE_NATS_URL": server.url("backup"), "KITE_PG_DSN": dsn,
            "KITE_PARTITIONS": str(stage.PARTITIONS), "KITE_METRICS_PORT": str(self.port),
            "KITE_BACKUP_DIR": str(root / "work"), **settings,
        }  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli.backup"], cwd=ROOT, env=environment, stderr=log
            )

    def metrics(self) -> dict[str, float]:
        """Return its samples, labels written behind the name; none while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/metrics") as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        return {
            sample.name + "".join(f":{value}" for value in sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def ready(self) -> tuple[bool, str]:
        """Return what /readyz says."""
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/readyz") as answer:
                return True, answer.read().decode()
        except urllib.error.HTTPError as error:
            return False, error.read().decode()
        except OSError as error:
            return False, str(error)

    def log(self) -> str:
        """Return what it has said."""
        return self._log.read_text()

    def wait(self) -> int:
        """Wait for an end of its own, and return its exit code."""
        return self._process.wait(WITHIN_S)

    def stop(self) -> int:
        """Stop it in good order and return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait()


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that the servers' account can reach."""
    with temporary_home() as path:
        yield path


def filled(server: NatsServer, database: Database) -> None:
    """Something to back up."""

    async def act() -> None:
        await stage.fill(server, messages=5)
        await stage.fill_rows(database)

    asyncio.run(act())


def test_a_missed_backup_is_made_and_tried_at_once(
    root: Path, fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """There is none yet; a restart then makes no other one, and remembers the trial."""
    filled(fresh_nats, migrated_database)
    service = Process(root, fresh_nats, migrated_database.backup)
    try:
        eventually(
            lambda: service.metrics().get("kite_backup_verified_timestamp_seconds"),
            WITHIN_S, "a backup was made and restored",
        )  # fmt: skip
        found = service.metrics()
        assert found["kite_backup_timestamp_seconds"] > 1.7e9
        assert found["kite_backup_bytes"] > 1000
        assert found["kite_backup_duration_seconds"] > 0
        assert found["kite_backup_restore_duration_seconds"] > 0
        assert found["kite_backup_failures_total:backup"] == 0
        page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
        exported = {re.sub("(_total)?(:.*)?$", "", name) for name in found if "_backup_" in name}
        assert exported == set(re.findall(r"^\| `(kite_backup_\w+)`", page, re.MULTILINE))
        eventually(lambda: service.ready()[0], WITHIN_S, "it is ready")
    finally:
        assert service.stop() == 0
    names = sorted(path.name for path in (root / "work" / "backups").iterdir())
    assert len(names) == 1
    assert not (root / "work" / ".verifying").exists()
    again = Process(root, fresh_nats, migrated_database.backup)
    try:
        eventually(lambda: again.ready()[0], WITHIN_S, "it is ready again")
        verified = "kite_backup_verified_timestamp_seconds"
        assert again.metrics()[verified] == found[verified]
        assert sorted(path.name for path in (root / "work" / "backups").iterdir()) == names
    finally:
        assert again.stop() == 0
    for password in (fresh_nats.url("backup"), migrated_database.backup):
        assert password.split(":")[2].split("@")[0] not in service.log() + again.log()


def test_what_fails_is_counted_and_said(
    root: Path, fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """A server that holds nothing of ours: not ready, with the reason, and it goes on trying."""
    service = Process(root, fresh_nats, migrated_database.backup)
    try:
        eventually(
            lambda: service.metrics().get("kite_backup_failures_total:backup"),
            WITHIN_S, "a failure is counted",
        )  # fmt: skip
        eventually(lambda: "nothing to back up" in service.ready()[1], WITHIN_S, "it says why")
        assert service.metrics()["kite_backup_timestamp_seconds"] == 0
        events = [json.loads(line) for line in service.log().splitlines()]
        assert [event["level"] for event in events if event["event"] == "backup.failed"] == [
            "error"
        ]
    finally:
        assert service.stop() == 0


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"KITE_BACKUP_AT": "8pm"}, "KITE_BACKUP_AT: '8pm' is no time of day"),
        ({"KITE_BACKUP_RETAIN": "daily=0"}, "keeps nothing"),
        ({"KITE_BACKUP_URL": "s3://bucket/x"}, "KITE_BACKUP_S3_ACCESS_KEY_ID"),
    ],
)
def test_wrong_settings_stop_it(
    root: Path,
    fresh_nats: NatsServer,
    migrated_database: Database,
    settings: dict[str, str],
    complaint: str,
) -> None:
    """Exit code 2, and a line that names what is wrong."""
    service = Process(root, fresh_nats, migrated_database.backup, **settings)
    assert service.wait() == 2
    assert complaint in service.log()
