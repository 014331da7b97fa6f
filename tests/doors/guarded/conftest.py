"""The environment in which CrewAI sends nothing, and writes beside no other program's files."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

_FOLDER = TemporaryDirectory()
# CrewAI reads them when it is imported.
os.environ["CREWAI_DISABLE_TELEMETRY"] = os.environ["CREWAI_DISABLE_TRACKING"] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"
os.environ["CREWAI_STORAGE_DIR"] = _FOLDER.name
