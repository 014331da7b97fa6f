"""What is parsed of the policies of an action: once at a time, and what is remembered of it goes with it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pdp.decision.cache import DecisionCache
from pdp.foundation.quickcaches import GenerationCache
from pdp.model import Ruling
from pdp.policy import answers, engine
from pdp.policy.binding import Answer
from pdp.policy.inparts import PolicySets
from pdp.policy.policysource import PolicySource
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.waiting import wait_until
from tests.machinery.oracle.opened import opened

TOOLS = ("read", "send", "mark")
FILES = bundle_files(
    policies={
        "mail": "".join(
            f'@id("mail/{name}") permit (principal, action == Action::"mail/{name}", resource);' for name in TOOLS
        )
    },
    tools={"mail": [tool(name) for name in TOOLS]},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
)


def test_threads_that_need_the_same_policies_parse_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one parses, the others run: they have looked for the policies before these are there."""
    looked, parsed, go_on = set[int](), list[str](), threading.Event()

    class Noting(GenerationCache[Any, Any]):
        """A cache that notes which threads find nothing in it."""

        def get(self, key: Any) -> Any:
            """Return what is kept."""
            found = super().get(key)
            if found is None:
                looked.add(threading.get_ident())
            return found

    def parse(policies: Sequence[PolicySource]) -> PolicySets:
        assert go_on.wait(10.0)
        parsed.extend(one.id for one in policies)
        return PolicySets.of([one.text for one in policies])

    monkeypatch.setattr(engine, "GenerationCache", Noting)
    with opened(tmp_path, FILES) as pdp, ThreadPoolExecutor(2) as threads:
        _, handle = pdp.session("mail/*")
        looked.clear()
        monkeypatch.setattr(engine, "_policy_set", parse)
        asked = [threads.submit(pdp.ask, handle, "mail/read", b"{}") for _ in range(2)]
        wait_until(lambda: len(looked) == 2)
        go_on.set()

        assert [True, True] == [one.result().allowed for one in asked]
    assert ["mail/read"] == parsed


def test_rulings_are_remembered_as_long_as_their_policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each names the policies that it rests on, so what all of them take is bounded by what is parsed."""
    made: list[str] = []
    make = answers.ruling_of

    def noted(answer: Answer, policies: Sequence[PolicySource]) -> Ruling:
        made.extend(one.id for one in policies)
        return make(answer, policies)

    # Of two actions at a time.
    monkeypatch.setattr(engine, "MOST_PARSED", 2)
    monkeypatch.setattr(engine, "ruling_of", noted)
    with opened(tmp_path, FILES, DecisionCache(size=0)) as pdp:
        _, handle = pdp.session("mail/*")
        made.clear()
        for name in ("read", "read", "send", "mark", "read"):
            assert pdp.ask(handle, f"mail/{name}", b"{}").allowed

    assert ["mail/read", "mail/send", "mail/mark", "mail/read"] == made
