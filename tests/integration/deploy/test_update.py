"""deploy.sh over a real ssh: updates, ways back, two at once, and a line that breaks anywhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.deploy.conftest import NEWER, NEWEST, OLDER, REMOVES, Shop
from tests.integration.deploy.host import WITHIN_S, Host
from tests.waiting import eventually

pytestmark = pytest.mark.sshd

WRITER = f"alpha-kite/writer:{NEWER}"
ROOT = Path(__file__).parents[3]
MIGRATIONS = len(list((ROOT / "deploy" / "supabase" / "migrations").glob("*.sql")))


def update(host: Host, release: Path) -> str:
    """Update, and return what it said."""
    done = host.deploy("update", "--release", str(release))
    assert done.returncode == 0, done.stdout
    return done.stdout


def ours(host: Host) -> set[str]:
    """The versions of our images that containers run, jobs among them."""
    return {image.split(":")[1] for image in host.docker.images() if "alpha-kite/" in image}


class TestUpdate:
    """From one release to the next."""

    def test_everything_is_there_before_anything_is_replaced(
        self, host: Host, installed: Path, newer: Path
    ) -> None:
        """Images first; then the containers that differ, those of others not among them."""
        said = update(host, newer)
        assert f"from {OLDER} to {NEWER}" in said
        journal = host.docker.journal
        at = journal.index("up")
        before, after = journal[:at], journal[at:]
        assert len([line for line in before if line.startswith("load ")]) == 7
        assert not [line for line in before if line.startswith(("job", "replace"))]
        assert f"replace {WRITER}" in after
        assert not [line for line in journal if "nats" in line]
        assert ours(host) == {NEWER}
        assert (host.release("current"), host.release("previous")) == (NEWER, OLDER)

    def test_nothing_is_ever_removed_that_holds_data(
        self, host: Host, installed: Path, newer: Path
    ) -> None:
        """No volume, no `down`: whatever the way, those who hold data are only replaced."""
        update(host, newer)
        assert host.deploy("rollback").returncode == 0
        words = [word for call in host.docker.calls for word in call]
        assert not {"volume", "down", "--volumes", "-v", "prune", "system"} & set(words)

    def test_two_releases_are_kept(
        self, host: Host, shop: Shop, installed: Path, newer: Path
    ) -> None:
        """The one before for the way back; what is older goes, with its images."""
        update(host, newer)
        update(host, shop.made(NEWEST))
        assert sorted(path.name for path in (host.home / "releases").iterdir()) == [NEWER, NEWEST]
        kept = {name.split(":")[1] for name in host.docker.state["images"] if "kite" in name}
        assert kept == {NEWER, NEWEST}
        assert "nats:2.15.1-alpine" in host.docker.state["images"]

    def test_a_release_that_does_not_run_is_taken_back(
        self, host: Host, installed: Path, newer: Path
    ) -> None:
        """By itself, with the reason, and although its migration stays in the database."""
        host.docker.order(ill=[WRITER])
        done = host.deploy("update", "--release", str(newer))
        assert done.returncode == 1
        assert "writer says why" in done.stdout
        assert f"{OLDER} runs as before" in done.stdout
        assert host.release("current") == OLDER
        assert ours(host) == {OLDER}
        assert len(host.docker.state["tables"]) == MIGRATIONS + 1
        # What was wrong is mended, in the same release or the next; nothing stands in the way.
        host.docker.order()
        update(host, newer)

    def test_who_was_ill_before_does_not_count(
        self, host: Host, installed: Path, newer: Path
    ) -> None:
        """An account that waits for a login must not keep an update away."""
        ill = [f"alpha-kite/ingest:{version}" for version in (OLDER, NEWER)]
        host.docker.order(ill=ill)
        host.deploy("update", "--release", str(installed))
        said = update(host, newer)
        assert f"{NEWER} runs" in said

    def test_a_version_is_released_once(self, host: Host, shop: Shop, installed: Path) -> None:
        """Other files under a number that the host knows already are refused."""
        shutil.rmtree(installed)
        done = host.deploy("update", "--release", str(shop.release(OLDER)))
        assert done.returncode == 2
        assert "what was released once stays" in done.stdout


class TestRollback:
    """Back to the release before."""

    def test_the_release_before_runs_on_newer_tables(
        self, host: Host, installed: Path, newer: Path
    ) -> None:
        """Without its `init`, which would refuse tables that it does not know."""
        update(host, newer)
        host.docker.forget()
        done = host.deploy("rollback")
        assert done.returncode == 0, done.stdout
        assert "the tables stay as they are" in done.stdout
        assert ours(host) == {OLDER}
        assert not [line for line in host.docker.journal if line.startswith(("load", "job"))]
        assert (host.release("current"), host.release("previous")) == (OLDER, "")
        again = host.deploy("rollback")
        assert again.returncode == 1
        assert "no release before" in again.stdout
        update(host, newer)
        assert ours(host) == {NEWER}

    def test_what_the_older_release_needs_may_not_be_gone(
        self, host: Host, shop: Shop, installed: Path, newer: Path
    ) -> None:
        """A migration that takes away says who can live with it; others are refused, both ways."""
        update(host, newer)
        update(host, shop.made(NEWEST))
        assert host.deploy("rollback").returncode == 0  # 1.1.0 does without
        assert ours(host) == {NEWER}
        fourth = shop.release("1.3.0", f"-- contract: needs {NEWEST}\n{REMOVES}")
        host.docker.forget()
        done = host.deploy("update", "--release", str(fourth))
        assert done.returncode == 2
        assert f"go by way of {NEWEST}" in done.stdout
        assert "up" not in host.docker.journal


class TestTwoAtOnce:
    """Operators, or one who lost patience."""

    def test_the_second_one_is_refused_while_the_first_is_at_work(
        self, host: Host, installed: Path, newer: Path
    ) -> None:
        """And the first one ends as if nothing had been."""
        gate = host.scratch / "gate"
        host.docker.order(gate=str(gate))
        first = host.start("update", "--release", str(newer))
        eventually(lambda: "up" in host.docker.journal, WITHIN_S, "the first replaces containers")
        second = host.deploy("update", "--release", str(newer))
        assert second.returncode == 75
        assert "another deployment is at work" in second.stdout
        assert "switching to" in host.deploy("status").stdout
        gate.touch()
        said, _ = first.communicate(timeout=WITHIN_S)
        assert first.returncode == 0, said
        assert ours(host) == {NEWER}

    def test_who_decided_on_what_is_no_longer_true_is_refused(
        self, host: Host, shop: Shop, installed: Path, newer: Path
    ) -> None:
        """Somebody else was faster: the slow one may not take it back unknowingly."""
        update(host, newer)
        tool = host.home / "bin" / "host.sh"
        done = subprocess.run(
            ["ssh", "-F", host.scratch / "ssh_config", "host", f"sh {tool} switch {OLDER} {OLDER}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert f"somebody made it {NEWER} since" in done.stdout
        assert ours(host) == {NEWER}


class TestBrokenLines:
    """The connection breaks; the same command again goes on."""

    def test_while_images_are_sent(self, host: Host, installed: Path, newer: Path) -> None:
        """What arrived stays, and nothing was replaced."""
        host.docker.order(cut=True)
        first = host.start("update", "--release", str(newer))
        eventually((host.docker.folder / "loading").exists, WITHIN_S, "an image is on its way")
        host.cut_connections()
        said, _ = first.communicate(timeout=WITHIN_S)
        assert first.returncode == 1
        assert "run the same command again" in said
        assert ours(host) == {OLDER}
        (host.docker.folder / "cut").touch()
        host.docker.order()
        update(host, newer)
        assert ours(host) == {NEWER}

    def test_while_containers_are_replaced(self, host: Host, installed: Path, newer: Path) -> None:
        """The host goes on alone, to the end."""
        gate = host.scratch / "gate"
        host.docker.order(gate=str(gate))
        first = host.start("update", "--release", str(newer))
        eventually(lambda: "up" in host.docker.journal, WITHIN_S, "containers are replaced")
        host.cut_connections()
        said, _ = first.communicate(timeout=WITHIN_S)
        assert first.returncode != 0, said
        gate.touch()
        eventually(lambda: host.release("current") == NEWER, WITHIN_S, "it is through")
        update(host, newer)
        assert ours(host) == {NEWER}

    @pytest.mark.parametrize("verb", ["update", "rollback"])
    def test_a_host_that_died_in_the_middle(
        self, host: Host, installed: Path, newer: Path, verb: str
    ) -> None:
        """Some containers are new, the note of it is there: finish it, or undo it."""
        gate = host.scratch / "gate"
        host.docker.order(gate=str(gate), ill=[WRITER])
        first = host.start("update", "--release", str(newer))
        eventually(lambda: "up" in host.docker.journal, WITHIN_S, "containers are replaced")
        host.kill_switch()
        first.communicate(timeout=WITHIN_S)
        host.docker.order()
        status = host.deploy("status")
        assert status.returncode == 1
        assert f"a switch to {NEWER} was cut off" in status.stdout
        done = host.deploy(*((verb, "--release", str(newer)) if verb == "update" else (verb,)))
        assert done.returncode == 0, done.stdout
        assert ours(host) == {NEWER if verb == "update" else OLDER}
        assert host.deploy("status").returncode == 0


class TestStatus:
    """What a person sees."""

    def test_all_is_well(self, host: Host, installed: Path) -> None:
        """The release, each container, disk and memory."""
        done = host.deploy("status")
        assert done.returncode == 0, done.stdout
        for words in (f"release   {OLDER}", "writer", "disk ", "MemAvailable"):
            assert words in done.stdout
        assert "listens beyond" not in done.stdout

    def test_somebody_is_not(self, host: Host, installed: Path) -> None:
        """Its name, and a code that a script can use."""
        host.docker.order(ill=[f"alpha-kite/writer:{OLDER}"])
        host.deploy("update", "--release", str(installed))
        done = host.deploy("status")
        assert done.returncode == 1
        assert "WRONG     writer" in done.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("destroy",), "unknown: destroy"),
        (("update", "--force", "1"), "unknown: --force"),
        (("update", "--release"), "--release needs a value"),
        (("install", "--env", "/nonexistent"), "cannot read /nonexistent"),
    ],
)
def test_what_is_asked_wrongly_is_said(host: Host, words: tuple[str, ...], complaint: str) -> None:
    """One line and code 2, before anybody is asked for anything."""
    done = host.deploy(*words)
    assert done.returncode == 2
    assert complaint in done.stdout
    assert not host.home.exists()


def test_a_host_that_does_not_answer(host: Host, older: Path) -> None:
    """One line says how to look closer."""
    host.stop()
    done = host.deploy("update", "--release", str(older))
    assert done.returncode == 1
    assert "no connection" in done.stdout
