"""Read JSON that has one meaning for every reader."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

# There is no other in a message.
JSON_RPC_MEMBERS: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})


def mistakable(names: Iterable[str], members: Collection[str]) -> tuple[str, ...]:
    """Return the names that differ from a member in capitals alone: some readers, as those in Go, take them for it.

    Of `Method` and `method` the last one counts there.
    """
    folded = {one.casefold() for one in members}
    return tuple(one for one in names if one not in members and one.casefold() in folded)


def strict_decoder(
    refusal: Callable[[str], Exception], parse_float: Callable[[str], float] | None = None
) -> json.JSONDecoder:
    """Return a decoder that refuses a key that is twice in one object, and `NaN` and `Infinity`.

    `refusal` makes what it raises of the problem. What is no JSON at all is a `ValueError` or a `RecursionError`.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise refusal("a key is twice in one object")
        return value

    def no_constant(_: str) -> float:
        raise refusal("`NaN` and `Infinity` are not JSON")

    return json.JSONDecoder(object_pairs_hook=once, parse_float=parse_float, parse_constant=no_constant)
