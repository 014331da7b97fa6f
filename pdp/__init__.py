"""A policy decision point for AI agents: one answer before every tool call.

`from pdp import Authorizer` works without gRPC, and `pdp.client` works without the Cedar engine:
the names here are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pdp.foundation.extras import missing

if TYPE_CHECKING:
    from pdp.app.embedded import Embedded, open_embedded
    from pdp.decision.authorizer import Authorizer
    from pdp.model import Call, Caller, CallRequest, Decision, Outcome, Role

__all__ = [
    "Authorizer",
    "Call",
    "CallRequest",
    "Caller",
    "Decision",
    "Embedded",
    "Outcome",
    "Role",
    "__version__",
    "open_embedded",
]
__version__ = "0.1.0"

_HOMES = {
    "Authorizer": "pdp.decision.authorizer",
    "Call": "pdp.model",
    "CallRequest": "pdp.model",
    "Caller": "pdp.model",
    "Decision": "pdp.model",
    "Embedded": "pdp.app.embedded",
    "Outcome": "pdp.model",
    "Role": "pdp.model",
    "open_embedded": "pdp.app.embedded",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any exported name
    if name not in _HOMES:
        raise AttributeError(f"module `pdp` has no attribute `{name}`")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (lacking := missing(error)) is None:
            raise
        raise ImportError(f"`pdp.{name}`: {lacking}", name=error.name) from None
