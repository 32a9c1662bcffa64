"""Run with `python -m services.notifier`."""

from libs.common.runner import main
from services.notifier.service import serve
from services.notifier.settings import Settings

main("notifier", Settings, serve)
