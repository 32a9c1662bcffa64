"""Builds our images as docker-compose.yml describes them, and says what an image is.

All through the command line of Docker, which is what whoever releases has.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.release.state import ReleaseError, State

__all__ = ["TAG", "Image", "build", "docker", "fingerprint", "mounted", "of_others", "ours"]

# How the compose file names the tag of our images; a release's copy holds its version instead.
TAG = "${KITE_IMAGE_TAG:-local}"
_FINGERPRINT = "{{json .RootFS.Layers}}{{json .Config.Labels}}"
# A place of the checkout, perhaps only where no variable names another: ${NAME:-./place}:/there
_MOUNTED = re.compile(r"(\$\{\w+:-)?\./(?P<place>[^:}]+)")
# Only for the build, and only where somebody set them.
_MIRRORS = ("PIP_INDEX_URL", "NPM_CONFIG_REGISTRY")


@dataclass(frozen=True)
class Image:
    """One image of ours: its name without a tag, and what the Dockerfile needs to know."""

    name: str
    target: str
    arguments: tuple[tuple[str, str], ...]

    @property
    def short(self) -> str:
        """The name without what all of them begin with."""
        return self.name.rpartition("/")[2]


def ours(compose: Mapping[str, Any]) -> list[Image]:
    """Return the images that the compose file builds, each once, in its order."""
    found: dict[str, Image] = {}
    for service in compose["services"].values():
        if "build" not in service:
            continue
        name = service["image"].removesuffix(f":{TAG}")
        arguments = {
            key: str(value)
            for key, value in service["build"].get("args", {}).items()
            if key not in _MIRRORS
        }
        found[name] = Image(name, service["build"]["target"], tuple(arguments.items()))
    return list(found.values())


def of_others(compose: Mapping[str, Any]) -> list[str]:
    """Return the images that the compose file takes as they are, with their tags."""
    services = compose["services"].values()
    return sorted({each["image"] for each in services if "build" not in each})


def mounted(compose: Mapping[str, Any]) -> list[str]:
    """Return the places of the checkout that containers read, relative to it."""
    found = set()
    for service in compose["services"].values():
        for mount in service.get("volumes", ()):
            source = mount.get("source", "") if isinstance(mount, dict) else mount
            if match := _MOUNTED.match(source):
                found.add(match["place"])
    return sorted(found)


def build(root: Path, image: Image, state: State, network: str = "") -> str:
    """Build one image and return its name with the version; raises ReleaseError.

    Docker's own progress goes to standard error.
    """
    tagged = f"{image.name}:{state.version}"
    given = {
        **dict(image.arguments),
        **{name: os.environ[name] for name in _MIRRORS if os.environ.get(name)},
        "VERSION": state.version,
        "REVISION": state.revision,
        "CREATED": state.created,
        "SOURCE_URL": state.source,
    }
    arguments = [word for key, value in given.items() for word in ("--build-arg", f"{key}={value}")]
    done = subprocess.run(
        ["docker", "build", "--file", "deploy/docker/Dockerfile", "--target", image.target,
         *([f"--network={network}"] if network else []), *arguments, "--tag", tagged, "."],
        cwd=root, stdout=2, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ReleaseError(f"{tagged} could not be built; Docker says why above")
    return tagged


def docker(*arguments: str, text: str | None = None) -> str:
    """Return what one command of Docker prints; raises ReleaseError with its complaint."""
    try:
        done = subprocess.run(
            ["docker", *arguments], input=text, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ReleaseError("there is no Docker here; images are built with it") from error
    if done.returncode != 0:
        raise ReleaseError(f"docker {arguments[0]}: {done.stderr.strip() or 'failed'}")
    return done.stdout


def fingerprint(tagged: str) -> str:
    """Return what tells an image from any other; the same after a journey to another machine.

    Layers and labels, among which are version and commit: an image's identity depends on how a
    daemon keeps it. deploy.sh and host.sh compute the same.
    """
    described = docker("image", "inspect", "--format", _FINGERPRINT, tagged)
    return hashlib.sha256(described.encode()).hexdigest()
