"""The obligations that the product knows: what each is called, and which parameters it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pdp.foundation.fieldpaths import field_path

REDACT_RESULT: Final = "redact_result"
NOTICE: Final = "notice"
MAX_RESULT_BYTES: Final = "max_result_bytes"

_MOST_FIELDS = 64
_NOTICE_CHARACTERS = 512
_MOST_BYTES = 2**31 - 1


def parameter_problem(name: str, parameters: Mapping[str, Any]) -> str:
    """Return what is wrong with the parameters of an obligation that the product knows; empty when nothing is."""
    key, problem = KNOWN[name]
    if set(parameters) != {key}:
        return f"takes exactly the parameter `{key}`"
    return problem(parameters[key])


def _fields_problem(fields: Any) -> str:  # noqa: ANN401 - any JSON value
    if not isinstance(fields, list) or not 0 < len(fields) <= _MOST_FIELDS:
        return f"`fields` must be a list of 1 to {_MOST_FIELDS} paths such as `user.iban` or `[].email`"
    for path in fields:
        try:
            field_path(path if isinstance(path, str) else "")
        except ValueError as error:
            return f"`fields`: {error}"
    return ""


def _text_problem(text: Any) -> str:  # noqa: ANN401 - the same
    if isinstance(text, str) and text.isprintable() and 0 < len(text) <= _NOTICE_CHARACTERS:
        return ""
    return f"`text` must be one printable line of at most {_NOTICE_CHARACTERS} characters"


def _bytes_problem(most: Any) -> str:  # noqa: ANN401 - the same
    if isinstance(most, int) and not isinstance(most, bool) and 0 < most <= _MOST_BYTES:
        return ""
    return f"`bytes` must be a whole number from 1 to {_MOST_BYTES}"


# The only parameter of each, and its check.
KNOWN: Final[Mapping[str, tuple[str, Callable[[Any], str]]]] = MappingProxyType(
    {
        MAX_RESULT_BYTES: ("bytes", _bytes_problem),
        NOTICE: ("text", _text_problem),
        REDACT_RESULT: ("fields", _fields_problem),
    }
)
