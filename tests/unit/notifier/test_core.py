"""Which messages for which channel, and when: lists in, lists out."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from services.notifier.core import (
    LOOK_MS,
    RATE_WINDOW_MS,
    SETTLE_MS,
    AlertNews,
    Channel,
    Fate,
    Heard,
    Item,
    Now,
    Summary,
    Verdict,
    age_ms,
    alert_key,
    fold,
    happened_ms,
    is_quiet,
    judge,
    plan,
    wants_alert,
)
from tests.unit.notifier.messages import (
    MINUTE_MS,
    NOON_MS,
    alert,
    alerts,
    item,
    news,
    signal,
    summary,
)

NOON = Now(NOON_MS, NOON_MS)
BEFORE = NOON_MS - 10 * MINUTE_MS


class TestSignals:
    """What a signal means to a channel."""

    @pytest.mark.parametrize(
        ("wants", "fields", "verdict"),
        [
            ({}, {}, "tell"),
            ({"signals": False}, {}, "ignore"),
            ({"tickers": ("SPY", "QQQ")}, {}, "tell"),
            ({"tickers": ("SPY",)}, {}, "ignore"),
            ({"timeframes": ("1m", "5m")}, {}, "tell"),
            ({"timeframes": ("5m",)}, {}, "ignore"),
            ({"directions": ("up",)}, {}, "tell"),
            ({"directions": ("up",)}, {"direction": "down"}, "ignore"),
            ({}, {"state": "superseded"}, "ignore"),
        ],
    )
    def test_filters(self, wants: dict[str, Any], fields: dict[str, Any], verdict: Verdict) -> None:
        """By ticker, timeframe and direction; what was taken back before it was told is no news."""
        channel = Channel(**wants)
        assert judge(channel, signal(**fields), None, BEFORE) == verdict

    def test_a_correction_of_the_time_before_the_start_is_history(self) -> None:
        """Backfilling a day tells nobody; what a correction finds afterwards is told."""
        late = signal(late=True)
        assert judge(Channel(), late, None, NOON_MS + 1) == "ignore"
        assert judge(Channel(), late, None, NOON_MS) == "tell"
        assert judge(Channel(), signal(), None, NOON_MS + 1) == "tell"

    @pytest.mark.parametrize(
        ("fate", "change", "verdict"),
        [
            ("sent", {"revision": 0}, "ignore"),
            ("sent", {"revision": 2, "price": 1.0}, "note"),
            ("sent", {"revision": 2, "state": "superseded"}, "withdraw"),
            ("perhaps", {"revision": 2, "state": "superseded"}, "withdraw"),
            ("sending", {"revision": 2, "state": "superseded"}, "withdraw"),
            ("sent", {"revision": 2, "direction": "down"}, "correct"),
            ("pending", {"revision": 2, "state": "superseded"}, "replace"),
            ("pending", {"revision": 0}, "ignore"),
            ("summarised", {"revision": 2, "state": "superseded"}, "note"),
        ],
    )
    def test_a_later_revision(
        self, fate: Fate, change: dict[str, object], verdict: Verdict
    ) -> None:
        """New values alone are no news; taken back or turned is, to whom was told."""
        heard = Heard(signal(), fate)
        assert judge(Channel(), structs.replace(signal(), **change), heard, BEFORE) == verdict

    def test_what_was_told_is_taken_back_past_all_filters(self) -> None:
        """A signal that turns is news to who asked for the other direction only."""
        turned = signal(revision=1, direction="down")
        heard = Heard(signal(), "sent")
        assert judge(Channel(directions=("up",)), turned, heard, BEFORE) == "correct"

    def test_a_signal_happens_when_its_candle_closes(self) -> None:
        """And one of ticks with its tick."""
        assert happened_ms(signal(0)) == MINUTE_MS
        assert happened_ms(signal(0, timeframe="1h")) == 60 * MINUTE_MS
        assert happened_ms(signal(5, timeframe="tick")) == 5


class TestAlarms:
    """Who is told of an alarm."""

    @pytest.mark.parametrize("least", ["info", "warning", "critical"])
    def test_severity(self, least: str) -> None:
        """From the least severity on."""
        order = ["info", "warning", "critical"]
        for severity in order:
            channel = Channel(alerts=True, severity=least)  # type: ignore[arg-type]  # of a list
            wanted = wants_alert(channel, alert(severity=severity))
            assert wanted == (order.index(severity) >= order.index(least))

    def test_nobody_is_told_who_did_not_ask(self) -> None:
        """Alarms are off unless they are asked for."""
        assert not wants_alert(Channel(), alert())

    def test_the_same_alarm(self) -> None:
        """Known by what it is, since when, and its state; not by its words."""
        same = structs.replace(alert(), summary="in other words")
        assert alert_key(same) == alert_key(alert())
        for change in ({"status": "resolved"}, {"starts_at": "x"}, {"fingerprint": "y"}):
            assert alert_key(structs.replace(alert(), **change)) != alert_key(alert())


class TestQuietHours:
    """By the wall clock of a zone."""

    @pytest.mark.parametrize(
        ("time", "quiet"),
        [("21:59", False), ("22:00", True), ("03:00", True), ("06:59", True), ("07:00", False)],
    )
    def test_over_midnight(self, time: str, quiet: bool) -> None:
        """The begin belongs to them, the end does not."""
        channel = Channel(quiet=("22:00-07:00", "12:00-12:30"))
        for day in ("2026-01-05", "2026-07-06"):  # winter and summer time
            at = datetime.fromisoformat(f"{day} {time}").replace(
                tzinfo=ZoneInfo("America/New_York")
            )
            assert is_quiet(channel, int(at.timestamp() * 1000)) == quiet

    def test_the_zone_is_the_channel_s(self) -> None:
        """Noon in New York is six in the evening in Berlin."""
        assert is_quiet(Channel(quiet=("18:00-18:01",), zone="Europe/Berlin"), NOON_MS)
        assert not is_quiet(Channel(quiet=("18:00-18:01",)), NOON_MS)

    def test_messages_wait_and_critical_alarms_do_not(self) -> None:
        """What may pass is a setting."""
        quiet = Channel(quiet=("00:00-23:59",), alerts=True)
        warning = item(2, alerts(alert(severity="warning")))
        waiting = [item(1, news()), warning]
        assert plan(quiet, waiting, (), NOON).send is None
        assert plan(quiet, [*waiting, item(3, alerts())], (), NOON).send == item(3, alerts())
        passing = structs.replace(quiet, quiet_passes="warning")
        assert plan(passing, waiting, (), NOON).send == warning
        nothing = structs.replace(quiet, quiet_passes="nothing")
        assert plan(nothing, [item(3, alerts())], (), NOON).send is None

    def test_after_them_the_old_is_summed_up_and_the_new_is_sent(self) -> None:
        """In one summary, not one by one; during them nothing is given up."""
        channel = Channel(quiet=("11:00-12:00",))
        old = [item(n, news(), NOON_MS - 30 * MINUTE_MS) for n in range(3)]
        new = item(9, news(), NOON_MS - MINUTE_MS)
        before = Now(NOON_MS - 1, NOON_MS - 1)
        assert plan(channel, [*old, new], (), before) == plan(channel, [new], (), before)
        assert plan(channel, [*old, new], (), NOON).fold == tuple(old)
        assert plan(channel, [new], (), NOON).send == new


class TestRates:
    """Not more than so many a minute."""

    @given(st.integers(1, 30), st.lists(st.integers(-90_000, 0), max_size=80))
    def test_no_minute_has_more(self, limit: int, told: list[int]) -> None:
        """Sent only while the last minute has room; else looked at again in time."""
        told_ms = [NOON_MS + at for at in told]
        recent = [at for at in told_ms if NOON_MS - at < RATE_WINDOW_MS]
        found = plan(Channel(per_minute_max=limit), [item(1, news())], told_ms, NOON)
        assert (found.send is not None) == (len(recent) < limit)
        assert found.send is not None or 0 < (found.wait_ms or 0) <= LOOK_MS

    def test_a_clock_that_was_set_back_silences_nobody(self) -> None:
        """What was sent in the future does not count."""
        told_ms = [NOON_MS + MINUTE_MS] * 100
        assert plan(Channel(), [item(1, news())], told_ms, NOON).send is not None


class TestOrder:
    """What is sent first."""

    def test_alarms_first_then_as_they_came(self) -> None:
        """An alarm says why signals stay away."""
        waiting = [item(1, news()), item(2, news()), item(3, alerts())]
        sent = []
        while waiting:
            found = plan(Channel(), waiting, (), NOON).send
            assert found is not None
            sent.append(found.id)
            waiting.remove(found)
        assert sent == [3, 1, 2]

    def test_what_is_refused_again_and_again_lets_others_pass(self) -> None:
        """One message that a channel does not like holds up nothing for ever."""
        refused = item(1, alerts(), tries=5)
        assert plan(Channel(), [refused, item(2, news())], (), NOON).send == item(2, news())


class TestAges:
    """Late and too old, in the broker's time."""

    def test_age_is_counted_by_the_broker_s_clock(self) -> None:
        """A replay of an old day is not late; without a clock the wall's goes on from the frame."""
        told = item(1, news(), NOON_MS, received_ms=NOON_MS + 5_000)
        far = NOON_MS + 10**12
        assert age_ms(told, Now(far, NOON_MS + 7_000)) == 7_000
        assert age_ms(told, Now(NOON_MS + 8_000)) == 3_000
        assert age_ms(item(1, alerts()), Now(NOON_MS + 9_000, 5)) == 9_000

    def test_the_old_wait_a_moment_for_more(self) -> None:
        """One summary instead of many; fresh ones are sent meanwhile."""
        channel = Channel(too_old_s=60)
        now = Now(NOON_MS, NOON_MS + 2 * MINUTE_MS)
        stale = item(1, news(), taken_ms=NOON_MS - SETTLE_MS + 1)
        assert plan(channel, [stale], (), now).wait_ms == LOOK_MS
        assert plan(channel, [stale, item(2, alerts())], (), now).send == item(2, alerts())
        later = Now(NOON_MS + 1, now.broker_ms)
        assert plan(channel, [stale], (), later).fold == (stale,)

    def test_a_summary_takes_in_the_next_ones(self) -> None:
        """While it waits it grows; one that may have been sent stays as it is."""
        stale = item(5, news(), NOON_MS - 60 * MINUTE_MS)
        open_one, doubted = item(1, summary()), item(2, summary(), doubt=True)
        assert plan(Channel(), [open_one, doubted, stale], (), NOON).fold == (stale, open_one)
        grown = fold((stale, open_one), Channel(), NOON)
        assert (grown.too_old, grown.facts) == (3, {"QQQ up": 3})
        assert grown.first_ms == stale.happened_ms

    def test_alarms_keep_for_longer(self) -> None:
        """A day by default."""
        old = item(1, alerts(), NOON_MS - 23 * 60 * MINUTE_MS)
        assert plan(Channel(), [old], (), NOON).send == old
        older = item(1, alerts(), NOON_MS - 25 * 60 * MINUTE_MS)
        assert plan(Channel(), [older], (), NOON).fold == (older,)


# -- all together ---------------------------------------------------------------------------------

contents = st.one_of(
    st.builds(news, ticker=st.sampled_from(["QQQ", "SPY"])),
    st.builds(alerts),
)
causes = st.lists(
    st.tuples(contents, st.integers(0, 200), st.integers(0, 3)), max_size=60
)  # content, seconds after noon, how many tries fail
channels = st.builds(
    Channel,
    too_old_s=st.integers(1, 120),
    alerts_too_old_s=st.integers(60, 200),
    pending_messages_max=st.integers(1, 20),
    per_minute_max=st.integers(1, 30),
    quiet=st.sampled_from([(), ("12:01-12:02",)]),
)


@given(channels, causes)
def test_every_message_is_sent_once_or_counted_once(
    channel: Channel, arriving: list[tuple[object, int, int]]
) -> None:
    """Whatever the limits, the order and the failures: nothing is lost, nothing comes twice.

    Nor is a limit passed: of a rate, of quiet hours, of how many wait.
    """
    waiting: list[Item] = []
    sent: list[Item] = []
    told_ms: list[int] = []
    failing = {number: tries for number, (_, _, tries) in enumerate(arriving)}
    number = len(arriving)
    for second in range(1200):
        now = Now(NOON_MS + second * 1000, NOON_MS + second * 1000)
        waiting += [
            item(n, content, now.wall_ms)  # type: ignore[arg-type]  # drawn from `contents`
            for n, (content, at, _) in enumerate(arriving)
            if at == second
        ]
        while True:
            found = plan(channel, waiting, told_ms, now)
            if found.fold:
                waiting = [each for each in waiting if each not in found.fold]
                waiting.append(item(number, fold(found.fold, channel, now), now.wall_ms))
                number += 1
            elif found.send is not None and failing.get(found.send.id, 0):
                failing[found.send.id] -= 1
                break
            elif found.send is not None:
                waiting.remove(found.send)
                sent.append(found.send)
                told_ms.append(now.wall_ms)
                loud = isinstance(found.send.content, AlertNews)
                assert loud or not is_quiet(channel, now.wall_ms)
            else:
                break
        singles = [each for each in waiting if not isinstance(each.content, Summary)]
        assert len(singles) <= channel.pending_messages_max
    assert waiting == []
    for begin in told_ms:
        assert sum(begin <= at < begin + 60_000 for at in told_ms) <= channel.per_minute_max
    summed = [each.content for each in sent if isinstance(each.content, Summary)]
    plain = [each.id for each in sent if not isinstance(each.content, Summary)]
    assert len(set(plain)) == len(plain)
    assert len(plain) + sum(each.too_old + each.too_many for each in summed) == len(arriving)
