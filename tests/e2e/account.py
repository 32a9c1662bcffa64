"""The `kite` command as it is, except that Schwab is a simulator: for the account's own ways.

Run as a module. The product has no setting for this, on purpose: simulated rows must not reach the
store of an account, and nobody shall be talked into sending a key and a secret elsewhere.
"""

from __future__ import annotations

import os
from typing import Any

from cli import auth, plan
from cli.commands import main
from services.ingest.login import App

__all__ = ["BROKER"]

BROKER = "TESTS_BROKER_URL"


def _simulated_app(key: str, secret: str, callback: str, _: str | None = None) -> App:
    return App(key, secret, callback, os.environ[BROKER])


if __name__ == "__main__":
    _of_account = plan._schwab

    def _schwab(stack: Any) -> dict[str, str]:
        return {**_of_account(stack), "KITE_SCHWAB_BASE_URL": os.environ[BROKER]}

    plan._schwab = _schwab
    setattr(auth, "App", _simulated_app)  # noqa: B010 - imported there, and looked up there
    main()
