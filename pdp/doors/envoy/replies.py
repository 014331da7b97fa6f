"""What Envoy is told to do with a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pdp.calltokens.claims import HEADER
from pdp.doors.envoy.extauthz_pb2 import CheckResponse, DeniedResponse, Header, HeaderOption, HTTPStatus, OkResponse

# For the agent: which decision its answer is about.
DECISION: Final = "x-pdp-decision"
_OWN_HEADERS: Final = "x-pdp-"
# By these a client can have Envoy send on a request again, a second time at once, or to another server, unasked.
_TO_ENVOY: Final = frozenset(
    {
        "x-envoy-hedge-on-per-try-timeout",
        "x-envoy-max-retries",
        "x-envoy-original-dst-host",
        "x-envoy-retry-grpc-on",
        "x-envoy-retry-on",
    }
)
# By these some servers take another `Host` than that which Envoy gives them.
_OTHER_HOSTS: Final = frozenset({"forwarded", "x-forwarded-host", "x-forwarded-server", "x-host", "x-original-host"})
_NOT_SENT_ON: Final = _TO_ENVOY | _OTHER_HOSTS
_OVERWRITE: Final = 2
_PERMISSION_DENIED: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """The request is sent on. `decision` says which decision allowed it; empty where none was needed.

    `token` is its call token, for the upstream; empty for none.
    """

    decision: Mapping[str, str] = field(default_factory=dict)
    token: str = field(default="", repr=False)

    def sent(self, headers: Iterable[str]) -> CheckResponse:
        """Return the answer for a request with headers of these names. Those of ours are not sent on."""
        # Envoy removes after it has set: the token takes the place of what the agent says there.
        never = _NOT_SENT_ON if self.token else _NOT_SENT_ON | {HEADER}
        own = sorted(name for name in headers if name.startswith(_OWN_HEADERS) or name in never)
        response = CheckResponse(
            ok_response=OkResponse(
                headers=[_header(HEADER, self.token)] if self.token else [],
                headers_to_remove=own,
                response_headers_to_add=_named(self.decision),
            )
        )
        response.status.code = 0
        return _with_metadata(response, self.decision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """The request is answered in place of the upstream: with this status, and a body that is JSON or empty."""

    status: int
    body: str = ""
    decision: Mapping[str, str] = field(default_factory=dict)

    def sent(self, _: Iterable[str] = ()) -> CheckResponse:
        """Return the answer."""
        headers = _named(self.decision)
        if self.body:
            headers.append(_header("content-type", "application/json"))
        response = CheckResponse(
            denied_response=DeniedResponse(status=HTTPStatus(code=self.status), headers=headers, body=self.body)
        )
        response.status.code = _PERMISSION_DENIED
        return _with_metadata(response, self.decision)


Reply = Pass | Refuse


def _named(decision: Mapping[str, str]) -> list[HeaderOption]:
    found = decision.get("decision_id", "")
    return [_header(DECISION, found)] if found else []


def _header(name: str, value: str) -> HeaderOption:
    return HeaderOption(header=Header(key=name, value=value), append_action=_OVERWRITE)


def _with_metadata(response: CheckResponse, decision: Mapping[str, str]) -> CheckResponse:
    for name, value in decision.items():
        response.dynamic_metadata.fields[name].string_value = value
    return response
