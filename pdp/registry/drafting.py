"""How a request becomes a session that waits for approval."""

from __future__ import annotations

import json

from pdp.clock import Deadline, Instant
from pdp.errors import (
    InvalidJSONError,
    InvalidRequestError,
)
from pdp.foundation.ids import handle_digest, new_handle, new_session_id
from pdp.foundation.jsontext import parse_object
from pdp.limits import MOST_LABELS, Limits
from pdp.model import Bounds, Caller, Session, SessionState
from pdp.policy.bundle import Bundle
from pdp.registry.labels import require_labels
from pdp.registry.scope import (
    require_patterns,
)
from pdp.registry.terms import session_terms
from pdp.registry.usergroups import groups_shown
from pdp.registry.words import SessionRequest
from pdp.sessions.valuekeys import key_of, sealed_for


class Drafting:
    """Drafts sessions. `trusted_attributes` names the attributes of a user that a PEP may vouch for."""

    def __init__(self, limits: Limits, trusted_attributes: frozenset[str]) -> None:
        self._limits = limits
        self._trusted = trusted_attributes

    def draft(
        self, wanted: SessionRequest, caller: Caller, parents: tuple[Session, ...], bundle: Bundle, now: Instant
    ) -> tuple[Session, str]:
        """Return the session that is asked for, which waits for approval, and its secret handle.

        `parents` are the session that it is to be below and all above that. Raise `InvalidRequestError` naming the
        attribute.
        """
        require_patterns(wanted.tool_patterns, self._limits)
        marked = {label for parent in parents for label in parent.labels}
        require_labels(wanted.labels, bundle.labels, present=marked, widening=not parents)
        duration = bundle.session_seconds if wanted.duration is None else wanted.duration
        if not 0 < duration <= self._limits.session_seconds:
            raise InvalidRequestError(
                "duration",
                f"must be more than 0 and at most {self._limits.session_seconds:g} s (limit `session_seconds`)",
            )
        # A child is of its parent's tenant, whoever requests it.
        tenant = parents[0].tenant if parents else caller.tenant
        _require_within(caller.bounds, wanted)
        captured = bundle.directory.capture(wanted.user, wanted.agent)
        if captured is None:
            if ("User", wanted.user) in bundle.directory.entities:
                raise InvalidRequestError("agent", f"`{wanted.agent}` is not in the bundle's directory")
            raise InvalidRequestError("user", f"`{wanted.user}` is not in the bundle's directory")
        # A child carries its parent's labels.
        labels = {*wanted.labels, *marked}
        if len(labels) > MOST_LABELS:
            raise InvalidRequestError("labels", f"more than {MOST_LABELS} in total")
        handle, session_id = new_handle(), new_session_id()
        # Only where it is used: a server of an earlier release can read the other sessions.
        shared = parents and bundle.takes_values
        key = key_of(parents[0], wanted.parent_session_handle) if shared else b""
        return Session(
            id=session_id,
            handle_digest=handle_digest(handle),
            state=SessionState.REQUESTED,
            user=wanted.user,
            agent=wanted.agent,
            purpose=wanted.purpose,
            tool_patterns=wanted.tool_patterns,
            duration=float(duration),
            requested_at=now.wall_at,
            deadline=Deadline.after(now, bundle.request_seconds),
            tenant=tenant,
            environment=wanted.environment,
            opened_by=caller.id,
            parent_id=parents[0].id if parents else "",
            ancestor_ids=tuple(parent.id for parent in parents),
            may_delegate=wanted.may_delegate,
            labels=tuple(sorted(labels)),
            label_origins={label: by for parent in reversed(parents) for label, by in parent.label_origins.items()},
            entities_json=captured,
            user_attributes_json=self._attributes(wanted),
            user_groups=_user_groups(wanted, caller, parents, bundle),
            terms_json=session_terms(wanted.terms_json, parents, bundle, self._limits),
            sealed_key=sealed_for(session_id, handle, key),
        ), handle

    def _attributes(self, wanted: SessionRequest) -> str:
        if len(wanted.user_attributes_json) > self._limits.attributes_bytes:
            raise InvalidRequestError(
                "user_attributes_json", f"larger than {self._limits.attributes_bytes} bytes (limit `attributes_bytes`)"
            )
        try:
            attributes = parse_object(wanted.user_attributes_json, self._limits)
            text = json.dumps(attributes, sort_keys=True)
        except InvalidJSONError as error:
            raise InvalidRequestError("user_attributes_json", str(error)) from None
        except TypeError:
            raise InvalidRequestError("user_attributes_json", "numbers must be integers") from None
        for name in attributes:
            if name not in self._trusted:
                raise InvalidRequestError("user_attributes_json", f"`{name}` may not be vouched for by a caller")
        return text


def _user_groups(
    wanted: SessionRequest, caller: Caller, parents: tuple[Session, ...], bundle: Bundle
) -> tuple[str, ...]:
    # The user of a parent needs no token for a child: it is in what its parent was approved with.
    inherited = parents[0].user_groups if parents and parents[0].user == wanted.user else ()
    shown = groups_shown(caller, wanted.user, bundle)
    return inherited if shown is None else shown


def _require_within(bounds: Bounds | None, wanted: SessionRequest) -> None:
    """Refuse a user or agent for whom the caller may not ask, whether the directory has it or not."""
    if bounds is None:
        return
    for name, asked, listed in (("user", wanted.user, bounds.users), ("agent", wanted.agent, bounds.agents)):
        if listed is not None and asked not in listed:
            raise InvalidRequestError(name, f"`{asked}` is not among the {name}s of this caller")
