"""A feed that stops is told at a webhook, and told again when it is back.

The whole chain runs as it is shipped, Prometheus with our rules, Alertmanager with our routes and
the notifier, which has the webhook as its channel; only time is compressed, every duration in the
files of the two by the same factor, so that minutes of patience are seconds here. What the
durations are is tested with promtool. Needs a Docker daemon.
"""

from __future__ import annotations

import re
import shutil

import pytest

from tests.containers.definitions import REPOSITORY
from tests.containers.project import Project
from tests.containers.sink import SINK_URL, Told, beats, sink_service, told
from tests.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

FACTOR = 20
WITHIN_S = 180
ALARM = "FeedDisconnected"
NOTIFY = f"""
[heartbeat]
url = "{SINK_URL.replace("json", "http")}/beat"
[channels.webhook]
url = "{SINK_URL}/alarms"
signals = false
alerts = true
"""
_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
# Not the ends of names such as `kite:burn:5m`.
_DURATION = re.compile(r"(?<![\w:.])(\d+)(ms|s|m|h|d)\b")


def compressed(text: str) -> str:
    """A configuration in which all goes `FACTOR` times as fast."""
    return _DURATION.sub(lambda found: f"{int(found[1]) * _MS[found[2]] // FACTOR}ms", text)


def test_names_are_not_compressed() -> None:
    """Durations are; what only looks like one is left alone."""
    assert compressed("for: 2m") == "for: 6000ms"
    assert compressed("rate(a[5m] offset 1h)") == "rate(a[15000ms] offset 180000ms)"
    assert compressed("kite:burn:5m > 14.4 # 15 minutes") == "kite:burn:5m > 14.4 # 15 minutes"


@pytest.fixture(scope="module")
def alarmed(demo: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The demo, watched in a hurry, with somebody at the webhook."""
    folder = tmp_path_factory.mktemp("watchers")
    for name in ("prometheus", "alertmanager"):
        shutil.copytree(REPOSITORY / "deploy" / name, folder / name)
        for file in (folder / name).rglob("*.yml"):
            file.write_text(compressed(file.read_text("utf-8")))
    (folder / "notify.toml").write_text(NOTIFY)
    folder.chmod(0o755)
    demo.amend(
        {
            "services": {
                "prometheus": {"volumes": [f"{folder}/prometheus:/etc/prometheus:ro"]},
                "alertmanager": {"volumes": [f"{folder}/alertmanager:/etc/alertmanager:ro"]},
                "notifier": {"volumes": [f"{folder}/notify.toml:/etc/kite/notify.toml:ro"]},
                "sink": sink_service("notify"),
            }
        }
    )
    demo.up(["sink", "notifier", "prometheus", "alertmanager"])
    return demo


def alarms(project: Project, begins: str) -> list[Told]:
    """What the webhook was told of the alarm in messages that begin so."""
    return [each for each in told(project) if each.title.startswith(begins) and ALARM in each.title]


def test_a_stopped_feed_is_told_and_so_is_its_return(alarmed: Project) -> None:
    """Once each: the alarm that names the cause, with its severity and a runbook that exists."""
    eventually(lambda: beats(alarmed) > 1, WITHIN_S, "the dead man's switch beats")
    assert not alarms(alarmed, "CRITICAL: ")
    alarmed.compose("stop", "simulator")
    (alarm,) = eventually(lambda: alarms(alarmed, "CRITICAL: "), WITHIN_S, f"{ALARM} fires")
    (runbook,) = set(re.findall(r"docs/runbooks/\w+\.md", alarm.message))
    assert (REPOSITORY / runbook).is_file()
    assert not alarms(alarmed, "Resolved: ")
    alarmed.compose("start", "simulator")
    eventually(lambda: alarms(alarmed, "Resolved: "), WITHIN_S, f"{ALARM} is resolved")
    assert len(alarms(alarmed, "CRITICAL: ")) == len(alarms(alarmed, "Resolved: ")) == 1
