"""What every place for backups promises: a directory, S3 and ssh pass the same tests."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs

from cli.backup import manifest as manifests
from cli.backup import work
from cli.backup.errors import BackupDamaged, PlaceUnavailable
from cli.backup.manifest import MANIFEST, Manifest, Part
from cli.backup.place import Place, open_place
from cli.backup.progress import Quiet
from cli.backup.retention import Policy
from libs.common.errors import SettingsError
from tests.integration.backup.places import PLACES, Kept, s3_server, ssh_server

FIRST, SECOND, THIRD = (f"2026112{day}T013000Z-demo" for day in (1, 2, 3))
BIG_BYTES = 11 << 20  # more than one piece of an upload


@pytest.fixture(scope="module", params=PLACES)
def shared(request: pytest.FixtureRequest) -> Iterator[Kept]:
    """A place of each kind; a server once for the module."""
    with PLACES[request.param]() as kept:
        yield kept


@pytest.fixture
def kept(shared: Kept) -> Kept:
    """The place, emptied."""
    shutil.rmtree(shared.files, ignore_errors=True)
    return shared


@asynccontextmanager
async def opened(kept: Kept) -> AsyncIterator[Place]:
    """The place, logged in to."""
    place = await open_place(kept.address, kept.settings)
    try:
        yield place
    finally:
        await place.close()


def staged(root: Path, name: str, size: int = 1000) -> tuple[Path, Manifest]:
    """A backup with two parts that are not worth much."""
    directory = root / f"staged-{name}"
    parts = []
    for path, content in (("rows/a.zst", b"a" * size), ("streams/M.s2", name.encode())):
        (directory / path).parent.mkdir(parents=True)
        (directory / path).write_bytes(content)
        parts.append(Part(path, len(content), hashlib.sha256(content).hexdigest()))
    (directory / "files").mkdir()
    made = Manifest(
        format=1, name=name, made_ms=0, duration_ms=0, program="0", source="demo", partitions=1,
        store="demo", csv_sha256="", postgres="17", nats="2", migrations=(), tables=(), streams=(),
        parts=tuple(parts),
    )  # fmt: skip
    (directory / MANIFEST).write_bytes(manifests.encode(made))
    return directory, made


def test_what_is_put_is_found_and_fetched(kept: Kept, tmp_path: Path) -> None:
    """Byte for byte, also what goes up in pieces; a new place holds nothing."""

    async def act() -> None:
        async with opened(kept) as place:
            assert await place.names() == []
            counted: list[int] = []
            await place.put(*staged(tmp_path, FIRST, BIG_BYTES), counted.append)
            assert sum(counted) >= BIG_BYTES
        async with opened(kept) as place:
            assert await place.names() == [FIRST]
            made = await work.check(place, "", tmp_path, Quiet())
            assert made.name == FIRST

    asyncio.run(act())


def test_a_backup_without_its_manifest_is_none(kept: Kept, tmp_path: Path) -> None:
    """An upload that was broken off leaves parts; they are not listed, and go when they are old."""

    async def act() -> None:
        directory, made = staged(tmp_path, SECOND)
        (directory / MANIFEST).unlink()
        async with opened(kept) as place:
            with pytest.raises((PlaceUnavailable, OSError)):
                await place.put(directory, structs.replace(made, parts=(*made.parts, GONE)), note)
            assert await place.names() == []
            with pytest.raises(BackupDamaged, match="there is no backup"):
                await place.manifest(SECOND)
            await place.put(*staged(tmp_path, FIRST), note)
            await place.clean(4_000_000_000_000)
            assert await place.names() == [FIRST]
        assert [path.name for path in kept.files.iterdir()] == [FIRST]

    asyncio.run(act())


GONE = Part("rows/gone.zst", 1, "0" * 64)


def note(_: int) -> None:
    """Nobody watches."""


def test_a_part_that_went_missing_there_is_noticed(kept: Kept, tmp_path: Path) -> None:
    """As is one that was changed there: a place is not trusted."""

    async def act() -> None:
        async with opened(kept) as place:
            await place.put(*staged(tmp_path, FIRST), note)
            part = kept.files / FIRST / "rows" / "a.zst"
            part.write_bytes(b"b" * 1000)
            with pytest.raises(BackupDamaged):
                await work.check(place, FIRST, tmp_path, Quiet())
            part.unlink()
            with pytest.raises(BackupDamaged, match="missing"):
                await work.check(place, FIRST, tmp_path, Quiet())

    asyncio.run(act())


def test_old_ones_are_deleted_and_nothing_else(kept: Kept, tmp_path: Path) -> None:
    """What is kept is whole, and what is none of ours stays."""

    async def act() -> None:
        async with opened(kept) as place:
            for name in (FIRST, SECOND, THIRD):
                await place.put(*staged(tmp_path, name), note)
            (kept.files / "notes").mkdir()
            (kept.files / "notes" / "mine.txt").write_text("mine")
            assert await work.prune(place, Policy(last=2)) == [FIRST]
            assert await place.names() == [SECOND, THIRD]
            for name in (SECOND, THIRD):
                await work.check(place, name, tmp_path, Quiet())
        assert (kept.files / "notes" / "mine.txt").exists()
        assert not (kept.files / FIRST / "rows").exists()

    asyncio.run(act())


class TestRefused:
    """Places that are none, or that do not let us in; no secret is in what they say."""

    @pytest.mark.parametrize(
        "address", ["s3://key:hidden@bucket/x", "ssh://me:hidden@host/x", "ftp://host/x", "s3:///x"]
    )
    def test_an_address_that_is_none(self, kept: Kept, address: str) -> None:
        """A password in it would be seen by everybody on the machine."""
        with pytest.raises(SettingsError) as refusal:
            asyncio.run(open_place(address, kept.settings))
        assert "hidden" not in str(refusal.value)

    def test_s3_without_keys(self) -> None:
        """Both that lack are named."""
        with s3_server() as kept:
            settings = structs.replace(
                kept.settings, backup_s3_access_key_id="", backup_s3_secret_access_key=""
            )
            with pytest.raises(SettingsError) as refusal:
                asyncio.run(open_place(kept.address, settings))
            assert len(refusal.value.problems) == 2

    def test_s3_with_a_wrong_key(self) -> None:
        """The server says no, and we say so."""

        async def act(kept: Kept) -> None:
            settings = structs.replace(kept.settings, backup_s3_secret_access_key="hidden-key")
            place = await open_place(kept.address, settings)
            with pytest.raises(PlaceUnavailable, match="cannot be listed") as refusal:
                await place.names()
            assert "hidden-key" not in str(refusal.value)

        with s3_server() as kept:
            asyncio.run(act(kept))

    def test_ssh_to_an_unknown_host(self) -> None:
        """Whoever answers with another key gets nothing."""
        with ssh_server() as kept, ssh_server() as other:
            settings = structs.replace(
                kept.settings, backup_ssh_host_key=other.settings.backup_ssh_host_key
            )
            with pytest.raises(PlaceUnavailable, match="ssh-keyscan"):
                asyncio.run(open_place(kept.address, settings))

    def test_ssh_with_a_wrong_key(self) -> None:
        """And with one that is none."""
        with ssh_server() as kept, ssh_server() as other:
            wrong = structs.replace(kept.settings, backup_ssh_key=other.settings.backup_ssh_key)
            with pytest.raises(PlaceUnavailable, match="cannot be reached"):
                asyncio.run(open_place(kept.address, wrong))
            none = structs.replace(kept.settings, backup_ssh_key="hidden")
            with pytest.raises(SettingsError) as refusal:
                asyncio.run(open_place(kept.address, none))
            assert "hidden" not in str(refusal.value)
