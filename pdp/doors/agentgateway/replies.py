"""What agentgateway is told to do with a request or a result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pdp.doors.agentgateway.extmcp_pb2 import Error, Passed, RequestAnswer, ResponseAnswer
from pdp.doors.mcp.answers import DECISION
from pdp.observer import Refusal

_PREFIX: Final = "pdp_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """The request is sent on without these headers, or the result handed on: as it is, or with `changed` in its place.

    `known` is what the gateway's expressions learn about a request.
    """

    changed: bytes | None = field(default=None, repr=False)
    headers: Iterable[str] = ()
    known: Mapping[str, str] = field(default_factory=dict)

    def of_request(self) -> RequestAnswer:
        """Return the answer to a question about a request."""
        answer = RequestAnswer(passed=Passed()) if self.changed is None else RequestAnswer(mutated=self.changed)
        answer.header_mutation.remove.extend(self.headers)
        for name, value in self.known.items():
            answer.metadata.fields[name].string_value = value
        return answer

    def of_result(self) -> ResponseAnswer:
        """Return the answer to a question about a result."""
        return ResponseAnswer(passed=Passed()) if self.changed is None else ResponseAnswer(mutated=self.changed)


class RefusedQuestionError(Exception):
    """The request or the result goes no further: the client gets an error with this text and code.

    `why` is what a message counts as that is no call.
    """

    def __init__(
        self,
        text: str,
        *,
        code: Error.Code = Error.PERMISSION_DENIED,
        decision: Mapping[str, str] | None = None,
        why: Refusal | None = None,
    ) -> None:
        super().__init__(text)
        self.why = why
        self._code = code
        self._decision = dict(decision or {})

    @property
    def error(self) -> Error:
        """Return the error; which decision it is about is in its data."""
        told = Error(code=self._code, reason=str(self))
        if self._decision:
            told.mcp_error = json.dumps({DECISION: self._decision}, separators=(",", ":")).encode()
        return told


def known_of(decision: Mapping[str, str]) -> dict[str, str]:
    """Return what identifies a decision, by the names under which the gateway's expressions find it."""
    return {f"{_PREFIX}{name}": value for name, value in decision.items()}
