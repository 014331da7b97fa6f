"""The settings of `pdp signals`: one file, which says whose signals count, whom they can name, and how far they go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pdp.client.pdpsettings import PDPSettings, pdp_settings
from pdp.foundation.loopback import is_secure
from pdp.foundation.settingsfile import Reader, content_of
from pdp.foundation.yamltext import Section
from pdp.identity.keysets import ALGORITHMS
from pdp.signals.events import SubjectPlace
from pdp.signals.github import KEYS_URL
from pdp.signals.keys import KeyPlace
from pdp.signals.leaks import LeakRule
from pdp.signals.subjects import FORMATS, SubjectRule
from pdp.signals.words import What

DANGER: Final = "anyone could choose whose sessions are revoked"

_KEYS: Final = (
    "listen",
    "tls",
    "pdp",
    "data_dir",
    "broker_record",
    "telemetry",
    "transmitters",
    "scanners",
    "receivers_file",
)
_TLS_KEYS: Final = ("certificate", "key")
_SENDER_KEYS: Final = ("keys_url", "keys_ca_file", "keys_file", "authorization_file", "preview", "most_sessions")
_TRANSMITTER_KEYS: Final = (
    *_SENDER_KEYS,
    *("issuer", "audience", "algorithms", "most_users", "subjects", "subject_in"),
)
_SCANNER_KEYS: Final = (*_SENDER_KEYS, "format", "leaks")
_LEAK_KEYS: Final = ("fingerprint", "type", "tenant", "connection")
_SUBJECT_KEYS: Final = ("format", "about", "tenant", "issuer", "domain", "strip_domain", "names")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KNOWN_ALGORITHMS: Final = frozenset[str]().union(*ALGORITHMS.values())
_DEFAULT_ALGORITHMS: Final = ["RS256", "ES256"]
_USERS, _SESSIONS, _MOST = 20, 100, 100_000
_FINGERPRINT: Final = re.compile(r"hmac-sha256:[0-9a-f]{64}")
# By the format of a scanner, where it publishes its keys.
_KEYS_URLS: Final = {"github": KEYS_URL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sends signals, and what they may do.

    `authorization_file` holds what they send as a bearer token; None for one that sends none. With `preview` nothing is
    revoked. Beyond `most_users` or `most_sessions` in ten minutes, signals are held.
    """

    name: str
    keys: KeyPlace
    authorization_file: Path | None
    preview: bool
    most_users: int
    most_sessions: int

    @property
    def tenants(self) -> frozenset[str]:
        """Return the tenants that its signals can be about."""
        return frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transmitter(Sender):
    """Who pushes security event tokens, and whom they can name."""

    issuer: str
    audience: str
    algorithms: frozenset[str]
    subjects: tuple[SubjectRule, ...]
    subject_in: SubjectPlace = SubjectPlace.TOKEN

    @property
    def tenants(self) -> frozenset[str]:
        """Return the tenants that its signals can be about."""
        return frozenset(one.tenant for one in self.subjects)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner(Sender):
    """Who reports secrets that it has found, in a `format`, and which connections they belong to."""

    format: str
    leaks: tuple[LeakRule, ...]

    @property
    def tenants(self) -> frozenset[str]:
        """Return the tenants that its signals can be about."""
        return frozenset(one.tenant for one in self.leaks)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSettings:
    """What a receiver of signals is run with.

    `broker_record` is the folder with the record of the broker, or None. `receivers_file` says who is told of signals
    that are held, or is None. `telemetry` names the exporter of traces and metrics; empty leaves it to the variables
    `OTEL_…`.
    """

    listen: str
    certificate: Path | None
    key: Path | None
    pdp: PDPSettings
    data_dir: Path
    broker_record: Path | None
    receivers_file: Path | None
    telemetry: str
    senders: Mapping[str, Sender]


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
        rows, scanners = self.section(document, "transmitters"), self.section(document, "scanners")
        self.require(document, "transmitters", "or `scanners` must name at least one", good=rows or scanners)
        found: dict[str, Sender] = {name: self._transmitter(name, self.section(rows, name), rows) for name in rows}
        for name in scanners:
            self.require(scanners, name, "is a transmitter, too", good=name not in found)
            found[name] = self._scanner(name, self.section(scanners, name), scanners)
        return SignalSettings(
            listen=listen,
            certificate=certificate,
            key=key,
            pdp=pdp_settings(self, self.section(document, "pdp")),
            data_dir=self.named(document, "data_dir", "."),
            broker_record=self.file(self.take(document, "broker_record", str, "")),
            receivers_file=self.file(self.take(document, "receivers_file", str, "")),
            telemetry=self.take(document, "telemetry", str, ""),
            senders=found,
        )

    def _transmitter(self, name: str, row: Section, rows: Section) -> Transmitter:
        self.problems += row.unknown_keys(_TRANSMITTER_KEYS)
        issuer, audience = self.take(row, "issuer", str, ""), self.take(row, "audience", str, "")
        self.require(row, "issuer", "must be the `iss` of its tokens", good=issuer)
        self.require(row, "audience", "must be the `aud` of its tokens", good=audience)
        algorithms = frozenset(self.texts(row, "algorithms") if "algorithms" in row else _DEFAULT_ALGORITHMS)
        known = ", ".join(sorted(_KNOWN_ALGORITHMS))
        self.require(row, "algorithms", f"must be of {known}", good=algorithms and algorithms <= _KNOWN_ALGORITHMS)
        place = self.take(row, "subject_in", str, SubjectPlace.TOKEN.value)
        self.require(row, "subject_in", f"must be one of {', '.join(SubjectPlace)}", good=place in {*SubjectPlace})
        rules = self._rows(row, "subjects", "must list whom its signals can name")
        return Transmitter(
            **self._sender(name, row, rows, ""),
            most_users=self.number(row, "most_users", _USERS, _MOST),
            issuer=issuer,
            audience=audience,
            algorithms=algorithms,
            subjects=tuple(self._subject(one, issuer) for one in rules),
            subject_in=SubjectPlace(place) if place in {*SubjectPlace} else SubjectPlace.TOKEN,
        )

    def _scanner(self, name: str, row: Section, rows: Section) -> Scanner:
        self.problems += row.unknown_keys(_SCANNER_KEYS)
        form = self.take(row, "format", str, "")
        self.require(row, "format", f"must be one of {', '.join(_KEYS_URLS)}", good=form in _KEYS_URLS)
        leaks = self._rows(row, "leaks", "must list the connections of secrets")
        return Scanner(
            **self._sender(name, row, rows, _KEYS_URLS.get(form, "")),
            most_users=_USERS,
            format=form,
            leaks=tuple(map(self._leak, leaks)),
        )

    def _sender(self, name: str, row: Section, rows: Section, keys_url: str) -> dict[str, Any]:
        """Return what transmitters and scanners have in common. Without a place of keys they are at `keys_url`."""
        self.require(rows, name, "is no name: use small letters, digits, `.`, `_` and `-`", good=_NAME.fullmatch(name))
        file = self.take(row, "keys_file", str, "")
        url = self.take(row, "keys_url", str, "" if file else keys_url)
        self.require(row, "keys_url", "or `keys_file` must say where its keys are", good=bool(url) != bool(file))
        self.require(row, "keys_url", "must be https, or http on loopback", good=not url or is_secure(urlsplit(url)))
        roots = self.file(self.take(row, "keys_ca_file", str, ""))
        return {
            "name": name,
            "keys": KeyPlace(url=url, ca_file=str(roots or ""), file=self.file(file)),
            "authorization_file": self.file(self.take(row, "authorization_file", str, "")),
            "preview": self.take(row, "preview", bool, default=False),
            "most_sessions": self.number(row, "most_sessions", _SESSIONS, _MOST),
        }

    def _rows(self, row: Section, key: str, problem: str) -> list[Section]:
        found = self.take(row, key, list, [])
        rows = [one for one in found if isinstance(one, Section)]
        self.require(row, key, problem, good=rows and len(rows) == len(found))
        return rows

    def _leak(self, row: Section) -> LeakRule:
        self.problems += row.unknown_keys(_LEAK_KEYS)
        fingerprint, kind, tenant, connection = (self.take(row, key, str, "") for key in _LEAK_KEYS)
        good = bool(fingerprint) != bool(kind)
        self.require(row, "fingerprint", "or `type` must say which secrets are meant", good=good)
        form = not fingerprint or _FINGERPRINT.fullmatch(fingerprint)
        self.require(row, "fingerprint", "must be what `pdp signals fingerprint` prints", good=form)
        for key, value in (("tenant", tenant), ("connection", connection)):
            self.require(row, key, f"must name the {key}", good=value)
        return LeakRule(tenant=tenant, connection=connection, fingerprint=fingerprint, type=kind)

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
