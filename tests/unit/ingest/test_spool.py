"""The spool keeps what it took, in order, and never hands out a damaged record."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.spool import Record, Spool, SpoolDamaged, SpoolFull

CREATED_MS = 1_795_185_000_000
BYTES_MAX = 1 << 20

RECORDS = st.lists(
    st.builds(
        Record,
        partition=st.integers(0, 3),
        epoch=st.integers(1, 1 << 40),
        n=st.integers(1, 1 << 40),
        data=st.binary(max_size=200),
    ),
    max_size=20,
)


def records(count: int, size: int = 10) -> list[Record]:
    """Some records of one partition."""
    return [Record(0, 1, n + 1, bytes([n % 256]) * size) for n in range(count)]


def opened(path: Path, *, created_ms: int = CREATED_MS, bytes_max: int = BYTES_MAX) -> Spool:
    """The spool of a directory."""
    return Spool(path / "spool", created_ms, bytes_max)


class TestKeeping:
    @given(batches=st.lists(RECORDS, max_size=4))
    def test_gives_back_what_it_took_after_a_kill(
        self, tmp_path_factory: pytest.TempPathFactory, batches: list[list[Record]]
    ) -> None:
        """A second process finds every record that was appended, in order, without any close."""
        path = tmp_path_factory.mktemp("spool")
        spool = opened(path)
        for batch in batches:
            spool.append(batch)
        found = opened(path)
        assert list(found.all()) == [record for batch in batches for record in batch]
        assert found.cut_bytes == 0
        spool.close()
        found.close()

    @given(taken=RECORDS, sizes=st.lists(st.integers(1, 5), max_size=20))
    def test_drains_in_order_while_it_is_filled(
        self, tmp_path_factory: pytest.TempPathFactory, taken: list[Record], sizes: list[int]
    ) -> None:
        """Peeking and releasing in any portions gives each record once."""
        spool = opened(tmp_path_factory.mktemp("spool"))
        spool.append(taken[: len(taken) // 2])
        later = taken[len(taken) // 2 :]
        drained: list[Record] = []
        for size in [*sizes, *[5] * 50]:
            if later:
                spool.append([later.pop(0)])
            portion = spool.peek(BYTES_MAX)[:size]
            drained += portion
            spool.release(portion)
        assert drained == taken
        assert spool.empty
        assert spool.used_bytes == 0
        spool.close()

    def test_an_empty_spool_is_a_short_file(self, tmp_path: Path) -> None:
        """Releasing the last record gives the disk its room back."""
        spool = opened(tmp_path)
        spool.append(records(100, 1_000))
        spool.release(spool.peek(BYTES_MAX))
        assert (tmp_path / "spool").stat().st_size < 100
        spool.close()

    def test_is_readable_by_its_owner_only(self, tmp_path: Path) -> None:
        """Market data of an account is nobody else's business."""
        opened(tmp_path).close()
        assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o600


class TestBounds:
    def test_takes_all_or_nothing(self, tmp_path: Path) -> None:
        """A batch that does not fit leaves the spool as it was."""
        spool = opened(tmp_path, bytes_max=4_096)
        spool.append(records(1))
        with pytest.raises(SpoolFull):
            spool.append(records(2, 3_000))
        assert list(spool.all()) == records(1)
        spool.append(records(1, 3_000))
        spool.close()

    def test_a_failing_disk_leaves_no_half_batch(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A write that stops in the middle is undone."""
        spool = opened(tmp_path)
        spool.append(records(1))
        pwrite = os.pwrite

        def half(fd: int, data: bytes, offset: int) -> int:
            return pwrite(fd, data[: len(data) // 2], offset)

        monkeypatch.setattr(os, "pwrite", half)
        with pytest.raises(OSError, match="no space"):
            spool.append(records(5))
        monkeypatch.undo()
        spool.append(records(3))
        assert list(spool.all()) == records(1) + records(3)
        spool.close()


class TestDamage:
    @given(data=st.data())
    def test_a_torn_tail_costs_the_torn_record_only(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        """Cut anywhere: the records before the cut are there, the rest is counted."""
        path = tmp_path_factory.mktemp("spool")
        spool = opened(path)
        spool.append(records(5))
        spool.close()
        size = (path / "spool").stat().st_size
        cut = data.draw(st.integers(20, size - 1))
        os.truncate(path / "spool", cut)
        whole = (cut - 20) // records(1)[0].size
        found = opened(path)
        assert list(found.all()) == records(5)[:whole]
        assert found.cut_bytes == (cut - 20) % records(1)[0].size
        found.append(records(1))
        assert list(found.all())[-1:] == records(1), "it goes on from there"
        found.close()

    @given(data=st.data())
    def test_a_flipped_bit_is_never_handed_out(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        """Whatever bit flips, only true records from before it are kept."""
        path = tmp_path_factory.mktemp("spool")
        spool = opened(path)
        spool.append(records(5))
        spool.close()
        content = bytearray((path / "spool").read_bytes())
        at = data.draw(st.integers(20, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        (path / "spool").write_bytes(bytes(content))
        found = opened(path)
        kept = list(found.all())
        assert kept == records(5)[: (at - 20) // records(1)[0].size]
        assert found.cut_bytes > 0
        found.close()

    def test_damage_under_way_is_an_error(self, tmp_path: Path) -> None:
        """What was written by this process must read back, or the disk is failing."""
        spool = opened(tmp_path)
        spool.append(records(2))
        with (tmp_path / "spool").open("r+b") as file:
            file.seek(25)
            file.write(b"\xff\xff\xff")
        with pytest.raises(SpoolDamaged):
            spool.peek(BYTES_MAX)
        spool.close()

    def test_another_stores_spool_is_set_aside(self, tmp_path: Path) -> None:
        """Its frames belong to a stream that is no more; they are kept, not sent."""
        spool = opened(tmp_path, created_ms=1)
        spool.append(records(3))
        spool.close()
        found = opened(tmp_path)
        assert found.empty
        assert found.set_aside is not None
        assert found.set_aside.exists()
        found.close()

    @pytest.mark.parametrize("size", [0, 1, 19])
    def test_a_torn_header_held_nothing(self, tmp_path: Path, size: int) -> None:
        """A power cut at the very first start leaves a usable spool."""
        opened(tmp_path).close()
        os.truncate(tmp_path / "spool", size)
        found = opened(tmp_path)
        assert found.empty
        assert found.set_aside is None
        found.close()
