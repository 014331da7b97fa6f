"""Read the arguments of a guarded Python function by name, as a tool call."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pdp.client.values import Answer, ToolResultWithheld


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundCall:
    """The arguments for a guarded function, also as a tool's `arguments`."""

    positional: tuple[Any, ...]
    named: Mapping[str, Any]
    arguments: Mapping[str, Any]


class GuardedSignature:
    """The parameters of a guarded function; those in `skip` are not the agent's and are not asked about."""

    def __init__(self, function: Callable[..., Any], skip: Collection[str] = ()) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("a guarded function cannot be a generator: it would run after its call was reported")
        self._signature = inspect.signature(function)
        self._skip = frozenset(skip)
        parameters = self._signature.parameters
        if unknown := self._skip - parameters.keys():
            raise TypeError(f"unknown parameter to skip: `{min(unknown)}`")
        self._catch_all = ""
        for name, parameter in parameters.items():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL and name not in self._skip:
                raise TypeError(f"a guarded function cannot take `*{name}`: these arguments have no names")
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self._catch_all = name

    def bind(self, positional: tuple[Any, ...], named: Mapping[str, Any]) -> BoundCall:
        """Return the call with its arguments by name, defaults included.

        A default of None means that the argument is absent, as in the schemas of tools, and is left out.
        Raise `TypeError` where the function itself would.
        """
        bound = self._signature.bind(*positional, **named)
        given = frozenset(bound.arguments)
        bound.apply_defaults()
        arguments: dict[str, Any] = {}
        for name in [name for name in bound.arguments if name not in self._skip]:
            # INVARIANT: what is authorised is what runs, even if the caller changes its lists and objects meanwhile.
            value = bound.arguments[name] = copy.deepcopy(bound.arguments[name])
            if name == self._catch_all:
                _add(arguments, value)
            elif value is not None or name in given:
                _add(arguments, {name: value})
        return BoundCall(positional=bound.args, named=bound.kwargs, arguments=arguments)


def labels_of(answer: Answer, find: Callable[[Any], Iterable[str]] | None, result: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever the tool returns
    """Return the labels that `find` finds for the result of an allowed call; None finds none.

    Raise `ToolResultWithheld` when it fails. Its error, which can quote the result, is not kept.
    """
    found: Any = ()
    if find is not None:
        try:
            found = find(result)
            found = None if isinstance(found, str) else tuple(found)
        except Exception:  # noqa: BLE001 - fails closed: what a result is marked with cannot be told
            found = None
    # Outside of `except`, so that nothing leads to the error.
    if found is None or not all(isinstance(label, str) for label in found):
        raise ToolResultWithheld(answer, "the labels for it could not be found: `labels` must return a list of texts")
    return tuple(found)


def _add(arguments: dict[str, Any], more: Mapping[str, Any]) -> None:
    if twice := arguments.keys() & more.keys():
        raise TypeError(f"an argument is given twice: `{min(twice)}`")
    arguments.update(more)
