"""Every setting, declared once: a field holds its name, type, default and help."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import Literal, TypeVar

from pdp.foundation.loopback import host_and_port
from pdp.identity.callers import CALLERS_FILE
from pdp.limits import DEFAULT_LIMITS, Limits

DIGEST_KEY_FILE, SIGNING_KEY_FILE = "record.key", "record-signing.pem"
CONTROL_SOCKET = "control.sock"

# Each is started at once, or under load: more is a mistake that would take the machine.
_MOST_WORKERS = 1024

T = TypeVar("T")


def _setting(default: T, text: str, *, minimum: float = 0, maximum: float = math.inf) -> T:
    about = {"help": text, "minimum": minimum, "maximum": maximum}
    field: T = dataclasses.field(default=default, metadata=about)
    return field


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the server listens and how."""

    address: str = _setting(
        "127.0.0.1:50151", "where to listen: `unix:PATH`, or `host:port`, which beyond loopback needs `tls_certificate`"
    )
    control_address: str = _setting(
        "",
        "a separate address for requests that end authority; empty means the socket `control.sock` in `data_dir`, or "
        "with `tls_certificate` the port after that of `address`",
    )
    listener: Literal["grpc", "loop"] = _setting(
        "grpc", "what serves gRPC: the library `grpc`, or one `loop` over libnghttp2, which needs the extra `loop`"
    )
    reflection: bool = _setting(default=False, text="offer the gRPC reflection service")
    workers: int = _setting(
        0,
        "processes that share the port; 0 means one for each core, or a single one with a store in memory or a "
        "Unix socket",
        maximum=_MOST_WORKERS,
    )
    threads: int = _setting(4, "threads of each worker that answer calls", minimum=1, maximum=_MOST_WORKERS)
    tls_certificate: str = _setting(
        "", "PEM file of the server's certificate chain; empty means, on loopback, the one that `pdp init` makes"
    )
    tls_key: str = _setting("", "PEM file of the certificate's private key")
    tls_client_roots: str = _setting(
        "", "PEM file of the authorities that sign callers' certificates; if set, every connection needs a certificate"
    )
    console_url: str = _setting(
        "", "where people answer what waits for them: the https URL of the console; http on loopback only"
    )
    plaintext: bool = _setting(
        default=False, text="no TLS on loopback: while the server is down, any user of the machine can impersonate it"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerSettings:
    """Who may call."""

    file: str = _setting("", "the file of callers; empty means `callers.yaml` in `data_dir`")
    denied_file: str = _setting("", "YAML file of callers and tokens that are refused at once; read again every second")


@dataclass(frozen=True, slots=True, kw_only=True)
class JWTSettings:
    """Which JSON Web Tokens are believed; none without an issuer."""

    issuer: str = _setting("", "the `iss` of the JSON Web Tokens to accept; empty means none")
    audience: str = _setting("", "the name of this server, which the `aud` of a token must contain")
    algorithms: tuple[str, ...] = _setting(
        ("ES256", "Ed25519", "EdDSA", "PS256", "RS256"), "the signature algorithms to accept"
    )
    token_type: Literal["at+jwt", "JWT", "none"] = _setting(
        "at+jwt",
        "the `typ` of access tokens; `JWT` is for an issuer that does not mark them as `at+jwt`, "
        "and `none` for one that names no type",
    )
    keys_file: str = _setting("", "JWKS file of the issuer's public keys; read again every second")
    keys_url: str = _setting("", "https URL of the issuer's JWKS; http on loopback only")
    keys_ca_file: str = _setting("", "PEM file of the root certificates to trust at the URL; empty means the system's")
    keys_poll_seconds: float = _setting(300.0, "seconds between two reads of the URL", minimum=1)
    keys_longest_seconds: float = _setting(
        86400.0, "seconds for which keys stay valid while they cannot be read again", minimum=1
    )
    leeway_seconds: float = _setting(30.0, "seconds that the issuer's clock may be ahead")
    longest_seconds: float = _setting(86400.0, "seconds that a token may live, from `iat` to `exp`", minimum=1)
    person_claim: str = _setting(
        "", "the claim that marks a person's token, beside `auth_time`: `NAME`, which must be true, or `NAME=TEXT`"
    )
    groups_claim: str = _setting(
        "", "the claim that lists groups, such as `groups` or `realm_access.roles`; empty means that groups are ignored"
    )
    user_group_prefix: str = _setting(
        "",
        "what the groups of a person's token are called in the directory, before their name, such as `idp/`; "
        "empty means that they are none there",
    )
    id_claim: str = _setting("sub", "the claim that holds the id of a caller who is known by a group")
    console_client: str = _setting(
        "", "the client of the console at the issuer: its ID tokens may say when an approver logged in"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Where the policies live."""

    folder: str = _setting("policies", "the folder of the bundle")
    file: str = _setting("", "a packed bundle to serve instead of a folder")
    url: str = _setting("", "the https URL of a packed bundle to serve instead of a folder; http on loopback only")
    url_token_file: str = _setting("", "file of the bearer token to present to the URL")
    url_ca_file: str = _setting("", "PEM file of the root certificates to trust at the URL; empty means the system's")
    poll_seconds: float = _setting(30.0, "seconds between two reads of the URL", minimum=0.1)
    watch: bool = _setting(default=True, text="load the folder or file when it changes, and poll the URL")
    kept: int = _setting(10, "how many bundles are kept, so that they can be activated again", minimum=1)
    require_signature: bool = _setting(default=False, text="take only bundles that one of the public keys has signed")
    public_keys: str = _setting("", "PEM file of one or more Ed25519 public keys that may sign")
    never_older: bool = _setting(
        default=False, text="load automatically only bundles with a higher signed number than any that was active"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """How decisions are remembered."""

    size: int = _setting(65536, "how many decisions are remembered at most, in no more than 64 MiB; 0 means none")
    max_ttl: float = _setting(300.0, "seconds for which a decision is remembered at most")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Where sessions live and what is believed about their users."""

    store: Literal["sqlite", "postgres", "memory"] = _setting(
        "sqlite",
        "`sqlite` keeps sessions on disk, `postgres` in a database of PostgreSQL; `memory` loses them when the server "
        "stops",
    )
    postgres_file: str = _setting("", "file with the connection string of PostgreSQL, for `sessions.store: postgres`")
    lease_seconds: float = _setting(
        0.0,
        "seconds for which the servers of a machine answer from memory without asking PostgreSQL, from 0.3 to 5; 0 "
        "means that each decision asks it",
    )
    replication: Literal["none", "quorum", "async"] = _setting(
        "none",
        "how PostgreSQL fails over: `none`, not at all; `quorum`, to a standby for which each commit has waited; "
        "`async`, to one that may lack the last changes: then `sessions.after_going_back` counts",
    )
    after_going_back: Literal["revoke", "reassert"] = _setting(
        "revoke",
        "what follows when a failover with `async` may have lost changes: `revoke` revokes all that is live; with "
        "`reassert` each machine first writes again what it has closed, and all is revoked only if one does not",
    )
    trusted_attributes: tuple[str, ...] = _setting((), "attributes of users that a gateway may vouch for")
    keep_ended_seconds: float = _setting(
        2592000.0,
        "seconds after which a session that is over is removed from the store; the record keeps what it did",
        minimum=60,
    )
    reserve_bytes: int = _setting(
        8 * 1024 * 1024,
        "bytes of the store's disk that are reserved for ending authority, and as many in its log and in a file "
        "beside it",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSettings:
    """Who is told that something waits for a person, or what became of it; no one without a file of receivers."""

    receivers_file: str = _setting("", "YAML file of the receivers of messages; empty means none")
    purposes: bool = _setting(default=False, text="put the purpose of a session, which its agent wrote, into messages")
    keep_seconds: float = _setting(
        604800.0, "seconds after which a message that its receiver does not take is given up", minimum=60
    )
    keep_messages: int = _setting(
        10000, "messages that wait for one receiver at most, and that are kept after they were given up", minimum=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTokenSettings:
    """The signed statements that tool servers can ask for."""

    issuer: str = _setting("", "the `iss` of call tokens, such as the URL of this deployment; empty means none")
    seconds: int = _setting(15, "seconds for which a call token is good, 60 at most", minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Where traces, metrics and log records go."""

    exporter: Literal["auto", "otlp", "console", "none"] = _setting(
        "auto", "where traces, metrics and logs go; `auto` follows the standard `OTEL_*` variables"
    )
    prometheus_address: str = _setting(
        "", "where Prometheus finds `/metrics`, such as `127.0.0.1:9464`; each further worker uses the next port"
    )

    @property
    def scraped(self) -> tuple[str, int] | None:
        """Return the host and port at which the first worker shows its metrics, or None."""
        return host_and_port(self.prometheus_address)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What the server says of itself on stderr."""

    level: Literal["debug", "info", "warning", "error"] = _setting("info", "the lowest level that is logged to stderr")
    format: Literal["text", "json"] = _setting("text", "lines of `text`, or one `json` object per line")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSettings:
    """Where the decision log goes, how sure it is before an answer leaves, and how it is signed."""

    folder: str = _setting("", "the folder of the decision log; empty means `record` in `data_dir`")
    durability: Literal["written", "durable", "async"] = _setting(
        "written",
        "before the answer, the record is `written` to the operating system, `durable` on disk, or only queued "
        "(`async`)",
    )
    signing_key: str = _setting("", "PEM file of the key that signs the log; empty means the one that `pdp init` makes")
    digest_key: str = _setting(
        "", "file of the key of digests in the log and in traces; empty means the one that `pdp init` makes"
    )
    public_keys: str = _setting(
        "",
        "PEM file of more public keys that have signed parts of the log: those of other machines, and earlier ones of "
        "this one",
    )
    checkpoint_seconds: float = _setting(
        10.0, "seconds after which new entries of the log are signed and synced", minimum=0.1
    )
    segment_bytes: int = _setting(64 * 1024 * 1024, "bytes after which the log continues in a new file", minimum=65536)
    segment_seconds: float = _setting(86400.0, "seconds after which the log continues in a new file", minimum=1)
    reserve_bytes: int = _setting(
        4 * 1024 * 1024,
        "bytes of the log's disk that are reserved for records of what ends authority, and as many allocated in "
        "advance",
    )
    shared_folder: str = _setting(
        "", "a folder of all servers on one database, into which each copies its log: all of it answers questions"
    )
    replica: str = _setting(
        "", "the name of this machine in the records of servers that share PostgreSQL; empty means its host name"
    )
    index_file: str = _setting("", "the file of the index for questions about the log; empty means one beside the log")
    attributes: tuple[str, ...] = _setting(
        (),
        "attributes that a gateway vouched for and that are logged with their values; all others are logged as a "
        "digest",
    )
    terms: tuple[str, ...] = _setting(
        (), "terms of sessions that are logged with their values; all others are logged as a digest"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of the server. `load` checks the values; this class does not."""

    data_dir: str = _setting(".pdp", "the folder of tokens, keys, sessions and the decision log")
    server: ServerSettings = ServerSettings()
    callers: CallerSettings = CallerSettings()
    jwt: JWTSettings = JWTSettings()
    policies: PolicySettings = PolicySettings()
    cache: CacheSettings = CacheSettings()
    sessions: SessionSettings = SessionSettings()
    messages: MessageSettings = MessageSettings()
    call_tokens: CallTokenSettings = CallTokenSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    log: LogSettings = LogSettings()
    record: RecordSettings = RecordSettings()
    limits: Limits = DEFAULT_LIMITS

    @property
    def record_folder(self) -> Path:
        """Return the folder of the decision log."""
        return Path(self.record.folder) if self.record.folder else Path(self.data_dir) / "record"

    @property
    def replica(self) -> str:
        """Return the name of this machine in the decision log."""
        return self.record.replica or gethostname()

    @property
    def record_folders(self) -> tuple[Path, ...]:
        """Return the folders that answers about the decision log come from: its own, and the shared one."""
        return (self.record_folder, *([self.record_shared] if self.record_shared else []))

    @property
    def record_shared(self) -> Path | None:
        """Return the folder in which servers on one database have copies of their logs; None for none."""
        return Path(self.record.shared_folder) if self.record.shared_folder else None

    @property
    def record_index(self) -> Path | None:
        """Return the path of the index over the decision log; None means beside it."""
        return Path(self.record.index_file) if self.record.index_file else None

    @property
    def record_anchors(self) -> Path:
        """Return the folder that notes the latest safe record of each chain, outside the decision log."""
        return Path(self.data_dir) / "record-heads"

    @property
    def record_signing_key(self) -> Path:
        """Return the file of the key that signs the decision log."""
        return Path(self.record.signing_key) if self.record.signing_key else Path(self.data_dir) / SIGNING_KEY_FILE

    @property
    def record_digest_key(self) -> Path:
        """Return the file of the key of digests in the decision log."""
        return Path(self.record.digest_key) if self.record.digest_key else Path(self.data_dir) / DIGEST_KEY_FILE

    @property
    def sessions_file(self) -> Path:
        """Return the file of the session store."""
        return Path(self.data_dir) / "sessions.sqlite"

    @property
    def history_file(self) -> Path:
        """Return the file of what calls left behind."""
        return Path(self.data_dir) / "history.sqlite"

    @property
    def lease_file(self) -> Path:
        """Return the file of the lease, which the servers of this machine share."""
        return Path(self.data_dir) / "lease"

    @property
    def acknowledged_file(self) -> Path | None:
        """Return the file of what this machine knows to be acknowledged; None when PostgreSQL does not fail over."""
        return None if self.sessions.replication == "none" else Path(self.data_dir) / "acknowledged"

    @property
    def closings_file(self) -> Path | None:
        """Return the file of what this machine has closed; None when it does not write that again after a failover."""
        return Path(self.data_dir) / "closings" if self.sessions.after_going_back == "reassert" else None

    @property
    def tells(self) -> bool:
        """Say whether there is anyone to tell of sessions and access requests."""
        return bool(self.messages.receivers_file)

    @property
    def messages_file(self) -> Path:
        """Return the file of messages that wait for their receivers."""
        return Path(self.data_dir) / "messages.sqlite"

    @property
    def callers_file(self) -> Path:
        """Return the file of callers."""
        return Path(self.callers.file) if self.callers.file else Path(self.data_dir) / CALLERS_FILE

    @property
    def control_address(self) -> str:
        """Return the address that serves only what ends authority."""
        server = self.server
        if server.control_address:
            return server.control_address
        if not server.tls_certificate or server.address.startswith("unix:"):
            return f"unix:{Path(self.data_dir) / CONTROL_SOCKET}"
        host, _, port = server.address.rpartition(":")
        # With any free port here, any free port will do there too.
        return f"{host}:{int(port) + 1 if int(port) else 0}"

    @property
    def only_this_machine(self) -> bool:
        """Say whether only this machine can call: others can with an operator's certificate."""
        return not self.server.tls_certificate

    @property
    def makes_certificate(self) -> bool:
        """Say whether the server makes its own certificate: on loopback, unless settings differ."""
        server = self.server
        return not (server.tls_certificate or server.plaintext or server.address.startswith("unix:"))

    @property
    def tokens_folder(self) -> Path:
        """Return the folder of the callers' tokens."""
        return Path(self.data_dir) / "tokens"
