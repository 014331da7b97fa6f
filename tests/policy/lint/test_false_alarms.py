"""No alarm on bundles that are meant to be copied, and each alarm on a bundle of ours that is not was judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from pdp.bench.bundle import generated_files
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.contents import belongs, read_folder
from pdp.policy.loading import inspect_bundle
from pdp.policy.tools.catalogue import tool_definitions
from pdp.testing.bundles import compile_here, tool
from pdp.workbench.scaffold import example_definitions, scaffold
from tests.machinery.ways.notation import files_of, load_bundle
from tests.policy.lint.material import AGENT, codes, policy

SERVERS = ("github-mcp-server", "mcp-server-git", "mcp-server-fetch", "mcp-server-time", "server-filesystem")
READ = 'principal, action == Action::"files/read", resource'
TRANSFER = 'principal, action == Action::"bank/transfer", resource'

# What an author may well mean: nothing is told.
SOUND = [
    policy(f"permit ({READ})", AGENT, 'when { context.input.path == "/srv/app/plan.txt" }'),
    policy(f"permit ({READ})", AGENT, 'when { context.input.path like "/srv/app/*" }')
    + policy(f"forbid ({READ})", 'when { context.input.path like "*..*" }', name="y"),
    policy(f"permit ({TRANSFER})", AGENT, 'when { context.input.to like "agent/*" || context.input.to like "shop-*" }'),
    policy(f"permit ({TRANSFER})", AGENT, "unless { principal has level }"),
    policy(f"permit ({TRANSFER})", AGENT, "when { !(principal has level) || principal has team }"),
    policy(f"forbid ({TRANSFER})", "when { principal has level && principal.level < 3 }"),
    policy(f"permit ({TRANSFER})", AGENT, "when { context.input.cents < 500 }"),
    policy(f"forbid ({TRANSFER})", 'unless { context.caller.id == "gateway" }'),
    policy(f"forbid ({TRANSFER})", 'when { context.session.purpose like "*test*" }'),
    policy(f"permit ({TRANSFER})", AGENT, 'when { context.session in Grant::"step-1" }')
    + policy(f"permit ({TRANSFER})", AGENT, 'when { context.session in Grant::"step-2" }', name="y"),
    policy(f"permit ({TRANSFER})", AGENT, 'when { context.session in Grant::"team-a-pays" }')
    + policy(f"permit ({TRANSFER})", AGENT, 'when { context.session in Grant::"team-b-pays" }', name="y"),
    policy('forbid (principal, action, resource in Server::"bank")', "when { context.session.depth > 1 }"),
]


def alarms(files: Mapping[str, bytes]) -> Counter[str]:
    """Return how often each code is told of a bundle."""
    report = inspect_bundle(files, DEFAULT_LIMITS, compile_here)
    return Counter(one.code for one in (*report.errors, *report.warnings))


@pytest.mark.parametrize("text", SOUND)
def test_what_may_be_meant_is_not_told(text: str) -> None:
    """Rules that look like a mistake and are none."""
    assert [] == codes(text)


def test_the_example_has_no_alarm(project_root: Path) -> None:
    """The shipped bundle is what people copy."""
    assert not alarms(read_folder(project_root / "policies", DEFAULT_LIMITS))


def test_a_new_bundle_has_no_alarm() -> None:
    """What `pdp new` writes is what people begin with."""
    for definitions in (example_definitions(), [tool("wipe", {"id": {"type": "string"}}, ["id"])]):
        assert not alarms({name: text for name, text in scaffold("notes", definitions).items() if belongs(name)})


@pytest.mark.parametrize("server", SERVERS)
def test_a_new_bundle_for_a_real_server_has_no_alarm(test_data: Path, server: str) -> None:
    """The same for the tools of servers that others wrote."""
    definitions = tool_definitions((test_data / "mcp-tools" / f"{server}.tools.json").read_bytes())

    assert not alarms({name: text for name, text in scaffold("theirs", definitions).items() if belongs(name)})


def test_alarms_of_our_own_bundles_are_the_judged_ones() -> None:
    """The bundles of measurements and of the main table leave out what a real one needs, and are told so rightly.

    They name no agents; they forbid items by their spelling; a repository's id is taken as it is spelt; and nothing
    bounds a payment below.
    """
    assert alarms(generated_files()) == {"no-agent": 1, "raw-string": 8}
    assert alarms(files_of(load_bundle("office"))) == {"no-agent": 4, "raw-string": 1, "lower-bound": 1}
