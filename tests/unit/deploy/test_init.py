"""The containers' files: each container its own, the same at every start, and nothing told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from deploy import init
from deploy.init import Settings
from deploy.simulated_app import APP_KEY
from libs.common.errors import SettingsError
from libs.common.sealing import Key
from libs.common.token_file import TokenFile

FOLDERS = tuple(
    "init nats postgres ingest indicators signals writer gateway notifier backup operator".split()
)
TOKEN = {
    "creation_timestamp": 1_700_000_000,
    "token": {"access_token": "a", "refresh_token": "r", "expires_at": 1_700_001_800, "more": 1},
}

KEY = Key(bytes(range(32))).text

Make = Callable[..., Settings]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes settings whose folders are there, as the volumes are."""
    for folder in (*FOLDERS, "grafana"):
        (tmp_path / folder).mkdir()

    def build(**given: str) -> Settings:
        places = {
            "init_dir": str(tmp_path),
            "schwab_token_file": str(tmp_path / "schwab-token.json"),
            "schwab_token_key": KEY,
        }
        return msgspec.convert({**places, **given}, Settings)

    return build


def contents(root: Path) -> dict[str, str]:
    """Every file's text by its path below the root."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_text() for path in files}


class TestSecrets:
    """The step before the servers start."""

    def test_a_second_run_changes_nothing(self, make: Make, tmp_path: Path) -> None:
        """Servers that run already keep their passwords."""
        init.make_secrets(make())
        before = contents(tmp_path)
        init.make_secrets(make())
        assert contents(tmp_path) == before

    def test_each_container_gets_its_own_login(self, make: Make, tmp_path: Path) -> None:
        """No folder holds the password of another one's user."""
        init.make_secrets(make())
        found = contents(tmp_path)
        passwords = json.loads(found["init/credentials.json"])["nats"]
        flow = ("ingest", "indicators", "signals", "writer")
        for folder in (*flow, "gateway", "notifier", "backup", "operator"):
            assert found[f"{folder}/nats-url"] == f"nats://{folder}:{passwords[folder]}@nats:4222\n"
            others = {password for user, password in passwords.items() if user != folder}
            texts = [text for path, text in found.items() if path.startswith(f"{folder}/")]
            assert not [text for text in texts for other in others if other in text]

    def test_only_whom_it_concerns_can_read(self, make: Make, tmp_path: Path) -> None:
        """Images with an account of their own must read theirs; nobody may write."""
        init.make_secrets(make())
        for folder in FOLDERS:
            shared = folder == "postgres"
            for path in (tmp_path / folder).iterdir():
                assert path.stat().st_mode & 0o077 == (0o044 if shared else 0), path

    def test_the_demo_uses_the_simulators_application(self, make: Make, tmp_path: Path) -> None:
        """Even where the account's is known: the simulator would refuse it."""
        init.make_secrets(make(schwab_app_key="mine", schwab_app_secret="mine too"))
        found = contents(tmp_path)
        assert found["ingest/app-key"].strip() == APP_KEY
        assert found["ingest/base-url"].strip() == "http://simulator:8700"

    def test_the_account_uses_its_own_application(self, make: Make, tmp_path: Path) -> None:
        """And no address but Schwab's own, which is the default."""
        account = make(source="schwab", schwab_app_key="mine", schwab_app_secret="mine too")
        init.make_secrets(account)
        found = contents(tmp_path)
        assert found["ingest/app-key"].strip() == "mine"
        assert found["ingest/base-url"].strip() == ""

    def test_the_tokens_key_is_made_once(self, make: Make, tmp_path: Path) -> None:
        """Or the token of the week would be lost at every start; `init` knows the same one."""
        init.make_secrets(make(schwab_token_key=""))
        made = contents(tmp_path)["ingest/token-key"]
        assert Key.parse(made).text == made.strip() == contents(tmp_path)["init/token-key"].strip()
        init.make_secrets(make(schwab_token_key=""))
        assert contents(tmp_path)["ingest/token-key"] == made
        init.make_secrets(make())
        assert contents(tmp_path)["ingest/token-key"].strip() == KEY

    def test_an_account_without_its_application_is_refused(self, make: Make) -> None:
        """Both names that lack are told at once."""
        with pytest.raises(SettingsError) as refusal:
            init.make_secrets(make(source="schwab"))
        assert len(refusal.value.problems) == 2

    def test_a_hosted_database_takes_the_place_of_ours(self, make: Make, tmp_path: Path) -> None:
        """The gateway may have a login of its own there."""
        init.make_secrets(
            make(pg_dsn="postgresql://owner@db/p", pg_reader_dsn="postgresql://r@db/p")
        )
        found = contents(tmp_path)
        assert found["init/pg-dsn"] == found["writer/pg-dsn"] == "postgresql://owner@db/p\n"
        assert found["gateway/pg-dsn"] == "postgresql://r@db/p\n"

    def test_nothing_secret_is_logged(
        self, make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Whoever reads the log learns no password."""
        init.make_secrets(make())
        kept = json.loads(contents(tmp_path)["init/credentials.json"])
        said = "".join(capsys.readouterr())
        assert not [
            text for text in (*kept["nats"].values(), *kept["postgres"].values()) if text in said
        ]


class TestToken:
    """What schwab-py wrote, handed over on standard input."""

    def test_a_token_is_kept_whole(self, make: Make) -> None:
        """Also what we do not look at, and readable by its owner only."""
        settings = make()
        init.keep_token(settings, json.dumps(TOKEN).encode())
        kept = Path(settings.schwab_token_file)
        assert TokenFile(kept, settings.schwab_token_key).read() == TOKEN
        assert "creation_timestamp" not in kept.read_text()
        assert kept.stat().st_mode & 0o777 == 0o600

    def test_a_token_that_cannot_be_read_is_not_replaced(self, make: Make) -> None:
        """Sealed with a key that was lost, for example: a person decides what becomes of it."""
        settings = make()
        init.keep_token(settings, json.dumps(TOKEN).encode())
        before = Path(settings.schwab_token_file).read_bytes()
        other = make(schwab_token_key=Key(bytes(32)).text)
        with pytest.raises(SettingsError, match="KITE_SCHWAB_TOKEN_KEY"):
            init.keep_token(other, json.dumps(TOKEN).encode())
        assert Path(settings.schwab_token_file).read_bytes() == before

    @pytest.mark.parametrize(
        "content", [b"", b"{}", b"[1]", b"\xff", b'"\xff"', b'{"token": "hidden"}']
    )
    def test_anything_else_is_refused_and_not_repeated(self, make: Make, content: bytes) -> None:
        """The last good one stays."""
        settings = make()
        init.keep_token(settings, json.dumps(TOKEN).encode())
        with pytest.raises(SettingsError) as refusal:
            init.keep_token(settings, content)
        assert "hidden" not in str(refusal.value)
        kept = TokenFile(Path(settings.schwab_token_file), settings.schwab_token_key)
        assert kept.read() == TOKEN
