"""Runs the writer."""

from libs.common.runner import main
from services.writer.service import serve
from services.writer.settings import Settings

main("writer", Settings, serve)
