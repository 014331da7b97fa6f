"""The settings of `pdp-broker serve`: one file, which says for whom the broker works, where, and by which rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pdp.broker.reading import Reader, content_of
from pdp.calltokens.claims import AUDIENCE
from pdp.foundation.yamltext import Section

_KEYS: Final = ("issuer", "audience", "rules", "calls", "http", "tls", "pdp", "data_dir", "telemetry")
_TLS_KEYS: Final = ("key", "certificate", "client_roots")
_PDP_KEYS: Final = ("address", "token_file", "tls_roots", "tls_certificate", "tls_key", "plaintext")
UNIX: Final = "unix:"


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSettings:
    """The certificate of the broker's ports, and the authorities of its clients' certificates."""

    key: Path
    certificate: Path
    client_roots: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PDPSettings:
    """How the broker asks the server whether a call token still counts, as a caller with the role `broker`."""

    address: str
    token_file: Path | None
    tls_roots: Path | None
    tls_certificate: Path | None
    tls_key: Path | None
    plaintext: bool

    @property
    def options(self) -> dict[str, Any]:
        """Return the arguments of a client."""
        return {
            "token_file": self.token_file,
            "tls": self.tls_roots or False,
            "tls_certificate": self.tls_certificate,
            "tls_key": self.tls_key,
            "plaintext": self.plaintext,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """What a broker is run with. `calls` and `http` are where it listens, each `host:port` or `unix:PATH`, or empty.

    `telemetry` names the exporter of traces and metrics; empty leaves it to the variables `OTEL_…`.
    """

    issuer: str
    audience: str
    rules: Path
    calls: str
    http: str
    tls: TLSSettings | None
    pdp: PDPSettings
    data_dir: Path
    telemetry: str


def read_settings(path: Path) -> BrokerSettings:
    """Return the settings of a file. Raise `ConfigurationError` with every mistake and its line."""
    return _Settings(path.parent).whole(str(path), content_of(path), _Settings.settings)


class _Settings(Reader):
    """Reads settings."""

    def settings(self, document: Section) -> BrokerSettings:
        """Return all settings."""
        self.problems += document.unknown_keys(_KEYS)
        calls, http = self.take(document, "calls", str, ""), self.take(document, "http", str, "")
        self.require(
            document, "calls", "or `http` must say where to listen, such as `unix:calls.sock`", good=calls or http
        )
        tls = self._tls(self.section(document, "tls")) if "tls" in document else None
        for key, address in (("calls", calls), ("http", http)):
            named = not address or address.startswith(UNIX) or tls
            self.require(document, key, "is a port, so it needs `tls`: callers are known by certificate", good=named)
        issuer, audience = self.take(document, "issuer", str, ""), self.take(document, "audience", str, "")
        self.require(document, "issuer", "must be the `call_tokens.issuer` of the server", good=issuer)
        fits = AUDIENCE.fullmatch(audience)
        self.require(document, "audience", "must be how call tokens name this broker, such as a URL", good=fits)
        return BrokerSettings(
            issuer=issuer,
            audience=audience,
            rules=self.named(document, "rules", "rules.yaml"),
            calls=self._address(calls),
            http=self._address(http),
            tls=tls,
            pdp=self._pdp(self.section(document, "pdp")),
            data_dir=self.named(document, "data_dir", "."),
            telemetry=self.take(document, "telemetry", str, ""),
        )

    def _tls(self, row: Section) -> TLSSettings:
        self.problems += row.unknown_keys(_TLS_KEYS)
        key, certificate, roots = (self.named(row, one) for one in _TLS_KEYS)
        return TLSSettings(key=key, certificate=certificate, client_roots=roots)

    def _pdp(self, row: Section) -> PDPSettings:
        self.problems += row.unknown_keys(_PDP_KEYS)
        address = self.take(row, "address", str, "")
        self.require(row, "address", "must be the address of the server: see `pdp`", good=address)
        token_file, roots, certificate, key = (self.file(self.take(row, one, str, "")) for one in _PDP_KEYS[1:5])
        return PDPSettings(
            address=address,
            token_file=token_file,
            tls_roots=roots,
            tls_certificate=certificate,
            tls_key=key,
            plaintext=self.take(row, "plaintext", bool, default=False),
        )

    def _address(self, address: str) -> str:
        """Return an address, whose socket is in the folder of the file."""
        path = address.removeprefix(UNIX)
        return f"{UNIX}{self.file(path)}" if path != address else address
