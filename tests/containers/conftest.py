"""The demo in containers, built and started once for all tests that need it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.containers import standins
from tests.containers.definitions import MONITORING
from tests.containers.project import BUILD_WAIT_S, Project, require_docker

REPORT: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Have a place for what a person should read at the end."""
    config.stash[REPORT] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say which images were not the official ones, and what was measured."""
    if config.stash[REPORT]:
        terminalreporter.section("containers")
        for line in config.stash[REPORT]:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> list[str]:
    """Lines that are shown after the tests."""
    return request.config.stash[REPORT]


@pytest.fixture(scope="session")
def images(report: list[str]) -> None:
    """Every image of others that we run or build on; where it must be, a stand-in."""
    require_docker()
    for image, what in standins.ensure(standins.wanted()).items():
        report.append(f"stand-in for {image}: {what}")


@pytest.fixture(scope="session")
def built(images: None) -> Iterator[Project]:
    """A project whose images are built and of which nothing runs yet."""
    with Project() as project:
        # The first one makes what all share, which the others then find.
        project.compose("build", "init", wait_s=BUILD_WAIT_S)
        project.compose("build", wait_s=BUILD_WAIT_S)
        project.compose("build", "cli", wait_s=BUILD_WAIT_S)  # runs by hand: not among those above
        yield project


@pytest.fixture(scope="session")
def demo(built: Project) -> Project:
    """The running demo without those who watch it; every service is healthy."""
    built.up(name for name in built.definition.services if name not in MONITORING)
    return built
