"""Run with `python -m services.signals`."""

from libs.common.runner import main
from services.signals.service import serve
from services.signals.settings import SignalsSettings

main("signals", SignalsSettings, serve)
