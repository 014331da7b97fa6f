"""The tools of the server behind the proxy: their definitions as it lists them, and the list as a session sees it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from pdp.calltokens.strictjson import mistakable
from pdp.client.definitions import definition_digest
from pdp.doors.mcp.headers import repeating
from pdp.doors.mcp.messages import InvalidMessageError, Message, elements
from pdp.doors.mcp.methods import LISTEN
from pdp.errors import InvalidJSONError
from pdp.foundation.jsontext import ACTED_ON

# Of one server. More are not looked at: their calls are denied. So are those of names that no catalogue has, and of
# further tools whose arguments are repeated in headers.
MOST_TOOLS, MOST_PAGES, MOST_REPEATING = 2048, 64, 256
_MOST_NAME = 128
# How long a client may show a list, in milliseconds: as long as it may show a tool that a person has just taken away.
_TTL = 5_000


class Definitions:
    """Which definition each tool of the server has, as it was last listed.

    They are `known` once the proxy lists all of them, until the server says that they have changed, and for
    `lasting` seconds at most: over HTTP a server may have no way to say it.
    """

    def __init__(self, *, lasting: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self._lasting = lasting
        self._clock = clock
        self._listed_at = -math.inf
        self._digests: dict[str, str] = {}
        self._listing: dict[str, str] = {}
        # INVARIANT: what is kept of a list is small, however large the server has made that.
        self._repeating: dict[str, Mapping[str, tuple[str, ...]]] = {}

    @property
    def known(self) -> bool:
        """Say whether the definitions need not be listed before a call."""
        return self._clock() - self._listed_at < self._lasting

    def digest(self, tool: str) -> str:
        """Return the digest of a tool's definition; of one that the server does not list, one that no tool has."""
        return self._digests.get(tool) or _NOT_LISTED

    def repeating(self, tool: str) -> Mapping[str, tuple[str, ...]]:
        """Return which headers repeat arguments of a tool, and where each argument is."""
        return self._repeating.get(tool, {})

    def add(self, definitions: Iterable[Any], *, first: bool) -> Mapping[str, str]:
        """Take the definitions of a page, the first of a list or a further one, and return their digests by name.

        What a client has seen is what its calls mean. A digest is empty where that cannot be told.
        """
        if first:
            self._listing = {}
        here: dict[str, str] = {}
        for definition in definitions:
            name = definition.get("name") if isinstance(definition, dict) else None
            if not isinstance(name, str) or len(name) > _MOST_NAME:
                continue
            if name not in self._digests and len(self._digests) >= MOST_TOOLS:
                continue
            digest = "" if mistakable(definition, ACTED_ON) else _digest(definition)
            headers = repeating(definition.get("inputSchema"))
            if not headers:
                self._repeating.pop(name, None)
            elif name in self._repeating or len(self._repeating) < MOST_REPEATING:
                self._repeating[name] = headers
            else:
                digest = ""
            # Two definitions of one name: which one a call means cannot be told. A page can be asked for again.
            if name in here or self._listing.get(name, digest) != digest:
                digest = ""
            here[name] = self._listing[name] = self._digests[name] = digest
        return here

    def begin(self) -> None:
        """Take what is added from now on for known, unless it is forgotten."""
        self._listed_at = self._clock()

    def forget(self) -> None:
        """Have the tools listed again before the next call."""
        self._listed_at = -math.inf


def page(answer: Message) -> tuple[list[Any], str]:
    """Return the definitions on a page of the list, and the cursor of the next one. Raise `InvalidMessageError`."""
    result = answer.value.get("result")
    tools = result.get("tools") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(tools, list):
        raise InvalidMessageError("the server lists no tools")
    cursor = result.get("nextCursor")
    return tools, cursor if isinstance(cursor, str) else ""


def shown(answer: Message, tools: Collection[str], *, modern: bool) -> Message:
    """Return a page of the list with only these tools. Each entry stays as it was written.

    The page of a modern server may be kept only by this client, and only for a moment.
    """
    place = answer.place("result", "tools")
    if place is None:
        return answer
    kept = []
    for span, definition in zip(elements(answer.text, place), page(answer)[0], strict=True):
        name = definition.get("name") if isinstance(definition, dict) else None
        if isinstance(name, str) and name in tools and not mistakable(definition, ACTED_ON):
            kept.append(answer.text[slice(*span)])
    filtered = f"{answer.text[: place.begin]}[{','.join(kept)}]{answer.text[place.end :]}"
    answer = replace(answer, text=filtered)
    if others := mistakable(answer.value["result"], ("tools",)):
        answer = answer.without(("result",), lambda name: name in others)
    if not modern:
        return answer
    lasting = answer.value["result"].get("ttlMs")
    most = min(lasting, _TTL) if isinstance(lasting, int) and not isinstance(lasting, bool) else _TTL
    return answer.with_members(("result",), {"ttlMs": str(max(0, most)), "cacheScope": '"private"'})


def announcing(answer: Message) -> Message:
    """Return a server's greeting with the word that its list of tools can change: the proxy says when."""
    if answer.place("result", "capabilities", "tools") is None:
        return answer
    return answer.with_members(("result", "capabilities", "tools"), {"listChanged": "true"})


def wants_tools_changed(request: Message) -> bool:
    """Say whether this is a subscription to changes of the list of tools."""
    wanted = request.params.get("notifications")
    return request.method == LISTEN and isinstance(wanted, dict) and wanted.get("toolsListChanged") is True


def acknowledging(request: Message, told: Message) -> Message:
    """Return a server's word that a subscription has begun, with the list of tools in it if that was wanted."""
    if not wants_tools_changed(request) or told.place("params", "notifications") is None:
        return told
    return told.with_members(("params", "notifications"), {"toolsListChanged": "true"})


def _digest(definition: dict[str, Any]) -> str:
    try:
        return definition_digest(definition)
    except InvalidJSONError:
        return ""


# So that the server records a call of a tool that is not listed, and denies it: the definition is not as approved.
_NOT_LISTED = definition_digest({"name": ""})
