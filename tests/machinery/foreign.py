"""Where policies that others wrote lie in the test material."""

from __future__ import annotations

FOLDERS = (
    "cedar-integration-tests/tests",
    "cedar-integration-tests/sample-data",
    "cedar-examples",
    "agentcore",
    "authzen",
)
