"""Plays the command line of Docker and Compose for tests of the deployment, with a journal.

    pretended_docker.py FOLDER ARGUMENT...

What it knows stands in FOLDER/state.json: images, containers, and the migrations of a database that
only ever grows. It understands exactly what our scripts call, and ends with 64 for anything else,
so that a call nobody thought of is seen. FOLDER/orders.json lets a test make things go wrong:

    ill     images whose containers never become healthy
    gate    a file that `compose up` waits for, once it has said so in the journal
    cut     true: a load says that it began (a file `loading`) and never ends before `cut` exists
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GATE_WITHIN_S = 60
PADDING_BYTES = 1 << 16
FINGERPRINT = "{{json .RootFS.Layers}}{{json .Config.Labels}}"


class Docker:
    """One daemon."""

    def __init__(self, folder: Path) -> None:
        """Read what it knew when it was asked last."""
        self.folder = folder
        self.state: dict[str, Any] = {"images": {}, "containers": {}, "tables": []}
        self.orders: dict[str, Any] = {}
        if (folder / "state.json").exists():
            self.state = json.loads((folder / "state.json").read_text())
        if (folder / "orders.json").exists():
            self.orders = json.loads((folder / "orders.json").read_text())
        self.kept = json.dumps(self.state)

    def keep(self) -> None:
        """Write down what it knows now, unless that is nothing new: `up` may be at work beside."""
        if json.dumps(self.state) == self.kept:
            return
        self.kept = json.dumps(self.state)
        (self.folder / ".state").write_text(json.dumps(self.state))
        (self.folder / ".state").rename(self.folder / "state.json")

    def note(self, *words: str) -> None:
        """Add a line to the journal."""
        with (self.folder / "journal").open("a") as journal:
            journal.write(" ".join(words) + "\n")

    # -- images ------------------------------------------------------------------------------------

    def add(self, name: str, *layers: str, **labels: str) -> None:
        architecture = self.orders.get("architecture", "amd64")
        self.state["images"][name] = {
            "layers": [hashlib.sha256(each.encode()).hexdigest() for each in layers],
            "labels": labels,
            "architecture": architecture,
        }

    def build(self, arguments: list[str]) -> int:
        given = dict(
            arguments[at + 1].split("=", 1)
            for at, word in enumerate(arguments)
            if word == "--build-arg"
        )
        name = arguments[arguments.index("--tag") + 1]
        labels = {key.lower(): given[key] for key in ("VERSION", "REVISION", "CREATED")}
        self.add(name, "base", name, **labels)
        self.note("build", name)
        return 0

    def inspect_image(self, template: str, name: str) -> int:
        image = self.state["images"].get(name)
        if image is None:
            print(f"Error: No such image: {name}", file=sys.stderr)
            return 1
        values = {
            FINGERPRINT: json.dumps(image["layers"]) + json.dumps(image["labels"], sort_keys=True),
            "{{.Architecture}}": image["architecture"],
            "{{.Size}}": str(PADDING_BYTES),
            "": "[]",
        }
        print(values[template])
        return 0

    def save(self, name: str) -> int:
        sys.stdout.write(json.dumps({name: self.state["images"][name]}) + "\n")
        sys.stdout.flush()
        sys.stdout.buffer.write(os.urandom(PADDING_BYTES))
        return 0

    def load(self) -> int:
        self.note("loading")
        if self.orders.get("cut"):
            return self.be_cut_off()
        sent = gzip.decompress(sys.stdin.buffer.read())
        header, _, padding = sent.partition(b"\n")
        if len(padding) != PADDING_BYTES:
            print("unexpected EOF", file=sys.stderr)
            return 1
        images = json.loads(header)
        self.state["images"].update(images)
        self.note("load", *images)
        return 0

    def be_cut_off(self) -> int:
        """Wait until the connection is gone, and the rest with it."""
        from tests.waiting import eventually

        (self.folder / "loading").touch()
        eventually(
            lambda: os.getppid() == 1 or (self.folder / "cut").exists(), GATE_WITHIN_S, "cut"
        )
        return 1

    def remove_image(self, name: str) -> int:
        used = {each["image"] for each in self.state["containers"].values()}
        if name in used or name not in self.state["images"]:
            return 1
        del self.state["images"][name]
        self.note("remove", name)
        return 0

    # -- Compose -----------------------------------------------------------------------------------

    def compose(self, arguments: list[str]) -> int:
        if arguments[:2] == ["version", "--short"]:
            return self.compose_version()
        (_, place, _, file, _, settings), rest = arguments[:6], arguments[6:]
        # Late: most calls need none of it, and there are many.
        from tests.containers.definitions import define

        env = dict(
            line.split("=", 1) for line in Path(settings).read_text().splitlines() if "=" in line
        )
        self.definition = define(Path(file), **env)
        self.place = Path(place)
        self.env = env
        verb, options = rest[0], rest[1:]
        if verb == "config":
            values = {
                "--images": [each["image"] for each in self.definition.services.values()],
                "--services": list(self.definition.services),
            }
            print("\n".join(values[options[0]]))
            return 0
        if verb == "up":
            return self.up(options)
        if verb == "run" and options[:-1] == ["--rm", "--no-deps", "-T"]:
            self.note("run", self.definition.services[options[-1]]["image"])
            return 0
        if verb == "ps" and options == ["--all", "--quiet"]:
            print("\n".join(self.state["containers"]))
            return 0
        if verb == "logs":
            print(f"{options[-1]} says why")
            return 0
        if verb == "rm" and options[:2] == ["--force", "--stop"]:
            for name in options[2:]:
                self.state["containers"].pop(name, None)
            return 0
        return 64

    def compose_version(self) -> int:
        root = os.environ.get("KITE_HOST_ROOT", "")
        sent = Path(f"{root}/usr/local/lib/docker/cli-plugins/docker-compose").exists()
        version = "2.40.3" if sent else self.orders.get("compose", "v2.29.7")
        if not version:
            return 1
        print(version)
        return 0

    def up(self, options: list[str]) -> int:
        wanted = ["--detach", "--no-build", "--pull", "never"]
        if options[:4] != wanted or "--remove-orphans" not in options:
            return 64
        named = [each for each in options[4:] if not each.startswith("--")]
        self.note("up")
        if gate := self.orders.get("gate"):
            from tests.waiting import eventually

            self.keep()
            eventually(Path(gate).exists, GATE_WITHIN_S, "the gate is open")
        for name, service in self.definition.services.items():
            if named and name not in named:
                continue
            if not self.bring_up(name, service):
                return 1
        for name in set(self.state["containers"]) - set(self.definition.services):
            del self.state["containers"][name]
        return 0

    def bring_up(self, name: str, service: Mapping[str, Any]) -> bool:
        """Replace a container if its definition differs; a job runs again in any case."""
        image = service["image"]
        assert image in self.state["images"], f"{image} would have been pulled"
        kept = self.state["containers"].get(name, {})
        # Files of the release are mounted from its own folder. What is missing there, Docker makes
        # an empty folder of.
        sources = [mount.split(":")[0] for mount in service.get("volumes", ())]
        ours = [source for source in sources if source.startswith("./")]
        assert all((self.place / source).exists() for source in ours), f"{ours} were not sent"
        place = self.place if ours else ""
        digest = hashlib.sha256(repr((service, str(place))).encode()).hexdigest()
        job = service["restart"] == "no"
        if job or kept.get("digest") != digest:
            self.note("job" if job else "replace", image)
        code = self.migrate() if name == "init" else 0
        health = "starting" if image in self.orders.get("ill", ()) else "healthy"
        self.state["containers"][name] = {
            "image": image,
            "digest": digest,
            "how": f"exited {code} restart=no unasked"
            if job
            else f"running 0 restart={service['restart']} {health}",
        }
        self.keep()
        return code == 0

    def migrate(self) -> int:
        """As deploy.supabase.migrate: a table that this release does not know stops it."""
        known = [
            line.split("\t")[0] for line in (self.place / "migrations.tsv").read_text().splitlines()
        ]
        if set(self.state["tables"]) - set(known):
            return 2
        self.state["tables"] = known
        return 0

    # -- the rest ----------------------------------------------------------------------------------

    def inspect(self, names: list[str]) -> int:
        for name in names:
            print(name, self.state["containers"][name]["how"])
        return 0

    def answer(self, arguments: list[str]) -> int:
        """Do one command and return its exit code."""
        match arguments:
            case ["compose", *rest]:
                return self.compose(rest)
            case ["inspect", "--format", _, *names]:
                return self.inspect(names)
            case ["ps", "--all", *_]:
                for name, container in self.state["containers"].items():
                    print(name, container["how"])
                return 0
        return self.answer_about_images(arguments)

    def answer_about_images(self, arguments: list[str]) -> int:
        """Do a command that has to do with what is not running yet."""
        match arguments:
            case ["build", *rest]:
                return self.build(rest)
            case ["image", "inspect", "--format", template, name]:
                return self.inspect_image(template, name)
            case ["image", "inspect", name]:
                return self.inspect_image("", name)
            case ["image", "rm", name]:
                return self.remove_image(name)
            case ["save", name]:
                return self.save(name)
            case ["load", "--quiet"]:
                return self.load()
            case ["pull", "--quiet", "--platform", _, name]:
                self.add(name, name)
                self.note("pull", name)
                return 0
            case ["run", "--rm", *_, "python", "-"]:
                packages = {"debian": [["libc6", "2.36", "amd64"]], "python": "3.13.9"}
                print(json.dumps({**packages, "pypi": [["msgspec", "0.20.0"]]}))
                return 0
        return self.hand_out_compose(arguments)

    def hand_out_compose(self, arguments: list[str]) -> int:
        """Play the image that Compose comes in."""
        if arguments[:1] == ["create"] and arguments[2:] == ["compose"]:
            print("made")
            return 0
        if arguments == ["rm", "made"]:
            return 0
        if arguments != ["cp", "made:/docker-compose", "-"]:
            return 64
        import io
        import tarfile

        with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
            entry = tarfile.TarInfo("docker-compose")
            entry.size = 7
            archive.addfile(entry, io.BytesIO(b"program"))
        return 0


def main(folder: Path, arguments: list[str]) -> int:
    """Answer one command, alone: as a daemon would, but for `up`, which takes its time."""
    with (folder / "calls").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    with (folder / "lock").open("a") as lock:
        if "up" not in arguments:
            fcntl.flock(lock, fcntl.LOCK_EX)
        daemon = Docker(folder)
        code = daemon.answer(arguments)
        daemon.keep()
    if code == 64:
        print(f"the pretended Docker does not know: {arguments}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
