"""What leaves on `live.>` after a frame's answer is durable: one flat JSON object per signal.

Every message carries `epoch`, `seq` and `index` of the durable event it shows, so that a subscriber
can drop repeats.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import asdict

from libs.common import subjects
from libs.common.codec import encode_json
from libs.common.events import Frame, Signal
from libs.common.owner import Answer
from services.signals.core import Operator

__all__ = ["live_signals"]


def live_signals(_: Operator, __: Frame, answer: Answer) -> Iterator[tuple[str, bytes]]:
    """Yield subject and payload of every signal in the answer."""
    for index, event in enumerate(answer.frame.events):
        if type(event) is Signal:
            place = {"epoch": answer.epoch_ms, "seq": answer.seq, "index": index}
            yield subjects.live_signal(event.ticker), encode_json(asdict(event) | place)
