"""The verbs about the weekly login; `auth.py` does what they say."""

from __future__ import annotations

import click

from cli.arguments import Verbs, home_of, home_option, json_option

__all__ = ["auth"]


@click.group(cls=Verbs, short_help="Log in to the account, once a week.")
def auth() -> None:
    """Log in to the account, once a week; while a demo runs, to its simulated broker.

    With KITE_SCHWAB_APP_KEY set it is the account's. docs/guides/schwab.md says it word by word.

    \b
    Examples:
      ./kite auth login            with a browser on this machine, or pasting its address
      ./kite auth status           how old the login is, and when it ends
    """


@auth.command("login", short_help="Log in with a browser, here or on another machine.")
@click.option("--paste", is_flag=True, help="Do not wait for a browser here: paste its address.")
@click.option("--no-browser", is_flag=True, help="Do not open a browser; print the address only.")
@click.option("--received", metavar="ADDRESS", help="Finish what `./kite auth url` has begun.")
@home_option
def auth_login(paste: bool, no_browser: bool, received: str | None, home: str | None) -> None:
    """Log in, and keep the token, encrypted; a running ingest takes it over by itself.

    Prints an address. After the login the browser comes back to https://127.0.0.1:8182, where this
    command waits; is it on another machine, copy its address line and paste it here.
    """
    from cli.auth import run_login

    run_login(home_of(home), paste=paste, browser=not no_browser, received=received)


@auth.command("status", short_help="Show how old the login is, and when it ends.")
@home_option
@json_option
def auth_status(home: str | None, as_json: bool) -> int:
    """Show how old the login is, and when it ends; exit code 1 if none works."""
    from cli.auth import run_status

    return run_status(home_of(home), as_json=as_json)


@auth.command("refresh")
@home_option
@json_option
def auth_refresh(home: str | None, as_json: bool) -> int:
    """Fetch a new access token now; services do so by themselves."""
    from cli.auth import run_refresh

    return run_refresh(home_of(home), as_json=as_json)


@auth.command("url", short_help="Print the address of a new login, and nothing else.")
@home_option
def auth_url(home: str | None) -> None:
    """Print the address of a new login; `./kite auth login --received ADDRESS` finishes it."""
    from cli.auth import run_url

    run_url(home_of(home))
