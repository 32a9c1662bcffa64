"""Environment to settings: conversions, defaults, and every mistake at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from libs.common.errors import EXIT_SETTINGS, SettingsError
from libs.common.settings import ServiceSettings, env_name, load, looks_secret


class Weights(Struct, frozen=True):
    low: float
    high: float


class Example(ServiceSettings, frozen=True, kw_only=True):
    """One field of each kind."""

    tickers: tuple[str, ...]
    flush_ms: Annotated[int, Meta(ge=1, le=1000)] = 250
    ratio: float = 0.5
    verbose: bool = False
    mode: Literal["fast", "exact"] = "fast"
    label: str | None = None
    limit: Annotated[int, Meta(ge=0)] | None = None
    weights: Weights | None = None
    api_token: int | None = None

    def __post_init__(self) -> None:
        """Refuse an impossible combination."""
        if self.mode == "exact" and self.ratio != 1:
            raise ValueError("KITE_RATIO: must be 1 when KITE_MODE is exact")


REQUIRED = {"KITE_NATS_URL": "nats://127.0.0.1:1", "KITE_TICKERS": "QQQ"}


def problems_of(environ: dict[str, str]) -> tuple[str, ...]:
    """Load and return what is wrong."""
    with pytest.raises(SettingsError) as refusal:
        load(Example, environ)
    return refusal.value.problems


class TestConversions:
    """Text becomes the field's type."""

    def test_defaults_fill_what_is_not_set(self) -> None:
        """Only what has no default must be given."""
        settings = load(Example, REQUIRED)
        assert settings.tickers == ("QQQ",)
        assert (settings.flush_ms, settings.ratio, settings.verbose) == (250, 0.5, False)
        assert (settings.partitions, settings.source, settings.label) == (1, "demo", None)

    def test_a_secret_may_stand_in_a_file(self, tmp_path: Path) -> None:
        """The file's text counts where the variable itself is empty; the variable goes first."""
        file = tmp_path / "nats-url"
        file.write_text("nats://from-file:1\n")
        named = {"KITE_NATS_URL": "", "KITE_NATS_URL_FILE": str(file), "KITE_TICKERS": "QQQ"}
        assert load(Example, named).nats_url == "nats://from-file:1"
        assert load(Example, {**named, "KITE_NATS_URL": "nats://set:1"}).nats_url == "nats://set:1"

    def test_what_is_no_secret_is_not_read_from_a_file(self, tmp_path: Path) -> None:
        """Settings such as KITE_LABEL stay where people look for them."""
        file = tmp_path / "label"
        file.write_text("hidden")
        assert load(Example, {**REQUIRED, "KITE_LABEL_FILE": str(file)}).label is None

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        """The line says which variable named which file."""
        place = str(tmp_path / "absent")
        named = {"KITE_NATS_URL_FILE": place, "KITE_TICKERS": "QQQ"}
        (problem,) = problems_of(named)
        assert "KITE_NATS_URL_FILE" in problem
        assert place in problem

    def test_an_empty_variable_counts_as_unset(self) -> None:
        """As compose files and shells leave them."""
        settings = load(Example, {**REQUIRED, "KITE_FLUSH_MS": "", "KITE_LABEL": "  "})
        assert (settings.flush_ms, settings.label) == (250, None)

    def test_lists_are_separated_by_commas(self) -> None:
        """Spaces around and commas at the end do no harm."""
        settings = load(Example, {**REQUIRED, "KITE_TICKERS": " QQQ, SPY ,, BRK.B,"})
        assert settings.tickers == ("QQQ", "SPY", "BRK.B")

    def test_numbers_choices_and_structs(self) -> None:
        """Each kind from its usual notation."""
        settings = load(
            Example,
            {
                **REQUIRED,
                "KITE_FLUSH_MS": "1000",
                "KITE_RATIO": "1",
                "KITE_MODE": "exact",
                "KITE_LIMIT": "0",
                "KITE_WEIGHTS": '{"low":0.5,"high":2}',
            },
        )
        assert (settings.flush_ms, settings.ratio, settings.mode) == (1000, 1.0, "exact")
        assert (settings.limit, settings.weights) == (0, Weights(0.5, 2.0))

    @pytest.mark.parametrize("text", ["1", "true", "YES", "On"])
    def test_ways_to_say_yes(self, text: str) -> None:
        """In any case of letters."""
        assert load(Example, {**REQUIRED, "KITE_VERBOSE": text}).verbose is True

    @pytest.mark.parametrize("text", ["0", "false", "NO", "Off"])
    def test_ways_to_say_no(self, text: str) -> None:
        """In any case of letters."""
        assert load(Example, {**REQUIRED, "KITE_VERBOSE": text}).verbose is False


class TestMistakes:
    """All at once, each in one line that names the variable."""

    def test_every_mistake_is_reported(self) -> None:
        """Missing, not a number, out of bounds, not a choice, not a boolean: one line each."""
        problems = problems_of(
            {
                "KITE_FLUSH_MS": "soon",
                "KITE_RATIO": "half",
                "KITE_VERBOSE": "maybe",
                "KITE_MODE": "slow",
                "KITE_PARTITIONS": "0",
                "KITE_METRICS_PORT": "70000",
                "KITE_SOURCE": "broker",
            }
        )
        named = {problem.partition(":")[0] for problem in problems}
        assert named == {
            "KITE_NATS_URL", "KITE_TICKERS", "KITE_FLUSH_MS", "KITE_RATIO", "KITE_VERBOSE",
            "KITE_MODE", "KITE_PARTITIONS", "KITE_METRICS_PORT", "KITE_SOURCE",
        }  # fmt: skip
        assert len(problems) == len(named)
        assert not any("\n" in problem for problem in problems)

    def test_missing_and_wrong_are_told_apart(self) -> None:
        """What is not set is required; what is set shows its value and the reason."""
        problems = problems_of({"KITE_TICKERS": "QQQ", "KITE_FLUSH_MS": "5000"})
        assert "KITE_NATS_URL: required, but not set" in problems
        (flush,) = (problem for problem in problems if "FLUSH" in problem)
        assert "'5000'" in flush
        assert "1000" in flush

    def test_a_wrong_value_does_not_hide_a_contradiction(self) -> None:
        """Both are told, so that nobody has to start twice to learn of the second."""
        environ = {**REQUIRED, "KITE_MODE": "exact", "KITE_FLUSH_MS": "soon"}
        found = problems_of(environ)
        assert [problem.partition(":")[0] for problem in found] == ["KITE_FLUSH_MS", "KITE_RATIO"]

    def test_fields_that_contradict_each_other(self) -> None:
        """A check across fields is one more line."""
        assert problems_of({**REQUIRED, "KITE_MODE": "exact"}) == (
            "KITE_RATIO: must be 1 when KITE_MODE is exact",
        )

    @pytest.mark.parametrize("text", ["1.5", "0x10", "१२", "nan", "1_000_000", "9" * 400])
    def test_odd_numbers_are_refused(self, text: str) -> None:
        """Only plain whole numbers within bounds are whole numbers."""
        (problem,) = problems_of({**REQUIRED, "KITE_FLUSH_MS": text})
        assert problem.startswith("KITE_FLUSH_MS: ")

    def test_no_secret_is_shown(self) -> None:
        """The value of a secret stays out of the error."""
        (problem,) = problems_of({**REQUIRED, "KITE_API_TOKEN": "hunter2"})
        assert "hunter2" not in problem
        assert problem.startswith("KITE_API_TOKEN: its value is not valid")

    def test_ends_a_process_with_code_2(self) -> None:
        """The exit code that promises: mend the settings, waiting will not help."""
        assert SettingsError(["x"]).exit_code == EXIT_SETTINGS == 2


def test_names_of_variables() -> None:
    """A field's variable is its name in capitals behind KITE_."""
    assert env_name("nats_url") == "KITE_NATS_URL"


@pytest.mark.parametrize(
    ("field", "secret"),
    [("nats_url", True), ("pg_dsn", True), ("schwab_app_secret", True), ("flush_ms", False)],
)
def test_which_fields_are_secret(field: str, secret: bool) -> None:
    """Addresses count, because they carry passwords."""
    assert looks_secret(field) is secret
