"""The load of a busy account, as the real client takes it: 3,000 options beside 300 equities."""

from __future__ import annotations

import json

from tests.schwab_client import Broker, on_simulator

EQUITIES = [f"EQ{number}" for number in range(300)]
OPTIONS = [
    f"{root:<6}261204{side}{strike * 1000:08d}"
    for root in ("QQQ", "SPY", "IWM")
    for side in "CP"
    for strike in range(200, 700)
]


@on_simulator(load_frames_per_s=10, load_items=250)
async def test_three_thousand_options_beside_three_hundred_equities(broker: Broker) -> None:
    """All are taken, in commands below the frame limit; each says something, at the rate set."""
    assert len(OPTIONS) == 3_000
    async with await broker.stream(ping_interval=None) as stream:
        await stream.raw.level_one_equity_subs(EQUITIES)
        for first in range(0, len(OPTIONS), 500):
            await stream.raw.level_one_option_add(OPTIONS[first : first + 500])
        moved: dict[str, set[str]] = {"LEVELONE_EQUITIES": set(), "LEVELONE_OPTIONS": set()}
        items: dict[str, list[tuple[int, int]]] = {name: [] for name in moved}
        while min(map(len, items.values())) < 20 or len(moved["LEVELONE_OPTIONS"]) < 3_000:
            for part in json.loads(await stream.text()).get("data", ()):
                if part["service"] in moved:
                    moved[part["service"]] |= {item["key"] for item in part["content"]}
                    items[part["service"]].append((part["timestamp"], len(part["content"])))
        assert moved["LEVELONE_OPTIONS"] == set(OPTIONS)
        assert moved["LEVELONE_EQUITIES"] <= set(EQUITIES)
        for frames in items.values():
            full = [stamp for stamp, number in frames if number == 250]
            # 250 items in each of ten frames a second: 2,500 items a second from each service.
            assert (full[-1] - full[0]) / (len(full) - 1) == 100


@on_simulator(options_max=5)
async def test_options_have_a_cap_of_their_own(broker: Broker) -> None:
    """Named in the refusal, with how many were too many."""
    async with await broker.stream() as stream:
        request = stream.raw._make_request(
            service="LEVELONE_OPTIONS", command="SUBS",
            parameters={"keys": ",".join(OPTIONS[:8]), "fields": "0,2,3,28"},
        )[0]  # fmt: skip
        await stream.raw._send({"requests": [request]})
        content = json.loads(await stream.text())["response"][0]["content"]
        assert content["code"] == 19
        assert "(LEVELONE_OPTIONS=5, DISCARDED=3)" in content["msg"]
