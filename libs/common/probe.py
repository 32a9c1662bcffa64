"""Asks the service of this container how it is: `python -m libs.common.probe [ready]`.

Without an argument it asks `/healthz`: does the process live. That is the health check of our
images, because who watches containers may replace one that is not healthy, and a database that is
away must not replace everybody. With `ready` it asks `/readyz`: can the service do its work now.

Ends with 0 when the answer is yes, else with 1 and the reasons. An image needs no curl for it. A
bare socket, because this runs every few seconds for ever and an HTTP client takes longer to import
than the question takes.
"""

from __future__ import annotations

import os
import socket
import sys

__all__ = ["main"]

_WAIT_S = 3.0
_ANSWER_BYTES_MAX = 16 * 1024
_PATHS = {"alive": "/healthz", "ready": "/readyz"}


def main(arguments: list[str]) -> int:
    """Ask on loopback at KITE_METRICS_PORT; returns the exit code."""
    question = arguments[0] if arguments else "alive"
    if question not in _PATHS:
        sys.stderr.write(f"{question!r} is no question: expected one of {', '.join(_PATHS)}\n")
        return 2
    try:
        port = int(os.environ.get("KITE_METRICS_PORT", ""))
        answer = _ask(port, _PATHS[question])
    except (OSError, ValueError) as error:
        sys.stderr.write(f"not {question}: {error}\n")
        return 1
    status, _, rest = answer.partition(b"\r\n")
    if status.split(b" ")[1:2] == [b"200"]:
        return 0
    reasons = rest.rpartition(b"\r\n\r\n")[2].decode(errors="replace").strip()
    sys.stderr.write(f"not {question}: {reasons}\n")
    return 1


def _ask(port: int, path: str) -> bytes:
    """Return the whole answer, or its beginning if it is longer than an answer should be."""
    parts: list[bytes] = []
    missing = _ANSWER_BYTES_MAX
    with socket.create_connection(("127.0.0.1", port), timeout=_WAIT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
        while missing > 0 and (part := connection.recv(missing)):
            parts.append(part)
            missing -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
