"""Addresses that a person can click on."""

from __future__ import annotations

import pytest

from libs.common.addresses import url_here


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),  # noqa: S104 - not listened on
        ("::", "http://127.0.0.1:8080"),
        ("", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:8080"),
        ("192.168.7.9", "http://192.168.7.9:8080"),
        ("kite.lan", "http://kite.lan:8080"),
    ],
)
def test_where_a_browser_on_this_machine_goes(host: str, url: str) -> None:
    """What listens everywhere listens here, too; what does not, is where it is."""
    assert url_here(host, 8080) == url
