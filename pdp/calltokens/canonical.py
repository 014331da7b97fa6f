"""Write JSON by RFC 8785, so that whoever parsed the same arguments has the same bytes.

The PDP itself uses a library for that. This module is also for tool servers, which install nothing but `cryptography`;
a test holds the two against each other.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Any, Final

from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.strictjson import strict_decoder

# The integers that a double holds exactly: RFC 8785 has no others.
_SAFE_INTEGER: Final = 2**53 - 1
# Arguments that are nested more deeply are no tool's.
_MOST_DEPTH: Final = 256
# From here on, and for what is smaller than a millionth, JavaScript writes an exponent.
_MOST_DIGITS, _LEAST_EXPONENT = 21, -6


def arguments_digest(arguments: bytes | dict[str, Any], salt: bytes) -> str:
    """Return `sha256:` and the hex digest of some arguments in canonical form, after a salt.

    `arguments` are the bytes of a JSON object, or what a parser made of them. Raise `CallTokenRefusedError` for what
    has no canonical form: a key twice, an integer beyond 2^53, a number that no double holds, a lone surrogate.
    """
    value = parse(arguments) if isinstance(arguments, bytes) else arguments
    if not isinstance(value, dict):
        raise _no_form("the arguments are not a JSON object")
    return "sha256:" + sha256(salt + canonical(value)).hexdigest()


def parse(text: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse JSON; refuse a key that is twice in one object, `NaN`, and numbers that do not fit a double."""
    try:
        return _DECODER.decode(text.decode("utf-8") or "{}")
    except (ValueError, RecursionError, InvalidOperation):
        # An exponent can be too long for `Decimal`.
        raise _no_form("the arguments are not JSON") from None


def canonical(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Write a JSON value by RFC 8785."""
    parts: list[str] = []
    _write(value, parts, 0)
    return "".join(parts).encode()


def _write(value: object, parts: list[str], depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise _no_form("the arguments are nested too deeply")
    if value is None or isinstance(value, bool):
        parts.append(json.dumps(value))
    elif isinstance(value, str):
        parts.append(_text(value))
    elif isinstance(value, int):
        if abs(value) > _SAFE_INTEGER:
            raise _no_form("an integer is beyond 2^53")
        parts.append(str(value))
    elif isinstance(value, float):
        parts.append(_number(value))
    elif isinstance(value, list | tuple):
        parts.append("[")
        for index, one in enumerate(value):
            parts.append("," if index else "")
            _write(one, parts, depth + 1)
        parts.append("]")
    elif isinstance(value, dict):
        _write_object(value, parts, depth)
    else:
        raise _no_form("a value is not of JSON")


def _write_object(value: dict[Any, object], parts: list[str], depth: int) -> None:
    if not all(isinstance(key, str) for key in value):
        raise _no_form("a key is not a text")
    parts.append("{")
    # By UTF-16 code units, as JavaScript sorts.
    for index, key in enumerate(sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))):
        parts.append(("," if index else "") + _text(key) + ":")
        _write(value[key], parts, depth + 1)
    parts.append("}")


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _no_form("a text holds a lone surrogate") from None
    return json.dumps(text, ensure_ascii=False)


def _number(number: float) -> str:
    """Write a double as JavaScript does (ECMA-262, `Number::toString`)."""
    if not math.isfinite(number):
        raise _no_form("a number is beyond the range of doubles")
    if not number:
        return "0"
    # Python's shortest digits are those of JavaScript; only the form differs.
    sign, figures, exponent = Decimal(repr(number)).normalize().as_tuple()
    digits, minus = "".join(map(str, figures)), "-" if sign else ""
    point = len(digits) + int(exponent)
    if len(digits) <= point <= _MOST_DIGITS:
        return minus + digits + "0" * (point - len(digits))
    if 0 < point <= _MOST_DIGITS:
        return f"{minus}{digits[:point]}.{digits[point:]}"
    if _LEAST_EXPONENT < point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{minus}{digits[0]}{fraction}e{point - 1:+d}"


def _double(text: str) -> float:
    """Read a number that is written with no more digits than a double has, so that no reader sees another one."""
    number = float(text)
    if not math.isfinite(number) or Decimal(repr(number)) != Decimal(text):
        raise _no_form("a number has more digits than a double holds")
    return number


def _no_form(problem: str) -> CallTokenRefusedError:
    return CallTokenRefusedError(Reason.ARGUMENTS, problem)


_DECODER = strict_decoder(_no_form, _double)
