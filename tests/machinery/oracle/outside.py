"""What calls name outside, and where the names come from: written anew from the page for authors of policies.

It shares no line with the product and imports nothing of it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

JSON = dict[str, Any]
# A kind and a text: equal ones name the same.
Form = tuple[str, str]

_HIDDEN = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10)))
_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC")
_JOIN = r"[@.\-+/\\_%&=?#~:]"
_ADDRESS = r"[^\s@<>()\[\]\\,;:\"]+@[^\s@<>()\[\]\\,;:\"/]+"
_BARE = r"[\w-]+(?:\.[\w-]+)*\.(?:[^\W\d_]{2,63}|xn--[A-Za-z0-9-]+)(?::\d+)?(?:[/?#]\S*)?"
_LINK = r"(?i)\b[a-z][a-z0-9+.-]{1,30}:\S|\bwww\.\S|[\w-]\.(?:[^\W\d_]{2}|xn--)|//[\w-]"
_USUAL = {"http": "80", "https": "443", "ws": "80", "wss": "443", "ftp": "21"}


def seen(
    targets: Sequence[tuple[str, str]] | None,
    texts: Sequence[str] | None,
    arguments: JSON,
    named: Sequence[str],
    purpose: str,
    known: Sequence[str],
    held: Mapping[Form, str],
) -> JSON:
    """Return what a session sees: `named` are the targets of its terms, `known` is what its user knows.

    `held` is what results in its tree held, each with its word.
    """

    def word(form: Form | None) -> str:
        if form is None:
            return "unseen"
        kind = form[0]
        if any(form_of(one, kind) == form for one in named) or _says(purpose, form):
            return "named"
        return "known" if any(form_of(one, kind) == form for one in known) else held.get(form, "unseen")

    found = [_form_of_any(value, kind) for path, kind in targets or () for value in _at(arguments, path)]
    linked = [
        form for path in texts or () for value in _at(arguments, path) for t in _strings(value) for form in links(t)
    ]
    provenance = {word(form) for form in _first(found)} or {"none"}
    nothing_said = targets is None and texts is None
    return {
        "provenance": ["undeclared"] if targets is None else sorted(provenance),
        "links": ["undeclared"] if nothing_said else sorted({word(form) for form in _first(linked)}),
    }


def named_outside(
    targets: Sequence[tuple[str, str]] | None, texts: Sequence[str] | None, arguments: JSON
) -> frozenset[tuple[str, Form]] | None:
    """Return what a call names, each target with its path and each link; None for no target, not plain, or too much."""
    found = [(path, _form_of_any(value, kind)) for path, kind in targets or () for value in _at(arguments, path)]
    linked = [
        ("", form)
        for path in texts or ()
        for value in _at(arguments, path)
        for t in _strings(value)
        for form in links(t)
    ]
    forms = {(path, form) for path, form in (*found, *linked) if form is not None}
    plain = found and len(forms) == len({*found, *linked}) <= 256
    return frozenset(forms) if plain else None


def form_of(value: str, kind: str = "") -> Form | None:
    """Return what a value names; None for what could be taken for something else."""
    if not 0 < len(value) <= 2048 or value.strip() != value or _doubtful(value):
        return None
    kind = "url" if not kind and "://" in value else kind
    for one in [kind] if kind else ["address", "url", "iban", "phone", "id", "text"]:
        text = _FORMS[one](value)
        if text is not None and (kind or _looks_like(one, value, text)):
            return one, text
    return None


def links(text: str) -> Iterator[Form | None]:
    """Yield each link of a text."""
    for chunk in re.split(r"[\s<>\"]+|\]\(", text):
        tokens = [one for one in re.findall(r"[^()\[\]{}'`|,;*]+", chunk) if one.strip(".:!?")]
        for token in tokens:
            bare = "".join(one for one in token if one.isascii() or not _unseen(one))
            bare = re.sub("[\u3002\uff0e\uff61]", ".", bare)
            if re.search(_LINK, bare) is None:
                continue
            written = token.rstrip(".:!?")
            if token != bare or token is not tokens[-1]:
                yield None
            elif written.lower().startswith("mailto:"):
                yield form_of(written[7:], "address")
            else:
                yield form_of(written, "address" if "@" in written and "://" not in written else "url")


def _says(purpose: str, form: Form) -> bool:
    kind, text = form
    if " " not in text and len(text) < 3:
        return False
    if kind == "url":
        return form in links(purpose)
    if kind in ("iban", "phone"):
        spelled = "[ -]*".join(map(re.escape, text))
        around = rf"(?<![\w+])(?<!\d[ -])(?<!\w{_JOIN}){spelled}(?!\w)(?![ -]+[\d+])(?!{_JOIN}\w)"
        return re.search(around, purpose) is not None
    where = _low(purpose) if kind == "address" else _plain(purpose) if kind == "text" else purpose
    return re.search(rf"(?<!\w)(?<!\w{_JOIN}){re.escape(text)}(?!\w)(?!{_JOIN}\w)", where) is not None


def _first(forms: Iterable[Form | None]) -> list[Form | None]:
    distinct = list(dict.fromkeys(forms))
    return distinct if len(distinct) <= 256 else [*distinct[:256], None]


def _form_of_any(value: object, kind: str) -> Form | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return form_of(str(value), kind or "id")
    return form_of(value, kind) if isinstance(value, str) else None


def _at(value: Any, path: str) -> list[Any]:
    """Return what is at a path, lists opened; what the path does not fit is returned itself."""
    if value is None:
        return []
    if isinstance(value, list):
        return [found for one in value for found in _at(one, path)]
    if not path or not isinstance(value, dict):
        return [value]
    step, _, rest = path.partition(".")
    return _at(value.get(step.replace("[]", "")), rest)


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in _strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in _strings(one)]
    return [value] if isinstance(value, str) else []


def _doubtful(value: str) -> bool:
    if any(_unseen(one) or unicodedata.category(one) == "Cc" for one in value):
        return True
    folded = (unicodedata.normalize("NFC", one).lower() for one in value if ord(one) > 127)
    if any(ord(low) < 128 for one in folded for low in one):
        return True
    scripts = {unicodedata.name(one, "?").split()[0] for one in value if one.isalpha()}
    return len({"CJK" if one.startswith(_ASIAN) else one for one in scripts}) > 1


def _unseen(one: str) -> bool:
    return one in _HIDDEN or unicodedata.category(one) in ("Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Cc")


def _looks_like(kind: str, value: str, form: str) -> bool:
    if kind == "iban":
        moved = form[4:] + form[:4]
        return int("".join(str(int(one, 36)) for one in moved)) % 97 == 1
    if kind == "phone":
        return value.startswith("+")
    if kind == "id":
        return re.search(r"\s", value) is None and re.search(r"\d", value) is not None
    return True


def _low(value: str) -> str:
    return re.sub("[A-Z]+", lambda found: found[0].lower(), value)


def _plain(value: str) -> str:
    return " ".join(unicodedata.normalize("NFC", value).split()).lower()


def _address(value: str) -> str | None:
    return _low(value) if re.fullmatch(_ADDRESS, value) else None


def _url(value: str) -> str | None:
    scheme, apart, rest = value.partition("://")
    if not apart:
        scheme, rest = "", value
        if not re.fullmatch(_BARE, value):
            return None
    elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return None
    if re.search(r"[\s\\]", value):
        return None
    host, port, path = re.fullmatch(r"([^/?#:]*)(?::([^/?#]*))?(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr] # matches anything
    try:
        urlsplit(f"{scheme or 'http'}://{rest}")
    except ValueError:
        return None
    if not re.fullmatch(r"[\w-]+(?:\.[\w-]+)*\.?", host) or not re.fullmatch(r"\d*", port or ""):
        return None
    where = _low(host) + (f":{int(port)}" if port and str(int(port)) != _USUAL.get(_low(scheme)) else "")
    return f"{_low(scheme)}://{where}{path if path.startswith('/') else '/' + path}"


def _iban(value: str) -> str | None:
    bare = re.sub("[ -]", "", value)
    return bare if re.fullmatch("[A-Za-z]{2}[0-9]{2}[A-Za-z0-9]{6,30}", bare) else None


def _phone(value: str) -> str | None:
    bare = re.sub("[ -]", "", value)
    return bare if re.fullmatch(r"\+?[0-9]{3,20}", bare) else None


_FORMS: dict[str, Callable[[str], str | None]] = {
    "address": _address,
    "url": _url,
    "iban": _iban,
    "phone": _phone,
    "id": str,
    "text": _plain,
}
