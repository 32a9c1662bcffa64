"""What may be released, and what is written about it; Docker plays no part here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from packageurl import PackageURL

from deploy.release.images import TAG, mounted, of_others, ours
from deploy.release.sbom import describe, of_page
from deploy.release.state import (
    ReleaseError,
    State,
    migrations,
    notes,
    public_address,
    read_state,
)

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.0] - 2027-01-04

### Added

- Something.

## [1.1.0] - 2026-12-01

- Before.
"""


def git(folder: Path, *arguments: str) -> None:
    """Run git there."""
    who = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clean one, of version 1.2.0."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "a"\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "all")
    return tmp_path


class TestState:
    """One commit, one version, and notes."""

    def test_a_clean_commit_can_be_released(self, checkout: Path) -> None:
        """Its version, commit, time, and the version's part of the changelog."""
        git(checkout, "remote", "add", "origin", "https://me:secret@example.com/a/kite.git")
        state = read_state(checkout)
        assert state.version == "1.2.0"
        assert len(state.revision) == 40
        assert state.source == "https://example.com/a/kite"
        assert state.notes.splitlines()[0] == "## [1.2.0] - 2027-01-04"
        assert "Something" in state.notes
        assert "Before" not in state.notes
        assert read_state(checkout, "1.2.0") == state

    def test_what_is_not_committed_cannot(self, checkout: Path) -> None:
        """A new file is enough; it is named."""
        (checkout / "new.py").touch()
        with pytest.raises(ReleaseError, match=r"1 files are not committed, among them new\.py"):
            read_state(checkout)

    def test_another_version_than_the_projects_cannot(self, checkout: Path) -> None:
        """It has one source."""
        with pytest.raises(ReleaseError, match=r"pyproject\.toml says 1\.2\.0, not 2\.0\.0"):
            read_state(checkout, "2.0.0")

    @pytest.mark.parametrize("version", ["1.3.0", "Unreleased", "1.2"])
    def test_without_notes_there_is_no_release(self, version: str) -> None:
        """Absent, or empty."""
        with pytest.raises(ReleaseError, match="says nothing"):
            notes(CHANGELOG, version)

    @pytest.mark.parametrize(
        ("remote", "shown"),
        [
            ("git@example.com:a/kite.git", "https://example.com/a/kite"),
            ("ssh://git@example.com/a/kite", "https://example.com/a/kite"),
            ("https://token@example.com/a/kite.git", "https://example.com/a/kite"),
            ("/srv/git/kite", ""),
            ("", ""),
        ],
    )
    def test_the_source_is_an_address_for_everybody(self, remote: str, shown: str) -> None:
        """Without a login, and nothing for a place on one machine."""
        assert public_address(remote) == shown


class TestFiles:
    """What the compose file says about itself."""

    def test_all_our_images_are_released(self) -> None:
        """Every service that is built, each image once, with what the Dockerfile asks for."""
        built = {each.short: each for each in ours(COMPOSE)}
        assert {"init", "ingest", "gateway"} <= set(built)
        assert built["gateway"].target == "gateway"
        assert dict(built["init"].arguments) == {"SERVICE": "init", "MODULE": "deploy.init"}
        assert not [each for each in of_others(COMPOSE) if "alpha-kite" in each or "$" in each]

    def test_the_tag_is_named_in_one_way(self) -> None:
        """A release's copy holds its version in every place."""
        text = (ROOT / "docker-compose.yml").read_text("utf-8")
        assert text.count("KITE_IMAGE_TAG") == text.count(TAG) == text.count("image: alpha-kite/")

    def test_what_containers_read_is_sent(self) -> None:
        """Configurations of those that watch."""
        assert {"deploy/prometheus", "deploy/docker/notify.toml"} <= set(mounted(COMPOSE))
        assert all((ROOT / place).exists() for place in mounted(COMPOSE))

    def test_a_migration_that_takes_away_says_so(self, tmp_path: Path) -> None:
        """The first release that does without; all others have a way back."""
        (tmp_path / "20270101000000_a.sql").write_text("create table a ();\n")
        (tmp_path / "20270101000001_b.sql").write_text("-- contract: needs 1.4.0\ndrop table a;\n")
        assert migrations(tmp_path) == {"20270101000000_a": "-", "20270101000001_b": "1.4.0"}


class TestContents:
    """The list of what is in an image."""

    STATE = State("1.2.0", "0" * 40, "2027-01-04T12:00:00+00:00", "", "")
    PACKAGES = (
        PackageURL("deb", "debian", "libc6", "2.36", {"arch": "amd64"}),
        PackageURL("pypi", None, "msgspec", "0.20.0"),
        PackageURL("pypi", None, "msgspec", "0.20.0"),
    )

    def test_it_is_cyclonedx_and_the_same_each_time(self) -> None:
        """Valid by the standard's schema; two copies of a package are one."""
        text = describe("alpha-kite/writer:1.2.0", list(self.PACKAGES), self.STATE)
        document = json.loads(text)
        assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
        assert document["metadata"]["component"]["version"] == "1.2.0"
        assert [each["purl"] for each in document["components"]] == [
            "pkg:deb/debian/libc6@2.36?arch=amd64",
            "pkg:pypi/msgspec@0.20.0",
        ]
        assert text == describe("alpha-kite/writer:1.2.0", list(self.PACKAGES), self.STATE)

    def test_the_page_is_in_it_and_its_tools_are_not(self) -> None:
        """What the browser gets."""
        names = {each.name for each in of_page(ROOT / "dashboard" / "package-lock.json")}
        assert {"react", "lightweight-charts"} <= names
        assert not {"vite", "typescript"} & names
