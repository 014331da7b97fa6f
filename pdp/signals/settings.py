"""The settings of `pdp signals`: one file, which says whose signals count, whom they can name, and how far they go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pdp.client.pdpsettings import PDPSettings, pdp_settings
from pdp.foundation.loopback import is_secure
from pdp.foundation.settingsfile import Reader, content_of
from pdp.foundation.yamltext import Section
from pdp.identity.keysets import ALGORITHMS
from pdp.signals.subjects import FORMATS, SubjectRule
from pdp.signals.words import What

DANGER: Final = "anyone could choose whose sessions are revoked"

_KEYS: Final = ("listen", "tls", "pdp", "data_dir", "broker_record", "telemetry", "transmitters")
_TLS_KEYS: Final = ("certificate", "key")
_TRANSMITTER_KEYS: Final = (
    *("issuer", "audience", "keys_url", "keys_ca_file", "keys_file", "algorithms", "authorization_file"),
    *("preview", "most_users", "most_sessions", "subjects"),
)
_SUBJECT_KEYS: Final = ("format", "about", "tenant", "issuer", "domain", "strip_domain", "names")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KNOWN_ALGORITHMS: Final = frozenset[str]().union(*ALGORITHMS.values())
_DEFAULT_ALGORITHMS: Final = ["RS256", "ES256"]
_USERS, _SESSIONS, _MOST = 20, 100, 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Transmitter:
    """Who sends signals, and what they may do.

    The keys are at `keys_url`, or in `keys_file`. `authorization_file` holds what it sends as a bearer token; None for
    one that sends none. With `preview` nothing is revoked. Beyond `most_users` or `most_sessions` in ten minutes,
    signals are held.
    """

    name: str
    issuer: str
    audience: str
    keys_url: str
    keys_ca_file: str
    keys_file: Path | None
    algorithms: frozenset[str]
    authorization_file: Path | None
    preview: bool
    most_users: int
    most_sessions: int
    subjects: tuple[SubjectRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSettings:
    """What a receiver of signals is run with.

    `broker_record` is the folder with the record of the broker, or None. `telemetry` names the exporter of traces and
    metrics; empty leaves it to the variables `OTEL_…`.
    """

    listen: str
    certificate: Path | None
    key: Path | None
    pdp: PDPSettings
    data_dir: Path
    broker_record: Path | None
    telemetry: str
    transmitters: Mapping[str, Transmitter]


def read_settings(path: Path) -> SignalSettings:
    """Return the settings of a file. Raise `ConfigurationError` with every mistake and its line."""
    return _Settings(path.parent).whole(str(path), content_of(path, DANGER), _Settings.settings)


class _Settings(Reader):
    """Reads settings."""

    def settings(self, document: Section) -> SignalSettings:
        """Return all settings."""
        self.problems += document.unknown_keys(_KEYS)
        listen, tls = self.take(document, "listen", str, ""), self.section(document, "tls")
        self.require(document, "listen", "must say where to listen, such as `127.0.0.1:8447`", good=listen)
        self.problems += tls.unknown_keys(_TLS_KEYS)
        certificate, key = (self.file(self.take(tls, one, str, "")) for one in _TLS_KEYS)
        rows = self.section(document, "transmitters")
        self.require(document, "transmitters", "must name at least one", good=rows)
        found = {name: self._transmitter(name, self.section(rows, name), rows) for name in rows}
        return SignalSettings(
            listen=listen,
            certificate=certificate,
            key=key,
            pdp=pdp_settings(self, self.section(document, "pdp")),
            data_dir=self.named(document, "data_dir", "."),
            broker_record=self.file(self.take(document, "broker_record", str, "")),
            telemetry=self.take(document, "telemetry", str, ""),
            transmitters=found,
        )

    def _transmitter(self, name: str, row: Section, rows: Section) -> Transmitter:
        self.problems += row.unknown_keys(_TRANSMITTER_KEYS)
        self.require(rows, name, "is no name: use small letters, digits, `.`, `_` and `-`", good=_NAME.fullmatch(name))
        issuer, audience = self.take(row, "issuer", str, ""), self.take(row, "audience", str, "")
        self.require(row, "issuer", "must be the `iss` of its tokens", good=issuer)
        self.require(row, "audience", "must be the `aud` of its tokens", good=audience)
        url, file = self.take(row, "keys_url", str, ""), self.take(row, "keys_file", str, "")
        self.require(row, "keys_url", "or `keys_file` must say where its keys are", good=bool(url) != bool(file))
        self.require(row, "keys_url", "must be https, or http on loopback", good=not url or is_secure(urlsplit(url)))
        algorithms = frozenset(self.texts(row, "algorithms") if "algorithms" in row else _DEFAULT_ALGORITHMS)
        self.require(
            row,
            "algorithms",
            f"must be of {', '.join(sorted(_KNOWN_ALGORITHMS))}",
            good=algorithms and algorithms <= _KNOWN_ALGORITHMS,
        )
        rules = self.take(row, "subjects", list, [])
        good = rules and all(isinstance(one, Section) for one in rules)
        self.require(row, "subjects", "must list whom its signals can name", good=good)
        return Transmitter(
            name=name,
            issuer=issuer,
            audience=audience,
            keys_url=url,
            keys_ca_file=str(self.file(self.take(row, "keys_ca_file", str, "")) or ""),
            keys_file=self.file(file),
            algorithms=algorithms,
            authorization_file=self.file(self.take(row, "authorization_file", str, "")),
            preview=self.take(row, "preview", bool, default=False),
            most_users=self.number(row, "most_users", _USERS, _MOST),
            most_sessions=self.number(row, "most_sessions", _SESSIONS, _MOST),
            subjects=tuple(self._subject(one, issuer) for one in rules if isinstance(one, Section)),
        )

    def _subject(self, row: Section, issuer: str) -> SubjectRule:
        self.problems += row.unknown_keys(_SUBJECT_KEYS)
        kind, about = self.take(row, "format", str, ""), self.take(row, "about", str, "user")
        self.require(row, "format", f"must be one of {', '.join(FORMATS)}", good=kind in FORMATS)
        self.require(row, "about", f"must be one of {', '.join(What)}", good=about in {*What})
        tenant = self.take(row, "tenant", str, "")
        self.require(row, "tenant", "must name the tenant", good=tenant)
        domain, of_email = self.take(row, "domain", str, ""), kind == "email"
        self.require(row, "domain", "is for the format `email`, which needs it", good=bool(domain) == of_email)
        strips = self.take(row, "strip_domain", bool, default=False)
        self.require(row, "strip_domain", "is for the format `email`, without `names`", good=not strips or of_email)
        names = self.named_texts(row, "names") if "names" in row else None
        listed = about != What.CONNECTION or names is not None
        self.require(row, "names", "must list the connections: none is named by strangers", good=listed)
        of_issuer = self.take(row, "issuer", str, issuer)
        return SubjectRule(
            format=kind,
            about=What(about) if about in {*What} else What.USER,
            tenant=tenant,
            within=domain.lower() if of_email else of_issuer if kind == "iss_sub" else "",
            names=names if names is None or not of_email else {one.lower(): to for one, to in names.items()},
            strips_domain=strips,
        )
