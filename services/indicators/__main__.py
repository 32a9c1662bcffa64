"""Run with `python -m services.indicators`."""

from libs.common.runner import main
from services.indicators.service import serve
from services.indicators.settings import IndicatorsSettings

main("indicators", IndicatorsSettings, serve)
