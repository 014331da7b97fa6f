"""The settings of `pdp-broker serve`: one file, which says for whom the broker works, where, and by which rules."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from pdp.broker.checkouts.words import Bounds
from pdp.broker.upstream import Upstream, UpstreamError
from pdp.broker.words import SENT_ELSEWHERE
from pdp.calltokens.claims import AUDIENCE
from pdp.client.pdpsettings import PDPSettings, pdp_settings
from pdp.foundation.loopback import host_and_port, is_loopback
from pdp.foundation.settingsfile import Reader, content_of
from pdp.foundation.yamltext import Section

_KEYS: Final = (
    "issuer",
    "audience",
    "rules",
    "calls",
    "http",
    "people",
    "tls",
    "pdp",
    "data_dir",
    "telemetry",
    "checkouts",
)
_PEOPLE_KEYS: Final = ("listen", "url", "console")
_TLS_KEYS: Final = ("key", "certificate", "client_roots")
_MOST_OUT: Final = 100_000
UNIX: Final = "unix:"


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSettings:
    """The certificate of the broker's ports, and the authorities of its clients' certificates."""

    key: Path
    certificate: Path
    client_roots: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PeopleSettings:
    """Where people come back from providers: `listen` is `host:port`, which browsers reach as the origin `url`.

    `console` is the origin of the console, where they finish.
    """

    listen: str
    url: str
    console: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """What a broker is run with. `calls` and `http` are where it listens, each `host:port` or `unix:PATH`, or empty.

    Without `people` nobody connects an account. `telemetry` names the exporter of traces and metrics; empty leaves it
    to the variables `OTEL_…`. `checkouts` bounds what is out at once.
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
    people: PeopleSettings | None = None
    checkouts: Bounds = field(default_factory=Bounds)


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
        people = self._people(self.section(document, "people")) if "people" in document else None
        if people is not None:
            self.require(document, "calls", "must say where people's calls come in: see `people`", good=calls)
            here = (found := host_and_port(people.listen)) and is_loopback(found[0])
            self.require(document, "people", "listens where others reach it, so it needs `tls`", good=here or tls)
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
            people=people,
            checkouts=self._bounds(self.section(document, "checkouts")),
        )

    def _bounds(self, row: Section) -> Bounds:
        defaults = asdict(Bounds())
        self.problems += row.unknown_keys(tuple(defaults))
        return Bounds(**{key: self.number(row, key, default, _MOST_OUT) for key, default in defaults.items()})

    def _tls(self, row: Section) -> TLSSettings:
        self.problems += row.unknown_keys(_TLS_KEYS)
        key, certificate, roots = (self.named(row, one) for one in _TLS_KEYS)
        return TLSSettings(key=key, certificate=certificate, client_roots=roots)

    def _people(self, row: Section) -> PeopleSettings:
        self.problems += row.unknown_keys(_PEOPLE_KEYS)
        listen = self.take(row, "listen", str, "")
        self.require(row, "listen", "must be an address such as `127.0.0.1:8460`", good=host_and_port(listen))
        url, console = (self._origin(row, key) for key in ("url", "console"))
        return PeopleSettings(listen=listen, url=url, console=console)

    def _origin(self, row: Section, key: str) -> str:
        text = self.take(row, key, str, "")
        try:
            return Upstream.read(text).origin
        except UpstreamError as error:
            self.problems.append(row.problem(f"`{key}`: {error}", key))
            return ""

    def _address(self, address: str) -> str:
        """Return an address, whose socket is in the folder of the file."""
        path = address.removeprefix(UNIX)
        return f"{UNIX}{self.file(path)}" if path != address else address
