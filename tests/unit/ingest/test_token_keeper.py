"""When the keeper renews, when it waits, and what it says of the login."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from libs.common.telemetry import Health, get_logger
from libs.common.token_file import LOGIN_LIFE_S, TokenInvalid, TokenUnsafe
from services.ingest.schwab import Account, RequestFailed
from services.ingest.token_keeper import TokenKeeper


class Pretended:
    """An account whose tokens are numbers."""

    def __init__(self) -> None:
        self.login_s = 1_000.0
        self.left_s: float | None = 1_800.0
        self.life_s = 1_800.0
        self.login_age_s = 0.0
        self.refreshes = 0
        self.unusable: TokenInvalid | None = None
        self.trouble: Exception | None = None

    async def take_over(self) -> float:
        """Say when the login was."""
        if self.unusable is not None:
            raise self.unusable
        return self.login_s

    def access_token_left_s(self, now_ms: int) -> float | None:
        """Say how long it is good."""
        return self.left_s

    def access_token_age_s(self, now_ms: int) -> float:
        """Say how old it is."""
        return self.life_s - (self.left_s or 0.0)

    def token_age_s(self, now_ms: int) -> float:
        """Say how old the login is."""
        return self.login_age_s

    async def refresh(self) -> None:
        """Renew it, or fail."""
        self.refreshes += 1
        if self.trouble is not None:
            raise self.trouble
        self.left_s = self.life_s


def keeper(account: Pretended) -> tuple[TokenKeeper, Health]:
    """A keeper of this account, and where it says how it is."""
    health = Health()
    clock: Any = SimpleNamespace(now_ms=lambda: 0)
    runtime: Any = SimpleNamespace(clock=clock, health=health, log=get_logger())
    return TokenKeeper(runtime, cast(Account, account)), health


@pytest.mark.parametrize(
    ("life_s", "left_s", "renews"),
    [
        (1_800, 1_800, False),
        (1_800, 421, False),
        (1_800, 419, True),
        (1_800, -5, True),
        (30, 16, False),  # of a hurried simulator
        (30, 14, True),
    ],
)
def test_it_renews_shortly_before_the_end(life_s: float, left_s: float, renews: bool) -> None:
    """Earlier than a request would have to; a short life not at every look."""
    account = Pretended()
    account.life_s, account.left_s = life_s, left_s
    watching, health = keeper(account)
    asyncio.run(watching.look())
    assert account.refreshes == int(renews)
    assert health.reasons == {}


def test_a_refused_token_is_not_asked_about_at_every_look() -> None:
    """Not ready, with the way out; the broker is left alone for a while."""

    async def main() -> None:
        account = Pretended()
        account.left_s, account.trouble = 10.0, TokenInvalid("the broker refused the token: x")
        watching, health = keeper(account)
        for _ in range(3):
            await watching.look()
        assert account.refreshes == 1
        assert "refused the token: x; log in: ./kite auth login" in health.reasons["login"]
        account.login_s, account.trouble = 2_000.0, None
        await watching.look()
        assert account.refreshes == 2
        assert health.reasons == {}

    asyncio.run(main())


def test_a_login_of_over_seven_days_is_called_that() -> None:
    """The broker's own word for it says nothing to a person."""
    account = Pretended()
    account.left_s, account.trouble = 10.0, TokenInvalid("unsupported_token_type")
    account.login_age_s = LOGIN_LIFE_S + 8_640
    watching, health = keeper(account)
    asyncio.run(watching.look())
    assert "the login has ended, 7.1 days old; Schwab keeps one for 7" in health.reasons["login"]


def test_a_server_that_fails_is_no_reason_to_be_unready() -> None:
    """The token at hand works; and it is asked again later."""

    async def main() -> None:
        account = Pretended()
        account.left_s, account.trouble = 300.0, RequestFailed("HTTP 503")
        watching, health = keeper(account)
        for _ in range(3):
            await watching.look()
        assert account.refreshes == 1
        assert health.reasons == {}

    asyncio.run(main())


def test_a_file_that_is_mended_is_tried_at_once() -> None:
    """Even if its token were good for long: whoever was not ready proves that it works."""

    async def main() -> None:
        account = Pretended()
        account.unusable = TokenUnsafe("others may read it")
        watching, health = keeper(account)
        await watching.look()
        assert "others may read it" in health.reasons["login"]
        account.unusable = None
        await watching.look()
        assert account.refreshes == 1
        assert health.reasons == {}

    asyncio.run(main())
