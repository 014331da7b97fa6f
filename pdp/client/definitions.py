"""Digests of tool definitions as a live MCP server states them, so that a changed tool is noticed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from pdp.client.errors import InvalidRequestError
from pdp.foundation import jsontext

# From (server, tool) to the digest of the tool's definition. Merge those of several servers with `{**one, **other}`.
DefinitionDigests = Mapping[tuple[str, str], str]


class MCPModel(Protocol):
    """A value of the official `mcp` package."""

    def model_dump(self, *, by_alias: bool, exclude_none: bool) -> dict[str, Any]:
        """Return the value as it travels."""
        ...


def definition_digest(definition: Mapping[str, Any] | MCPModel) -> str:
    """Return the digest of one tool's definition, an entry of a `tools/list` answer."""
    return jsontext.definition_digest(_plain(definition))


def definition_digests(server: str, *pages: Mapping[str, Any] | MCPModel) -> DefinitionDigests:
    """Return the digests of all tools in a server's `tools/list` answer, given with all of its pages.

    `server` is the name that the catalogue gives to the server.
    Raise `InvalidRequestError` when a page lists no tools, or one name stands for two different definitions.
    """
    digests: dict[tuple[str, str], str] = {}
    for definition in _definitions(pages):
        key = (server, str(definition.get("name", "")))
        digest = definition_digest(definition)
        if digests.setdefault(key, digest) != digest:
            raise InvalidRequestError(f"`tools`: two different definitions of `{key[1]}`")
    return digests


def _definitions(pages: Iterable[Mapping[str, Any] | MCPModel]) -> Iterable[dict[str, Any]]:
    for page in pages:
        listing = _plain(page)
        if not isinstance(listing.get("tools"), list):
            # Taken for an empty listing, it would leave every digest unstated without a word.
            raise InvalidRequestError("`tools`: the answer to `tools/list` holds no list of tools")
        yield from map(_plain, listing["tools"])


def _plain(value: Mapping[str, Any] | MCPModel) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    # By alias and without empty fields is how these values travel, and so how an import of the same server read them.
    return value.model_dump(by_alias=True, exclude_none=True)
