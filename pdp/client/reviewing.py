"""What has changed between two reviews of a session, or between two bundles, and which tools are not used."""

from __future__ import annotations

from collections.abc import Iterator

from pdp.client.enumwords import visibility
from pdp.v1.reach_pb2 import GetReachResponse, ReachedTool
from pdp.v1.session_pb2 import ReviewedTool, ReviewSessionResponse

_COMPARED = (
    *("state", "labels", "duration", "terms_json", "user_attributes_json", "user_groups", "may_delegate", "purpose"),
)


def changes(before: ReviewSessionResponse, after: ReviewSessionResponse) -> tuple[str, ...]:
    """Return what is shown otherwise now, one line each: tools that came, went or changed, and all else by its name."""
    return tuple(_changes(before, after))


def reach_changed(one: ReachedTool) -> bool:
    """Say whether two bundles say different things about a tool: how far it can be reached, or by which policies."""
    return (one.visibility, list(one.policy_ids)) != (one.former_visibility, list(one.former_policy_ids))


def reach_unused(one: ReachedTool, page: GetReachResponse) -> bool:
    """Say whether a tool was not allowed in the days that were asked about; of what is not known, nothing is said."""
    return page.HasField("used_since_time") and not one.HasField("last_allow_time")


def _changes(before: ReviewSessionResponse, after: ReviewSessionResponse) -> Iterator[str]:
    was, now = ({_name(one): one for one in review.tools} for review in (before, after))
    yield from (f"`{name}` is no longer among the tools" for name in was if name not in now)
    yield from (f"`{name}` is new among the tools" for name in now if name not in was)
    for name in was:
        if name in now:
            yield from (f"{what} of `{name}` changed" for what in _differing(was[name], now[name]))
    for field in _COMPARED:
        if getattr(before.session, field) != getattr(after.session, field):
            yield f"`{field}` changed"
    if before.known_grants != after.known_grants:
        yield "the grants that can be given changed"
    if before.bundle_version != after.bundle_version:
        yield "other policies are active"


def _differing(was: ReviewedTool, now: ReviewedTool) -> Iterator[str]:
    if was.tool.definition_digest != now.tool.definition_digest:
        yield "the definition"
    if (was.tool.risk, list(was.tool.groups)) != (now.tool.risk, list(now.tool.groups)):
        yield "the groups"
    if was.tool.adds_labels != now.tool.adds_labels:
        yield "the labels that calls add"
    if was.visibility != now.visibility:
        yield f"what the policies say (`{visibility(was)}`, now `{visibility(now)}`)"


def _name(one: ReviewedTool) -> str:
    return f"{one.tool.server}/{one.tool.tool}"
