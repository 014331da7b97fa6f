"""What becomes of a request to an HTTP service that is a tool: by a table it is a call, or it is not sent on."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote_to_bytes

from pdp.client import Answer, ToolCall, ToolCallDenied
from pdp.doors import refusals
from pdp.doors.asking import Asking, NoSessionHereError, UnreportedError
from pdp.doors.calltokens import NoCallTokenError, token_of
from pdp.doors.envoy.replies import Pass, Refuse, Reply
from pdp.doors.envoy.requests import Request
from pdp.doors.envoy.tables import Placeholder, Table, Template
from pdp.doors.mcp.answers import decision_of
from pdp.doors.mcp.messages import Span, members
from pdp.errors import InvalidJSONError
from pdp.foundation import jsontext
from pdp.limits import DEFAULT_LIMITS
from pdp.observer import CallOutcome
from pdp.serving.web import BAD_REQUEST, FORBIDDEN, NOT_FOUND, RefusedRequestError, require_plain_json
from pdp.telemetry.doornames import EXECUTE_TOOL

_LOG = logging.getLogger(__name__)

_UNAVAILABLE = 503
# What a path or a query may hold without an escape. `;` is missing: it is a separator for some servers, and `\` too.
_PATH = re.compile(r"/(?:[A-Za-z0-9._~@:!$&'()*+,=/-]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~@:!$'()*+,/?\[\]-]|%[0-9A-Fa-f]{2})*")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
# An escape within an escape is one for servers that read twice; the rest are separators and control characters.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f/\\%]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPRequests:
    """Decides about requests by tables, which routes name."""

    asking: Asking
    tables: Mapping[str, Table] = field(default_factory=dict)

    async def reply(self, request: Request, name: str) -> Reply:
        """Say what becomes of a request whose route names a table."""
        try:
            wanted = request.call_token
            call = replace(
                call_of(request, self.tables.get(name, ())),
                request_id=request.number,
                call_tokens=(wanted,) if wanted else (),
            )
            around = (request.metadata, request.headers)
            with self.asking.begun(EXECUTE_TOOL, *around, server=call.server, tool=call.tool) as under_way:
                async with asyncio.timeout(request.patience):
                    answer = await self.asking.allowed(request.handle, call, under_way)
                under_way.over(CallOutcome.ALLOW)
            return Pass(decision=decision_of(answer), token=token_of(answer, call))
        except RefusedRequestError as refused:
            self.asking.refused(refused.why)
            return _told(refused.status, str(refused))
        except NoSessionHereError as missing:
            return _told(FORBIDDEN, str(missing))
        except (UnreportedError, NoCallTokenError) as unmade:
            return _told(FORBIDDEN, str(unmade), unmade.answer)
        except ToolCallDenied as denied:
            text = refusals.denied(denied.answer)
            return _told(_UNAVAILABLE if denied.answer.undecided else FORBIDDEN, text, denied.answer)
        except TimeoutError:
            _LOG.warning("there is no decision about a call within the time that Envoy waits")
            return _told(_UNAVAILABLE, refusals.AWAY)


def call_of(request: Request, table: Table) -> ToolCall:
    """Return the call that a request is by a table. Raise `RefusedRequestError` when it is none, or more than one."""
    if "!" in request.target and not request.exact:
        # Envoy writes it here for each byte that is not UTF-8, and sends on the byte.
        raise RefusedRequestError(BAD_REQUEST, "an `!` can stand for another byte: write `%21`")
    path, mark, query = request.target.partition("?")
    segments = _decoded_path(path)
    found = [one for one in table if one.method == request.method and _fits(one, path, segments)]
    if len(found) != 1:
        raise RefusedRequestError(NOT_FOUND, "the table of this route has no such request, or two of them")
    (template,) = found
    parts = [*_of_path(template, segments), *(_of_query(template, query) if mark else ()), *_of_body(template, request)]
    if len({name for name, _ in parts}) < len(parts):
        raise RefusedRequestError(BAD_REQUEST, "an argument is there twice")
    arguments = ",".join(f"{json.dumps(name)}:{text}" for name, text in parts)
    return ToolCall(server=template.server, tool=template.tool, arguments=f"{{{arguments}}}".encode())


def _decoded_path(path: str) -> list[str]:
    if not _PATH.fullmatch(path):
        raise RefusedRequestError(BAD_REQUEST, "the path has a character that servers read in several ways")
    segments = [_decoded(one) for one in path[1:].split("/")]
    if any(_FORBIDDEN.search(one) or one in (".", "..") for one in segments) or ("" in segments and path != "/"):
        raise RefusedRequestError(BAD_REQUEST, "the path has a segment that servers read in several ways")
    return segments


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedRequestError(BAD_REQUEST, "an escape is not UTF-8") from None


def _fits(template: Template, path: str, segments: list[str]) -> bool:
    """Say whether a path has the form of a template. What is no argument must be written without escapes."""
    written = path[1:].split("/")
    return len(written) == len(template.segments) and all(
        (one.name not in template.integers or bool(_INTEGER.fullmatch(decoded)))
        if isinstance(one, Placeholder)
        else one == raw
        for one, raw, decoded in zip(template.segments, written, segments, strict=True)
    )


def _of_path(template: Template, segments: list[str]) -> Iterator[tuple[str, str]]:
    for one, text in zip(template.segments, segments, strict=True):
        if isinstance(one, Placeholder):
            yield one.name, _value(template, one.name, text)


def _of_query(template: Template, query: str) -> Iterator[tuple[str, str]]:
    for pair in query.split("&"):
        name, sign, value = pair.partition("=")
        if name not in template.query or not sign or not _QUERY.fullmatch(value):
            raise RefusedRequestError(BAD_REQUEST, "the query has a parameter that the table does not have")
        text = _decoded(value.replace("+", " "))
        if _CONTROL.search(text):
            raise RefusedRequestError(BAD_REQUEST, "a parameter holds a control character")
        yield name, _value(template, name, text)


def _value(template: Template, name: str, text: str) -> str:
    if name not in template.integers:
        return json.dumps(text, ensure_ascii=False)
    if not _INTEGER.fullmatch(text):
        raise RefusedRequestError(BAD_REQUEST, f"`{name}` is not an integer")
    return text


def _of_body(template: Template, request: Request) -> Iterator[tuple[str, str]]:
    if not template.body:
        if request.body:
            raise RefusedRequestError(BAD_REQUEST, "there may be no body")
        return
    require_plain_json(request.headers)
    try:
        value = jsontext.parse(request.body, DEFAULT_LIMITS, minting=True)
    except InvalidJSONError as error:
        raise RefusedRequestError(BAD_REQUEST, f"the body cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise RefusedRequestError(BAD_REQUEST, "the body is not a JSON object")
    text = request.body.decode("utf-8").strip()
    for name, (begin, end) in members(text, Span(0, len(text))).items():
        yield name, text[begin:end]


def _told(status: int, text: str, answer: Answer | None = None) -> Refuse:
    decision = {} if answer is None else decision_of(answer)
    return Refuse(status=status, body=json.dumps({"error": text, **decision}), decision=decision)
