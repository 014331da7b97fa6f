"""Arguments in the record: only what the bundle allows, parameter by parameter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.model import AT_EACH_CALL, Call, Caller, CallRequest, Role
from pdp.registry.words import SessionRequest
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.evidence import Evidence
from pdp.testing.inprocess import write_folder

GATEWAY = Caller(id="gateway", kind="token", roles=frozenset({Role.PEP}))
LEAD = Caller(id="lead", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
ARGUMENTS = {"item": "lamp", "count": 3, "price": 1.5, "tags": ["a", "b"], "note": "for the cellar"}
FILES = bundle_files(
    policies={"shop": '@id("shop/buy") permit (principal, action, resource) when { true };'},
    tools={
        "shop": [
            tool(
                "buy",
                {
                    "item": {"type": "string"},
                    "count": {"type": "integer"},
                    "price": {"type": "number"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "note": {"type": "string"},
                },
            ),
            tool("peek", {"item": {"type": "string"}}),
        ]
    },
    overlays={"shop": "tools: {buy: {risk: mutating, log: [item, tags, price]}}"},
    directory="users: {alice: {}}\nagents: {coder: {ceiling: [shop/*]}}",
)


class Shop:
    """A PDP on the bundle above, and what it records."""

    def __init__(self, embedded: Embedded, evidence: Evidence) -> None:
        self._pdp, self._evidence = embedded, evidence
        wanted = SessionRequest(user="alice", agent="coder", purpose="buy", tool_patterns=("shop/*",))
        view, self.handle = embedded.registrar.request(wanted, GATEWAY)
        embedded.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=LEAD)

    def record(self, arguments: dict[str, Any], *, tool: str = "buy", handle: str = "") -> dict[str, Any]:
        """Ask about a call; return its record."""
        call = Call(
            session_handle=handle or self.handle,
            server="shop",
            tool=tool,
            arguments_json=json.dumps(arguments).encode(),
        )
        self._pdp.authorizer.authorize(CallRequest(call=call), GATEWAY)
        return self._evidence.decision_records[-1]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Yield the shop."""
    write_folder(tmp_path / "policies", FILES)
    evidence = Evidence(tmp_path)
    embedded = open_embedded(tmp_path / "policies", observer=evidence, compile_files=compile_here)
    yield Shop(embedded, evidence)
    embedded.close()
    evidence.close()


def test_only_allowed_arguments_are_recorded(shop: Shop) -> None:
    """The parameters that the overlay names stand in the record with their values; no other does."""
    record = shop.record(ARGUMENTS)

    assert record["arguments"] == {"item": "lamp", "tags": ["a", "b"], "price": "1.5"}
    assert "cellar" not in json.dumps(record)


def test_a_remembered_decision_records_them_too(shop: Shop) -> None:
    """With and without the cache, the record of a call holds the same."""
    records = [shop.record(ARGUMENTS) for _ in range(2)]

    assert [record["cache"] for record in records] == ["miss", "hit"]
    assert records[0]["arguments"] == records[1]["arguments"]


def test_an_argument_that_was_not_sent_is_not_recorded(shop: Shop) -> None:
    """What is allowed and absent leaves no trace."""
    assert shop.record({"item": "lamp"})["arguments"] == {"item": "lamp"}


def test_without_a_list_nothing_is_recorded(shop: Shop) -> None:
    """A tool without a list has no arguments in its records, whatever they are called."""
    assert "arguments" not in shop.record({"item": "lamp"}, tool="peek")


def test_a_long_argument_is_recorded_by_its_length(shop: Shop) -> None:
    """An agent cannot make a record as long as it likes."""
    assert shop.record({"item": "x" * 5000})["arguments"] == {"item": {"omitted_characters": 5002}}


def test_what_the_policies_were_not_asked_about_shows_no_arguments(shop: Shop) -> None:
    """A call that is denied before has a digest of its arguments and nothing else."""
    record = shop.record(ARGUMENTS, handle="pdps_" + "u" * 43)

    assert (record["basis"], "arguments" in record) == ("session_not_found", False)
    assert record["arguments_digest"].startswith("hmac-sha256:")
