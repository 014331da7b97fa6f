"""Build the authentication of callers from the settings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pdp.clock import Clock
from pdp.config.settings import JWTSettings, Settings
from pdp.errors import ConfigurationError
from pdp.foundation.ownership import read_own
from pdp.foundation.repeating import Repeater
from pdp.foundation.webfile import WebEndpoint, WebFile
from pdp.identity.authentication import (
    CallerAuthenticator,
    CertificateAuthenticator,
    TokenAuthenticator,
    WebTokenAuthenticator,
)
from pdp.identity.callers import KnownCallers
from pdp.identity.denied import DenyList
from pdp.identity.keysets import JWKS_BYTES, TrustedKeys
from pdp.identity.tokens import TokenRules
from pdp.serving.certificates import TLSFiles
from pdp.serving.localtls import CERTIFICATE_FILE, KEY_FILE, TLS_FOLDER

_LOG = logging.getLogger("pdp")

_FILE_SECONDS = 1.0


class Identity:
    """The authentication of callers by tokens, certificates and JSON Web Tokens, according to the settings.

    `start` reads changing files and keys again, until `close`. Raise `ConfigurationError` for invalid files.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._callers = KnownCallers(settings.callers_file, development=settings.only_this_machine)
        self._denied = denied_of(settings)
        self._closing: list[Callable[[], None]] = []
        self._refreshers = [
            Repeater("callers", self._callers.refresh, every=_FILE_SECONDS),
            deny_list_reader(self._denied),
        ]
        web_tokens = self._web_tokens(settings.jwt, clock) if settings.jwt.issuer else None
        certificates = (
            CertificateAuthenticator(self._callers, clock, denied=self._denied)
            if settings.server.tls_client_roots
            else None
        )
        known = self._callers.current
        for able, names, setting in (
            (certificates, known.by_spiffe_id, "server.tls_client_roots"),
            (web_tokens, known.by_jwt_subject, "jwt.issuer"),
            (web_tokens if settings.jwt.groups_claim else None, known.by_jwt_group, "jwt.groups_claim"),
        ):
            if able is None and names:
                who = ", ".join(f"`{caller.id}`" for caller in names.values())
                _LOG.warning("these callers cannot call before `%s` is set: %s", setting, who)
        self.authenticator = CallerAuthenticator(
            TokenAuthenticator(self._callers, clock=clock, web_tokens=web_tokens, denied=self._denied), certificates
        )

    def start(self) -> None:
        """Start reading changing files and keys again."""
        for refresher in self._refreshers:
            refresher.start()

    def reload_callers(self) -> int:
        """Read the callers again, and return the number of entries.

        When the file is invalid, raise `ConfigurationError` and change nothing.
        """
        return self._callers.reload()

    def close(self) -> None:
        """Stop reading again."""
        with ExitStack() as ending:
            for refresher in self._refreshers:
                ending.callback(refresher.stop)
            # First: do not wait for a server that does not answer.
            for close in self._closing:
                close()

    def _web_tokens(self, jwt: JWTSettings, clock: Clock) -> WebTokenAuthenticator:
        keys, refresher, close = issuer_keys(jwt, clock)
        self._closing.append(close)
        self._refreshers.append(refresher)
        return WebTokenAuthenticator(
            self._callers,
            keys,
            rules_of(jwt),
            clock=clock,
            denied=self._denied,
            console_client=jwt.console_client,
        )


def denied_of(settings: Settings) -> DenyList:
    """Return the deny-list. Raise `ConfigurationError` when the file is invalid."""
    return DenyList(Path(settings.callers.denied_file) if settings.callers.denied_file else None)


def deny_list_reader(denied: DenyList) -> Repeater:
    """Return what reads a deny-list again, every second."""
    return Repeater("deny-list", denied.refresh, every=_FILE_SECONDS)


def _types(kind: str) -> frozenset[str]:
    return frozenset({""}) if kind == "none" else frozenset({kind, f"application/{kind}"})


def rules_of(jwt: JWTSettings) -> TokenRules:
    """Return what a token must say."""
    return TokenRules(
        issuer=jwt.issuer,
        audience=jwt.audience,
        algorithms=frozenset(jwt.algorithms),
        types=_types(jwt.token_type.lower()),
        leeway_seconds=jwt.leeway_seconds,
        longest_seconds=jwt.longest_seconds,
        person_claim=jwt.person_claim,
        groups_claim=jwt.groups_claim,
        user_group_prefix=jwt.user_group_prefix,
        id_claim=jwt.id_claim,
    )


def issuer_keys(jwt: JWTSettings, clock: Clock) -> tuple[TrustedKeys, Repeater, Callable[[], None]]:
    """Return the issuer's keys, what reads them again, and a function that ends a reading.

    Raise `ConfigurationError` when a file holds no usable key.
    """
    if jwt.keys_url:
        keys, close = keys_of_url(jwt, clock)
        refresher = Repeater("jwt-keys", keys.refresh, every=jwt.keys_poll_seconds)
    else:
        keys, close = keys_of_file(jwt, clock), lambda: None
        refresher = Repeater("jwt-keys", keys.refresh, every=_FILE_SECONDS)
    keys.wake = refresher.wake
    return keys, refresher, close


def keys_of_file(jwt: JWTSettings, clock: Clock) -> TrustedKeys:
    """Return the issuer's keys from a file. Raise `ConfigurationError` when no key is usable."""
    path = Path(jwt.keys_file)
    keys = TrustedKeys(lambda: _read_keys(path), name=str(path), clock=clock, longest_seconds=jwt.keys_longest_seconds)
    keys.load()
    return keys


def keys_of_url(jwt: JWTSettings, clock: Clock) -> tuple[TrustedKeys, Callable[[], None]]:
    """Return the issuer's keys, not yet read from their URL, and a function that ends a reading."""
    endpoint = WebEndpoint(url=jwt.keys_url, ca_file=jwt.keys_ca_file)
    file = WebFile(endpoint, JWKS_BYTES, accept="application/jwk-set+json, application/json")

    def read() -> bytes | None:
        found = file.fetch()
        return found[0] if found is not None else None

    keys = TrustedKeys(read, name=endpoint.shown, clock=clock, longest_seconds=jwt.keys_longest_seconds)
    return keys, file.close


def tls_files_of(settings: Settings) -> TLSFiles | None:
    """Return the files of the server's certificate, from the settings or its own; None without TLS."""
    server = settings.server
    if settings.makes_certificate:
        own = Path(settings.data_dir) / TLS_FOLDER
        return TLSFiles(key=own / KEY_FILE, certificate=own / CERTIFICATE_FILE)
    if not server.tls_certificate:
        return None
    return TLSFiles(
        key=Path(server.tls_key),
        certificate=Path(server.tls_certificate),
        client_roots=Path(server.tls_client_roots) if server.tls_client_roots else None,
    )


def _read_keys(path: Path) -> bytes:
    text = read_own(path, "anyone could sign a token", most=JWKS_BYTES + 1)
    if len(text) > JWKS_BYTES:
        raise ConfigurationError(f"`{path}` is larger than {JWKS_BYTES} bytes")
    return text
