"""The supervisor's decisions: events and times in, actions out."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.supervisor import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    REFUSED_RETRY_S,
    STABLE_AFTER_S,
    STARTUP_DEATHS_MAX,
    Supervisor,
    backoff_s,
)
from cli.units import (
    Action,
    Announce,
    Elapsed,
    Event,
    Exited,
    Finish,
    ForceAsked,
    Hung,
    Kill,
    Reached,
    Ready,
    Report,
    RestartAsked,
    Start,
    State,
    StopAsked,
    Terminate,
    Unit,
    Unready,
)

NATS = Unit("nats", stop_stage=2, stop_deadline_s=5)
JOB = Unit("job", needs=frozenset({"nats"}), job=True)
FEED = Unit("feed", needs=frozenset({"streams"}), stop_stage=0, stop_deadline_s=3)
WRITER = Unit("writer", needs=frozenset({"streams", "schema"}), stop_stage=1, stop_deadline_s=3)
UNITS = (NATS, JOB, FEED, WRITER)


def orders(actions: list[Action]) -> list[Action]:
    """Leave out what is only said."""
    return [action for action in actions if not isinstance(action, Report)]


def reports(actions: list[Action]) -> list[str]:
    """Return only what is said."""
    return [action.text for action in actions if isinstance(action, Report)]


def running() -> Supervisor:
    """Return a stack that was announced at time 1."""
    machine = Supervisor(UNITS)
    machine.handle(Elapsed(), 0)
    before: list[Event] = [Ready("nats"), Reached("streams"), Reached("schema")]
    after: list[Event] = [Exited("job", 0), Ready("feed"), Ready("writer")]
    for event in before:
        machine.handle(event, 0)
    for event in after:
        machine.handle(event, 1)
    assert machine.announced
    return machine


class TestStarting:
    """What starts when."""

    def test_units_start_as_soon_as_what_they_need_is_there(self) -> None:
        """Each milestone starts exactly those that waited for it alone."""
        machine = Supervisor(UNITS)
        assert machine.handle(Elapsed(), 0) == [Start("nats")]
        assert machine.handle(Ready("nats"), 1) == [Start("job")]
        assert machine.handle(Reached("streams"), 2) == [Start("feed")]
        assert machine.handle(Reached("schema"), 3) == [Start("writer")]

    def test_the_stack_is_announced_once_all_are_ready_and_all_jobs_done(self) -> None:
        """The last one to get ready brings the announcement, a second time there is none."""
        machine = Supervisor(UNITS)
        for event in (Elapsed(), Ready("nats"), Reached("streams"), Reached("schema")):
            machine.handle(event, 0)
        assert machine.handle(Ready("feed"), 1) == []
        assert machine.handle(Exited("job", 0), 1) == []
        assert machine.handle(Ready("writer"), 1) == [Announce()]
        assert machine.handle(Ready("writer"), 2) == []

    def test_a_unit_that_was_ready_and_is_behind_now_does_not_hold_up_the_announcement(
        self,
    ) -> None:
        """Under load one of many is always catching up; what counts is that all came up."""
        machine = Supervisor(UNITS)
        before: list[Event] = [Elapsed(), Ready("nats"), Reached("streams"), Reached("schema")]
        after: list[Event] = [Ready("feed"), Unready("feed", "behind"), Exited("job", 0)]
        for event in before:
            machine.handle(event, 0)
        for event in after:
            assert machine.handle(event, 1) == []
        assert machine.handle(Ready("writer"), 1) == [Announce()]

    def test_a_job_may_say_that_it_is_done_before_it_ends(self) -> None:
        """Reaching its own name counts, and its end changes nothing any more."""
        machine = Supervisor((JOB,))
        machine.handle(Reached("nats"), 0)
        assert machine.handle(Reached("job"), 1) == [Announce()]
        assert machine.handle(Exited("job", 0), 2) == []
        assert machine.state("job") is State.DONE

    def test_a_refusal_while_starting_stops_everything_with_its_own_words(self) -> None:
        """Exit code 2 of a service is the exit code of all, and its line is shown."""
        machine = Supervisor(UNITS)
        for event in (Elapsed(), Ready("nats"), Reached("streams")):
            machine.handle(event, 0)
        actions = machine.handle(Exited("feed", 2, "KITE_TICKERS: empty"), 1)
        assert reports(actions) == ["feed refuses to run: KITE_TICKERS: empty"]
        assert machine.handle(Exited("job", -15), 2) == [Terminate("nats")]
        assert machine.handle(Exited("nats", 0), 3) == [Finish(2)]

    def test_what_dies_again_and_again_while_starting_is_given_up(self) -> None:
        """The last death is reported with its cause, and the exit code is 1."""
        machine = Supervisor((NATS,))
        machine.handle(Elapsed(), 0)
        now_s = 0.0
        for _ in range(STARTUP_DEATHS_MAX - 1):
            machine.handle(Exited("nats", 1, "no luck"), now_s)
            now_s += BACKOFF_MAX_S
            assert machine.handle(Elapsed(), now_s) == [Start("nats")]
        actions = machine.handle(Exited("nats", 1, "no luck"), now_s)
        assert actions[-1] == Finish(1)
        assert "nats does not start, tried 5 times: exit code 1: no luck" in reports(actions)

    def test_a_job_that_was_killed_runs_again(self) -> None:
        """Jobs can be repeated, so a kill costs nothing but time."""
        machine = Supervisor((JOB,))
        machine.handle(Reached("nats"), 0)
        machine.handle(Exited("job", -9), 1)
        assert machine.handle(Elapsed(), 1 + BACKOFF_FIRST_S) == [Start("job")]


class TestRestarting:
    """What happens to what dies."""

    def test_a_death_is_followed_by_a_start_after_the_backoff(self) -> None:
        """Not before it is due, then exactly once."""
        machine = running()
        assert orders(machine.handle(Exited("feed", -9), 10)) == []
        assert machine.state("feed") is State.BACKOFF
        assert machine.next_due_s() == 10 + BACKOFF_FIRST_S
        assert machine.handle(Elapsed(), 10.1) == []
        assert machine.handle(Elapsed(), 10 + BACKOFF_FIRST_S) == [Start("feed")]
        assert machine.handle(Elapsed(), 11) == []
        assert machine.restarts("feed") == 1

    def test_the_report_says_how_it_ended(self) -> None:
        """A signal is named, an exit code is followed by the last words."""
        machine = running()
        assert "killed by SIGKILL" in reports(machine.handle(Exited("feed", -9), 10))[0]
        told = reports(machine.handle(Exited("writer", 1, "disk full"), 10))[0]
        assert told == "writer ended (exit code 1: disk full); starting it again in 0.2 s"

    def test_nobody_else_is_touched(self) -> None:
        """A server that dies is restarted alone: services wait for it by themselves."""
        machine = running()
        machine.handle(Exited("nats", -9), 10)
        assert machine.handle(Elapsed(), 11) == [Start("nats")]
        assert machine.state("feed") is State.RUNNING

    def test_a_service_starts_again_while_its_server_is_away(self) -> None:
        """Milestones stay reached."""
        machine = running()
        machine.handle(Exited("nats", -9), 10)
        machine.handle(Exited("feed", -9), 10)
        assert machine.handle(Elapsed(), 11) == [Start("nats"), Start("feed")]

    def test_waits_grow_and_begin_anew_with_a_process_that_got_up(self) -> None:
        """0.2 s doubles up to 10 s; to live for long is not enough, it has to have been ready."""
        machine = running()
        now_s, waits = 100.0, []
        for _ in range(8):
            machine.handle(Exited("feed", 1), now_s)
            due_s = machine.next_due_s()
            assert due_s is not None
            waits.append(round(due_s - now_s, 3))
            now_s = due_s
            machine.handle(Elapsed(), now_s)
        assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
        now_s += STABLE_AFTER_S
        machine.handle(Exited("feed", 1), now_s)
        assert machine.next_due_s() == now_s + BACKOFF_MAX_S
        now_s += BACKOFF_MAX_S
        machine.handle(Elapsed(), now_s)
        machine.handle(Ready("feed"), now_s + 1)
        now_s += STABLE_AFTER_S
        machine.handle(Exited("feed", 1), now_s)
        assert machine.next_due_s() == now_s + BACKOFF_FIRST_S

    @pytest.mark.parametrize("code", [2, 3])
    def test_a_refusal_while_running_is_tried_again_seldom(self, code: int) -> None:
        """It is marked as refused, and nothing else stops."""
        machine = running()
        actions = machine.handle(Exited("writer", code, "position ahead of its stream"), 10)
        assert orders(actions) == []
        assert "position ahead of its stream" in reports(actions)[0]
        assert machine.state("writer") is State.REFUSED
        assert machine.handle(Elapsed(), 10 + REFUSED_RETRY_S - 0.1) == []
        assert machine.handle(Elapsed(), 10 + REFUSED_RETRY_S) == [Start("writer")]

    def test_a_hung_process_is_killed_and_started_again(self) -> None:
        """Silence is treated like a death."""
        machine = running()
        assert orders(machine.handle(Hung("feed"), 10)) == [Kill("feed")]
        machine.handle(Exited("feed", -9), 10)
        assert machine.handle(Elapsed(), 11) == [Start("feed")]

    def test_unready_is_shown_and_changes_nothing_else(self) -> None:
        """A service whose server is away is not restarted for it."""
        machine = running()
        assert machine.handle(Unready("writer", "database: away"), 10) == []
        assert machine.state("writer") is State.UNREADY
        assert machine.reason("writer") == "database: away"
        assert machine.handle(Ready("writer"), 11) == []
        assert (machine.state("writer"), machine.reason("writer")) == (State.RUNNING, "")


class TestRestartOnRequest:
    """`./kite restart`."""

    def test_it_ends_the_process_and_starts_it_without_waiting(self) -> None:
        """No back-off: this was no failure."""
        machine = running()
        assert machine.handle(RestartAsked("feed"), 10) == [Terminate("feed")]
        assert machine.handle(Exited("feed", 0), 10.5) == [Start("feed")]
        assert machine.restarts("feed") == 1

    def test_a_reason_is_told(self) -> None:
        """A person who asks knows why; a server that is found sick needs an explanation."""
        machine = running()
        actions = machine.handle(RestartAsked("nats", "disk was full"), 10)
        assert reports(actions) == ["restarting nats: disk was full"]
        assert orders(actions) == [Terminate("nats")]

    def test_one_that_does_not_end_is_killed_and_still_comes_back(self) -> None:
        """The deadline of the unit counts here, too."""
        machine = running()
        machine.handle(RestartAsked("feed"), 10)
        assert orders(machine.handle(Elapsed(), 13)) == [Kill("feed")]
        assert machine.handle(Exited("feed", -9), 13.1) == [Start("feed")]

    def test_one_that_waits_for_its_backoff_starts_at_once(self) -> None:
        """Somebody mended it and does not want to wait."""
        machine = running()
        machine.handle(Exited("writer", 2), 10)
        assert machine.handle(RestartAsked("writer"), 11) == [Start("writer")]

    def test_asking_twice_restarts_once(self) -> None:
        """The second request finds the first one under way."""
        machine = running()
        machine.handle(RestartAsked("feed"), 10)
        assert machine.handle(RestartAsked("feed"), 10) == []


class TestStopping:
    """Ctrl-C, `./kite down`, `--exit-after`."""

    def test_stages_end_one_after_the_other(self) -> None:
        """What feeds the pipeline first, the servers last."""
        machine = running()
        assert machine.handle(StopAsked(0), 10) == [Terminate("feed")]
        assert machine.handle(Exited("feed", 0), 11) == [Terminate("writer")]
        assert machine.handle(Exited("writer", 0), 12) == [Terminate("nats")]
        assert machine.handle(Exited("nats", 0), 13) == [Finish(0)]

    def test_a_stage_that_does_not_end_is_killed(self) -> None:
        """At the deadline, once."""
        machine = running()
        machine.handle(StopAsked(0), 10)
        assert orders(machine.handle(Elapsed(), 13)) == [Kill("feed")]
        assert machine.handle(Elapsed(), 14) == []
        assert machine.handle(Exited("feed", -9), 14) == [Terminate("writer")]

    def test_what_is_dead_is_not_started_for_the_occasion(self) -> None:
        """A unit that waits for its back-off stays down."""
        machine = running()
        machine.handle(Exited("feed", -9), 10)
        assert machine.handle(StopAsked(0), 10.1) == [Terminate("writer")]
        assert machine.handle(Elapsed(), 12) == []

    def test_a_restart_under_way_does_not_survive_the_stop(self) -> None:
        """The process that was told to end for a restart just ends."""
        machine = running()
        machine.handle(RestartAsked("feed"), 10)
        assert machine.handle(StopAsked(0), 10) == []
        assert machine.handle(Exited("feed", 0), 11) == [Terminate("writer")]

    def test_the_second_request_kills_everything_at_once(self) -> None:
        """Forcing asks nobody, and ends with exit code 0 if the stop was an orderly one."""
        machine = running()
        machine.handle(StopAsked(0), 10)
        assert machine.handle(ForceAsked(), 11) == [Kill("nats"), Kill("feed"), Kill("writer")]
        for name in ("nats", "feed"):
            assert machine.handle(Exited(name, -9), 12) == []
        assert machine.handle(Exited("writer", -9), 12) == [Finish(0)]

    def test_stopping_before_anything_started_finishes_at_once(self) -> None:
        """There is nobody to wait for."""
        machine = Supervisor((JOB, FEED))
        assert machine.handle(StopAsked(0), 0) == [Finish(0)]
        assert machine.handle(Elapsed(), 1) == []


def test_backoff_is_bounded() -> None:
    """However often something dies, the wait stays between its bounds."""
    waits = [backoff_s(deaths) for deaths in (1, 2, 50, 10_000)]
    assert waits == [BACKOFF_FIRST_S, 2 * BACKOFF_FIRST_S, BACKOFF_MAX_S, BACKOFF_MAX_S]


# -- any order of events ---------------------------------------------------------------------------

names = st.sampled_from([unit.name for unit in UNITS])
events = st.one_of(
    st.just(Elapsed()),
    st.sampled_from(["streams", "schema", "job"]).map(Reached),
    names.map(Ready),
    st.builds(Unready, names, st.just("no")),
    names.map(Hung),
    st.builds(Exited, names, st.sampled_from([0, 1, 2, 3, -9])),
    names.map(RestartAsked),
    st.just(StopAsked(0)),
    st.just(ForceAsked()),
)
steps = st.lists(st.tuples(events, st.floats(0, 20)), max_size=80)


@dataclass
class World:
    """Plays the processes: those that were started and have not ended."""

    machine: Supervisor
    alive: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)  # to end, by signal
    stop_asked: bool = False
    finished: bool = False
    reached: set[str] = field(default_factory=set)

    def happen(self, event: Event, now_s: float) -> None:
        """Let an event happen that can, and check every action that follows."""
        if isinstance(event, (Ready, Unready, Hung, Exited)) and event.unit not in self.alive:
            return
        if isinstance(event, Exited):
            self.alive.discard(event.unit)
            self.told.discard(event.unit)
        if isinstance(event, (StopAsked, ForceAsked)):
            self.stop_asked = True
        if isinstance(event, Reached):
            self.reached.add(event.milestone)
        if isinstance(event, Ready) and self.machine.state(event.unit) is not State.STOPPING:
            self.reached.add(event.unit)
        for action in self.machine.handle(event, now_s):
            self._check(action)

    def _check(self, action: Action) -> None:
        assert not self.finished, f"{action} after the end"
        match action:
            case Start(name):
                assert name not in self.alive, f"two processes of {name}"
                assert not self.stop_asked or self.machine.stopping is False
                needs = next(unit.needs for unit in UNITS if unit.name == name)
                assert needs <= self.reached, f"{name} started before {needs - self.reached}"
                self.alive.add(name)
            case Terminate(name) | Kill(name):
                assert name in self.alive, f"{action} without a process"
                self.told.add(name)
            case Finish():
                assert not self.alive, f"finished while {self.alive} live"
                self.finished = True
            case Announce() | Report():
                pass


@given(steps)
def test_any_order_of_events_keeps_the_invariants(
    happenings: list[tuple[Event, float]],
) -> None:
    """One process a unit, no start after a stop, needs first, an end only when all are gone."""
    world, now_s = World(Supervisor(UNITS)), 0.0
    for event, passed_s in happenings:
        now_s += passed_s
        world.happen(event, now_s)
    world.happen(StopAsked(0), now_s)
    for _ in range(200):  # whatever state it is in: processes that end when told bring the end
        if world.finished:
            break
        due_s = world.machine.next_due_s()
        now_s = max(now_s, due_s) if due_s is not None else now_s
        world.happen(Elapsed(), now_s)
        for name in sorted(world.told):
            world.happen(Exited(name, 0), now_s)
    assert world.finished


@given(steps)
def test_every_death_of_a_service_is_followed_by_a_start(
    happenings: list[tuple[Event, float]],
) -> None:
    """Unless it is stopping, a unit whose needs are reached always has a process or a due time."""
    world, now_s = World(Supervisor(UNITS)), 0.0
    world.happen(Elapsed(), now_s)
    for event, passed_s in happenings:
        now_s += passed_s
        world.happen(event, now_s)
        if world.machine.stopping:
            return
        for unit in UNITS:
            state = world.machine.state(unit.name)
            if unit.needs <= world.reached and state is not State.DONE:
                has_process = unit.name in world.alive
                assert has_process or world.machine.next_due_s() is not None, unit.name
