"""The list of what is in an image, as CycloneDX: asked of the image, not of what should be in it.

Debian's packages, the interpreter, Python's packages, and for the gateway what is in the page. Each
document is checked against the standard's schema before it is written.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from deploy.release.images import docker
from deploy.release.state import ReleaseError, State

__all__ = ["contents", "describe", "of_page"]

# Runs in the image, with what is there: no pip, no network, nothing to write.
_ASK = """
import importlib.metadata, json, platform, subprocess
debian = subprocess.run(
    ["dpkg-query", "-W", "-f", "${Package}\\t${Version}\\t${Architecture}\\n"],
    check=True, capture_output=True, text=True).stdout
print(json.dumps({
    "debian": [line.split("\\t") for line in debian.splitlines()],
    "python": platform.python_version(),
    "pypi": sorted({(each.name, each.version) for each in importlib.metadata.distributions()})}))
"""


def contents(tagged: str) -> list[PackageURL]:
    """Return every package in an image; raises ReleaseError."""
    answer = docker(
        "run", "--rm", "--interactive", "--network=none", "--read-only", "--cap-drop=ALL",
        tagged, "python", "-", text=_ASK,
    )  # fmt: skip
    found = json.loads(answer)
    return [
        *(
            PackageURL("deb", "debian", name, version, {"arch": architecture})
            for name, version, architecture in found["debian"]
        ),
        PackageURL("generic", None, "python", found["python"]),
        *(PackageURL("pypi", None, name.lower(), version) for name, version in found["pypi"]),
    ]


def of_page(lock: Path) -> Iterator[PackageURL]:
    """Yield the npm packages that the page is made of, without those that only build it."""
    for place, package in json.loads(lock.read_text(encoding="utf-8"))["packages"].items():
        if place and not package.get("dev"):
            scope, _, name = place.rpartition("node_modules/")[2].rpartition("/")
            yield PackageURL("npm", scope or None, name, package["version"])


def describe(tagged: str, packages: list[PackageURL], state: State) -> str:
    """Return the document of an image as JSON: the same packages give the same text.

    Raises ReleaseError when it does not keep to the standard.
    """
    # The page may hold one package twice, at different places of its tree.
    parts = [_component(package) for package in sorted(set(packages), key=PackageURL.to_string)]
    image = Component(
        name=tagged.partition(":")[0],
        version=state.version,
        type=ComponentType.CONTAINER,
        bom_ref=tagged,
    )
    bom = Bom(components=parts)
    bom.metadata.component = image
    bom.register_dependency(image, parts)
    bom.metadata.timestamp = dt.datetime.fromisoformat(state.created)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"{tagged}@{state.revision}")
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ReleaseError(f"the list of what is in {tagged} is not CycloneDX: {wrong}")
    return text + "\n"


def _component(package: PackageURL) -> Component:
    return Component(
        name=package.name,
        group=package.namespace,
        version=package.version,
        type=ComponentType.LIBRARY,
        purl=package,
        bom_ref=package.to_string(),
    )
