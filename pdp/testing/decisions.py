"""Make decisions for tests of observers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pdp.model import Basis, CacheResult, Caller, Decision, Matter, Outcome, Role, Ruling


def a_decision(**changes: Any) -> Decision:  # noqa: ANN401 - any field of a decision or of its ruling
    """Return an allowed decision with a value in most fields.

    `changes` name fields of the decision, of its matter or of its ruling.
    """
    ruling_changes, matter_changes = (
        {name: changes.pop(name) for name in tuple(changes) if name in part.__dataclass_fields__}
        for part in (Ruling, Matter)
    )
    ruling = Ruling(
        outcome=Outcome.ALLOW,
        basis=Basis.PERMIT,
        policies=("github/coders_open_issues",),
        resource_type="Repository",
        resource_id="acme/site",
    )
    matter = Matter(
        session_id="ses_bbbbbbbbbbbbbbbbbbbbbbbbbb",
        session_epoch=3,
        ancestor_ids=("ses_cccccccccccccccccccccccccc",),
        user="alice",
        agent="coder",
        tenant="default",
        environment="production",
        opened_by="gateway-1",
        server="github",
        tool="create_issue",
        arguments_digest="sha256:" + "a" * 64,
        catalogue_digest="sha256:" + "e" * 64,
        bundle_version="sha256:" + "b" * 64,
    )
    decision = Decision(
        id="dec_aaaaaaaaaaaaaaaaaaaaaaaaaa",
        matter=replace(matter, **matter_changes),
        ruling=replace(ruling, **ruling_changes),
        definition_digest="sha256:" + "d" * 64,
        caller=Caller(id="gateway-1", kind="token", roles=frozenset({Role.PEP})),
        cache_result=CacheResult.MISS,
        decided_at=1_800_000_000.25,
        duration_us=84.5,
        phases=(("gate", 4.5), ("policy", 80.0)),
        request_id="req-1",
        tool_call_id="call-1",
    )
    return replace(decision, **changes)
