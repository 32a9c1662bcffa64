"""A service's life: what it ends with, and that it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog

from libs.common.errors import KiteError, PositionError, SchemaError, StoreMismatch
from libs.common.runner import Backoff, Runtime, connect_bus, run
from libs.common.settings import ServiceSettings
from tests.waiting import eventually_async

NOBODY = "nats://writer:hunter2@127.0.0.1:1"
Serve = Callable[[Runtime[Any]], Awaitable[None]]


@pytest.fixture(autouse=True)
def _own_handlers_and_logs() -> Iterator[None]:
    """Give signals and logs back as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def live(serve: Serve, **environ: str) -> int:
    """Run a service to its end and return the exit code."""
    return run("test", ServiceSettings, serve, {"KITE_NATS_URL": NOBODY, **environ})


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the lines logged."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def until_stopped(runtime: Runtime[Any]) -> None:
    """Serve until told to stop."""
    await runtime.stop.wait()


class TestExitCodes:
    """What a process ends with says whether trying again helps."""

    def test_wrong_settings_end_it_with_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        """One line for each mistake, and nothing is started."""

        async def serve(_: Runtime[Any]) -> None:
            pytest.fail("started")

        code = live(serve, KITE_PARTITIONS="none", KITE_SOURCE="broker")
        lines = capsys.readouterr().err.splitlines()
        assert code == 2
        assert len(lines) == 2
        assert all(line.startswith("test: KITE_") for line in lines)

    def test_a_taken_metrics_port_ends_it_with_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The line names the setting, the address and the way out."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert live(until_stopped, KITE_METRICS_PORT=str(port)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "KITE_METRICS_PORT" in line
        assert f"127.0.0.1:{port}" in line

    def test_returning_ends_it_with_0(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A service that is done has stopped in good order."""

        async def serve(_: Runtime[Any]) -> None:
            return

        assert live(serve) == 0
        assert [line["event"] for line in events(capsys)] == ["service.started", "service.stopped"]

    @pytest.mark.parametrize(
        ("error", "code"),
        [(PositionError("p"), 3), (SchemaError("s"), 3), (StoreMismatch("m"), 2)],
    )
    def test_a_final_error_is_one_line_and_its_own_code(
        self, capsys: pytest.CaptureFixture[str], error: KiteError, code: int
    ) -> None:
        """Alone, and out of a group of tasks."""

        async def alone(_: Runtime[Any]) -> None:
            raise error

        async def grouped(_: Runtime[Any]) -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.Event().wait())
                tasks.create_task(alone(_))

        for serve in (alone, grouped):
            assert live(serve) == code
            last = events(capsys)[-1]
            assert (last["event"], last["error"]) == ("service.refused", str(error))
            assert "exception" not in last

    def test_any_other_error_is_a_traceback_and_1(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A mistake of ours shows where it happened."""

        async def serve(_: Runtime[Any]) -> None:
            raise RuntimeError("oops")

        assert live(serve) == 1
        assert "RuntimeError: oops" in events(capsys)[-1]["exception"]


class TestStop:
    """SIGTERM and SIGINT ask, the deadline insists."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_asks_it_to_stop(self, number: signal.Signals) -> None:
        """It drains and ends with 0."""
        drained = []

        async def serve(runtime: Runtime[Any]) -> None:
            os.kill(os.getpid(), number)
            await runtime.stop.wait()
            drained.append(True)

        assert live(serve) == 0
        assert drained

    def test_who_does_not_drain_in_time_is_cancelled(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The deadline passed: it ends with 1 and says so."""

        async def serve(runtime: Runtime[Any]) -> None:
            runtime.stop.set()
            await asyncio.Event().wait()

        assert live(serve, KITE_STOP_DEADLINE_S="1") == 1
        assert events(capsys)[-1]["event"] == "service.stop_deadline_passed"

    def test_while_the_bus_is_away(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A service that waits for its server stops in good order, and shows no password."""

        async def serve(runtime: Runtime[Any]) -> None:
            async def stop_soon() -> None:
                await eventually_async(
                    lambda: "refused" in runtime.health.reasons.get("bus", ""), 20, "not ready"
                )
                assert not runtime.health.ready
                os.kill(os.getpid(), signal.SIGTERM)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(stop_soon())
                async with connect_bus(runtime):
                    pytest.fail("there is no server")

        assert live(serve) == 0
        text = capsys.readouterr().err
        assert "hunter2" not in text
        assert "service.stopped" in text
        assert "Traceback" not in text


def test_a_process_says_whether_it_is_ready_and_whose_data_it_has() -> None:
    """Alarms ask for both; readiness is that of the moment of the scrape."""
    seen: list[float | None] = []

    async def serve(runtime: Runtime[Any]) -> None:
        sample = runtime.metrics.registry.get_sample_value
        seen.append(sample("kite_info", {"source": "csv"}))
        runtime.health.require("bus")
        seen.append(sample("kite_ready"))
        runtime.health.met("bus")
        seen.append(sample("kite_ready"))

    assert live(serve, KITE_SOURCE="csv") == 0
    assert seen == [1, 0, 1]


class TestBackoff:
    """Longer waits up to a bound, never the same for two."""

    def test_doubles_up_to_the_bound(self) -> None:
        """Each wait lies between half and all of what it may be."""
        backoff = Backoff(first_s=0.1, max_s=0.5)
        for full_s in (0.1, 0.2, 0.4, 0.5, 0.5):
            assert full_s / 2 <= backoff.next_s() <= full_s

    def test_begins_anew_after_a_success(self) -> None:
        """The next failure is a first one."""
        backoff = Backoff(first_s=0.1, max_s=5)
        for _ in range(5):
            backoff.next_s()
        backoff.reset()
        assert backoff.next_s() <= 0.1

    def test_a_stop_ends_the_wait(self) -> None:
        """However long it would have been."""

        async def main() -> None:
            stop = asyncio.Event()
            stop.set()
            async with asyncio.timeout(5):
                await Backoff(first_s=3600, max_s=3600).pause(stop)

        asyncio.run(main())
