"""Runs the gateway."""

from libs.common.runner import main
from services.gateway.service import serve
from services.gateway.settings import Settings

main("gateway", Settings, serve)
