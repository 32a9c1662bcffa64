"""Alertmanager's webhook, the heartbeat and mail, on the running process; there is no bus at all.

That NATS is away is what an alarm may be about, so none of this may need it.
"""

from __future__ import annotations

import email
import email.policy
import json
import signal as signals
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from cli.servers.host import choose_port
from tests.integration.notifier.stage import DEADLINE_S, Notifier, Received, Sink
from tests.waiting import eventually

BODY_BYTES_MAX = 8192


def alert(name: str = "DataStale", status: str = "firing", **fields: Any) -> dict[str, Any]:
    """Return one alarm as Alertmanager writes it."""
    labels = {"alertname": name, "severity": fields.pop("severity", "critical")}
    return {
        "status": status,
        "labels": labels,
        "annotations": {"summary": f"{name} happens.", "runbook_url": f"docs/runbooks/{name}.md"},
        "startsAt": "2026-01-05T15:04:05.678Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": f"{abs(hash(name)):016x}"[:16],
    } | fields


def message(*alerts: dict[str, Any]) -> dict[str, Any]:
    """Return what Alertmanager posts."""
    return {
        "version": "4",
        "groupKey": '{}:{alertname="x"}',
        "truncatedAlerts": 0,
        "status": alerts[0]["status"] if alerts else "firing",
        "receiver": "notifier",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": list(alerts),
    }


def post(notifier: Notifier, *alerts: dict[str, Any]) -> httpx.Response:
    """Post alarms as Alertmanager does."""
    return httpx.post(notifier.alerts_url, json=message(*alerts), timeout=DEADLINE_S)


def wait_titles(sink: Sink, path: str, count: int) -> list[str]:
    """Wait for messages and return their titles."""
    eventually(lambda: len(sink.at(path)) >= count, DEADLINE_S, f"{count} messages at {path}")
    return [each.title for each in sink.at(path)]


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A webhook."""
    with Sink() as made:
        yield made


@pytest.fixture
def notifier(sink: Sink, tmp_path: Path) -> Iterator[Notifier]:
    """A notifier with a channel for all alarms, one for critical ones, and one for none."""
    text = f"""
        [heartbeat]
        url = "http://127.0.0.1:{sink.port}/beat"
        [channels.desk]
        url = "{sink.url("desk")}"
        alerts = true
        severity = "info"
        [channels.phone]
        url = "{sink.url("phone")}"
        alerts = true
        severity = "critical"
        [channels.trades]
        url = "{sink.url("trades")}"
    """
    limits = {"KITE_NOTIFIER_BODY_BYTES_MAX": str(BODY_BYTES_MAX)}
    with Notifier(None, tmp_path, text, **limits) as running:
        yield running


def test_alarms_go_to_who_asked_for_them(notifier: Notifier, sink: Sink) -> None:
    """By severity; those of one group are one message, and the end of an alarm is one as well."""
    both = [alert(), alert("FeedLate", severity="warning")]
    assert post(notifier, *both).status_code == 200
    assert wait_titles(sink, "desk", 1) == ["CRITICAL: DataStale, FeedLate"]
    assert wait_titles(sink, "phone", 1) == ["CRITICAL: DataStale"]
    assert "DataStale happens. (docs/runbooks/DataStale.md)" in sink.at("phone")[0].message
    assert post(notifier, alert(status="resolved")).status_code == 200
    assert wait_titles(sink, "desk", 2)[1] == "Resolved: DataStale"
    assert sink.at("desk")[1].kind == "success"
    wait_titles(sink, "phone", 2)
    assert sink.at("trades") == []


def test_a_repeated_alarm_is_told_once(notifier: Notifier, sink: Sink, tmp_path: Path) -> None:
    """Also after a death right behind the journal, when Alertmanager has no answer and repeats."""
    notifier.arm("notifier.alerts.stored")
    with pytest.raises(httpx.TransportError):
        post(notifier, alert())
    assert notifier.exit_code() == -signals.SIGKILL
    notifier.start()
    for _ in range(3):
        assert post(notifier, alert()).status_code == 200
    again = alert(startsAt="2026-01-05T16:00:00Z")
    assert post(notifier, alert(), again).status_code == 200
    assert wait_titles(sink, "phone", 2) == ["CRITICAL: DataStale"] * 2
    metrics = httpx.get(f"{notifier.metrics_url}/metrics").text
    assert 'kite_notifier_alerts_total{outcome="repeated"} 4.0' in metrics


def test_the_watchdog_beats_and_tells_nobody(notifier: Notifier, sink: Sink) -> None:
    """It becomes a request to the heartbeat's address, each time."""
    for count in (1, 2):
        answer = post(notifier, alert("Watchdog", severity="none"))
        assert answer.status_code == 200
        wait_beats(notifier, sink, count)
    assert sink.received == []


def wait_beats(notifier: Notifier, sink: Sink, count: int) -> None:
    """Wait until so many heartbeats have come and are counted."""
    counted = f'kite_notifier_heartbeats_total{{outcome="sent"}} {count}.0'
    eventually(lambda: sink.paths.count("beat") == count, DEADLINE_S, "a beat")
    eventually(
        lambda: counted in httpx.get(f"{notifier.metrics_url}/metrics").text, DEADLINE_S, counted
    )


BROKEN = {
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "another version": json.dumps(message() | {"version": "3"}).encode(),
    "no list": json.dumps(message() | {"alerts": {}}).encode(),
    "a label that is a number": json.dumps(message(alert(labels={"alertname": 1}))).encode(),
    "another status": json.dumps(message(alert(status="maybe"))).encode(),
    "no fingerprint": json.dumps(message(alert(fingerprint=""))).encode(),
    "no time": json.dumps(message(alert(startsAt="yesterday, in the afternoon"))).encode(),
    "deep": b"[" * 4000,
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_what_alertmanager_does_not_send_is_refused(notifier: Notifier, body: bytes) -> None:
    """With 400, which it does not repeat, and a line that says where; the service goes on."""
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(notifier.alerts_url, content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("not a webhook message of Alertmanager's")
    assert post(notifier, alert()).status_code == 200


def test_too_large_a_message_is_refused(notifier: Notifier, sink: Sink) -> None:
    """With 413, whether its length was said or not; one that just fits is taken."""
    padding = {"summary": "x" * (BODY_BYTES_MAX - 1000)}
    assert post(notifier, alert(annotations=padding)).status_code == 200
    large = json.dumps(message(alert(annotations={"summary": "x" * BODY_BYTES_MAX}))).encode()
    headers = {"Content-Type": "application/json"}
    chunks = (large[at : at + 1000] for at in range(0, len(large), 1000))
    for content in (large, chunks):
        answer = httpx.post(notifier.alerts_url, content=content, headers=headers)
        assert answer.status_code == 413
    assert wait_titles(sink, "phone", 1) == ["CRITICAL: DataStale"]


def test_a_page_in_a_browser_cannot_post(notifier: Notifier) -> None:
    """What a form can send without asking first has another content type."""
    body = json.dumps(message(alert())).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = httpx.post(notifier.alerts_url, content=body, headers={"Content-Type": kind})
        assert answer.status_code == 415
    assert httpx.get(notifier.alerts_url).status_code == 405


def test_an_alarm_waits_for_a_channel_that_is_down(notifier: Notifier, sink: Sink) -> None:
    """Over a death of the notifier, too."""
    sink.answers["desk"] = 500
    assert post(notifier, alert("FeedLate", severity="warning")).status_code == 200
    wait_titles(sink, "desk", 1)
    eventually(lambda: notifier.said("notifier.failed"), DEADLINE_S, "it has failed")
    notifier.kill()
    sink.answers.clear()
    notifier.start()
    assert wait_titles(sink, "desk", 2)[1].removeprefix("(repeated?) ") == "WARNING: FeedLate"


class _Mailbox:
    """What a mail server took."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []

    async def handle_DATA(  # noqa: N802  # the name that aiosmtpd calls
        self, _: SMTP, __: Session, envelope: Envelope
    ) -> str:
        """Take a mail."""
        self.envelopes.append(envelope)
        return "250 OK"


def test_mail_arrives(tmp_path: Path) -> None:
    """Over SMTP, with title and text, to whom the address says."""
    mailbox = _Mailbox()
    port = choose_port()
    server = Controller(mailbox, hostname="127.0.0.1", port=port)
    server.start()
    try:
        text = f"""
            [channels.mail]
            url = "mailto://127.0.0.1:{port}?from=kite@example.com&to=me@example.com&format=text"
            alerts = true
        """
        with Notifier(None, tmp_path, text) as notifier:
            assert post(notifier, alert()).status_code == 200
            eventually(lambda: mailbox.envelopes, DEADLINE_S, "a mail")
    finally:
        server.stop()
    (envelope,) = mailbox.envelopes
    assert envelope.rcpt_tos == ["me@example.com"]
    assert isinstance(envelope.content, bytes)
    mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert mail["Subject"] == "CRITICAL: DataStale"
    assert "DataStale happens." in mail.as_string()


def test_received_knows_its_signal() -> None:
    """The stage reads keys as the notifier writes them."""
    assert Received("p", "hook:signal:QQQ:1m:5", "", "", "").signal_id == "QQQ:1m:5"
