"""Take a secret out of what an upstream answers, in the forms in which it is usually echoed, while the answer streams.

This is a net and no wall: an upstream has the secret, and one that wants to show it finds a form that is not here, such
as the secret reversed, packed or in two pieces. `forms` lists what is looked for.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

MASK: Final = b"***"
# Shorter words occur by chance, and guard nothing.
SHORTEST: Final = 8
# What Go and .NET escape in JSON besides what must be, each in its own way, so that pages can hold it.
_OF_GO: Final = {ord(letter): f"\\u{ord(letter):04x}" for letter in "&<>"}
_OF_NET: Final = {ord(letter): f"\\u{ord(letter):04X}" for letter in "\"&'+<>`"}


class Scrubber:
    """Masks one secret in one stream of bytes. Nothing is held back but an end that may begin a form of the secret."""

    def __init__(self, secret: bytes) -> None:
        # No regular expression: the library keeps those that it has compiled.
        self._forms = forms(secret)
        self._held = b""

    def __repr__(self) -> str:
        return "Scrubber()"

    def feed(self, piece: bytes) -> bytes:
        """Return what may be handed on now that a piece has come."""
        text, done = self._held + piece, 0
        parts: list[bytes] = []
        until = self._begun(text, 0)
        for start, end in self._found(text):
            if start >= until:
                break
            parts += (text[done:start], MASK)
            done = end
            if done > until:
                until = self._begun(text, done)
        parts.append(text[done:until])
        self._held = text[until:]
        return b"".join(parts)

    def end(self) -> bytes:
        """Return what is still held when nothing more comes."""
        held, self._held = self._held, b""
        return self.whole(held)

    def whole(self, text: bytes) -> bytes:
        """Return a text by itself, such as the value of a header, without the secret."""
        parts: list[bytes] = []
        done = 0
        for start, end in self._found(text):
            parts += (text[done:start], MASK)
            done = end
        return b"".join((*parts, text[done:]))

    def _found(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Yield where the forms are, from the left, none within another."""
        places = {form: text.find(form) for form in self._forms}
        done = 0
        while True:
            for form, at in places.items():
                if 0 <= at < done:
                    places[form] = text.find(form, done)
            there = [(at, at + len(form)) for form, at in places.items() if at >= 0]
            if not there:
                return
            yield min(there)
            done = min(there)[1]

    def _begun(self, text: bytes, start: int) -> int:
        """Return where the first form begins that is cut off by the end of a text; its length when none is."""
        first = len(text)
        for form in self._forms:
            at = text.find(form[:1], max(start, len(text) - len(form) + 1), first)
            while at >= 0:
                if form.startswith(text[at:]):
                    first = at
                    break
                at = text.find(form[:1], at + 1, first)
        return first


def forms(secret: bytes) -> tuple[bytes, ...]:
    """Return the forms of a secret that are looked for, none of which begins with another; none for a short secret."""
    kept: list[bytes] = []
    # What begins with another form is behind it in this order, and nothing else is between the two.
    for one in sorted({form for word in _words(secret) for form in _forms(word)}):
        if not kept or not one.startswith(kept[-1]):
            kept.append(one)
    return tuple(kept)


def _words(secret: bytes) -> Iterator[bytes]:
    """Yield a secret, and what it holds in base64 as `Basic` does: name and password, and the password."""
    words = [secret]
    try:
        inside = b64decode(secret, validate=True)
    except ValueError:
        inside = b""
    if b":" in inside and inside.isascii():
        words += [inside, inside.partition(b":")[2]]
    yield from (word for word in words if len(word) >= SHORTEST)


def _forms(word: bytes) -> Iterator[bytes]:
    yield word
    yield from _base64(word)
    yield from (word.hex().encode(), word.hex().upper().encode())
    escaped = quote(word, safe="").encode()
    yield from (escaped, _lower_escapes(escaped), quote(word).encode())
    everything = b"%" + word.hex("%").encode()
    yield from (everything.upper(), everything)
    text = word.decode("utf-8", "replace")
    quoted = json.dumps(text)[1:-1]
    yield from (quoted.encode(), quoted.replace("/", "\\/").encode(), quoted.translate(_OF_GO).encode())
    yield text.replace("\\", "\\\\").translate(_OF_NET).encode()
    units = text.encode("utf-16-be").hex("u", 2)
    for digits in (units, units.upper().replace("U", "u")):
        yield b"\\u" + digits.replace("u", "\\u").encode()
    yield from (b"\\x" + word.hex("x").replace("x", "\\x").encode(), html.escape(text).encode())
    yield from (text.encode("utf-16-le"), text.encode("utf-16-be"))


def _base64(word: bytes) -> Iterator[bytes]:
    """Yield how a text looks in base64 within a longer one, at each of the three places in it."""
    for before in range(3):
        whole = b64encode(b"\0" * before + word)
        # The first and last letters depend on what is beside it.
        seen = whole[-(-before * 8 // 6) : (before + len(word)) * 8 // 6]
        yield from (seen, seen.replace(b"+", b"-").replace(b"/", b"_"))


def _lower_escapes(escaped: bytes) -> bytes:
    return re.sub(rb"%[0-9A-F]{2}", lambda match: match[0].lower(), escaped)
