"""Policies that others wrote for agents, brought into a bundle: what `check` says of them, and that it is right.

The two sandboxes forbid commands and paths by what they look like, and the claims are forbidden by a word for a place.
Each alarm below was judged: what it says passes indeed. Of the other foreign policies none can be checked as a bundle:
they are about types and actions of their own, without users, agents and sessions.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pdp.limits import DEFAULT_LIMITS
from pdp.policy.loading import inspect_bundle
from pdp.policy.safety import scan
from pdp.testing.bundles import bundle_files, compile_here, tool

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
FILE = {"path": TEXT, "content": TEXT}
SANDBOX = [
    tool("run_command", {"cmd": TEXT, "cwd": TEXT, "timeout": WHOLE}, ["cmd", "timeout"]),
    tool("write_file", FILE, ["path", "content"]),
    tool("read_file", {"path": TEXT}, ["path"]),
    tool("get_details"),
]
LAKEHOUSE = [
    tool(name, {"geography": TEXT})
    for name in ("query_claims", "get_claim_details", "get_claims_summary", "query_login_audit", "text_to_sql")
]
CODING = "01-features/02-host-your-agent/01-runtime/04-coding-agents/05-autonomous-coding-agent-durable"
CLAIMS = (
    "02-use-cases/01-conversational-agents/lakehouse-agent/deployment/advanced-agentcore-policy-gateway-interceptor"
)
DIRECTORY = "users: {ann: {}}\nagents: {worker: {ceiling: ['sandbox/*', 'lakehouse/*']}}\n"

# Another blank, quotes, a variable or a path do the same and look otherwise: each of these forbids can be dodged.
DODGED = "raw-string"
# A permit for each agent that works for anybody.
FOR_ALL = "no-agent"
# A timeout of -1 passes a bound of 900.
NEGATIVE = "lower-bound"

# (file, what stands for what, the alarms by the policy's place in the file)
CASES = [
    (
        f"{CODING}/sandbox/policies/sandbox.cedar",
        {'Action::"': 'Action::"sandbox/', "context.": "context.input."},
        {**dict.fromkeys(range(14), (DODGED,)), 14: (NEGATIVE,), **dict.fromkeys(range(15, 19), (FOR_ALL,))},
    ),
    (
        f"{CODING}/gateway-policies/gateway.cedar",
        {'AgentCore::Action::"sandbox___': 'Action::"sandbox/'},
        {0: (FOR_ALL, NEGATIVE), **dict.fromkeys((1, 2, 3), (FOR_ALL,)), **dict.fromkeys((4, 5, 6), (DODGED,))},
    ),
    (
        f"{CLAIMS}/policies/forbid_restricted_geography.cedar",
        {'AgentCore::Action::"lakehouse-mcp-target___': 'Action::"lakehouse/'},
        # The other tools of a session take no `geography`, and these may be called without one.
        {0: (DODGED, "exact-server")},
    ),
    (
        f"{CLAIMS}/policies/forbid_eu_individual_claims.cedar",
        {'AgentCore::Action::"lakehouse-mcp-target___': 'Action::"lakehouse/'},
        {0: (DODGED, "exact-server")},
    ),
    (f"{CLAIMS}/policies/permit_all.cedar", {}, {0: (FOR_ALL,)}),
]


@pytest.mark.parametrize(("file", "words", "expected"), CASES, ids=[Path(file).stem for file, *_ in CASES])
def test_alarms_are_the_judged_ones(
    test_data: Path, file: str, words: dict[str, str], expected: dict[int, tuple[str, ...]]
) -> None:
    """What is told of each policy is what was judged, and nothing is told of the others."""
    text = (test_data / "agentcore" / file).read_text(encoding="utf-8")
    for theirs, ours in {**words, 'AgentCore::Gateway::"{gateway_arn}"': 'Server::"lakehouse"'}.items():
        text = text.replace(theirs, ours)
    parts = [part.text for part in scan(text, DEFAULT_LIMITS)]
    written = "\n".join(f'@id("foreign/{place}")\n{part}' for place, part in enumerate(parts))

    report = inspect_bundle(
        bundle_files(
            policies={"foreign": written},
            tools={"sandbox": SANDBOX, "lakehouse": LAKEHOUSE},
            overlays={"sandbox": "risk: mutating", "lakehouse": "risk: read_only"},
            directory=DIRECTORY,
            sessions="",
        ),
        DEFAULT_LIMITS,
        compile_here,
    )
    found: dict[int, list[str]] = {}
    for one in report.warnings:
        place = int(one.message.partition("`foreign/")[2].partition("`")[0])
        found.setdefault(place, []).append(one.code)

    assert [] == list(report.errors)
    assert expected == {place: tuple(sorted(set(codes), reverse=True)) for place, codes in found.items()}
