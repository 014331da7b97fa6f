"""The contradictions between settings that are valid one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from pdp.calltokens.claims import MOST_SECONDS
from pdp.config.quoting import quoted
from pdp.config.settings import (
    JWTSettings,
    PolicySettings,
    ServerSettings,
    SessionSettings,
    Settings,
    TelemetrySettings,
)
from pdp.foundation.loopback import host_and_port, is_loopback, is_loopback_address
from pdp.foundation.yamltext import unknown
from pdp.limits import RECORD_LINE_BYTES, Limits, largest_session_bytes
from pdp.sessions.lease import LEAST_LEASE_SECONDS, MOST_LEASE_SECONDS

_REPLICA = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The algorithms that a public key can verify; `pdp.identity.keysets` defines how.
ALGORITHMS = (
    "ES256", "ES384", "ES512", "Ed25519", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"
)  # fmt: skip


def contradictions(settings: Settings) -> Iterable[str]:
    """Yield the contradictions between settings that are valid one by one."""
    server = settings.server
    if bool(server.tls_certificate) != bool(server.tls_key):
        present, absent = ("tls_certificate", "tls_key") if server.tls_certificate else ("tls_key", "tls_certificate")
        yield f"`server.{present}` needs `server.{absent}`"
    if server.tls_client_roots and not server.tls_certificate:
        yield "`server.tls_client_roots` needs `server.tls_certificate` and `server.tls_key`"
    yield from _plaintext_problems(server)
    yield from _address_problems("server.address", server.address, server)
    yield from _control_problems(server)
    if server.console_url:
        yield from _console_problems(server.console_url)
    if settings.call_tokens.seconds > MOST_SECONDS:
        yield f"`call_tokens.seconds` must be at most `{MOST_SECONDS}`"
    yield from _workers_problems(settings)
    yield from _store_problems(settings.sessions)
    yield from _record_problems(settings)
    yield from _scraping_problems(settings.telemetry)
    yield from _limits_problems(settings.limits)
    if not settings.data_dir:
        yield "`data_dir` must not be empty"
    yield from _policies_problems(settings.policies)
    yield from _jwt_problems(settings.jwt)


def _address_problems(name: str, address: str, server: ServerSettings) -> Iterable[str]:
    if address.startswith("unix:@"):
        yield (
            f"`{name}` {quoted(address)} is an abstract socket: it has no file, so any user of this "
            "machine could connect; write `unix:PATH`"
        )
        return
    if address.startswith("unix:"):
        return
    if host_and_port(address) is None:
        yield f"`{name}` must be `host:port` or `unix:PATH`, not {quoted(address)}"
    elif not server.tls_certificate and not is_loopback_address(address):
        yield (
            f"`{name}` {quoted(address)} can be reached by others and needs TLS: "
            "set `server.tls_certificate` and `server.tls_key`"
        )


def _plaintext_problems(server: ServerSettings) -> Iterable[str]:
    if server.plaintext and server.tls_certificate:
        yield "`server.plaintext` and `server.tls_certificate` cannot both be set"
    elif server.plaintext and not is_loopback_address(server.address):
        yield f"`server.plaintext` is for `host:port` on loopback, not for {quoted(server.address)}"


def _control_problems(server: ServerSettings) -> Iterable[str]:
    if not server.control_address:
        return
    yield from _address_problems("server.control_address", server.control_address, server)
    if server.control_address == server.address and not server.address.endswith(":0"):
        yield "`server.control_address` must differ from `server.address`"


def _console_problems(url: str) -> Iterable[str]:
    found = tuple(_url_problems("server.console_url", url, instead="people log in there"))
    yield from found
    if not found and "?" in url:
        yield f"`server.console_url` must not have a query, since links add to it: {quoted(url)}"


def _workers_problems(settings: Settings) -> Iterable[str]:
    workers = settings.server.workers
    if workers > 1 and settings.sessions.store == "memory":
        yield f"`server.workers` must be `1` with `sessions.store: memory`, not `{workers}`: workers share no memory"
    if workers > 1 and settings.server.address.startswith("unix:"):
        yield f"`server.workers` must be `1` on a Unix socket, not `{workers}`: workers can share only a port"


def _store_problems(sessions: SessionSettings) -> Iterable[str]:
    if sessions.store == "postgres" and not sessions.postgres_file:
        yield "`sessions.store: postgres` needs `sessions.postgres_file`"
    if sessions.postgres_file and sessions.store != "postgres":
        yield f"`sessions.postgres_file` needs `sessions.store: postgres`, not `{sessions.store}`"
    seconds = sessions.lease_seconds
    if seconds and not LEAST_LEASE_SECONDS <= seconds <= MOST_LEASE_SECONDS:
        yield (
            f"`sessions.lease_seconds` must be 0, or from {LEAST_LEASE_SECONDS:g} to {MOST_LEASE_SECONDS:g}, "
            f"not `{seconds:g}`"
        )
    if sessions.replication == "quorum" and not seconds:
        yield "`sessions.replication: quorum` needs `sessions.lease_seconds`: no other answer counts"
    if sessions.after_going_back == "reassert" and sessions.replication != "async":
        yield f"`sessions.after_going_back: reassert` needs `sessions.replication: async`, not `{sessions.replication}`"
    for name, chosen in (("lease_seconds", seconds > 0), ("replication", sessions.replication != "none")):
        if chosen and sessions.store != "postgres":
            yield f"`sessions.{name}` needs `sessions.store: postgres`, not `{sessions.store}`"


def _record_problems(settings: Settings) -> Iterable[str]:
    record, store = settings.record, settings.sessions.store
    if record.shared_folder and store != "postgres":
        yield f"`record.shared_folder` needs `sessions.store: postgres`, not `{store}`"
    if record.replica and not _REPLICA.fullmatch(record.replica):
        yield f"`record.replica` must be up to 64 letters, digits, `.`, `_` and `-`, not {quoted(record.replica)}"


def _limits_problems(limits: Limits) -> Iterable[str]:
    largest = largest_session_bytes(limits)
    if largest > RECORD_LINE_BYTES:
        yield (
            f"a session can take {largest} bytes of the record, but a line holds {RECORD_LINE_BYTES}: lower"
            " `limits.session_tools`, `limits.tool_patterns`, `limits.text_characters`, `limits.attributes_bytes` or"
            " `limits.terms_bytes`"
        )


def _scraping_problems(telemetry: TelemetrySettings) -> Iterable[str]:
    name, address = "`telemetry.prometheus_address`", telemetry.prometheus_address
    if not address:
        return
    if telemetry.scraped is None or not telemetry.scraped[1]:
        yield f"{name} must be `host:port`, not {quoted(address)}"
    elif not is_loopback(telemetry.scraped[0]):
        yield f"{name} {quoted(address)} can be reached by others, but metrics are shown only on this machine"


def _policies_problems(policies: PolicySettings) -> Iterable[str]:
    if not policies.folder:
        yield "`policies.folder` must not be empty"
    if policies.file and policies.url:
        yield "`policies.file` and `policies.url` cannot both be set"
    if policies.url:
        yield from _url_problems("policies.url", policies.url, instead="use `policies.url_token_file`")
    for name in ("url_token_file", "url_ca_file"):
        if getattr(policies, name) and not policies.url:
            yield f"`policies.{name}` needs `policies.url`"
    if policies.require_signature:
        if not policies.public_keys:
            yield "`policies.require_signature` needs `policies.public_keys`"
        if not policies.file and not policies.url:
            yield "`policies.require_signature` needs `policies.file` or `policies.url`: a folder is never signed"
    elif policies.never_older:
        yield "`policies.never_older` needs `policies.require_signature`: the number is signed with the bundle"


def _jwt_problems(jwt: JWTSettings) -> Iterable[str]:
    if not jwt.issuer:
        names = (
            *("audience", "keys_file", "keys_url", "keys_ca_file"),
            *("person_claim", "groups_claim", "user_group_prefix", "console_client"),
        )
        wanted = [name for name in names if getattr(jwt, name)]
        yield from (f"`jwt.{name}` needs `jwt.issuer`" for name in wanted)
        return
    if not jwt.audience:
        yield "`jwt.issuer` needs `jwt.audience`: otherwise a token for any other server would be accepted here"
    if bool(jwt.keys_file) == bool(jwt.keys_url):
        yield "`jwt.issuer` needs either `jwt.keys_file` or `jwt.keys_url`"
    if jwt.keys_ca_file and not jwt.keys_url:
        yield "`jwt.keys_ca_file` needs `jwt.keys_url`"
    if jwt.keys_url:
        yield from _url_problems("jwt.keys_url", jwt.keys_url, instead="keys are public")
    yield from _claim_problems(jwt)
    if not jwt.algorithms:
        yield "`jwt.algorithms` must not be empty"
    for name in jwt.algorithms:
        if name not in ALGORITHMS:
            problem = unknown("algorithm", name, ALGORITHMS)
            yield f"`jwt.algorithms`: {problem}" + (
                "; a shared secret is not a public key" if name.startswith("HS") else ""
            )


def _claim_problems(jwt: JWTSettings) -> Iterable[str]:
    if jwt.user_group_prefix and not jwt.groups_claim:
        yield "`jwt.user_group_prefix` needs `jwt.groups_claim`"
    if not jwt.id_claim:
        yield "`jwt.id_claim` must not be empty"
    if jwt.person_claim.startswith("=") or jwt.person_claim.endswith("="):
        yield f"`jwt.person_claim` must be `NAME` or `NAME=TEXT`, not {quoted(jwt.person_claim)}"


def _url_problems(name: str, url: str, *, instead: str) -> Iterable[str]:
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and url.isascii() and " " not in url and parts.port != 0 and not parts.fragment
    except ValueError:
        sound = False
    if not sound:
        yield f"`{name}` must be a URL, not {quoted(url)}"
    elif parts.username is not None or parts.password is not None:
        yield f"`{name}` must not hold a user or a password; {instead}"
    elif parts.scheme not in ("https", "http"):
        yield f"`{name}` must begin with `https://`, not {quoted(url)}"
    elif parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield f"`{name}` {quoted(url)} is reached over the network and needs `https://`"
