"""The settings of `pdp-broker serve`: one file, which says for whom the broker works, where, and by which rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pdp.broker.words import SENT_ELSEWHERE
from pdp.calltokens.claims import AUDIENCE
from pdp.client.pdpsettings import PDPSettings, pdp_settings
from pdp.foundation.settingsfile import Reader, content_of
from pdp.foundation.yamltext import Section

_KEYS: Final = ("issuer", "audience", "rules", "calls", "http", "tls", "pdp", "data_dir", "telemetry")
_TLS_KEYS: Final = ("key", "certificate", "client_roots")
UNIX: Final = "unix:"


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSettings:
    """The certificate of the broker's ports, and the authorities of its clients' certificates."""

    key: Path
    certificate: Path
    client_roots: Path


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
    return _Settings(path.parent).whole(str(path), content_of(path, SENT_ELSEWHERE), _Settings.settings)


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
            pdp=pdp_settings(self, self.section(document, "pdp")),
            data_dir=self.named(document, "data_dir", "."),
            telemetry=self.take(document, "telemetry", str, ""),
        )

    def _tls(self, row: Section) -> TLSSettings:
        self.problems += row.unknown_keys(_TLS_KEYS)
        key, certificate, roots = (self.named(row, one) for one in _TLS_KEYS)
        return TLSSettings(key=key, certificate=certificate, client_roots=roots)

    def _address(self, address: str) -> str:
        """Return an address, whose socket is in the folder of the file."""
        path = address.removeprefix(UNIX)
        return f"{UNIX}{self.file(path)}" if path != address else address
