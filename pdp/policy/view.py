"""The part of the context that the policies of one action can see. The engine gets no more: each attribute costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pdp.policy.counting import NOTHING, CountedNames

# The prefix of an attribute of the context that a policy tests for with `has`.
HAS = "has "

_CONTEXT = "context."
_INPUT = "context.input."


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The attributes of the context, and the arguments in its `input`, that policies can see. None means all.

    `counted` holds the names in its `counts` and `done`, which are there only where policies read some.

    INVARIANT: what is left out changes no decision, reason or error, as long as the schema declares only what is shown.
    """

    attributes: frozenset[str] | None = None
    inputs: frozenset[str] | None = None
    counted: CountedNames = NOTHING

    @classmethod
    def of(cls, policies: Iterable[frozenset[str] | None]) -> View:
        """Return what policies can see, from the reads of each (see `analysis.reads`)."""
        known = tuple(policies)
        counted = CountedNames.of(known)
        seen: set[str] = set()
        for reads in known:
            if reads is None:
                return cls(counted=counted)
            seen |= reads
        arguments = frozenset(read.removeprefix(_INPUT) for read in seen if read.startswith(_INPUT))
        attributes = {read.removeprefix(HAS) for read in seen if read.startswith(HAS)}
        attributes |= {read.split(".")[1] for read in seen if read.startswith(_CONTEXT)}
        return cls(
            attributes=frozenset(attributes), inputs=None if "context.input" in seen else arguments, counted=counted
        )

    def sees(self, attribute: str) -> bool:
        """Return whether policies can see an attribute of the context."""
        return self.attributes is None or attribute in self.attributes

    def shown(self, context: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the visible part of a context."""
        if self.attributes is None:
            return context
        shown = {name: context[name] for name in self.attributes if name in context}
        if "counts" in shown:
            given = shown["counts"]
            shown["counts"] = {name: given[name] for name in self.counted.counts if name in given}
        if self.inputs is not None and "input" in shown:
            given = shown["input"]
            shown["input"] = {name: given[name] for name in self.inputs if name in given}
        return shown


EVERYTHING = View()
