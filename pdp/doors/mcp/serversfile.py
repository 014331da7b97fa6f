"""The servers behind the proxy over HTTP, by the catalogue's names of them, from a file of the operator's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pdp.calltokens.claims import AUDIENCE
from pdp.doors.mcp.clientcertificate import ClientCertificate
from pdp.doors.mcp.methods import PASSABLE
from pdp.errors import BundleError, ConfigurationError, Problem
from pdp.foundation.loopback import is_secure
from pdp.foundation.ownership import read_own
from pdp.foundation.yamltext import Section, load_section, unknown
from pdp.policy.tools.catalogue import server_name_problem

_MOST_BYTES: Final = 1024 * 1024
_FILES: Final = ("upstream_tls_roots", "upstream_tls_certificate", "upstream_tls_key", "headers_file")
_KEYS: Final = ("upstream", *_FILES, "call_token", "pass")
# What a client takes for another path before it asks.
_DOTS: Final = frozenset({".", ".."})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEntry:
    """A server, the name by which the catalogue knows it, and how it is reached.

    `passes` are the methods that are let pass besides. `call_token` is the audience of the call token that each call of
    a tool carries; empty for none.
    """

    name: str
    upstream: str
    tls_roots: Path | None = None
    certificate: ClientCertificate | None = None
    headers_file: Path | None = None
    call_token: str = ""
    passes: frozenset[str] = frozenset()

    @property
    def path(self) -> str:
        """Return where clients find the server, if it is one of several."""
        return f"/{self.name}/mcp"


def read_servers(path: Path) -> tuple[ServerEntry, ...]:
    """Return the servers of a file. Raise `ConfigurationError` with every mistake and its line."""
    content = read_own(path, "anyone could choose where calls are sent", most=_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"`{path}` has more than {_MOST_BYTES} bytes")
    try:
        document = load_section(str(path), content)
    except BundleError as error:
        raise ConfigurationError("\n".join(map(str, error.problems))) from None
    problems: list[Problem] = []
    entries = [entry for name in document for entry in _entry(document, name, path.parent, problems)]
    if not document:
        problems.append(document.problem("there are no servers"))
    if problems:
        raise ConfigurationError("\n".join(map(str, problems)))
    return tuple(entries)


def url_problem(url: str) -> str:
    """Return what is wrong with the URL of a server; empty when nothing is."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "not a URL"
    if not (is_secure(parts) and host) or port == 0 or parts.username or parts.fragment or not url.isascii():
        return "the server's URL must be `https://…`, or `http://…` on loopback, and no more"
    return ""


def presenting_problem(url: str, *, certificate: object, key: object, call_token: str) -> str:
    """Return what is wrong with what the proxy presents to a server; empty when nothing is.

    `certificate` and `key` are None where they are not given.
    """
    https = url.lower().startswith("https:")
    if (certificate is None) is not (key is None):
        return "a certificate for the server and its key belong together"
    if certificate is not None and not https:
        return "a certificate for the server needs an `https` URL"
    if call_token and not AUDIENCE.fullmatch(call_token):
        return "the audience of call tokens is 1 to 256 printable characters without blanks"
    if call_token and https and certificate is None:
        # A token that is bound to nobody is for a process on the same machine, which an `https` URL is not.
        return "call tokens for an `https` URL need a certificate for the server, to which they are bound"
    return ""


def certificate_of(chain: Path | None, key: Path | None) -> ClientCertificate | None:
    """Return the certificate in files that are both given, or both not."""
    return ClientCertificate(chain=chain, key=key) if chain is not None and key is not None else None


def _entry(document: Section, name: str, folder: Path, problems: list[Problem]) -> Iterator[ServerEntry]:
    before = len(problems)
    wrong = server_name_problem(name) or (f"no server can be named `{name}`" if name in _DOTS else None)
    if wrong is not None:
        problems.append(document.problem(wrong, name))
    row = document[name]
    if not isinstance(row, Section):
        problems.append(document.problem(f"`{name}` has no `upstream`", name))
        return
    problems += row.unknown_keys(_KEYS)
    upstream = row.get("upstream")
    if not isinstance(upstream, str):
        problems.append(row.problem(f"`{name}` has no `upstream`: the URL of the server", "upstream"))
    elif problem := url_problem(upstream):
        problems.append(row.problem(f"`upstream`: {problem}", "upstream"))
    problems += [
        row.problem(f"`{key}` is not the name of a file", key)
        for key in _FILES
        if key in row and not (isinstance(row[key], str) and row[key])
    ]
    passes = row.get("pass", [])
    if not isinstance(passes, list) or not all(isinstance(one, str) for one in passes):
        problems.append(row.problem("`pass` is not a list of methods", "pass"))
    else:
        problems += [row.problem(unknown("method", one, PASSABLE), "pass") for one in passes if one not in PASSABLE]
    call_token = row.get("call_token", "")
    if not isinstance(call_token, str):
        problems.append(row.problem("`call_token` is not the name of an audience", "call_token"))
    elif isinstance(upstream, str) and (
        problem := presenting_problem(
            upstream,
            certificate=row.get("upstream_tls_certificate"),
            key=row.get("upstream_tls_key"),
            call_token=call_token,
        )
    ):
        problems.append(row.problem(problem, "call_token" if call_token else "upstream_tls_certificate"))
    if len(problems) == before:
        yield ServerEntry(
            name=name,
            upstream=str(upstream),
            tls_roots=_file(row, "upstream_tls_roots", folder),
            certificate=certificate_of(
                _file(row, "upstream_tls_certificate", folder), _file(row, "upstream_tls_key", folder)
            ),
            headers_file=_file(row, "headers_file", folder),
            call_token=str(call_token),
            passes=frozenset(passes),
        )


def _file(row: Section, key: str, folder: Path) -> Path | None:
    """Return the path of a file; names are meant from the folder of the file in which they are written."""
    return folder / row[key] if key in row else None
