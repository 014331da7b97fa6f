"""Read JSON strictly, write it canonically, and make digests of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from itertools import accumulate, chain
from typing import Any

import rfc8785

from pdp.errors import InvalidJSONError
from pdp.limits import DEFAULT_LIMITS, Limits

# Cedar's JSON reads an object with one of these keys as an entity or an extension value.
MINTING_KEYS = frozenset({"__entity", "__extn", "__expr"})

ACTED_ON = ("name", "description", "inputSchema", "outputSchema", "annotations")
# The integers that a double holds exactly, and the only ones that RFC 8785 writes as integers.
_SAFE_INTEGER = 2**53 - 1
# A text, or all that follows its beginning when it has no end: looking for an end from every further quote too would
# take the square of the length.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
# A piece of JSON that ends outside of texts. `sub` takes memory for each match: for all texts of a message at once it
# would be forty times the message.
_PIECE = re.compile(rb'(?:[^"]*+%b){0,1000}+[^"]*+' % _STRING.pattern, re.DOTALL)
# Each of these signs belongs to one value; besides those of the first two there is one more.
_OF_VALUES = ((b",", 1), (b":", 1), (b"[", 0), (b"{", 0))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(set(range(256)) - _STEPS.keys())
_FRACTION_OR_EXPONENT = re.compile("[.E]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(text: bytes, limits: Limits = DEFAULT_LIMITS, *, minting: bool = False) -> Any:  # noqa: ANN401 - any JSON value
    """Parse strict JSON: no duplicate keys, no NaN, no lone surrogates, within the limits.

    Numbers with a fraction or exponent become `Decimal`, so that nothing is rounded. `minting` accepts the keys from
    which Cedar's JSON would make an entity or a value; use it only for JSON that never becomes Cedar's as it is. Raise
    `InvalidJSONError`; its message names the rule and holds no value.
    """
    if len(text) > limits.arguments_bytes:
        raise InvalidJSONError(f"larger than {limits.arguments_bytes} bytes (limit `arguments_bytes`)")
    # Counting brackets is cheap and gives an upper bound of the depth; only suspicious texts are scanned.
    if text.count(b"[") + text.count(b"{") > limits.arguments_depth:
        _check_depth(text, limits)
    # Too many values are refused before they take memory, where the signs outside of texts tell of them.
    if len(text) > limits.arguments_nodes and _surely_more_values(text, limits.arguments_nodes):
        raise InvalidJSONError(f"more than {limits.arguments_nodes} values (limit `arguments_nodes`)")
    try:
        value = (_MINTING_DECODER if minting else _DECODER).decode(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidJSONError("not UTF-8") from None
    except json.JSONDecodeError as error:
        # No program shows the mark with which some editors begin a file.
        mark = not error.pos and text.startswith(BOM_UTF8)
        problem = "not JSON: it begins with a byte order mark; save it without one" if mark else "not JSON"
        raise InvalidJSONError(problem, line=error.lineno, column=error.colno) from None
    except (RecursionError, ValueError, InvalidOperation):
        # ValueError: an integer with more digits than the interpreter converts. InvalidOperation: an exponent too large
        # for a `Decimal`.
        raise InvalidJSONError("a number is too long, or the nesting is too deep") from None
    # A text and a value take a byte at least, and only an escape makes a surrogate.
    if len(text) > min(limits.string_bytes, limits.arguments_nodes) or b"\\u" in text:
        _check_values(value, limits)
    return value


def parse_object(text: bytes, limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """Parse a strict JSON object; an empty text is an empty object."""
    value = parse(text or b"{}", limits)
    if not isinstance(value, dict):
        raise InvalidJSONError("not a JSON object")
    return value


def is_json(text: str) -> bool:
    """Say whether a text is JSON, also where it would be refused as the arguments of a call."""
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (InvalidJSONError, ValueError, RecursionError):
        return False
    return True


def canonical(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Write a JSON value by RFC 8785, so that equal values have equal bytes in every language."""
    return _written(value).encode()


def _written(value: Any) -> str:  # noqa: ANN401 - any JSON value
    # The library takes several steps in Python for each text. ASCII needs none of its rules: `json` escapes it alike,
    # and the order of characters is that of UTF-16.
    if isinstance(value, str) and value.isascii():
        return _text(value)
    if isinstance(value, dict) and _are_ascii(value):
        keys = sorted(value)
        written = _each_written([value[key] for key in keys])
        return "{" + ",".join([f"{_text(key)}:{one}" for key, one in zip(keys, written, strict=True)]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_each_written(value)) + "]"
    return rfc8785.dumps(value).decode()


def _each_written(values: Sequence[Any]) -> Iterator[str]:
    # A list or an object of texts alone, as most are that have many members, is written without a step in Python.
    return map(_text if _are_ascii(values) else _written, values)


def _are_ascii(values: Iterable[Any]) -> bool:
    """Say whether all are texts of ASCII."""
    try:
        return "".join(values).isascii()
    except TypeError:
        return False


def canonical_unchanged(value: Any, limits: Limits = DEFAULT_LIMITS) -> bytes:  # noqa: ANN401 - any JSON value of `parse`
    """Write a parsed JSON value by RFC 8785, for readers who may take its numbers as they were typed.

    Raise `InvalidJSONError` for a number that would be written otherwise, such as `1.0`, `1e2` or one of 30 digits.
    """
    try:
        written = canonical(_with_doubles(value))
    except rfc8785.FloatDomainError:
        raise InvalidJSONError("a number is beyond the range of doubles") from None
    if canonical_as_typed(parse(written, limits, minting=True)) != canonical_as_typed(value):
        raise InvalidJSONError("a number is not written as RFC 8785 writes it, or has more digits than a double")
    return written


def canonical_as_typed(value: Any) -> str:  # noqa: ANN401 - any JSON value of `parse`
    """Write a parsed JSON value in one form, and every number as it was typed.

    Equal texts have the same keys, texts and numbers: keys are sorted by code point, and blanks and the spelling of
    texts do not matter. An integer has no fraction, so `1` is not `1.0`, and `1.0` is not `1.00`; `1E2` and `1e+2` are
    the same. Nothing becomes a double.
    """
    if isinstance(value, dict):
        return "{" + ",".join(f"{_text(key)}:{canonical_as_typed(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical_as_typed, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Decimal):
        text = str(value)
        # `1E0` would be written as `1`.
        return text if _FRACTION_OR_EXPONENT.search(text) else f"{text}E+0"
    # `true`, `false`, `null` and integers.
    return json.dumps(value)


def key_paths(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - any JSON value of `parse`
    """Return the paths of all keys in a parsed JSON value, sorted, each once.

    A path is JSON: `["to",[],"name"]` is the key `name` of the objects in the list `to`.
    """
    found: set[str] = set()
    pending: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while pending:
        above, one = pending.pop()
        if isinstance(one, dict):
            pending += [((*above, key), inner) for key, inner in one.items()]
            found.update(json.dumps([*above, key], separators=(",", ":")) for key in one)
        elif isinstance(one, list):
            # No key is a list.
            pending += [((*above, []), inner) for inner in one]
    return tuple(sorted(found))


def all_texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    """Yield all texts in a JSON value, in order; keys are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from all_texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from all_texts(one)


def digest(text: bytes) -> str:
    """Return `sha256:` and the hex digest of some bytes."""
    return "sha256:" + hashlib.sha256(text).hexdigest()


def keyed_digest(key: bytes, text: str) -> str:
    """Return `hmac-sha256:` and the hex HMAC of a text, which cannot be guessed without the key."""
    # A lone surrogate has no UTF-8 form; `surrogatepass` keeps different texts different.
    return "hmac-sha256:" + hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def definition_digest(definition: dict[str, Any]) -> str:
    """Return the digest of a tool's definition, an entry of an MCP `tools/list` answer.

    It covers what a model acts on: name, description, schemas and annotations. A title, `_meta`, icons and other fields
    that a gateway adds for display are left out, and so are fields that are null.
    Numbers count as doubles, as in RFC 8785: `parse` and other JSON parsers give the same digest.
    """
    return _digest_of({key: definition[key] for key in ACTED_ON if definition.get(key) is not None})


def former_definition_digest(definition: dict[str, Any]) -> str:
    """Return the digest in its former form, over every field but `_meta` and `icons`.

    Older sessions and gateways hold it. It covers no less than the present one, so both are accepted.
    """
    return _digest_of({key: value for key, value in definition.items() if key not in ("_meta", "icons")})


def _digest_of(definition: dict[str, Any]) -> str:
    try:
        return digest(canonical(_with_doubles(definition)))
    except rfc8785.FloatDomainError:
        raise InvalidJSONError("a number is beyond the range of doubles") from None


def _with_doubles(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, Decimal):
        return float(value)
    if type(value) is int and abs(value) > _SAFE_INTEGER:
        return float(Decimal(value))  # infinite rather than an overflow
    if isinstance(value, dict):
        return {key: _with_doubles(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_doubles(inner) for inner in value]
    return value


def _any_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidJSONError("a key appears twice in one object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = _any_object(pairs)
    if not MINTING_KEYS.isdisjoint(value):
        raise InvalidJSONError("a key is reserved (`__entity`, `__extn`, `__expr`)")
    return value


def _refuse_constant(_: str) -> None:
    raise InvalidJSONError("NaN and Infinity are not JSON")


def _check_depth(text: bytes, limits: Limits) -> None:
    # There can be millions of brackets: they are counted without a loop of our own.
    brackets = chain.from_iterable(piece.translate(None, _NO_BRACKETS) for piece in _without_texts(text))
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > limits.arguments_depth:
        raise InvalidJSONError(f"deeper than {limits.arguments_depth} levels (limit `arguments_depth`)")


def _surely_more_values(text: bytes, most: int) -> bool:
    suspicious = [(sign, more) for sign, more in _OF_VALUES if text.count(sign) + more > most]
    return any(more + sum(piece.count(sign) for piece in _without_texts(text)) > most for sign, more in suspicious)


def _without_texts(text: bytes) -> Iterator[bytes]:
    """Yield what is in no text of some JSON, in pieces."""
    return (_STRING.sub(b"", found[0]) for found in _PIECE.finditer(text))


def _check_values(value: Any, limits: Limits) -> None:  # noqa: ANN401 - any JSON value
    nodes = 0
    pending = [value]
    while pending:
        current = pending.pop()
        nodes += 1
        if isinstance(current, dict):
            pending.extend(current.values())
            for key in current:
                _check_string(key, limits)
        elif isinstance(current, list):
            pending.extend(current)
        elif isinstance(current, str):
            _check_string(current, limits)
    if nodes > limits.arguments_nodes:
        raise InvalidJSONError(f"more than {limits.arguments_nodes} values (limit `arguments_nodes`)")


def _check_string(text: str, limits: Limits) -> None:
    # A character takes up to four bytes; only long strings need counting.
    if len(text) * 4 > limits.string_bytes and len(text.encode("utf-8", "surrogatepass")) > limits.string_bytes:
        raise InvalidJSONError(f"a string is longer than {limits.string_bytes} bytes (limit `string_bytes`)")
    if not text.isascii() and _SURROGATE.search(text):
        raise InvalidJSONError("a string holds a lone surrogate")


# Created once: `json.dumps` and `json.loads` with options would create one for each call.
_text = json.encoder.encode_basestring
_DECODER, _MINTING_DECODER = (
    json.JSONDecoder(object_pairs_hook=hook, parse_float=Decimal, parse_constant=_refuse_constant)
    for hook in (_object, _any_object)
)
