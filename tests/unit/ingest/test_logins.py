"""Logins by command without a broker: how they begin, expire, and what a new life makes of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from libs.common.broker_login import BrokerLogin, LoginTry
from libs.common.clock import ManualClock
from libs.common.sealing import Key, seal_for
from libs.common.telemetry import Metrics, get_logger
from libs.common.token_file import TokenFile
from services.ingest.commands import Done
from services.ingest.desk import Desk
from services.ingest.login import App, LoginFailed
from services.ingest.logins import LIFE_MS, Logins
from services.ingest.metrics import IngestMetrics
from services.ingest.watchlist import Refusal

CALLBACK = "https://127.0.0.1:8182"
NOW_MS = 1_700_000_000_000
APP = App("the-key", "the-secret", CALLBACK)
SEALING_KEY = Key(bytes(range(32))).text
CODE = "C0.canary-of-a-code"


class Keeper:
    """Looks after nothing."""

    trouble = ""

    async def look(self) -> None:
        """Look, and find nothing."""


class Office:
    """A desk, and one life of ingest's logins after another."""

    def __init__(self, folder: Path, app: App = APP) -> None:
        self.clock = ManualClock(NOW_MS)
        self.token_file = TokenFile(folder / "login" / "token.json", SEALING_KEY)
        self.desk = Desk(commands_created_ms=1, configured=("QQQ",), tickers=("QQQ",))
        self._app = app
        self.keeper = Keeper()
        self.begin_life()

    def begin_life(self) -> None:
        """Start anew, as after a kill -9: the desk and the token file stay."""
        self.metrics = Metrics()
        self.logins = Logins(
            self._app, self.token_file, self.keeper, IngestMetrics(self.metrics), self.clock,
            get_logger(),
        )  # fmt: skip

    def give(self, command: str, **arguments: Any) -> str:
        """Have a command executed, with what it changes on record; returns the answer."""
        handler = self.logins.handlers()[command]

        async def run() -> Done:
            return await handler.run(handler.arguments(**arguments), "an-id", self.desk)

        done = asyncio.run(run())
        self.desk = done.desk
        return done.text

    def look(self) -> BrokerLogin:
        """Put on record what is new, and return it."""
        self.desk = self.logins.refreshed(self.desk)
        assert self.desk.login is not None
        return self.desk.login

    @property
    def newest(self) -> LoginTry:
        """The login that was begun last."""
        newest = self.look().newest
        assert newest is not None
        return newest

    def address(self, **changes: str) -> str:
        """Where the browser of the newest login ends."""
        state = self.newest.url.partition("state=")[2].partition("&")[0]
        return f"{CALLBACK}/?code={CODE}&state={changes.get('state', state)}"

    def paste(self, text: str) -> str:
        """Finish the newest login with what a person pasted."""
        newest = self.newest
        sealed = seal_for(newest.letterbox, text.encode())
        return self.give("login-finish", login=newest.id, sealed=sealed)

    def store_token(self, made_s: int) -> None:
        """Leave a token as a login does."""
        token = {"access_token": "a", "refresh_token": "r", "expires_at": made_s + 1800}
        self.token_file.write({"creation_timestamp": made_s, "token": token})

    def ended(self, outcome: str) -> float | None:
        """How many logins of this life ended so."""
        return self.metrics.registry.get_sample_value(
            "kite_ingest_logins_total", {"outcome": outcome}
        )


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """An office without a token."""
    return Office(tmp_path)


def test_a_login_begins_once(office: Office) -> None:
    """A second tap, or a command that comes twice, shows the same address; later a new one."""
    assert office.look().state == "missing"
    office.give("login-begin")
    first = office.newest
    assert (first.state, first.expires_ms - first.began_ms) == ("open", LIFE_MS)
    assert "client_id=the-key" in first.url
    office.give("login-begin")
    assert office.newest == first
    office.clock.advance(LIFE_MS // 2 + 1)
    office.give("login-begin")
    second = office.newest
    assert second.id != first.id
    assert second.letterbox != first.letterbox
    sealed = seal_for(second.letterbox, b"x")
    with pytest.raises(Refusal, match="newer login"):
        office.give("login-finish", login=first.id, sealed=sealed)


def test_a_login_expires(office: Office) -> None:
    """After ten minutes nobody can finish it, and its address is gone from the desk."""
    office.give("login-begin")
    before, address = office.newest, office.address()
    office.clock.advance(LIFE_MS)
    late = office.newest
    assert (late.state, late.url, late.letterbox) == ("expired", "", "")
    with pytest.raises(Refusal, match="within 10 minutes; begin again"):
        office.give(
            "login-finish", login=before.id, sealed=seal_for(before.letterbox, address.encode())
        )
    assert office.ended("expired") == 1


@pytest.mark.parametrize(
    ("pasted", "told"),
    [
        (
            f"https://evil.example/?code={CODE}&state=x",
            "does not begin with https://127.0.0.1:8182",
        ),
        (f"http://127.0.0.1:8182/?code={CODE}&state=x", "does not begin with"),
        (f"{CALLBACK}/?state=x", "no code"),
        (f"{CALLBACK}/?code={CODE}&code=2&state=x", "no code"),
        (f"{CALLBACK}/?code={CODE}&state=foreign", "another login"),
        (f"{CALLBACK}/?code={CODE}", "another login"),
        (f"{CALLBACK}/?error=access_denied", "refused"),
        ("https://[", "no address"),
        (CODE, "does not begin with"),
    ],
)
def test_a_wrong_address_leaves_the_login_open(office: Office, pasted: str, told: str) -> None:
    """Whoever pasted too little tries again; what was pasted is said nowhere."""
    office.give("login-begin")
    before = office.newest
    with pytest.raises(LoginFailed, match=told) as caught:
        office.paste(pasted)
    assert CODE not in str(caught.value)
    assert office.newest == before


def test_only_what_was_sealed_for_this_login_is_opened(office: Office) -> None:
    """Neither text in the open nor what another letterbox would take."""
    office.give("login-begin")
    strange = Office(office.token_file.path.parent / "other")
    strange.give("login-begin")
    sealed = seal_for(strange.newest.letterbox, office.address().encode())
    for letter in (sealed, office.address(), "", "AAAA"):
        with pytest.raises(Refusal, match="not sealed for that login; begin again") as caught:
            office.give("login-finish", login=office.newest.id, sealed=letter)
        assert CODE not in str(caught.value)


def test_a_second_finish_starts_nothing(office: Office) -> None:
    """While the code is exchanged, both taps hear the same; the address is gone at once."""
    office.give("login-begin")
    newest, address = office.newest, office.address()
    sealed = seal_for(newest.letterbox, address.encode())
    assert "being finished" in office.paste(f"  {address}\n")
    assert (office.newest.state, office.newest.url) == ("exchanging", "")
    assert "being finished" in office.give("login-finish", login=newest.id, sealed=sealed)
    assert "being finished" in office.give("login-begin")
    assert office.newest.id == newest.id
    assert CODE not in repr(office.desk)


@pytest.mark.parametrize("exchanging", [True, False])
def test_a_restart_loses_what_was_not_finished(office: Office, exchanging: bool) -> None:
    """Its secrets were in memory; whoever goes on with it hears so, and begins again."""
    office.store_token(NOW_MS // 1000 - 3_600)
    office.give("login-begin")
    newest, address = office.newest, office.address()
    sealed = seal_for(newest.letterbox, address.encode())
    if exchanging:
        office.paste(address)
    office.begin_life()
    with pytest.raises(Refusal, match=r"restarted meanwhile.*begin again"):
        office.give("login-finish", login=newest.id, sealed=sealed)
    assert (office.newest.state, office.newest.url) == ("lost", "")
    office.give("login-begin")
    assert office.newest.state == "open"


@pytest.mark.parametrize("recorded", [True, False])
def test_a_restart_after_the_token_was_written_is_a_login(office: Office, recorded: bool) -> None:
    """The command comes again to a life that has no secrets, and is no failure for all that."""
    office.store_token(NOW_MS // 1000 - 6 * 86_400)
    office.give("login-begin")
    newest, address, before = office.newest, office.address(), office.desk
    sealed = seal_for(newest.letterbox, address.encode())
    office.paste(address)
    if not recorded:
        office.desk = before
    office.store_token(NOW_MS // 1000)
    office.begin_life()
    assert "logged in" in office.give("login-finish", login=newest.id, sealed=sealed)
    assert office.newest.state == "done"
    assert office.ended("done") == 1


def test_without_an_app_nobody_can_log_in(tmp_path: Path) -> None:
    """What is missing is said before anybody tries, and to who tries all the same."""
    office = Office(tmp_path, App("", "the-secret", "http://127.0.0.1"))
    missing = office.look().missing
    assert "KITE_SCHWAB_APP_KEY: not set" in missing
    assert "KITE_SCHWAB_CALLBACK" in missing
    with pytest.raises(Refusal, match="KITE_SCHWAB_APP_KEY: not set"):
        office.give("login-begin")


def test_the_desk_says_how_the_login_is(office: Office) -> None:
    """As the file has it, unless the broker knows better; it changes only when something does."""
    office.store_token(NOW_MS // 1000)
    before = office.look()
    assert (before.state, before.broker) == ("ok", "Schwab")
    assert before.made_at == "2023-11-14T22:13:20+00:00"
    assert before.due_at == "2023-11-20T22:13:20+00:00"
    office.clock.advance(3_600_000)
    assert office.look() == before
    office.keeper.trouble = "the broker refused the token: invalid_grant"
    assert (office.look().state, office.look().reason) == ("unusable", office.keeper.trouble)
    office.keeper.trouble = ""
    office.clock.advance(7 * 86_400_000)
    assert office.look().state == "ended"


def test_a_desk_of_an_older_version_has_no_login(office: Office) -> None:
    """It gets one with the next look."""
    office.desk = replace(office.desk, login=None)
    assert office.look().newest is None
