"""Fulfil the obligations of an answer: show notices before the call, then redact or withhold its result."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from pdp.client.blanking import UnredactableError
from pdp.client.redaction import redacted
from pdp.client.results import as_sent
from pdp.client.values import ERROR_BASIS, Answer, Obligation, ToolCallDenied, ToolResultWithheld
from pdp.foundation.fieldpaths import FieldPath, field_path
from pdp.foundation.obligations import KNOWN, MAX_RESULT_BYTES, NOTICE, REDACT_RESULT, parameter_problem
from pdp.model import Outcome

# Shows a notice to a person. The answer says about which call; what it raises denies the call.
OnNotice = Callable[[str, Answer], object]

# What `fulfil` does with a result.
FULFILLED: Final = frozenset({REDACT_RESULT, MAX_RESULT_BYTES})


def fulfil(answer: Answer, result: Any, *, met: Collection[str] = ()) -> Any:  # noqa: ANN401 - whatever a tool returns
    """Return the result of an allowed call as the obligations of its answer say; for gateways without a guard.

    Notices are for the gateway to show before the call. `met` are the ids of obligations of the bundle that the gateway
    has met itself. Raise `ToolResultWithheld` when the result must not be handed on, and `ToolCallDenied` when the
    answer is a deny or has another obligation: then the call should not have run.
    """
    return duties_of(answer, knows=FULFILLED | {NOTICE} | met_ids(met)).on_result(result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """What is left to do about one allowed call."""

    answer: Answer
    notices: tuple[str, ...] = ()
    redact: tuple[FieldPath, ...] = ()
    most_bytes: int | None = None

    def show_notices(self, on_notice: OnNotice | None) -> None:
        """Show each notice. Raise `ToolCallDenied` when one cannot be shown."""
        for text in self.notices:
            try:
                if on_notice is None:
                    raise _denied(self.answer, "a notice cannot be shown")
                shown = on_notice(text, self.answer)
                if inspect.iscoroutine(shown):
                    shown.close()
                    raise TypeError("a notice is shown by a function that is not `async`")
            except ToolCallDenied:
                raise
            except Exception:  # noqa: BLE001 - fails closed: a notice that may not have been shown is a deny
                raise _denied(self.answer, "a notice could not be shown") from None

    def on_result(self, result: Any) -> Any:  # noqa: ANN401 - whatever a tool returns
        """Return the result, redacted. Raise `ToolResultWithheld` when it must not be handed on."""
        if self.redact:
            why = ""
            try:
                result = redacted(result, self.redact)
            except UnredactableError as error:
                why = str(error)
            # Outside of `except`, so that nothing leads to an error that holds the result.
            if why:
                raise ToolResultWithheld(self.answer, f"a part must be redacted, and {why}")
        if why := self._too_large(result):
            raise ToolResultWithheld(self.answer, why)
        return result

    def on_error(self, error: Any) -> str:  # noqa: ANN401 - an exception, or what a framework has made of it
        """Return why the error of a tool, None if it has none, must not be handed on; empty when it may."""
        if self.redact:
            return "the call failed, and its error may hold redacted values"
        if error is None:
            return ""
        why = self._too_large(_told(error) if isinstance(error, Exception) else error)
        return why and f"the call failed, and {why}"

    def _too_large(self, result: Any) -> str:  # noqa: ANN401 - whatever a tool returns
        """Return why a result is not within its bound; empty when it is."""
        if self.most_bytes is None:
            return ""
        size = _size(as_sent(result))
        if size is None:
            return "its size must be bounded, and it is not a JSON value"
        if size > self.most_bytes:
            return f"it has {size} bytes, and at most {self.most_bytes} may be handed on: ask for less"
        return ""


def duties_of(answer: Answer, *, knows: Iterable[str]) -> Duties:
    """Return what to do about an allowed call.

    An obligation of the bundle that is one of `knows` leaves nothing to do: the caller meets it. Raise `ToolCallDenied`
    for a deny, and for an obligation that is not one of `knows` or cannot be read: the call must not run.
    """
    if not answer.allowed:
        raise ToolCallDenied(answer)
    known = frozenset(knows)
    duties = Duties(answer=answer)
    for obligation in answer.obligations:
        if obligation.id not in known:
            raise _denied(answer, f"unknown obligation: `{obligation.id}`")
        if obligation.id in KNOWN:
            duties = _with(duties, obligation)
    return duties


def met_ids(met: Collection[str]) -> frozenset[str]:
    """Return the ids of obligations that others meet: never those that the product knows, which it fulfils itself."""
    if isinstance(met, str):
        raise TypeError("`met` must be a list of obligations, not one text")
    return frozenset(met) - KNOWN.keys()


def guarded_obligations(on_notice: OnNotice | None, met: Collection[str]) -> frozenset[str]:
    """Return the obligations that a guard or its function meets; notices only where there is a way to show them."""
    return (FULFILLED | {NOTICE} if on_notice is not None else FULFILLED) | met_ids(met)


def duties_before(answer: Answer, on_notice: OnNotice | None, met: Collection[str]) -> Duties:
    """Return what is left to do about a call whose notices are shown. Raise `ToolCallDenied` when it must not run."""
    duties = duties_of(answer, knows=guarded_obligations(on_notice, met))
    duties.show_notices(on_notice)
    return duties


def _with(duties: Duties, obligation: Obligation) -> Duties:
    try:
        parameters = json.loads(obligation.parameters_json)
        problem = parameter_problem(obligation.id, parameters) if isinstance(parameters, dict) else "not an object"
    except (ValueError, RecursionError):
        problem = "not JSON"
    if problem:
        raise _denied(duties.answer, f"the obligation `{obligation.id}` cannot be read: {problem}")
    if obligation.id == NOTICE:
        return dataclasses.replace(duties, notices=(*duties.notices, parameters["text"]))
    if obligation.id == REDACT_RESULT:
        return dataclasses.replace(duties, redact=(*duties.redact, *map(field_path, parameters["fields"])))
    most = parameters["bytes"] if duties.most_bytes is None else min(duties.most_bytes, parameters["bytes"])
    return dataclasses.replace(duties, most_bytes=most)


def _size(result: object) -> int | None:
    """Return how many bytes a result has as JSON, a text as it is; None for what is no JSON value."""
    if isinstance(result, bytes):
        return len(result)
    try:
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        return len(text.encode("utf-8", "surrogatepass"))
    except (TypeError, ValueError, RecursionError):
        return None


def _told(error: Exception) -> str | Exception:
    """Return the text of an error, in the longer of the ways in which programs show it."""
    try:
        return max(str(error), repr(error), key=len)
    except Exception:  # noqa: BLE001 - fails closed: an error that cannot be read is no JSON value
        return error


def _denied(answer: Answer, error: str) -> ToolCallDenied:
    return ToolCallDenied(
        dataclasses.replace(answer, outcome=Outcome.DENY, basis=ERROR_BASIS, error=error, obligations=())
    )
