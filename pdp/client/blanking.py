"""Blank redacted values wherever else they are in the texts of a result, in work that is bounded beforehand."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import accumulate
from typing import Final

REDACTED: Final = "[redacted]"

# The values to search for, times the characters to search: beyond this a result takes too long.
_MOST_WORK: Final = 150_000_000
# How often values may be found in all.
_MOST_FOUND: Final = 200_000
# In this many characters CPython finds a text in linear time, whatever both are; in fewer, only for usual texts
# (`Objects/stringlib/fastsearch.h`). A tool must not be able to choose texts that stall the search.
_LINEAR: Final = 30_000
_BETWEEN: Final = "\0"


class UnredactableError(Exception):
    """A result in which a field may be elsewhere than its path says: withhold it. The message says why."""


def blanked(texts: Collection[str], hidden: Collection[str]) -> dict[str, str]:
    """Return those of some texts that hold a value of `hidden`, each with what to show instead.

    `hidden` is folded (`str.casefold`) and stripped. Raise `UnredactableError` when the search takes too long.
    """
    if any(_BETWEEN in value for value in hidden):
        raise UnredactableError("a redacted value in it holds the character NUL")
    shown = {text: REDACTED for text in texts if text.strip().casefold() in hidden}
    searched = [text for text in texts if text not in shown]
    for which, spans in _found([text.casefold() for text in searched], hidden).items():
        shown[searched[which]] = _without(searched[which], spans)
    return shown


def _found(folded: list[str], hidden: Collection[str]) -> dict[int, list[tuple[int, int]]]:
    """Return from where to where values are in each text that holds any, by its index."""
    whole = _BETWEEN.join(folded)
    if len(whole) * sum(map(len, hidden)) > _MOST_WORK:
        whole += _BETWEEN * _LINEAR
    if len(whole) * len(hidden) > _MOST_WORK:
        raise UnredactableError("it is too large to be searched for redacted values")
    starts = list(accumulate((len(text) + 1 for text in folded), initial=0))
    spans: dict[int, list[tuple[int, int]]] = defaultdict(list)
    count = 0
    for value in hidden:
        for at in _places(value, whole):
            count += 1
            if count > _MOST_FOUND:
                raise UnredactableError("it repeats redacted values too often")
            which = bisect_right(starts, at) - 1
            begin = at - starts[which]
            spans[which].append((begin, begin + len(value)))
    return spans


def _places(value: str, whole: str) -> Iterator[int]:
    at = whole.find(value)
    while at >= 0:
        yield at
        at = whole.find(value, at + len(value))


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """Return a text with a blank for each group of spans that touch; they count the characters of the folded text."""
    # A letter can fold to several, as `ß` to `ss`: where each begins in the folded text.
    begins = list(accumulate((len(letter.casefold()) for letter in text), initial=0))
    pieces: list[str] = []
    shown = 0
    for begin, end in sorted(spans):
        first, last = bisect_right(begins, begin) - 1, bisect_right(begins, end - 1)
        if first > shown or not pieces:
            pieces += [text[shown:first], REDACTED]
        shown = max(shown, last)
    return "".join([*pieces, text[shown:]])
