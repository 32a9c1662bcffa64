"""`./kite auth …`: the weekly login to the account; while a demo runs, to its simulated broker.

Which of the two is decided by what is known: KITE_SCHWAB_APP_KEY means the account; without it, a
simulated market that runs on this home. The work is ingest's own, so that its container does the
same (`services/ingest/auth.py`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cli.control import current_state
from cli.home import Home
from cli.login_place import token_file, token_settings
from cli.state import NotRunningError, StackState
from deploy.private_files import explain_os_errors
from deploy.simulated_app import APP_KEY, APP_SECRET, CALLBACK
from libs.common.clock import SystemClock
from libs.common.errors import SettingsError
from libs.common.settings import load
from libs.common.token_file import TokenFile
from services.ingest.auth import Desk, shown
from services.ingest.login import App
from services.ingest.settings import DEFAULT_CALLBACK

__all__ = ["run_login", "run_refresh", "run_status", "run_url"]


class _Given(msgspec.Struct, frozen=True):
    """What of the environment concerns a login."""

    schwab_app_key: str = ""
    schwab_app_secret: str = ""
    schwab_token_key: str = ""
    schwab_callback: str = DEFAULT_CALLBACK


def run_login(home: Home, *, paste: bool, browser: bool, received: str | None) -> None:
    """Log in; raises KiteError, and then nothing has changed."""
    desk = _desk(home, os.environ)
    if received is not None:
        asyncio.run(desk.finish_received(received))
        return
    opened = webbrowser.open if browser and _has_screen(os.environ) else None
    asyncio.run(desk.log_in(paste=paste, open_browser=opened, stdin=sys.stdin.fileno()))


def run_status(home: Home, *, as_json: bool) -> int:
    """Show how the login is; return 0 if it works, else 1."""
    status = _desk(home, os.environ).status()
    print(shown(status, as_json=as_json))
    return 0 if status.works else 1


def run_refresh(home: Home, *, as_json: bool) -> int:
    """Fetch a new access token, and show how the login is; raises KiteError."""
    status = asyncio.run(_desk(home, os.environ).refresh())
    print(shown(status, as_json=as_json))
    return 0 if status.works else 1


def run_url(home: Home) -> None:
    """Print the address of a new login."""
    print(_desk(home, os.environ).url())


def _desk(home: Home, environ: Mapping[str, str]) -> Desk:
    """Return the account's desk, or that of the simulated broker that runs on this home."""
    given = load(_Given, environ)
    state = None if given.schwab_app_key else _simulated(home)
    if state is None:
        app = App(given.schwab_app_key, given.schwab_app_secret, given.schwab_callback)
        token = token_file(home.root / "schwab", environ)
    else:
        app = App(APP_KEY, APP_SECRET, CALLBACK, state.schwab)
        token = token_file(Path(state.store or ""), environ, named=False)
    with explain_os_errors(home.root):
        home.root.mkdir(parents=True, exist_ok=True)
    told = load(_Given, {**environ, **token_settings(home.root, token, environ)})
    return Desk(app, TokenFile(token, told.schwab_token_key), _say, SystemClock())


def _simulated(home: Home) -> StackState | None:
    """Return the demo that runs on this home; raises SettingsError when there is nobody to ask."""
    try:
        state = current_state(home)
    except NotRunningError:
        state = None
    if state is not None and state.source == "schwab":
        return None
    if state is None or state.schwab is None or state.store is None:
        raise SettingsError(
            [
                "KITE_SCHWAB_APP_KEY: not set; it is in the app's details on developer.schwab.com, "
                "and KITE_SCHWAB_APP_SECRET beside it. To try it without an account, start "
                "./kite up first"
            ]
        )
    return state


def _has_screen(environ: Mapping[str, str]) -> bool:
    """Tell whether a browser would open where the person is, and not inside the terminal."""
    if environ.get("SSH_CONNECTION"):
        return False
    return sys.platform == "darwin" or bool(
        environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
