"""Run the simulator: `python -m services.simulator`."""

from libs.common.runner import main
from services.simulator.service import serve
from services.simulator.settings import Settings

main("simulator", Settings, serve)
