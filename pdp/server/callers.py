"""Answers `CallerService`: what the server knows of who is calling."""

from __future__ import annotations

from math import isinf

from pdp.model import Bounds, Caller
from pdp.server.fields import write_timestamp
from pdp.serving.origin import Origin
from pdp.v1 import caller_pb2 as callers


class CallerHandlers:
    """One method for each RPC; each takes the message and its origin."""

    def get_caller(self, _: callers.GetCallerRequest, origin: Origin) -> callers.GetCallerResponse:
        """Show the caller."""
        return callers.GetCallerResponse(caller=_caller_message(origin.caller))


def _caller_message(caller: Caller) -> callers.Caller:
    bounds = caller.bounds or Bounds(tenants=caller.tenants)
    message = callers.Caller(
        caller_id=caller.id,
        roles=sorted(role.value for role in caller.roles),
        tenants=sorted(bounds.tenants),
        users=sorted(bounds.users or ()),
        agents=sorted(bounds.agents or ()),
        credential=caller.kind,
        always_present=isinf(caller.authenticated_at),
        sees_no_results=not bounds.sees_results,
        user_groups=caller.user_groups or (),
    )
    if caller.authenticated_at and not message.always_present:
        write_timestamp(caller.authenticated_at, message.authenticate_time)
    return message
