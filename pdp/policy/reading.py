"""What the policies of one action can read of a call: all that their answer depends on, apart from the session."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pdp.model import Targets
from pdp.policy.analysis import LABELS
from pdp.policy.counting import COUNTS, DONE
from pdp.policy.directory import Uid
from pdp.policy.moments import Moment, Moments, milliseconds

_INPUT = "context.input."
# Created once: `json.dumps` with options would create one for each call.
_write = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class CacheClass(Enum):
    """How far an answer can be remembered: the broadest kind of fact that a policy of the action reads.

    PURE policies read nothing of the call, INPUT policies a part of it, TIMED policies the time, VOLATILE policies the
    context as a whole, or what the session has called before. A VOLATILE answer is never remembered; a TIMED one is
    where the time is only compared with constants.
    """

    PURE = "pure"
    INPUT = "input"
    TIMED = "timed"
    VOLATILE = "volatile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What policies can read of a call.

    `readers` maps what is read to the ids of the policies that read it: `context.input.NAME`, `context.input`,
    `context.opaque`, `context.caller`, `context.targets`, `context.counts.NAME`, `context.done.NAME`, `context.now`,
    `resource`, or `context` for the whole context.
    `inputs` names the arguments that can be read, None for all. `moments` is None when no answer may be remembered.
    `labels` says whether the labels of sessions can be read.
    """

    readers: Mapping[str, tuple[str, ...]]
    kind: CacheClass
    inputs: frozenset[str] | None
    opaque: bool
    caller: bool
    resource: bool
    timed: bool
    labels: bool
    moments: Moments | None

    @classmethod
    def of(cls, policies: Iterable[tuple[str, frozenset[str] | None, tuple[Moment, ...] | None]]) -> Reading:
        """Return what policies can read, from each one's id, reads and moments."""
        readers: dict[str, list[str]] = {}
        compared: list[Moment] = []
        provable, labels = True, False
        for policy_id, reads, moments in policies:
            for read in {"context"} if reads is None else reads - _OF_THE_SESSION:
                readers.setdefault(read, []).append(policy_id)
            compared += moments or ()
            labels = labels or reads is None or LABELS in reads
            # INVARIANT: an answer that depends on what was called before is never remembered.
            provable = provable and reads is not None and moments is not None and not any(map(_of_calls, reads))
        arguments = frozenset(read.removeprefix(_INPUT) for read in readers if read.startswith(_INPUT))
        return cls(
            readers={read: tuple(sorted(readers[read])) for read in sorted(readers)},
            kind=_kind(readers),
            inputs=None if "context.input" in readers else arguments,
            opaque="context.opaque" in readers,
            caller="context.caller" in readers,
            resource="resource" in readers,
            timed=bool(compared),
            labels=labels,
            moments=Moments(compared) if provable else None,
        )

    @property
    def cacheable(self) -> bool:
        """Return whether an answer may be remembered, under the key of what is read."""
        return self.moments is not None

    def place_in_time(self, wall_at: float) -> tuple[int, ...]:
        """Return all that `cacheable` policies can see of a time in unix seconds."""
        return self.moments.place(milliseconds(wall_at)) if self.timed and self.moments is not None else ()

    def part(self, resource: Uid, context: Mapping[str, Any], targets: Sequence[Targets] = ()) -> bytes:
        """Return all that the policies can see of a call except the time, as canonical JSON.

        Equal parts have equal answers. `context` holds `input` with typed values, `opaque` and `caller`, as passed to
        the engine; `targets` is what each session of the chain sees as `context.targets`, if policies can see it.
        Values of different types never have the same text.
        """
        shown = context["input"]
        seen = shown if self.inputs is None else {name: shown[name] for name in self.inputs if name in shown}
        part = [
            seen,
            context["opaque"] if self.opaque else None,
            context["caller"] if self.caller else None,
            resource if self.resource else None,
        ]
        if targets:
            part.append(targets)
        return _write(part).encode()


# The id and epoch of the session in the key cover these.
_OF_THE_SESSION = frozenset({"context.agent", "context.session", LABELS})


def _of_calls(read: str) -> bool:
    return read.startswith((COUNTS.rstrip("."), DONE.rstrip(".")))


def _kind(readers: Mapping[str, object]) -> CacheClass:
    if "context" in readers or any(map(_of_calls, readers)):
        return CacheClass.VOLATILE
    if "context.now" in readers:
        return CacheClass.TIMED
    return CacheClass.INPUT if readers else CacheClass.PURE
