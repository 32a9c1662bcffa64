"""Run the ingest service: `python -m services.ingest`."""

from libs.common.runner import main
from services.ingest.service import serve
from services.ingest.settings import Settings

main("ingest", Settings, serve)
