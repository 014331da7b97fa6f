"""A policy that counts allows exactly as many calls as it says, from any number of threads and processes at once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pdp.registry.words import SessionRequest
from pdp.testing.bundles import bundle_files, tool
from tests.machinery.oracle.opened import APPROVER, GATEWAY, write
from tests.proofs.counting_process import THREADS, opened

POLICIES = """
@id("git/all") permit (principal, action, resource);
@id("git/most") forbid (principal, action in Action::"mutating", resource)
when {{ context.counts["git/commit"] >= {} }};
"""


@pytest.mark.parametrize(("most", "processes"), [(300, 2), pytest.param(20_000, 6, marks=pytest.mark.long)])
def test_as_many_calls_as_the_policy_says(tmp_path: Path, most: int, processes: int) -> None:
    """No more are allowed, none is denied for another reason, and each process goes on until the policies deny it."""
    files = bundle_files(
        policies={"git": POLICIES.format(most)},
        tools={"git": [tool("commit")]},
        overlays={"git": "risk: mutating"},
        directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
    )
    write(tmp_path / "policies", files)
    embedded = opened(tmp_path)
    wanted = SessionRequest(user="alice", agent="coder", purpose="p", tool_patterns=("git/*",))
    view, handle = embedded.registrar.request(wanted, GATEWAY)
    embedded.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
    embedded.close()

    command = [sys.executable, "-m", "tests.proofs.counting_process", str(tmp_path), handle]
    folder = Path(__file__).parents[2]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) for _ in range(processes)]
    found: Counter[str] = Counter()
    for one in running:
        for line in one.communicate()[0].splitlines():
            basis, number = line.split()
            found[basis] += int(number)

    assert {"permit": most, "forbid": THREADS * processes} == dict(found)
