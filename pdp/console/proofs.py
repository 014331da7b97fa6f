"""What belongs to records when they are shown: the policies as they were then, and whether the log verifies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pdp.client import AsyncClient, InvalidRequestError, NotFoundError, UnavailableError
from pdp.console.entries import Entry
from pdp.v1.audit_pb2 import AuditRecord, VerifySegmentResponse
from pdp.v1.policy_pb2 import Bundle

# Of one page.
_MOST_BUNDLES, _MOST_POLICIES, _MOST_SEGMENTS = 4, 100, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PastPolicies:
    """Policies of records as they were in the bundle of a version: `bundle` is None when it is kept no longer."""

    version: str
    policy_ids: tuple[str, ...]
    bundle: Bundle | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentCheck:
    """What was found in a segment of the log; `found` is None when that is not known, and `problem` says why."""

    segment: str
    found: VerifySegmentResponse | None = None
    problem: str = ""


async def policies_of(client: AsyncClient, entries: Sequence[Entry]) -> tuple[list[PastPolicies], int]:
    """Return the policies that records name, by bundle as they come, and how many bundles are left out."""
    named: dict[str, dict[str, None]] = {}
    for one in entries:
        if one.policies:
            named.setdefault(one.bundle_version, {}).update(dict.fromkeys(one.policies))
    shown = [
        PastPolicies(version=version, policy_ids=tuple(ids), bundle=await _bundle(client, version, ids))
        for version, ids in list(named.items())[:_MOST_BUNDLES]
    ]
    return shown, len(named) - len(shown)


async def verified(client: AsyncClient, records: Iterable[AuditRecord]) -> tuple[list[SegmentCheck], int]:
    """Return whether the segments of records verify, as they come, and how many are left out."""
    names = list(dict.fromkeys(one.segment for one in records))
    return [await _verified(client, name) for name in names[:_MOST_SEGMENTS]], max(0, len(names) - _MOST_SEGMENTS)


async def _bundle(client: AsyncClient, version: str, policy_ids: Iterable[str]) -> Bundle | None:
    # Without a version it would be the running one.
    if not version:
        return None
    try:
        return (await client.get_bundle(version, policy_ids=list(policy_ids)[:_MOST_POLICIES])).bundle
    except (NotFoundError, InvalidRequestError):
        return None


async def _verified(client: AsyncClient, segment: str) -> SegmentCheck:
    try:
        return SegmentCheck(segment=segment, found=await client.verify_segment(segment))
    except (NotFoundError, UnavailableError) as error:
        return SegmentCheck(segment=segment, problem=str(error))
