"""What all tests share: how hypothesis searches, and the fixtures that start real servers."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run: a failure in CI is a failure at home, and a slow machine is no bug.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci")
