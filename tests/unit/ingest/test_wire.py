"""The wire is read with suspicion: hostile input is a reject, never an exception."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest import wire
from services.ingest.wire import BadItem, Reject

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["key", "1", "2", "7", "QQQ", "35"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


class TestMessage:
    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            ("{", "bad_json"),
            ("", "bad_json"),
            (b"\xff\xfe", "bad_json"),
            ("[1]", "not_an_object"),
            ("3", "not_an_object"),
            ("[" * 100_000, "too_deep"),
            ('{"a":' * 100_000, "too_deep"),
            (" " * (wire.FRAME_BYTES_MAX + 1), "too_big"),
            ('{"a":' + "9" * 5000 + "}", "bad_json"),
        ],
    )
    def test_what_cannot_be_read_is_a_reject(self, raw: str | bytes, reason: str) -> None:
        """Broken, deep, huge and foreign frames each have their reason, and a short excerpt."""
        found = wire.message_of(raw)
        assert isinstance(found, Reject)
        assert found.reason == reason
        assert len(found.excerpt) <= wire.EXCERPT_CHARS_MAX

    def test_nan_does_not_cost_the_frame(self) -> None:
        """NaN is no JSON, but only the item that holds it has to go."""
        found = wire.message_of('{"data":[{"1":NaN}]}')
        assert isinstance(found, dict)

    @given(st.text() | st.binary())
    def test_nothing_raises(self, raw: str | bytes) -> None:
        """Any text and any bytes give a dictionary or a reject."""
        assert isinstance(wire.message_of(raw), dict | Reject)


class TestExcerpt:
    @given(JSON | st.binary() | st.text(alphabet=st.characters(categories=["Cs"])))
    def test_is_always_text_that_can_be_encoded(self, value: object) -> None:
        """Lone surrogates and broken bytes become text that UTF-8 takes."""
        wire.excerpt(value).encode()


class TestNumbers:
    @pytest.mark.parametrize(
        "value", [True, None, "1", -0.01, 1e308, float("nan"), float("inf"), 10**400, [], {}]
    )
    def test_a_price_is_a_bearable_number(self, value: object) -> None:
        """Text, booleans, negatives, NaN and what no column holds are no prices."""
        with pytest.raises(BadItem, match="bad_price"):
            wire.price(value)

    def test_prices_have_four_decimals(self) -> None:
        """Sub-penny prints are kept to the fourth decimal, whole numbers become floats."""
        assert wire.price(239.37774) == 239.3777
        assert wire.price(769) == 769.0

    @pytest.mark.parametrize("value", [True, None, "1", -1, 1.5, 1e308, float("nan"), 10**400])
    def test_a_volume_is_a_whole_number(self, value: object) -> None:
        """Halves, negatives, text and astronomy are no volumes."""
        with pytest.raises(BadItem, match="bad_volume"):
            wire.whole(value)

    def test_a_float_without_fraction_counts(self) -> None:
        """Some senders write whole numbers as 100.0."""
        assert wire.whole(100.0) == 100

    def test_heartbeats_carry_their_time_as_text(self) -> None:
        """The same time is read from text and from a number."""
        assert wire.time_ms("1795188600000") == wire.time_ms(1795188600000) == 1795188600000


class TestItems:
    @given(JSON)
    def test_hostile_items_raise_bad_item_only(self, value: object) -> None:
        """Whatever an item is, it is understood or refused."""
        for read in (wire.level_one_item, wire.chart_item):
            with suppress(BadItem):
                read(value)

    @given(st.dictionaries(st.sampled_from([*"012345678", "34", "35", "key", "seq", "99"]), JSON))
    def test_hostile_fields_raise_bad_item_only(self, item: dict[str, object]) -> None:
        """The same with fields that have the right names."""
        for read in (wire.level_one_item, wire.chart_item):
            with suppress(BadItem):
                read(item)

    def test_a_bar_must_make_sense(self) -> None:
        """A high below the close, a price of 0 and half a minute are refused."""
        good = {"key": "QQQ", "2": 2.0, "3": 3.0, "4": 1.0, "5": 2.5, "6": 10, "7": 1795188600000}
        assert wire.chart_item(good).close == 2.5
        for field, value, reason in (
            ("3", 2.1, "bad_range"),
            ("4", 0, "bad_range"),
            ("7", 1795188600001, "bad_minute"),
            ("7", 60_000, "bad_time"),
            ("6", 1.5, "bad_volume"),
        ):
            with pytest.raises(BadItem, match=reason):
                wire.chart_item({**good, field: value})

    def test_absent_fields_are_unchanged_not_zero(self) -> None:
        """A delta names only what changed; a trade time of 0 means there was never a trade."""
        item = wire.level_one_item(json.loads('{"key":"QQQ","1":5.01,"35":0}'))
        assert (item.bid, item.ask, item.last, item.total_volume) == (5.01, None, None, None)
        assert item.trade_ms is None
