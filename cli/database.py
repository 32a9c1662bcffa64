"""How to log in to the running stack's own Postgres, as one of its roles."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from cli.control import current_state
from cli.home import Home
from cli.state import NotRunningError
from deploy.credentials import load_credentials
from deploy.supabase.roles import LOGIN_ROLES

__all__ = ["dsn_of"]


def dsn_of(home: Home, role: str) -> str:
    """Return the address with the role's login; raises NotRunningError where nothing runs."""
    try:
        state = current_state(home)
    except NotRunningError as error:
        raise NotRunningError(f"{error}, or name a database in KITE_PG_DSN") from error
    parts = urlsplit(state.postgres or "")
    kept = load_credentials(Path(state.store or ""), nats_users=(), postgres_users=LOGIN_ROLES)
    login = f"{role}:{kept.postgres[role]}"
    return f"postgresql://{login}@{parts.hostname}:{parts.port}{parts.path}"
