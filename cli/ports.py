"""Ports on loopback: the usual one where it is free, the one asked for or a clear refusal."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from cli.servers.host import book_port, choose_port, claim_port, reserve_port
from libs.common.errors import ServerError, SettingsError

__all__ = ["GATEWAY_PORT", "NATS_PORT", "POSTGRES_PORT", "Ports", "is_free"]

GATEWAY_PORT = 8080
NATS_PORT = 4222
POSTGRES_PORT = 5432


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a loopback port."""
    try:
        claim_port(port, "")
    except ServerError:
        return False
    return True


@dataclass
class Ports:
    """Gives out ports, each only once; `notes` says where a usual one was taken.

    A context manager: until it is left, other stacks that start choose other ports.
    """

    notes: list[str] = field(default_factory=list)
    _given: set[int] = field(default_factory=set)
    _reservations: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> Ports:
        return self

    def __exit__(self, *_: object) -> None:
        for reservation in self._reservations:
            reservation.close()
        self._reservations.clear()

    def free(self) -> int:
        """Return a free port that was not given out before."""
        while True:
            port = choose_port()
            if port in self._given or (reservation := reserve_port(port)) is None:
                continue
            self._reservations.append(reservation)
            self._given.add(port)
            return port

    def keep(self, port: int) -> int:
        """Return `port` if nobody took it meanwhile, else (also for 0) a free one in its place."""
        try:
            if port:
                return claim_port(port, "a service")
        except ServerError:
            self._given.discard(port)
        return self.free()

    def usual(self, port: int, asked: int | None, server: str, option: str) -> int:
        """Return `asked` if given (0: any), else the usual `port`, else any free one.

        Raises SettingsError when the port asked for is taken.
        """
        if asked == 0:
            return self.free()
        try:
            chosen = self._book(claim_port(asked or port, server), server)
        except ServerError as error:
            if asked:
                line = f"{option} {asked}: the port is taken by another program"
                raise SettingsError([f"{line}; choose another, or 0 for any free one"]) from error
            chosen = self.free()
            self.notes.append(f"port {port} is taken, {server} uses {chosen}")
        self._given.add(chosen)
        return chosen

    def _book(self, port: int, server: str) -> int:
        if (booking := book_port(port)) is None:
            raise ServerError(f"port {port} for {server} is taken by a stack that starts just now")
        self._reservations.append(booking)
        return port
