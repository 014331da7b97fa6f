"""Compare names by their kind, exactly: addresses, URLs, accounts, phone numbers, ids and other texts.

A canonical form is equal for two values exactly when they name the same. Separators are always kept, as
`emma@johnson-company.com` is not `emma.johnson@company.com`, and no character outside ASCII equals another one. A value
that could look like another one (mixed scripts, invisible or bidirectional characters) has no canonical form.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

# Longer values have no canonical form: no address is that long, and each is looked for in texts.
LONGEST = 2048
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}

_ADDRESS = re.compile(r"[^\s@<>()\[\]\\,;:\"]+@[^\s@<>()\[\]\\,;:\"/]+\Z")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*\.?\Z")
# A host without a scheme: at least two parts, the last of them of letters.
_BARE = re.compile(r"[\w-]+(\.[\w-]+)*\.([^\W\d_]{2,63}|xn--[A-Za-z0-9-]+)(:\d+)?([/?#]\S*)?\Z")
_IBAN = re.compile(r"[A-Za-z]{2}[0-9]{2}[A-Za-z0-9]{6,30}\Z")
_IBAN_CHECK, _IBAN_REST = 97, 1
_PHONE = re.compile(r"\+?[0-9]{3,20}\Z")
_BLANKS = re.compile(r"\s+")

# Letters that are drawn as nothing, though they are letters or marks for Unicode.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}
# Control and format characters (zero-width and bidirectional ones), and what is not assigned.
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Scripts that are written together, by the first word of the names of their letters.
_TOGETHER = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC"})
# Dots of other scripts: names of hosts can be written with them.
_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")
_LINK = re.compile(r"(?i)(?:\b[a-z][a-z0-9+.-]{1,30}:(?=\S)|\bwww\.\S|[\w-]\.(?:[^\W\d_]{2}|xn--)|//[\w-])")
# What is in no link, `](` of Markdown included; and what ends a link unless more of it follows.
_OUTSIDE, _EDGES = re.compile(r"[\s<>\"]+|\]\("), re.compile(r"[()\[\]{}'`|,;*]+")
_BEHIND = ".:!?"


class Name(NamedTuple):
    """What a value names: a word of `KINDS`, and its canonical form."""

    kind: str
    text: str


def name_of(value: str, kind: str | None) -> Name | None:
    """Return what a value names; None when it has no canonical form of its kind, and so equals nothing.

    Without a kind the shape of the value decides, see `kind_of`.
    """
    return next(names_of(value, (kind,)), None)


def names_of(value: str, kinds: Iterable[str | None]) -> Iterator[Name]:
    """Yield what a value names of each kind, None for that of its shape."""
    # A blank at an end must not make an id a text, whose case does not matter.
    if len(value) > LONGEST or not value or value != value.strip() or _is_doubtful(value):
        return
    for kind in kinds:
        chosen = kind or kind_of(value)
        text = KINDS[chosen](value)
        if text is not None:
            yield Name(chosen, text)


def name_of_value(value: object, kind: str | None) -> Name | None:
    """Return what a JSON value names; a whole number is an id unless a kind is given, and other values name nothing."""
    if type(value) is int:
        return name_of(str(value), kind or "id")
    return name_of(value, kind) if isinstance(value, str) else None


def kind_of(value: str) -> str:
    """Return the kind that the shape of a value has.

    The first that fits of: `address` with one `@`; `url` with `://`, or like `example.com/path`; `iban` with valid
    check digits; `phone` that begins with `+`; `id`, one word with a digit in it; otherwise `text`.
    """
    if _address(value) is not None:
        return "address"
    if "://" in value or _BARE.match(value):
        return "url"
    if (account := _iban(value)) is not None and _has_valid_check(account):
        return "iban"
    if value.startswith("+") and _phone(value) is not None:
        return "phone"
    one_word = not _BLANKS.search(value)
    return "id" if one_word and any(character.isdigit() for character in value) else "text"


def links(text: str) -> Iterator[Name | None]:
    """Yield what each link of a text names, also in Markdown; None for a link without a canonical form.

    A link is `scheme:`, `www.`, `name.tld`, or `//` before a name. It is found also where invisible characters or dots
    of other scripts are in it, but then it has no canonical form; nor has one whose end cannot be told.
    """
    for chunk in _OUTSIDE.split(text):
        tokens = [token for token in _EDGES.split(chunk) if token.strip(_BEHIND)]
        for place, token in enumerate(tokens, 1):
            plain = "".join(character for character in token if not _is_unshown(character)).translate(_DOTS)
            if _LINK.search(plain):
                yield _link(token.rstrip(_BEHIND)) if plain == token and place == len(tokens) else None


def _link(written: str) -> Name | None:
    scheme, colon, rest = written.partition(":")
    if colon and scheme.lower() == "mailto":
        return name_of(rest, "address")
    if "@" in written and "://" not in written:
        return name_of(written, "address")
    return name_of(written, "url")


def _address(value: str) -> str | None:
    return lower_ascii(value) if _ADDRESS.match(value) else None


def _url(value: str) -> str | None:
    """Write scheme, host, port, path, query and fragment; None for what programs read in different ways."""
    if _BLANKS.search(value) or "\\" in value:
        return None
    if "://" not in value and not _BARE.match(value):
        return None
    scheme = value.partition("://")[0] if "://" in value else ""
    if scheme and not _SCHEME.match(scheme):
        return None
    try:
        parts = urlsplit(value if scheme else f"//{value}")
        port = parts.port
    except ValueError:
        return None
    host, _, _ = parts.netloc.partition(":")
    # A user and a password before the host could look like host and port.
    if "@" in parts.netloc or not _HOST.match(host):
        return None
    if port == _DEFAULT_PORTS.get(scheme.lower()):
        port = None
    where = lower_ascii(host) + ("" if port is None else f":{port}")
    rest = value[value.index(parts.netloc) + len(parts.netloc) :]
    if not rest.startswith("/"):
        rest = f"/{rest}"
    return f"{lower_ascii(scheme)}://{where}{rest}"


def _iban(value: str) -> str | None:
    bare = without_gaps(value)
    return bare if _IBAN.match(bare) else None


def _has_valid_check(account: str) -> bool:
    """Return whether the check digits are those of ISO 13616."""
    digits = "".join(str(int(character, 36)) for character in account[4:] + account[:4])
    return int(digits) % _IBAN_CHECK == _IBAN_REST


def _phone(value: str) -> str | None:
    bare = without_gaps(value)
    return bare if _PHONE.match(bare) else None


def _same(value: str) -> str:
    return value


def folded(value: str) -> str:
    """Return a text in small letters, with each run of blanks as one."""
    return _BLANKS.sub(" ", unicodedata.normalize("NFC", value)).strip().lower()


KINDS: Mapping[str, Callable[[str], str | None]] = {
    "address": _address,
    "url": _url,
    "iban": _iban,
    "phone": _phone,
    "id": _same,
    "text": folded,
}


def lower_ascii(text: str) -> str:
    """Return a text with the letters of ASCII in small letters."""
    return "".join([character.lower() if character.isascii() else character for character in text])


def without_gaps(value: str) -> str:
    """Return a text without blanks and dashes."""
    return value.replace(" ", "").replace("-", "")


def _is_unshown(character: str) -> bool:
    return not character.isascii() and (character in _INVISIBLE or unicodedata.category(character) in _UNSHOWN)


def _is_doubtful(value: str) -> bool:
    """Return whether a value could look like another one."""
    if value.isascii():
        return not value.isprintable()
    characters = set(value)
    if any(one in _INVISIBLE or unicodedata.category(one) in _UNSHOWN for one in characters):
        return True
    # The Kelvin sign becomes a `K`, and some letters become two, one of them in ASCII.
    if any(
        not one.isascii() and any(map(str.isascii, unicodedata.normalize("NFC", one).lower())) for one in characters
    ):
        return True
    return len({_script(one) for one in characters if one.isalpha()}) > 1


def _script(letter: str) -> str:
    script = unicodedata.name(letter, "").partition(" ")[0]
    return "CJK" if script in _TOGETHER else script
