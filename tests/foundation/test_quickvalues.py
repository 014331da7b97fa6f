"""Tests of frozen dataclasses whose values are made quickly."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any

import pytest

from pdp.quickvalues import quickly_made


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usual:
    name: str
    hidden: str = field(repr=False)
    names: tuple[str, ...] = ()


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class _Quick:
    name: str
    hidden: str = field(repr=False)
    names: tuple[str, ...] = ()


def _outcome(deed: Callable[[Any], object], kind: Any) -> object:
    """Return the result of a deed with a class, or its error with the class's name left out."""
    try:
        return deed(kind)
    except (TypeError, FrozenInstanceError) as error:
        return type(error), str(error).replace(kind.__name__, "")


def _a(kind: Any) -> Any:
    return kind(name="a", hidden="h")


@pytest.mark.parametrize(
    "deed",
    [
        lambda kind: [getattr(_a(kind), one.name) for one in fields(kind)],
        lambda kind: repr(_a(kind)).removeprefix(kind.__name__),
        lambda kind: hash(_a(kind)),
        lambda kind: _a(kind) == _a(kind),
        lambda kind: _a(kind) == replace(_a(kind), name="b"),
        lambda kind: replace(_a(kind), names=("n",)).names,
        lambda kind: copy.copy(_a(kind)) == _a(kind),
        lambda kind: pickle.loads(pickle.dumps(_a(kind))) == _a(kind),  # noqa: S301 - our own bytes
        lambda kind: type(_a(kind)) is kind,
        lambda kind: hasattr(_a(kind), "__dict__"),
        lambda kind: setattr(_a(kind), "name", "b"),
        lambda kind: delattr(_a(kind), "name"),
        lambda kind: kind("a", "h"),
        lambda kind: kind(name="a"),
        lambda kind: kind(name="a", hidden="h", other=1),
        lambda kind: str(inspect.signature(kind)),
    ],
)
def test_a_value_that_is_made_quickly_is_like_any_other(deed: Callable[[Any], object]) -> None:
    """A value of such a class does what one of a usual frozen dataclass does, also where it refuses."""
    assert _outcome(deed, _Quick) == _outcome(deed, _Usual)


def _without_slots() -> type:
    @dataclass(frozen=True, kw_only=True)
    class One:
        name: str

    return One


def _by_position() -> type:
    @dataclass(frozen=True, slots=True)
    class One:
        name: str

    return One


def _with_a_default_made_anew() -> type:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class One:
        names: list[str] = field(default_factory=list)

    return One


def _with_a_field_that_is_not_given() -> type:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class One:
        name: str = field(default="a", init=False)

    return One


def _with_more_to_do() -> type:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class One:
        name: str

        def __post_init__(self) -> None:
            """Check something."""

    return One


@pytest.mark.parametrize(
    "unfit",
    [_without_slots, _by_position, _with_a_default_made_anew, _with_a_field_that_is_not_given, _with_more_to_do],
)
def test_a_class_that_needs_more_is_refused(unfit: Any) -> None:
    """A class whose `__init__` does more than set its fields is refused when it is defined."""
    with pytest.raises(TypeError, match="cannot be made quickly"):
        quickly_made(unfit())


def test_no_class_inherits_from_it() -> None:
    """A class that inherits its `__init__` would have values of the class above it."""
    with pytest.raises(TypeError, match="no class can inherit"):

        class _Below(_Quick):
            __slots__ = ()
