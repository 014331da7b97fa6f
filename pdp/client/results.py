"""Results of tools as the JSON values that are sent: those of the MCP SDK are objects of a class."""

from __future__ import annotations

from typing import Any

# What is kept of an MCP result: `_meta`, and whatever else a text has beside it, could repeat what is redacted.
OF_A_RESULT = ("content", "structuredContent", "isError")
# The only kind of result that has content; it is what a result without a kind is.
_COMPLETE = "complete"


def is_message(result: object) -> bool:
    """Return whether a value is a result of MCP, as it is sent."""
    if type(result) is not dict or not result.keys() <= {*OF_A_RESULT, "_meta", "resultType"}:
        return False
    if result.get("resultType", _COMPLETE) != _COMPLETE:
        return False
    content = result.get("content")
    blocks = type(content) is list and all(type(one) is dict and type(one.get("type")) is str for one in content)
    return blocks or (content is None and type(result.get("structuredContent")) is dict)


def says_failure(result: object) -> bool:
    """Return whether a result of MCP says that its call failed."""
    sent = as_sent(result)
    return is_message(sent) and sent.get("isError") is True


def as_sent(result: Any) -> Any:  # noqa: ANN401 - whatever a tool returns
    """Return a result of the MCP SDK, such as `CallToolResult`, as it is sent; any other result as it is."""
    dump = getattr(type(result), "model_dump", None)
    if dump is None:
        return result
    try:
        sent = dump(result, mode="json", by_alias=True, exclude_none=True, warnings=False)
    except Exception:  # noqa: BLE001 - fails closed: an object that cannot be read is no JSON value
        return result
    return sent if is_message(sent) else result


def like(result: Any, sent: Any) -> Any:  # noqa: ANN401 - the same
    """Return what is sent as an object of the class of `result`. Raise `ValueError` when it does not fit."""
    try:
        return type(result).model_validate(sent)
    except Exception:  # noqa: BLE001 - the error may hold parts of the result
        raise ValueError("it does not fit the class of the result") from None
