"""What of the context the policies of one action can see: the engine is told no more, since each attribute costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Stands before the name of an attribute of the context that a policy asks for with `has`.
HAS = "has "

_CONTEXT = "context."
_INPUT = "context.input."


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The attributes of the context, and the arguments in its `input`, that policies can see. None is all of them.

    INVARIANT: what is left out changes no decision, reason or error, as long as the schema declares just what is shown.
    """

    attributes: frozenset[str] | None = None
    inputs: frozenset[str] | None = None

    @classmethod
    def of(cls, policies: Iterable[frozenset[str] | None]) -> View:
        """Return what policies can see, each given as what it reads, see `analysis.reads`."""
        seen: set[str] = set()
        for reads in policies:
            if reads is None:
                return EVERYTHING
            seen |= reads
        arguments = frozenset(read.removeprefix(_INPUT) for read in seen if read.startswith(_INPUT))
        attributes = {read.removeprefix(HAS) for read in seen if read.startswith(HAS)}
        attributes |= {read.split(".")[1] for read in seen if read.startswith(_CONTEXT)}
        return cls(attributes=frozenset(attributes), inputs=None if "context.input" in seen else arguments)

    def sees(self, attribute: str) -> bool:
        """Say whether policies can see an attribute of the context."""
        return self.attributes is None or attribute in self.attributes

    def shown(self, context: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what can be seen of a context."""
        if self.attributes is None:
            return context
        shown = {name: context[name] for name in self.attributes if name in context}
        if self.inputs is not None and "input" in shown:
            given = shown["input"]
            shown["input"] = {name: given[name] for name in self.inputs if name in given}
        return shown


EVERYTHING = View()
