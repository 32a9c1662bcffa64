"""What the bootstrap job and the supervisor agree on, and nothing that is slow to import."""

from __future__ import annotations

from typing import Final

__all__ = ["BOOTSTRAP", "LOGIN", "MILESTONES", "SCHEMA", "STREAMS", "TICK"]

BOOTSTRAP: Final = "bootstrap"

# Milestones of the job, as it reports them and as units need them.
STREAMS: Final = "streams"
SCHEMA: Final = "schema"
LOGIN: Final = "login"
TICK: Final = "first tick"
MILESTONES: Final = (LOGIN, STREAMS, SCHEMA, TICK)
