"""What a backup says of itself, and that nothing which was changed afterwards is believed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cli.backup import manifest as manifests
from cli.backup.errors import BackupDamaged
from cli.backup.manifest import Manifest, Part, Run, StreamPart, TablePart

NAME = "20261123T211500Z-demo"
CONTENT = b"rows of a table"


def example() -> Manifest:
    """A small backup of one table and one stream."""
    table = TablePart("gaps", "", ("id",), 2, 15, "ab" * 32, "rows/gaps.zst")
    stream = StreamPart("MARKET", 1, {}, 1, 2, 2, 0, (Run(1, 2, 2, 5, "cd" * 32),), "streams/M.s2")
    return Manifest(
        format=1, name=NAME, made_ms=1_795_468_500_000, duration_ms=7, program="0.1.0",
        source="demo", partitions=1, store="demo", csv_sha256="", postgres="17.6", nats="2.15.1",
        migrations=(), tables=(table,), streams=(stream,),
        parts=(Part("rows/gaps.zst", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()),),
    )  # fmt: skip


def test_what_is_written_is_read() -> None:
    """All of it."""
    assert manifests.decode(NAME, manifests.encode(example())) == example()


@given(st.data())
def test_a_flipped_bit_in_the_manifest_is_seen(data: st.DataObject) -> None:
    """Wherever it is; only white space at the end says nothing."""
    text = bytearray(manifests.encode(example()).rstrip())
    place = data.draw(st.integers(0, len(text) * 8 - 1))
    text[place // 8] ^= 1 << place % 8
    try:
        found = manifests.decode(NAME, bytes(text))
    except BackupDamaged:
        return
    assert found == example()  # a name of the envelope in another case would be another name


@given(st.integers(0, 400))
def test_a_cut_off_manifest_is_seen(kept: int) -> None:
    """However little of it is left."""
    with pytest.raises(BackupDamaged):
        manifests.decode(NAME, manifests.encode(example())[:kept])


def test_a_newer_format_is_refused_by_its_number() -> None:
    """Not by a complaint about a field."""
    text = manifests.encode(structs.replace(example(), format=2))
    with pytest.raises(BackupDamaged, match="of format 2"):
        manifests.decode(NAME, text)


def test_a_part_outside_of_the_backup_is_refused() -> None:
    """Whoever wrote the manifest may not choose a file of ours."""
    evil = Part("../../etc/passwd", 1, "0" * 64)
    with pytest.raises(BackupDamaged, match="no path inside"):
        manifests.decode(NAME, manifests.encode(structs.replace(example(), parts=(evil,))))


def whole(root: Path) -> Path:
    """The example's only part, as a file."""
    (root / "rows").mkdir()
    path = root / "rows" / "gaps.zst"
    path.write_bytes(CONTENT)
    return path


def test_whole_parts_pass(tmp_path: Path) -> None:
    """And every byte is counted."""
    whole(tmp_path)
    counted: list[int] = []
    manifests.check_parts(tmp_path, example(), counted.append)
    assert sum(counted) == len(CONTENT)


@pytest.mark.parametrize("place", range(len(CONTENT) * 8))
def test_any_flipped_bit_in_a_part_is_seen(tmp_path: Path, place: int) -> None:
    """Wherever it is."""
    path = whole(tmp_path)
    changed = bytearray(CONTENT)
    changed[place // 8] ^= 1 << place % 8
    path.write_bytes(changed)
    with pytest.raises(BackupDamaged, match=r"gaps\.zst is not what was written"):
        manifests.check_parts(tmp_path, example())


def test_a_missing_or_shorter_part_is_seen(tmp_path: Path) -> None:
    """By its name."""
    path = whole(tmp_path)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(BackupDamaged, match="14 bytes instead of 15"):
        manifests.check_parts(tmp_path, example())
    path.unlink()
    with pytest.raises(BackupDamaged, match="missing"):
        manifests.check_parts(tmp_path, example())


@given(st.integers(0, 4_000_000_000_000))
def test_names_tell_when_a_backup_was_made(made_ms: int) -> None:
    """To the second, and sort by it."""
    name = manifests.backup_name(made_ms, "schwab")
    assert manifests.is_backup_name(name)
    assert manifests.made_ms_of(name) == made_ms // 1000 * 1000
    assert name < manifests.backup_name(made_ms + 1000, "schwab")


@pytest.mark.parametrize("name", ["", ".partial-x", NAME + ".old", "20261123T211500Z-other", "x"])
def test_what_we_did_not_name_is_none_of_ours(name: str) -> None:
    """It is neither listed nor deleted."""
    assert not manifests.is_backup_name(name)
