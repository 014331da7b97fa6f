"""Find names that people cannot tell apart: an approver could read one as the other."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

# Characters that look alike in most typefaces: capitals and digits, and small Cyrillic letters with a Latin twin.
_SHAPES = {
    "l": "I1|\u0406\u0456\u04cf\u0131",
    "o": "O0\u041e\u043e",
    "a": "\u0430",
    "c": "\u0441",
    "e": "\u0435",
    "h": "\u04bb",
    "j": "\u0458",
    "p": "\u0440",
    "q": "\u051b",
    "s": "\u0455",
    "v": "\u0475",
    "w": "\u051d",
    "x": "\u0445",
    "y": "\u0443",
}
_TO_SHAPE = str.maketrans({like: letter for letter, likes in _SHAPES.items() for like in likes})


def twins(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each name with an earlier one in the list that looks the same, or differs only in case."""
    first: dict[str, str] = {}
    for name in names:
        plain = " ".join(unicodedata.normalize("NFKC", name).split())
        looks = {plain.casefold(), plain.translate(_TO_SHAPE).casefold()}
        found = next((first[one] for one in sorted(looks) if one in first), None)
        if found is not None:
            yield found, name
        for one in looks:
            first.setdefault(one, name)
