"""The page of the weekly login to the broker, as HTML: what ingest says of it, and the way through.

Pure, and without any script: it is there for a phone, and for the moment when nothing else works.
A login has two steps, because a browser may follow a link to the broker, but no form that leads
there (the gate forbids those). What a person pasted is never shown again.
"""

from __future__ import annotations

import html
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from libs.common.broker_login import BrokerLogin, LoginTry
from libs.common.calendar import NEW_YORK
from libs.common.spans import span_text

__all__ = ["BEGIN_PATH", "FINISH_PATH", "LOGIN_FIRST", "PATH", "STYLE", "STYLE_PATH", "render"]

PATH = "/schwab"
BEGIN_PATH, FINISH_PATH = f"{PATH}/begin", f"{PATH}/finish"
STYLE_PATH = f"{PATH}/style.css"

_REFRESH_S = 2
# What became of a login is news for so long.
_NEWS_MS = 3_600_000
_STATES = {
    "ok": ("good", "The login works"),
    "ends_soon": ("warn", "The login works, and ends soon"),
    "ended": ("bad", "The login has ended"),
    "missing": ("bad", "There is no login yet"),
    "unusable": ("bad", "No login works"),
}
_SILENT = (
    "ingest has not said how the login is: it has not been started since, or is just starting. "
    "Load this page again in a moment"
)
_LOCKED = (
    "To log in from here, this gateway needs a login of its own: set KITE_GATEWAY_AUTH=password "
    "and a password. Without one: ./kite auth login on its machine"
)


def render(login: BrokerLogin | None, now_ms: int, *, may_change: bool, notice: str = "") -> bytes:
    """Return the page; `notice` is what was wrong with what the person did."""
    parts = [_notice("bad", notice)] if notice else []
    if login is None:
        return _document(*(parts or [_notice("warn", _SILENT)]))
    newest = login.newest
    if newest is not None and not notice:
        parts.append(_news(newest, login, now_ms))
    finishing = newest is not None and newest.state == "exchanging"
    if not may_change:
        parts.append(_notice("warn", _LOCKED))
    elif login.missing:
        parts.append(_notice("bad", f"Nobody can log in: {login.missing}"))
    elif newest is not None and newest.state == "open" and now_ms < newest.expires_ms:
        parts.append(_steps(login, newest))
    elif not finishing:
        parts.append(_begin(login))
    # What there is to do stands first: a phone shows little at once.
    parts.append(_standing(login, now_ms))
    return _document(*parts, refresh=finishing and may_change)


def _document(*parts: str, refresh: bool = False) -> bytes:
    again = f'<meta http-equiv="refresh" content="{_REFRESH_S}">' if refresh else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark">{again}'
        "<title>Broker login · Alpha Kite Max</title>"
        '<link rel="icon" type="image/svg+xml" href="/icon.svg">'
        f'<link rel="stylesheet" href="{STYLE_PATH}"></head><body><main>'
        '<p class="home"><a href="/">← Alpha Kite Max</a></p><h1>Broker login</h1>'
        f"{''.join(parts)}</main></body></html>"
    ).encode()


def _notice(tone: str, text: str) -> str:
    role = "alert" if tone == "bad" else "status"
    words = text[:1].upper() + text[1:]
    end = "" if words.endswith((".", "?", "!")) else "."
    return f'<p class="notice" data-tone="{tone}" role="{role}">{html.escape(words)}{end}</p>'


def _news(newest: LoginTry, login: BrokerLogin, now_ms: int) -> str:
    """Say what became of the newest login, while that is news."""
    if newest.state == "exchanging":
        return _notice("warn", "The login is being finished; this takes a few seconds")
    if newest.state == "open" or now_ms - newest.began_ms > _NEWS_MS:
        return ""
    if newest.state != "done":
        return _notice("bad", newest.text)
    due = f"; the next login is due {_time(login.due_at)}" if login.due_at else ""
    return _notice("good", f"{newest.text}{due}")


def _standing(login: BrokerLogin, now_ms: int) -> str:
    tone, words = _STATES.get(login.state, ("bad", login.state))
    rows = [
        ("Next login due", _when(login.due_at, now_ms)),
        ("Ends", _when(login.ends_at, now_ms)),
        ("Made", _when(login.made_at, now_ms)),
        ("Broker", html.escape(login.broker)),
    ]
    if login.state not in ("ok", "ends_soon", "missing"):
        rows.insert(0, ("Why", html.escape(login.reason)))
    drawn = "".join(f"<div><dt>{name}</dt><dd>{shown}</dd></div>" for name, shown in rows if shown)
    return (
        f'<section><h2 class="state" data-tone="{tone}">{html.escape(words)}</h2>'
        f"<dl>{drawn}</dl></section>"
    )


def _begin(login: BrokerLogin) -> str:
    verb = "Log in" if login.state == "missing" else "Log in again"
    return (
        f'<section><form method="post" action="{BEGIN_PATH}"><button>{verb}</button></form>'
        "<p>Nothing is restarted, and the login before stays until the new one is finished.</p>"
        "</section>"
    )


def _steps(login: BrokerLogin, newest: LoginTry) -> str:
    where = "Schwab" if login.broker == "Schwab" else "the simulated broker"
    callback = parse_qs(urlsplit(newest.url).query).get("redirect_uri", [""])[0]
    until = _time(datetime.fromtimestamp(newest.expires_ms // 1000, UTC).isoformat())
    return (
        "<section><ol><li><p>Log in with the name and password of your account, choose the "
        "accounts, and agree. It opens in a new tab.</p>"
        f'<a class="button" href="{html.escape(newest.url)}" target="_blank" '
        f'rel="noopener noreferrer">Log in at {where}</a></li>'
        "<li><p>In the end the browser cannot open a page: that is as it should be. Copy its whole "
        f"address line, which begins with <code>{html.escape(callback)}</code>. Be quick: it is "
        "good for half a minute.</p></li>"
        f'<li><form method="post" action="{FINISH_PATH}">'
        f'<input type="hidden" name="login" value="{html.escape(newest.id)}">'
        '<label for="address">Paste it here</label>'
        '<input id="address" name="address" type="text" inputmode="url" required '
        'maxlength="4096" autocomplete="off" autocapitalize="none" autocorrect="off" '
        f'spellcheck="false" placeholder="{html.escape(callback)}/?code=…">'
        "<button>Finish</button></form></li></ol>"
        f"<p>This login waits until {until}; the one before goes on meanwhile.</p></section>"
    )


def _time(iso: str | None) -> str:
    """Write a time as the market's clock shows it."""
    if iso is None:
        return ""
    at = datetime.fromisoformat(iso).astimezone(NEW_YORK)
    return f"{at:%a %d %b %Y, %H:%M} New York"


def _when(iso: str | None, now_ms: int) -> str:
    """Write a time and how far away it is, as HTML."""
    if iso is None:
        return ""
    ahead_s = int(datetime.fromisoformat(iso).timestamp() - now_ms / 1000)
    span = span_text(abs(ahead_s))
    return f"{_time(iso)} <small>{f'in {span}' if ahead_s > 0 else f'{span} ago'}</small>"


# For whoever comes without a session; it shows nothing.
LOGIN_FIRST = _document(
    '<section><h2 class="state" data-tone="warn">Log in to the gateway first</h2>'
    '<p><a class="button" href="/">Go to its login</a></p>'
    f'<p>Then come back here. <a href="{PATH}">Already logged in?</a></p></section>'
)

STYLE = b"""
:root { color-scheme: light dark; --ink: #1c2430; --quiet: #566273; --page: #f5f7fa;
  --panel: #fff; --line: #d5dbe3; --accent: #1d5fd1; --on-accent: #fff;
  --good: #14713d; --warn: #8a5a00; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #dde3ea; --quiet: #9aa7b6; --page: #12161c;
  --panel: #1a2028; --line: #333d49; --accent: #7db7ff; --on-accent: #0c1420;
  --good: #5fd08d; --warn: #f0b64c; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; color: var(--ink);
  background: var(--page); }
main { max-width: 40rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; margin: .25rem 0 1rem; }
h2 { font-size: 1.05rem; margin: 0 0 .75rem; }
p { margin: 0 0 .75rem; } p:last-child { margin-bottom: 0; }
a { color: var(--accent); }
.home { margin: 0; } .home a { display: inline-block; padding: .5rem 0; text-decoration: none; }
section, .notice { background: var(--panel); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem; margin: 0 0 1rem; }
.notice { border-left: 4px solid var(--tone); }
[data-tone=good] { --tone: var(--good); } [data-tone=warn] { --tone: var(--warn); }
[data-tone=bad] { --tone: var(--bad); }
.state::before { content: ""; display: inline-block; width: .7em; height: .7em; margin-right: .5em;
  border-radius: 50%; background: var(--tone); }
dl { margin: 0; } dl div { padding: .4rem 0; border-top: 1px solid var(--line); }
dt, small { color: var(--quiet); font-size: .875rem; } small { display: block; }
dd { margin: 0; overflow-wrap: anywhere; }
ol { margin: 0 0 1rem; padding-left: 1.4rem; } li { padding: 0 0 1.25rem .25rem; }
li:last-child { padding-bottom: 0; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
label { display: block; margin-bottom: .35rem; }
input[type=text] { display: block; width: 100%; min-height: 48px; padding: .5rem .75rem;
  margin-bottom: .75rem; font: inherit; color: inherit; background: var(--page);
  border: 1px solid var(--quiet); border-radius: 8px; }
::placeholder { color: var(--quiet); opacity: 1; }
button, .button { display: block; width: 100%; min-height: 48px; padding: .6rem 1rem; font: inherit;
  font-weight: 600; text-align: center; text-decoration: none; color: var(--on-accent);
  background: var(--accent); border: 0; border-radius: 8px; cursor: pointer; }
form + p, section > p { color: var(--quiet); } form + p { margin-top: .75rem; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
@media (min-width: 40rem) { button, .button { width: auto; min-width: 14rem;
  display: inline-block; } dl div { display: grid; grid-template-columns: 10rem 1fr; } }
"""
