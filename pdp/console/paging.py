"""Pages of a list that was read whole: the part that is shown, its neighbours, and the share of each party."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlencode

from pdp.console.forms import whole_number

T = TypeVar("T")
Party = TypeVar("Party", bound=Hashable)

MOST_SHOWN = 100
_MOST_DIGITS = 4
# In the address of a page that loads itself again, which is nobody's doing.
AGAIN = "again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Generic[T]):
    """The items of one page. `before` and `after` are the addresses of its neighbours, empty where there is none.

    `again` is the address at which the page loads itself again where no script does it.
    """

    items: Sequence[T]
    before: str
    after: str
    again: str


def part_of(found: Sequence[T], path: str, chosen: Mapping[str, str], page: str) -> Part[T]:
    """Return the part of a list that `page` of an address names; the first one where there is none of that number.

    `path` is that of all its pages, and `chosen` is what else their addresses say.
    """
    number = whole_number(page, _MOST_DIGITS)
    first = number * MOST_SHOWN if number * MOST_SHOWN < len(found) else 0

    def address(at: int, **more: str) -> str:
        given = {**chosen, **({"page": str(at // MOST_SHOWN)} if at else {}), **more}
        return f"{path}?{urlencode(given)}" if given else path

    last = first + MOST_SHOWN
    return Part(
        items=found[first:last],
        before=address(first - MOST_SHOWN) if first else "",
        after=address(last) if last < len(found) else "",
        again=address(first, **{AGAIN: "1"}),
    )


def shares_of(found: Iterable[T], party: Callable[[T], Party]) -> tuple[list[T], Mapping[Party, int]]:
    """Return the first items of each party, one page of them at most, and how many of each party are left out."""
    kept: list[T] = []
    counts = Counter[Party]()
    for one in found:
        counts[name := party(one)] += 1
        if counts[name] <= MOST_SHOWN:
            kept.append(one)
    return kept, {name: count - MOST_SHOWN for name, count in counts.items() if count > MOST_SHOWN}
