"""A webhook in a container of its own: the notifier tells it what it would tell a person.

It answers 200 to everything and prints each body as a line, so that what it was told outlives its
clients and can be read from its log.
"""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct

from tests.containers.project import Project

__all__ = ["SINK_URL", "Told", "beats", "sink_service", "told"]

SINK = "sink"
SINK_URL = "json://sink:8000"
_PROGRAM = """
import http.server, json
class Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({"path": self.path, "body": json.loads(body)})
    def do_GET(self):
        self.answer({"path": self.path})
    def answer(self, heard):
        print(json.dumps(heard), flush=True)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Sink).serve_forever()
"""


class Told(Struct, frozen=True):
    """A message: its key, which is the same in every try, and what a person would read."""

    key: str
    title: str
    message: str


def sink_service(network: str) -> dict[str, Any]:
    """Return the service for a Compose file, in the network in which the notifier looks for it."""
    return {
        "image": "alpha-kite/init:local",
        "command": ["python", "-S", "-c", _PROGRAM],
        "networks": [network],
        "stop_signal": "SIGKILL",
        "healthcheck": {"disable": True},
    }


def told(project: Project) -> list[Told]:
    """Return every message that was posted, in order, repeated ones as often as they came."""
    bodies = [heard["body"] for heard in _heard(project) if "body" in heard]
    return [Told(body["id"], body["title"], body["message"]) for body in bodies]


def beats(project: Project) -> int:
    """Return how often the heartbeat's address was asked for."""
    return sum("body" not in heard for heard in _heard(project))


def _heard(project: Project) -> list[dict[str, Any]]:
    said = project.compose("logs", "--no-log-prefix", "--no-color", SINK)
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]
