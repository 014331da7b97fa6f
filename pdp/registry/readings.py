"""How gateways read results for their reports: under which key, and in which class what they found counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from pdp.errors import InvalidRequestError
from pdp.foundation.valuedigests import DIGEST_BYTES, MOST_DIGESTS
from pdp.model import CallStatus
from pdp.policy.bundle import Bundle
from pdp.policy.tools.catalogue import Tool
from pdp.sessions.values import HeldValues

# The words of a token: in which class the values of a result count, and whether some fields of it issue ids.
_CLEAN, _TAINTED, _ISSUES = "clean", "tainted", "+issued"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultReading:
    """What a gateway needs to make digests of the values in a result.

    `trusted` says that strangers do not write the results of the tool, `issues` are the paths to fields that issue ids,
    and `kinds` those that targets are compared in, beside the kind of a value's shape.
    """

    key: bytes = field(repr=False)
    trusted: bool
    issues: tuple[str, ...]
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedValues:
    """Digests of values that a result held: of the fields that issue ids, and of all others."""

    issued: tuple[bytes, ...] = ()
    others: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.issued or self.others)

    def said(self) -> list[list[str]]:
        """Return what a digest of the report covers: the same for the same values in another order."""
        return [sorted({one.hex() for one in digests}) for digests in (self.issued, self.others)]

    def held(self, tree_id: str, reads: str) -> HeldValues:
        """Return the values in their classes; `reads` is what the token of the report says."""
        issued, others = (self.issued, self.others) if reads.endswith(_ISSUES) else ((), (*self.issued, *self.others))
        trusted = reads.startswith(_CLEAN)
        return HeldValues(
            tree_id=tree_id, issued=issued, clean=others if trusted else (), tainted=() if trusted else others
        )


NO_VALUES = ReportedValues()


def reads_of(bundle: Bundle, tool: Tool) -> str:
    """Return what the token of a decision says about the values in the result; empty when there can be none."""
    if not bundle.takes_values:
        return ""
    return (_CLEAN if tool.trusted else _TAINTED) + (_ISSUES if tool.issues else "")


def lesser(reads: str, bundle: Bundle, action: str) -> str:
    """Return what a token says of values as far as the active bundle says it too: it may trust a tool no longer."""
    tool = bundle.catalogue.tools.get(action)
    trusted = reads.startswith(_CLEAN) and tool is not None and tool.trusted
    issues = reads.endswith(_ISSUES) and tool is not None and bool(tool.issues)
    return (_CLEAN if trusted else _TAINTED) + (_ISSUES if issues else "")


def require_values(values: ReportedValues, status: CallStatus, reads: str) -> None:
    """Raise `InvalidRequestError` for values that a report with a token cannot bring."""
    if values and status is not CallStatus.SUCCEEDED:
        raise InvalidRequestError("values", "a call that failed has none")
    if values and not reads:
        raise InvalidRequestError("values", "no policy looks at values")
    if values.issued and not reads.endswith(_ISSUES):
        raise InvalidRequestError("values.issued", "the tool issues no ids")
    require_digests(values)


def require_digests(values: ReportedValues) -> None:
    """Raise `InvalidRequestError` for what cannot be digests, and for too many of them."""
    if len(values.issued) + len(values.others) > MOST_DIGESTS:
        raise InvalidRequestError("values", f"more than {MOST_DIGESTS}")
    for name, digests in (("issued", values.issued), ("others", values.others)):
        if any(len(one) != DIGEST_BYTES for one in digests):
            raise InvalidRequestError(f"values.{name}", f"each must have {DIGEST_BYTES} bytes")
