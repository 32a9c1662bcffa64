"""deploy.sh over a real ssh: a fresh machine is prepared once, and gets what was released."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.integration.deploy.conftest import OLDER, SECRET, Shop
from tests.integration.deploy.host import Host

pytestmark = pytest.mark.sshd

OURS_ON_NANO = {"init", "ingest", "indicators", "signals", "writer", "gateway", "notifier"}


def install(host: Host, release: Path, shop: Shop) -> str:
    """Install, and return what it said."""
    done = host.deploy("install", "--release", str(release), "--env", str(shop.settings))
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_fresh_machine_gets_everything(host: Host, shop: Shop, older: Path) -> None:
    """Docker, swap, updates, limits; then files, settings, images; then the containers."""
    said = install(host, older, shop)
    assert f"{OLDER} runs, everything is healthy" in said
    assert host.release("current") == OLDER
    assert host.release("previous") == ""
    running = {image.split(":")[0].removeprefix("alpha-kite/") for image in host.docker.images()}
    assert running == OURS_ON_NANO | {"nats"}
    assert [line for line in host.machinery if line.startswith(("mkswap", "swapon"))]
    assert (host.root / "etc" / "fstab").read_text() == "/swapfile none swap sw 0 0\n"
    assert "live-restore" in (host.root / "etc" / "docker" / "daemon.json").read_text()
    (installing,) = [line for line in host.machinery if " install " in line]
    assert "unattended-upgrades" in installing
    assert "systemd-timesyncd" in installing


def test_images_are_sent_and_only_those_that_run(host: Host, shop: Shop, older: Path) -> None:
    """The host builds and fetches nothing, and all images are there before anything starts."""
    install(host, older, shop)
    journal = host.docker.journal
    loads = [line for line in journal if line.startswith("load ")]
    assert len(loads) == len(OURS_ON_NANO) + 1
    assert not [line for line in loads if "grafana" in line or "postgres" in line]
    assert journal.index(loads[-1]) < journal.index("up")
    assert not [line for line in journal if line.startswith(("build", "pull"))]


def test_the_second_time_nothing_changes(host: Host, shop: Shop, older: Path) -> None:
    """Every step sees that it is done already."""
    install(host, older, shop)
    host.docker.forget()
    before = len(host.machinery)
    install(host, older, shop)
    changing = ("mkswap", "swapon", "apt-get", "systemctl restart")
    assert not [line for line in host.machinery[before:] if line.startswith(changing)]
    jobs = {"job alpha-kite/init:1.0.0"}
    assert set(host.docker.journal) == {"up"} | jobs
    assert (host.root / "etc" / "fstab").read_text().count("/swapfile") == 1


def test_settings_are_private_and_outlive_releases(host: Host, shop: Shop, older: Path) -> None:
    """One file for all releases, readable by root alone; without a new one it stays."""
    install(host, older, shop)
    settings = host.home / ".env"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    assert settings.read_text() == shop.settings.read_text()
    assert (host.home / "releases" / OLDER / ".env").resolve() == settings.resolve()
    done = host.deploy("update", "--release", str(older))
    assert done.returncode == 0, done.stdout
    assert settings.read_text() == shop.settings.read_text()


def test_no_secret_is_shown(host: Host, shop: Shop, older: Path) -> None:
    """Not in what is printed, nor in a command line, nor in the logs that stay on the host."""
    said = install(host, older, shop) + host.deploy("status").stdout
    logs = [path.read_text() for path in (host.home / "log").iterdir()]
    calls = str(host.docker.calls) + str(host.own_docker.calls) + str(host.machinery)
    assert SECRET in shop.settings.read_text()
    assert SECRET not in "".join([said, calls, *logs])


def test_where_compose_is_too_old_it_is_brought_along(host: Host, shop: Shop, older: Path) -> None:
    """Debian 12 has version 1 only."""
    host.docker.order(compose="")
    said = install(host, older, shop)
    assert "sending docker/compose-bin" in said
    plugin = host.root / "usr" / "local" / "lib" / "docker" / "cli-plugins" / "docker-compose"
    assert plugin.read_text() == "program"
    assert stat.S_IMODE(plugin.stat().st_mode) == 0o755


def test_another_system_is_refused(host: Host, shop: Shop, older: Path) -> None:
    """Before anything is changed there."""
    (host.root / "etc" / "os-release").write_text('ID=fedora\nVERSION_ID="42"\n')
    done = host.deploy("install", "--release", str(older))
    assert done.returncode == 2
    assert "only Debian and Ubuntu" in done.stdout
    assert not host.machinery


def test_files_that_were_changed_are_refused(host: Host, shop: Shop, older: Path) -> None:
    """What is sent is what was released."""
    with (older / "docker-compose.yml").open("a") as file:
        file.write("# changed\n")
    done = host.deploy("install", "--release", str(older))
    assert done.returncode == 1
    assert "not what was released" in done.stdout
    assert not host.home.exists()


def test_an_image_that_was_built_again_is_refused(host: Host, shop: Shop, older: Path) -> None:
    """The name alone does not make it the released one."""
    name = f"alpha-kite/writer:{OLDER}"
    built = ["--build-arg", "VERSION=1", "--build-arg", "REVISION=other", "--build-arg"]
    shop.docker.call("build", *built, "CREATED=later", "--tag", name, ".")
    done = host.deploy("install", "--release", str(older), "--env", str(shop.settings))
    assert done.returncode == 1
    assert f"{name} in Docker on this machine is not the released one" in done.stdout
    assert "up" not in host.docker.journal


def test_images_for_another_machine_are_refused(host: Host, shop: Shop) -> None:
    """Built on a notebook with another processor, they would not start."""
    shop.docker.order(architecture="arm64")
    release = shop.release("1.3.0")
    done = host.deploy("install", "--release", str(release), "--env", str(shop.settings))
    assert done.returncode == 1
    assert "DOCKER_DEFAULT_PLATFORM=linux/amd64" in done.stdout
