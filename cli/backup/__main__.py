"""`python -m cli.backup`: the backup service, as its container runs it."""

from cli.backup.service import serve
from cli.backup.settings import Settings
from libs.common.runner import main

main("backup", Settings, serve)
