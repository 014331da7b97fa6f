"""Look for names in the purpose of a session."""

from __future__ import annotations

import unicodedata
from functools import cached_property

from pdp.foundation.names import Name, folded, links, lower_ascii

# A single word that is shorter names nothing.
_SHORTEST_WORD = 3
# Between a word and one of these, directly joined to another word, no name begins or ends.
_JOINERS = frozenset("@.-+/\\_%&=?#~:")


class Purpose:
    """The purpose of a session, in which names are looked for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def names(self, name: Name) -> bool:
        """Return whether the purpose names the same: as a whole word or words, with nothing joined to it."""
        kind, text = name
        if " " not in text and len(text) < _SHORTEST_WORD:
            return False
        match kind:
            case "url":
                return name in self._links
            case "address":
                return _is_in(text, self._lowered)
            case "iban" | "phone":
                return self._spells(text)
            case "id":
                return _is_in(text, self._text)
        return _is_in(text, self._folded)

    @cached_property
    def _links(self) -> frozenset[Name | None]:
        return frozenset(links(self._text))

    @cached_property
    def _lowered(self) -> str:
        return lower_ascii(self._text)

    @cached_property
    def _folded(self) -> str:
        return folded(self._text)

    @cached_property
    def _spelled(self) -> tuple[str, list[int]]:
        places = [place for place, character in enumerate(self._text) if character not in " -"]
        return "".join(self._text[place] for place in places), places

    def _spells(self, number: str) -> bool:
        """Return whether a number is in the purpose, with or without blanks and dashes, as no part of a longer one."""
        spelled, _ = self._spelled
        start = spelled.find(number)
        while start >= 0:
            if not self._goes_on(start, -1) and not self._goes_on(start + len(number) - 1, 1):
                return True
            start = spelled.find(number, start + 1)
        return False

    def _goes_on(self, at: int, step: int) -> bool:
        """Return whether a number continues: a digit is next to it, also behind a gap, or it is joined to a word."""
        spelled, places = self._spelled
        beyond = at + step
        digit = 0 <= beyond < len(spelled) and (spelled[beyond].isdigit() or spelled[beyond] == "+")
        return digit or _joined(self._text, places[at] + step, step)


def _is_in(name: str, text: str) -> bool:
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        if not _joined(text, start - 1, -1) and not _joined(text, end, 1):
            return True
        start = text.find(name, start + 1)
    return False


def _joined(text: str, at: int, step: int) -> bool:
    """Return whether the character beside a name belongs to it: one of a word, or a joiner with a word behind it."""
    if not 0 <= at < len(text):
        return False
    beyond = at + step
    joins = text[at] in _JOINERS and 0 <= beyond < len(text) and _in_word(text[beyond])
    return _in_word(text[at]) or joins


def _in_word(character: str) -> bool:
    # A mark belongs to the letter before it, and an invisible character hides what is joined.
    return character.isalnum() or character == "_" or unicodedata.category(character) in {"Mn", "Mc", "Me", "Cf"}
