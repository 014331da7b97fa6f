"""Answers `ReachService`: which tools can be called, and when they last were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pdp.audit.searchable import SearchableRecord
from pdp.audit.values import Filter, Window
from pdp.bundles.keeper import BundleKeeper
from pdp.clock import Clock
from pdp.decision.explainer import SupposedSession
from pdp.errors import InvalidRequestError, UnavailableError
from pdp.foundation.lrucache import LRUCache
from pdp.foundation.paging import page_start_of, page_token_of
from pdp.limits import MOST_POLICIES_OF_TOOL, Limits
from pdp.policy.bundle import Bundle
from pdp.registry.reach import Reach, ReachedTool, Reaching
from pdp.server.fields import optional_id, optional_text, require_digest, require_size, write_timestamp
from pdp.server.messages import scoped_tool_message, visibility_number
from pdp.serving.origin import Origin
from pdp.v1 import reach_pb2 as reach

_DAY_SECONDS = 86400.0
_USED_DAYS, _MOST_USED_DAYS = 30, 366
_MOST_SESSION_IDS = 8
# What the record said is kept for the further pages of so many answers.
_MOST_USES, _USES_SECONDS = 8, 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Used:
    """When actions were last allowed since a time, or why that is not known, as of a time; unix seconds."""

    asked_at: float = 0.0
    since_at: float = 0.0
    last_at: Mapping[str, float] = field(default_factory=dict)
    unknown: str = ""


class ReachHandlers:
    """One method for each RPC; each takes the message and its origin.

    INVARIANT: sessions and record are asked about the caller's tenant.
    """

    def __init__(
        self,
        reaching: Reaching,
        keeper: BundleKeeper,
        searchable: SearchableRecord | None,
        *,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._reaching = reaching
        self._keeper = keeper
        # The last one that was asked about: the pages of an answer compile it once.
        self._former: LRUCache[Bundle] = LRUCache(1)
        self._uses: LRUCache[_Used] = LRUCache(_MOST_USES)
        self._searchable = searchable
        self._clock = clock
        self._limits = limits

    def get_reach(self, request: reach.GetReachRequest, origin: Origin) -> reach.GetReachResponse:
        """Show a page of tools."""
        which = _filter_of(request, origin)
        days = _days_of(request)
        found = self._reach(request, which, origin)
        return _answer(found, self._used_of(which, days, further=bool(request.page_token)))

    def _reach(self, request: reach.GetReachRequest, which: Filter, origin: Origin) -> Reach:
        if request.page_size < 0:
            raise InvalidRequestError("page_size", f"`{request.page_size}` is negative")
        token = optional_text("page_token", request.page_token, self._limits.text_characters)
        (after,) = page_start_of(token, str) or ("",)
        former = self._former_bundle(request.former_version)
        asked: dict[str, Any] = {"caller": origin.caller, "after": after, "size": request.page_size, "former": former}
        if which.session_id:
            return self._reaching.of_session(which.session_id, **asked)
        if not request.asked_now:
            return self._reaching.of_active(user=which.user, agent=which.agent, **asked)
        terms = require_size("terms_json", request.terms_json, self._limits.terms_bytes, "terms_bytes")
        supposed = SupposedSession(user=which.user, agent=which.agent, terms_json=terms)
        return self._reaching.of_asked_now(supposed, **asked)

    def _former_bundle(self, version: str) -> Bundle | None:
        """Return a kept bundle. Raise `NotFoundError` for one that is not kept."""
        if not version:
            return None
        version = require_digest("former_version", version)
        return self._former.get(version) or self._former.keep(version, self._keeper.find(version)[0])

    def _used_of(self, which: Filter, days: int, *, further: bool) -> _Used:
        """Return when tools were last used; for a further page what the page before it was told, if that is known."""
        now_at, key = self._clock.now().wall_at, (which, days)
        known = self._uses.get(key) if further else None
        if known and now_at - known.asked_at < _USES_SECONDS:
            return known
        return self._uses.keep(key, replace(self._used(which, days), asked_at=now_at))

    def _used(self, which: Filter, days: int) -> _Used:
        """Ask the record. What can be reached is told without it, too."""
        if self._searchable is None:
            return _Used(unknown="this server keeps no record")
        since_at = self._clock.now().wall_at - days * _DAY_SECONDS
        try:
            search = self._searchable.search()
            begins_at = search.begins_at()
            if begins_at is None:
                return _Used(unknown="the record is empty")
            since_at = max(since_at, begins_at)
            last_at = search.last_allowed(replace(which, window=Window(since_at=since_at)))
        except UnavailableError as error:
            return _Used(unknown=str(error))
        return _Used(since_at=since_at, last_at=last_at)


def _filter_of(request: reach.GetReachRequest, origin: Origin) -> Filter:
    """Return the one session, or the user and agent, that a request names."""
    which = Filter(
        session_id=optional_id("session_id", request.session_id),
        user=optional_id("user", request.user),
        agent=optional_id("agent", request.agent),
        tenant=origin.caller.tenant,
    )
    if which.session_id and (which.user or which.agent or request.asked_now):
        raise InvalidRequestError("session_id", "cannot be combined with `user`, `agent` or `asked_now`")
    if not (which.session_id or which.user or which.agent):
        raise InvalidRequestError("session_id", "is required, or else `user` or `agent`")
    if request.asked_now and not (which.user and which.agent):
        raise InvalidRequestError("asked_now", "needs both `user` and `agent`")
    if request.terms_json and not request.asked_now:
        raise InvalidRequestError("terms_json", "needs `asked_now`")
    return which


def _days_of(request: reach.GetReachRequest) -> int:
    if not 0 <= request.used_days <= _MOST_USED_DAYS:
        raise InvalidRequestError("used_days", f"must be between 0 and {_MOST_USED_DAYS}")
    return request.used_days or _USED_DAYS


def _answer(found: Reach, used: _Used) -> reach.GetReachResponse:
    message = reach.GetReachResponse(
        tools=[_tool_message(one, used) for one in found.tools],
        next_page_token=page_token_of(found.tools[-1].tool.action) if found.more else "",
        bundle_version=found.bundle_version,
        session_count=found.sessions,
        sessions_left_out=found.left_out,
        use_unknown=used.unknown,
        freeze_id=found.freeze_id,
    )
    if not used.unknown:
        write_timestamp(used.since_at, message.used_since_time)
    return message


def _tool_message(one: ReachedTool, used: _Used) -> reach.ReachedTool:
    message = reach.ReachedTool(
        tool=scoped_tool_message(one.tool),
        visibility=visibility_number(one.visibility),
        policy_ids=one.policies[:MOST_POLICIES_OF_TOOL],
        policies_left_out=max(0, len(one.policies) - MOST_POLICIES_OF_TOOL),
        opened_by=one.opened_by,
        session_count=len(one.session_ids),
        session_ids=one.session_ids[:_MOST_SESSION_IDS],
    )
    if one.former is not None:
        message.former_visibility = visibility_number(one.former.visibility)
        message.former_policy_ids.extend(one.former.policies[:MOST_POLICIES_OF_TOOL])
    if (last_at := used.last_at.get(one.tool.action)) is not None:
        write_timestamp(last_at, message.last_allow_time)
    return message
