"""A question of agentgateway: read with care, because what the gateway adds is as its operator has configured it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pdp.calltokens.claims import HEADER
from pdp.doors.agentgateway.extmcp_pb2 import Header, RequestQuestion, ResponseQuestion
from pdp.doors.mcp.calltokens import with_call_token
from pdp.doors.mcp.messages import InvalidMessageError, Message
from pdp.serving.web import HANDLE

# The members of the gateway's `metadata` that this door reads, and in its own answer sets.
SESSION, EXCHANGE = "pdp_session", "pdp_exchange"
_OWN_HEADERS: Final = "x-pdp-"
# Of what an agent says in `_meta`, these are for doors alone, and so is a call token.
_OWN_META: Final = "agent-pdp/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that waits for an answer.

    `exchange` says whether the gateway will name the request again when it asks about its result. `headers` are names
    of headers that are for doors alone, and `shown` are all that the gateway shows.
    """

    method: str
    services: tuple[str, ...]
    handle: str = field(repr=False)
    exchange: bool
    headers: tuple[str, ...] = ()
    shown: Mapping[str, str] = field(default_factory=dict, repr=False)
    message: Message | None = field(default=None, repr=False)

    @classmethod
    def read(cls, question: RequestQuestion) -> Self:
        """Read a question. Raise `InvalidMessageError` for one that could be understood in two ways."""
        known = _texts(question.metadata_context)
        handles = {one for one in (_header(question.headers, HANDLE), known.get(SESSION, "")) if one}
        if len(handles) > 1:
            raise InvalidMessageError("a header and the gateway's metadata name two sessions")
        params = question.mcp_request if question.HasField("mcp_request") else None
        return cls(
            method=question.method,
            services=tuple(question.service_names),
            handle=min(handles, default=""),
            exchange=EXCHANGE in known,
            headers=_own(question.headers),
            shown={one.key.lower(): one.value.decode("latin-1") for one in question.headers},
            message=None if params is None else Message.request(question.method, params),
        )

    def sent_on(self, token: str = "") -> bytes | None:
        """Return the parameters as they are sent on: without what is meant for doors alone, and with a call token.

        None where they stay as they are.
        """
        if self.message is None:
            return None
        kept = self.message
        if any(map(_is_own, kept.meta)):
            kept = kept.without(("params", "_meta"), _is_own)
        kept = with_call_token(kept, token)
        return None if kept is self.message else (kept.part("params") or "").encode("utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A result that waits for an answer: of the request that `exchange` names, which is empty if none is named."""

    method: str
    services: tuple[str, ...]
    handle: str = field(repr=False)
    exchange: str = field(repr=False)

    @classmethod
    def read(cls, question: ResponseQuestion) -> Self:
        """Read all of a question but the result itself."""
        known = _texts(question.metadata_context)
        return cls(
            method=question.method,
            services=tuple(question.service_names),
            handle=known.get(SESSION, ""),
            exchange=known.get(EXCHANGE, ""),
        )


def _is_own(name: str) -> bool:
    return name.startswith(_OWN_META) or name == HEADER


def _texts(struct: Any) -> dict[str, str]:  # noqa: ANN401 - generated code has no types
    return {name: value.string_value for name, value in struct.fields.items() if value.HasField("string_value")}


def _own(headers: Iterable[Header]) -> tuple[str, ...]:
    names = {one.key.lower() for one in headers}
    # The gateway may show neither the one with the handle nor a call token, and send them on.
    return tuple(sorted({HANDLE, HEADER, *(name for name in names if name.startswith(_OWN_HEADERS))}))


def _header(headers: Iterable[Header], name: str) -> str:
    found = [one.value.decode("latin-1").strip() for one in headers if one.key.lower() == name]
    if len(found) > 1:
        raise InvalidMessageError(f"the header `{name}` is there twice")
    return found[0] if found else ""
