"""What the broker does for each tool server, from a file of the operator's.

    github:
      kind: github
      proxy: {methods: [GET], paths: [/repos/]}
      tools:
        create_issue: {method: POST, path: "/repos/{owner}/{repo}/issues", body: {title: "{title}"}}

The name is that of the server in the catalogue, and `kind` that of the connections whose secrets its calls use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pdp.broker.headers import never_passes
from pdp.broker.templates import METHODS, Template, TemplateError
from pdp.broker.upstream import ForeignTargetError, required_target
from pdp.broker.words import NAME, SENT_ELSEWHERE
from pdp.calltokens.checkouts import is_public_key
from pdp.calltokens.claims import THUMBPRINT
from pdp.foundation.settingsfile import Reader, content_of
from pdp.foundation.yamltext import Section

_SERVER_KEYS: Final = ("kind", "proxy", "tools", "checkout", "private", "tls_roots", "answer_seconds", "answer_bytes")
_PROXY_KEYS: Final = ("methods", "paths", "mcp", "request_headers", "response_headers")
_CHECKOUT_KEYS: Final = ("key",)
_MCP_KEYS: Final = ("tenant", "compartment", "connection", "presenters")
# How a process of this machine is named, which presents by a Unix socket.
LOCAL: Final = "local"
_TOOL_KEYS: Final = ("method", "path", "query", "headers", "body")
_SECONDS, _LONGEST_SECONDS = 60, 3600
_BYTES, _LARGEST = 16 * 1024 * 1024, 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MCPRules:
    """With which connection what calls no tool is sent, and for whom: thumbprints of certificates, or `local`."""

    tenant: str
    compartment: str
    connection: str
    presenters: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyRules:
    """Which requests pass with a secret: methods, and paths, each whole or, with a slash at its end, a beginning.

    With `mcp` the upstream speaks MCP: a call of a tool is known by its body.
    The headers, in lower case, pass besides the usual ones.
    """

    methods: frozenset[str]
    paths: tuple[str, ...]
    mcp: MCPRules | None = None
    request_headers: frozenset[str] = frozenset()
    response_headers: frozenset[str] = frozenset()

    def lets_pass(self, method: str, target: str) -> bool:
        """Say whether a request may pass by its method and path, which must be plain already."""
        path = target.partition("?")[0]
        return method in self.methods and any(
            path == one or (one.endswith("/") and path.startswith(one)) for one in self.paths
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRules:
    """What the broker does for one tool server.

    `recipient` is the public key to which credentials are sealed that it is handed; empty where it gets none.
    `private` allows the upstreams of its connections to be at addresses that are not public. `answer_seconds` and
    `answer_bytes` limit an answer.
    """

    name: str
    kind: str
    proxy: ProxyRules | None = None
    templates: Mapping[str, Template] = field(default_factory=dict)
    recipient: str = ""
    private: bool = False
    tls_roots: Path | None = None
    answer_seconds: float = _SECONDS
    answer_bytes: int = _BYTES


def read_rules(path: Path) -> Mapping[str, ServerRules]:
    """Return the rules of a file, by server. Raise `ConfigurationError` with every mistake and its line."""
    return rules_of(str(path), content_of(path, SENT_ELSEWHERE), path.parent)


def rules_of(file: str, content: bytes, folder: Path) -> Mapping[str, ServerRules]:
    """Return the rules in a text, by server; files that it names are in `folder`. Raise `ConfigurationError`."""
    return _Rules(folder).whole(
        file, content, lambda reader, document: {name: reader.server(document, name) for name in document}
    )


class _Rules(Reader):
    """Reads rules."""

    def server(self, document: Section, name: str) -> ServerRules:
        """Return the rules for one server."""
        row = self.section(document, name)
        self.problems += row.unknown_keys(_SERVER_KEYS)
        kind, roots = self.take(row, "kind", str, ""), self.take(row, "tls_roots", str, "")
        self.require(row, "kind", "must name the kind of the connections, such as `github`", good=NAME.fullmatch(kind))
        proxy = self._proxy(self.section(row, "proxy")) if "proxy" in row else None
        tools = self.section(row, "tools")
        recipient = self._recipient(self.section(row, "checkout")) if "checkout" in row else ""
        self.require(row, "kind", "needs `proxy`, `tools` or `checkout` beside it", good=proxy or tools or recipient)
        return ServerRules(
            name=name,
            kind=kind,
            proxy=proxy,
            templates={tool: found for tool in tools if (found := self._template(tools, tool))},
            recipient=recipient,
            private=self.take(row, "private", bool, default=False),
            tls_roots=self.file(roots),
            answer_seconds=self.number(row, "answer_seconds", _SECONDS, _LONGEST_SECONDS),
            answer_bytes=self.number(row, "answer_bytes", _BYTES, _LARGEST),
        )

    def _proxy(self, row: Section) -> ProxyRules:
        self.problems += row.unknown_keys(_PROXY_KEYS)
        methods, paths = self.texts(row, "methods"), self.texts(row, "paths")
        self.require(
            row, "methods", f"must list some of {', '.join(sorted(METHODS))}", good=methods and {*methods} <= METHODS
        )
        self.require(row, "paths", "must list plain paths, such as `/v1/`", good=paths and all(map(_plain, paths)))
        passing = {key: frozenset(self.texts(row, key)) for key in ("request_headers", "response_headers")}
        for key, names in passing.items():
            self.require(row, key, _NEVER, good=not any(map(_unfit, names)))
        mcp = self._mcp(self.section(row, "mcp")) if "mcp" in row else None
        return ProxyRules(methods=frozenset(methods), paths=paths, mcp=mcp, **passing)

    def _recipient(self, row: Section) -> str:
        self.problems += row.unknown_keys(_CHECKOUT_KEYS)
        key = self.take(row, "key", str, "")
        good = is_public_key(key)
        self.require(row, "key", "must be the public key of the tool server: see `pdp-broker checkout key`", good=good)
        return key

    def _mcp(self, row: Section) -> MCPRules:
        self.problems += row.unknown_keys(_MCP_KEYS)
        presenters = frozenset(self.texts(row, "presenters"))
        known = all(one == LOCAL or THUMBPRINT.fullmatch(one) for one in presenters)
        self.require(row, "presenters", f"must list thumbprints of certificates, or `{LOCAL}`", good=known)
        connection = self.take(row, "connection", str, "")
        self.require(row, "connection", "must name a connection", good=NAME.fullmatch(connection))
        tenant, compartment = self.take(row, "tenant", str, "default"), self.take(row, "compartment", str, "")
        return MCPRules(tenant=tenant, compartment=compartment, connection=connection, presenters=presenters)

    def _template(self, tools: Section, name: str) -> Template | None:
        row = self.section(tools, name)
        self.problems += row.unknown_keys(_TOOL_KEYS)
        headers = self.named_texts(row, "headers")
        fit = not any(map(_unfit, headers)) and "".join(headers.values()).isprintable()
        self.require(row, "headers", _NEVER, good=fit)
        method, path = self.take(row, "method", str, ""), self.take(row, "path", str, "")
        try:
            query = self.named_texts(row, "query")
            return Template(method=method, path=path, query=query, headers=headers, body=row.get("body"))
        except TemplateError as error:
            self.problems.append(row.problem(str(error)))
            return None


_NEVER: Final = "names a header that never passes, or that is not in lower case"


def _unfit(header: str) -> bool:
    return header != header.lower() or never_passes(header)


def _plain(path: str) -> bool:
    try:
        return required_target(path) == path and "?" not in path
    except ForeignTargetError:
        return False
