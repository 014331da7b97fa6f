"""Digests of tool definitions as a live MCP server lists them, so that a changed tool is noticed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from pdp.client.errors import InvalidRequestError
from pdp.foundation import jsontext

# From (server, tool) to the digest of the tool's definition. Merge several servers' with `{**one, **other}`.
DefinitionDigests = Mapping[tuple[str, str], str]


class MCPModel(Protocol):
    """A value of the official `mcp` package."""

    def model_dump(self, *, by_alias: bool, exclude_none: bool) -> dict[str, Any]:
        """Return the value as it is sent."""
        ...


def definition_digest(definition: Mapping[str, Any] | MCPModel) -> str:
    """Return the digest of one tool's definition, an entry of a `tools/list` answer."""
    return jsontext.definition_digest(_plain(definition))


def definition_digests(server: str, *pages: Mapping[str, Any] | MCPModel) -> DefinitionDigests:
    """Return the digests of all tools in a server's `tools/list` answer, of all pages.

    `server` is the server's name in the catalogue.
    Raise `InvalidRequestError` when a page lists no tools, or two definitions have the same name.
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
            # As an empty list, it would silently leave every digest unstated.
            raise InvalidRequestError("`tools`: the answer to `tools/list` holds no list of tools")
        yield from map(_plain, listing["tools"])


def _plain(value: Mapping[str, Any] | MCPModel) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    # These values are sent by alias and without empty fields, and an import of the same server reads them so.
    return value.model_dump(by_alias=True, exclude_none=True)
