"""The file that says who is told: every mistake is a line, no address is repeated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from libs.common.errors import SettingsError
from services.notifier.book import CHANNELS_MAX, Secret, load, parse
from services.notifier.core import Channel
from services.notifier.sender import senders

SECRET = "discord://4174216298/s3cret"
PHONE = f'[channels.phone]\nurl = "{SECRET}"\n'


def problems(text: str) -> tuple[str, ...]:
    """Return what is refused; none of it holds the secret."""
    with pytest.raises(SettingsError) as caught:
        senders(parse(text).entries)
    assert "s3cret" not in str(caught.value)
    return caught.value.problems


def test_a_whole_file() -> None:
    """Every entry, and the defaults of what is left out."""
    book = parse(f"""
        zone = "Europe/Berlin"
        [heartbeat]
        url = "https://example.com/beat/s3cret"
        {PHONE}
        tickers = ["QQQ"]
        timeframes = ["5m", "tick"]
        directions = ["up"]
        alerts = true
        severity = "critical"
        quiet = ["22:00-07:00"]
        quiet_passes = "nothing"
        [channels.desk]
        url = "json://localhost/x"
        zone = "Asia/Tokyo"
    """)
    phone, desk = book.entries
    assert phone.channel == Channel(
        zone="Europe/Berlin", tickers=("QQQ",), timeframes=("5m", "tick"), directions=("up",),
        alerts=True, severity="critical", quiet=("22:00-07:00",), quiet_passes="nothing",
    )  # fmt: skip
    assert (desk.name, desk.channel) == ("desk", Channel(zone="Asia/Tokyo"))
    assert phone.url.reveal() == SECRET
    assert book.heartbeat is not None
    assert "s3cret" not in repr(book)
    assert set(senders(book.entries)) == {"phone", "desk"}


def test_the_guide_s_examples_are_understood() -> None:
    """Every file in the guide is one, and Apprise knows every address in it, each as its kind."""
    guide = Path(__file__).parents[3] / "docs" / "guides" / "notifications.md"
    blocks = re.findall(r"^```toml\n(.*?)^```", guide.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    kinds = {
        name: sender.service
        for block in blocks
        for name, sender in senders(parse(block).entries).items()
    }
    assert kinds == {
        "phone": "ntfy", "mail": "E-Mail", "mail-own-server": "E-Mail", "sms": "Twilio",
        "telegram": "Telegram", "discord": "Discord", "slack": "Slack", "ntfy": "ntfy",
        "webhook": "JSON",
    }  # fmt: skip


def test_nobody() -> None:
    """No file, or an empty one, names nobody."""
    assert load("").entries == parse("").entries == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("x = 1", "x: unknown"),
        ("x = s3cret", "it is not TOML: a mistake at line 1"),
        ("zone = 5\n" + PHONE, "zone: 5 is no time zone"),
        ("channels = 5", "channels: expected tables"),
        ("[channels]\nphone = 5", "channels: expected tables"),
        ("[channels.phone]", "channels.phone.url: required"),
        ("[channels.phone]\nurl = 5", "channels.phone.url: its value is no text"),
        ('[channels.Phone]\nurl = "json://h/"', "channels.Phone: a name has"),
        (PHONE + "colour = 1", "channels.phone.colour: unknown"),
        (PHONE + "signals = 1", "channels.phone.signals: expected `bool`, got `int`"),
        (PHONE + 'timeframes = ["2m"]', "channels.phone.timeframes: invalid enum value '2m'"),
        (PHONE + 'directions = ["sideways"]', "channels.phone.directions: invalid"),
        (PHONE + 'quiet = ["7-9"]', "channels.phone.quiet: expected `str` matching regex"),
        (PHONE + 'zone = "Mars/Olympus"', "channels.phone.zone: 'Mars/Olympus' is no time zone"),
        (PHONE + "per_minute_max = 0", "channels.phone.per_minute_max: expected `int` >= 1"),
        (PHONE + 'severity = "bad"', "channels.phone.severity: invalid enum value 'bad'"),
        ('[channels.p]\nurl = "s3cret://x"', "channels.p.url: its value is no address"),
        ('[channels.p]\nurl = "s3cret"', "channels.p.url: its value is no address"),
        (
            '[channels.p]\nurl = "mailto://u:s3cret@gmail.com?to=a@example.com,b@example.com"',
            "channels.p.url: its value names 2 receivers",
        ),
        ("[heartbeat]", "heartbeat: expected a table with one entry, url"),
        ('[heartbeat]\nurl = "ftp://s3cret"', "heartbeat.url: its value is no http"),
        ('[heartbeat]\nurl = "https://[s3cret"', "heartbeat.url: its value is no http"),
    ],
)
def test_one_mistake_is_one_line(text: str, named: str) -> None:
    """It says where it is, and never what the address was."""
    (problem,) = problems(text)
    assert problem.startswith(named)


def test_all_mistakes_at_once() -> None:
    """Nobody mends them one by one."""
    text = 'zone = "x/y"\nz = 1\n' + PHONE + 'quiet = "9"\n[channels.desk]\n'
    assert len(problems(text)) == 4


def test_not_too_many() -> None:
    """Each channel has a thread."""
    text = "".join(f'[channels.c{n}]\nurl = "json://h/"\n' for n in range(CHANNELS_MAX + 1))
    (problem,) = problems(text)
    assert problem.startswith(f"channels: {CHANNELS_MAX + 1} of them")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """One line, the path in it."""
    broken = tmp_path / "notify.toml"
    for data, said in ((b"\xff", "is not UTF-8"), (b"#" * 300_000, "has more than")):
        broken.write_bytes(data)
        with pytest.raises(SettingsError, match=said):
            load(str(broken))
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load(str(tmp_path / "nowhere.toml"))
    broken.write_text("x = 1\ny = 2\n")
    with pytest.raises(SettingsError) as caught:
        load(str(broken))
    assert all(problem.startswith(f"{broken}: ") for problem in caught.value.problems)


def test_a_secret_does_not_show_itself() -> None:
    """Not in any text that somebody makes of it in passing."""
    assert f"{Secret('s3cret')} {Secret('s3cret')!r}" == "*** ***"
