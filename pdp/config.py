"""The settings: defaults, then a YAML file, then the environment, then flags; one name in three spellings.

A setting's dataclass field holds everything about it: its name, type, default and help.
The file, the environment, the flags and the documentation follow from them by reflection.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from pdp.calltokens.claims import MOST_SECONDS
from pdp.errors import BundleError, ConfigurationError, one_line
from pdp.foundation.loopback import host_and_port, is_loopback, is_loopback_address
from pdp.foundation.ownership import read_own
from pdp.foundation.yamltext import Section, load_section, unknown
from pdp.identity.callers import CALLERS_FILE
from pdp.limits import DEFAULT_LIMITS, RECORD_LINE_BYTES, Limits, largest_session_bytes
from pdp.sessions.lease import LEAST_LEASE_SECONDS, MOST_LEASE_SECONDS

DEFAULT_FILE = "pdp.yaml"
DIGEST_KEY_FILE, SIGNING_KEY_FILE = "record.key", "record-signing.pem"
_REPLICA = re.compile(r"[A-Za-z0-9._-]{1,64}")
CONTROL_SOCKET = "control.sock"

# Variables with the prefix of settings that are not settings: for the client, the command line and the tests.
OTHER_VARIABLES: Mapping[str, str] = {
    "PDP_CONFIG": "the configuration file; without it `pdp.yaml`, if there is one",
    "PDP_ADDRESS": "the server that commands speak to; without it `server.address`",
    "PDP_CONTROL_ADDRESS": "where commands first try to end authority; without it and `PDP_ADDRESS`, the server's own",
    "PDP_TOKEN_FILE": "the file of the token that commands present",
    "PDP_TLS_ROOTS": "PEM file of the root certificates that commands trust, or `system`",
    "PDP_TLS_CERTIFICATE": "PEM file of the certificate that commands present",
    "PDP_TLS_KEY": "PEM file of the certificate's private key",
    "PDP_PLAINTEXT": "`true` makes commands speak plain text, only on loopback",
    "PDP_ASK_TOGETHER": "`false` makes clients and doors send every question by itself",
    "PDP_SESSION_HANDLE": "the secret handle of the session that commands ask about",
    "PDP_DEBUG": "`1` shows where an error comes from",
    "PDP_TEST_DATA": "the folder of test material",
}

# Kubernetes sets these in every container that can see a service named `pdp` or `pdp-…`.
_SERVICE_LINK = re.compile(
    r"PDP_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,18}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_SHOWN_CHARACTERS = 80
# Each is started at once, or under load: more is a mistake that would take the machine.
_MOST_WORKERS = 1024
# gRPC takes numbers of 32 bits: twice a number of calls, and seconds in milliseconds.
_MOST_OF_A_LIMIT, _MOST_SECONDS_OF_A_LIMIT = 1_000_000_000, 2_000_000
# Former names of settings.
_RENAMED: Mapping[str, str] = {"server.callers": "callers.file"}
# The algorithms that a public key can verify; `pdp.identity.keysets` defines how.
_ALGORITHMS = (
    "ES256", "ES384", "ES512", "Ed25519", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"
)  # fmt: skip

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


class SettingRow(NamedTuple):
    """One setting for people: its three spellings, its default in written form, and its help."""

    name: str
    environment: str
    flag: str
    default: str
    help: str


def environment_name(name: str) -> str:
    """Return a setting's environment variable: `PDP_CACHE__MAX_TTL` for `cache.max_ttl`."""
    return "PDP_" + name.replace(".", "__").upper()


def flag_name(name: str) -> str:
    """Return a setting's flag: `--cache-max-ttl` for `cache.max_ttl`."""
    return "--" + name.replace(".", "-").replace("_", "-")


def describe() -> Iterator[SettingRow]:
    """Yield a row for every setting, in the order in which they are declared."""
    for setting in _known().values():
        default = ",".join(setting.default) if isinstance(setting.default, tuple) else _shown(setting.default)
        yield SettingRow(
            name=setting.name,
            environment=environment_name(setting.name),
            flag=flag_name(setting.name),
            default=default,
            help=setting.help,
        )


def section_titles() -> Mapping[str, str]:
    """Return the subject of each section of the settings, in a sentence."""
    sections = ((field.name, field.default) for field in dataclasses.fields(Settings))
    return {
        name: (type(value).__doc__ or "").partition("\n")[0]
        for name, value in sections
        if dataclasses.is_dataclass(value)
    }


def load(
    *, environ: Mapping[str, str], flags: Mapping[str, str] | None = None, file: str | Path | None = None
) -> Settings:
    """Load the settings: defaults, then the file, then the environment, then the flags.

    `flags` maps names such as `cache.max_ttl` to text. Without `file`, the file in `PDP_CONFIG` is read, or else
    `pdp.yaml` if it exists. Raise `ConfigurationError` with one line for each problem.
    """
    reader = _read(environ, flags, file)
    settings = reader.settings()
    problems = reader.problems or list(_contradictions(settings))
    if problems:
        raise ConfigurationError("\n".join(problems))
    return settings


def origin(
    name: str, *, environ: Mapping[str, str], flags: Mapping[str, str] | None = None, file: str | Path | None = None
) -> str:
    """Return the source of a value in `load`: a flag, a variable, a line of the file, or the default."""
    return _read(environ, flags, file).origins.get(name, f"the default of `{name}`")


def _read(environ: Mapping[str, str], flags: Mapping[str, str] | None, file: str | Path | None) -> _Reader:
    reader = _Reader()
    named = file or environ.get("PDP_CONFIG")
    if named or Path(DEFAULT_FILE).is_file():
        reader.read_file(Path(named or DEFAULT_FILE))
    reader.read_environment(environ)
    reader.read_flags(flags or {})
    return reader


def dump(settings: Settings) -> str:
    """Return all settings as one line of text, for `restore` in another process."""
    return json.dumps({setting.name: setting.default for setting in _settings_of(settings, "")})


def restore(text: str) -> Settings:
    """Return the settings of a `dump`."""
    known = _known()
    return _build(Settings(), "", {name: _checked(known[name], value) for name, value in json.loads(text).items()})


class _Setting(NamedTuple):
    name: str
    kind: Any
    default: Any
    minimum: float
    maximum: float
    help: str


def _known() -> dict[str, _Setting]:
    return {setting.name: setting for setting in _settings_of(Settings(), "")}


def _settings_of(values: Settings | Limits | Any, prefix: str) -> Iterator[_Setting]:  # noqa: ANN401 - any section
    kinds = get_type_hints(type(values))
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            yield from _settings_of(value, f"{field.name}.")
        else:
            yield _Setting(
                name=prefix + field.name,
                kind=kinds[field.name],
                default=value,
                minimum=field.metadata.get("minimum", _lowest_limit(field.name)),
                maximum=field.metadata.get("maximum", _highest_limit(kinds[field.name])),
                help=field.metadata.get("help", f"upper bound: {field.name.replace('_', ' ')}"),
            )


def _lowest_limit(name: str) -> float:
    # Zero levels of delegation are a valid policy; a server without calls or streams is a mistake.
    return 0 if name == "delegation_depth" else 1


def _highest_limit(kind: type) -> float:
    return _MOST_SECONDS_OF_A_LIMIT if kind is float else _MOST_OF_A_LIMIT


class _Reader:
    """Collects values and problems from all sources; a later source takes precedence."""

    def __init__(self) -> None:
        self._known = _known()
        self._values: dict[str, Any] = {}
        self.problems: list[str] = []
        # For each setting, the source of its value.
        self.origins: dict[str, str] = {}

    def read_file(self, path: Path) -> None:
        try:
            top = load_section(str(path), read_own(path, "anyone could choose the server that tokens go to"))
        except ConfigurationError as error:
            self.problems.append(f"the configuration file: {error}")
        except BundleError as error:
            self.problems += [str(problem) for problem in error.problems]
        else:
            self._section(top, "")

    def read_environment(self, environ: Mapping[str, str]) -> None:
        names = {environment_name(name): name for name in self._known}
        for variable, text in sorted(environ.items()):
            if variable in names:
                self._take(names[variable], _from_text(self._known[names[variable]].kind, text), f"`{variable}`")
            elif variable.startswith("PDP_") and not _is_other(variable):
                renamed = {environment_name(old): environment_name(new) for old, new in _RENAMED.items()}
                self.problems.append(_unknown_setting(variable, (*names, *OTHER_VARIABLES), renamed))

    def read_flags(self, flags: Mapping[str, str]) -> None:
        for name, text in flags.items():
            if name in self._known:
                self._take(name, _from_text(self._known[name].kind, text), f"`{flag_name(name)}`")
            else:
                self.problems.append(_unknown_setting(name, self._known))

    def settings(self) -> Settings:
        return _build(Settings(), "", self._values)

    def _section(self, section: Section, prefix: str) -> None:
        sections = {name.partition(".")[0] for name in self._known if "." in name}
        for key, value in section.items():
            name = prefix + key
            if not prefix and key in sections:
                if isinstance(value, Section):
                    self._section(value, f"{key}.")
                elif value is not None:
                    self.problems.append(str(section.problem(f"`{key}` must hold settings, not {_quoted(value)}", key)))
            elif not prefix and "." in key and key in self._known:
                parent, _, child = key.partition(".")
                self.problems.append(
                    str(section.problem(f"`{key}` must be written as `{child}` below `{parent}`", key))
                )
            elif name in self._known:
                self._take(name, value, str(section.problem(f"`{name}`", key)))
            else:
                self.problems.append(str(section.problem(_unknown_setting(name, (*self._known, *sections)), key)))

    def _take(self, name: str, value: Any, spelling: str) -> None:  # noqa: ANN401 - any written value
        setting = self._known[name]
        try:
            self._values[name] = _checked(setting, value)
            self.origins[name] = spelling
        except ValueError as error:
            self.problems.append(f"{spelling} {error}, not {_quoted(value)}")


def _build(values: T, prefix: str, chosen: Mapping[str, Any]) -> T:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(values):  # type: ignore[arg-type] # sections are dataclasses; a type cannot say so
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _build(value, f"{field.name}.", chosen)
        elif prefix + field.name in chosen:
            changes[field.name] = chosen[prefix + field.name]
    return dataclasses.replace(values, **changes)  # type: ignore[type-var] # the same


def _unknown_setting(name: str, known: Iterable[str], renamed: Mapping[str, str] = _RENAMED) -> str:
    return f"`{name}` is now called `{renamed[name]}`" if name in renamed else unknown("setting", name, known)


def _is_other(variable: str) -> bool:
    return variable in OTHER_VARIABLES or _SERVICE_LINK.fullmatch(variable) is not None


def _from_text(kind: Any, text: str) -> Any:  # noqa: ANN401 - types have no type in common
    """Return the value of a text, or the text itself when it is not valid, for `_checked` to refuse."""
    text = text.strip()
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind is int:
        return int(text) if _WHOLE_NUMBER.fullmatch(text) else text
    if kind is float:
        return float(text) if _NUMBER.fullmatch(text) else text
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",")] if text else []
    return text


def _checked(setting: _Setting, value: Any) -> Any:  # noqa: ANN401 - any written value
    """Return the value in the setting's type. Raise `ValueError` saying what it must be."""
    if get_origin(setting.kind) is Literal:
        choices = get_args(setting.kind)
        if not isinstance(value, str) or value not in choices:
            raise ValueError("must be one of " + ", ".join(f"`{choice}`" for choice in choices))
        return value
    if get_origin(setting.kind) is tuple:
        if not isinstance(value, list) or not all(isinstance(one, str) and one.isidentifier() for one in value):
            raise ValueError("must be a list of names")
        return tuple(value)
    return _KINDS[setting.kind](setting, value)


def _checked_bool(_: _Setting, value: Any) -> bool:  # noqa: ANN401 - any written value
    if not isinstance(value, bool):
        raise ValueError("must be `true` or `false`")  # noqa: TRY004 - a wrong value of a setting, whatever its type
    return value


def _checked_number(setting: _Setting, value: Any) -> Any:  # noqa: ANN401 - a number of the setting's kind
    kinds = int if setting.kind is int else int | float
    if not isinstance(value, kinds) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("must be a whole number" if setting.kind is int else "must be a number")
    if value < setting.minimum:
        raise ValueError(f"must be at least `{setting.minimum:g}`")
    if value > setting.maximum:
        raise ValueError(f"must be at most `{setting.maximum:.0f}`")
    return setting.kind(value)


def _checked_text(_: _Setting, value: Any) -> str:  # noqa: ANN401 - any written value
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("must be one line of text")
    return value


_KINDS: Mapping[Any, Callable[[_Setting, Any], Any]] = {
    bool: _checked_bool,
    int: _checked_number,
    float: _checked_number,
    str: _checked_text,
}


def _contradictions(settings: Settings) -> Iterable[str]:
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
            f"`{name}` {_quoted(address)} is an abstract socket: it has no file, so any user of this "
            "machine could connect; write `unix:PATH`"
        )
        return
    if address.startswith("unix:"):
        return
    if host_and_port(address) is None:
        yield f"`{name}` must be `host:port` or `unix:PATH`, not {_quoted(address)}"
    elif not server.tls_certificate and not is_loopback_address(address):
        yield (
            f"`{name}` {_quoted(address)} can be reached by others and needs TLS: "
            "set `server.tls_certificate` and `server.tls_key`"
        )


def _plaintext_problems(server: ServerSettings) -> Iterable[str]:
    if server.plaintext and server.tls_certificate:
        yield "`server.plaintext` and `server.tls_certificate` cannot both be set"
    elif server.plaintext and not is_loopback_address(server.address):
        yield f"`server.plaintext` is for `host:port` on loopback, not for {_quoted(server.address)}"


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
        yield f"`server.console_url` must not have a query, since links add to it: {_quoted(url)}"


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
        yield f"`record.replica` must be up to 64 letters, digits, `.`, `_` and `-`, not {_quoted(record.replica)}"


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
        yield f"{name} must be `host:port`, not {_quoted(address)}"
    elif not is_loopback(telemetry.scraped[0]):
        yield f"{name} {_quoted(address)} can be reached by others, but metrics are shown only on this machine"


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
        if name not in _ALGORITHMS:
            problem = unknown("algorithm", name, _ALGORITHMS)
            yield f"`jwt.algorithms`: {problem}" + (
                "; a shared secret is not a public key" if name.startswith("HS") else ""
            )


def _claim_problems(jwt: JWTSettings) -> Iterable[str]:
    if jwt.user_group_prefix and not jwt.groups_claim:
        yield "`jwt.user_group_prefix` needs `jwt.groups_claim`"
    if not jwt.id_claim:
        yield "`jwt.id_claim` must not be empty"
    if jwt.person_claim.startswith("=") or jwt.person_claim.endswith("="):
        yield f"`jwt.person_claim` must be `NAME` or `NAME=TEXT`, not {_quoted(jwt.person_claim)}"


def _url_problems(name: str, url: str, *, instead: str) -> Iterable[str]:
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and url.isascii() and " " not in url and parts.port != 0 and not parts.fragment
    except ValueError:
        sound = False
    if not sound:
        yield f"`{name}` must be a URL, not {_quoted(url)}"
    elif parts.username is not None or parts.password is not None:
        yield f"`{name}` must not hold a user or a password; {instead}"
    elif parts.scheme not in ("https", "http"):
        yield f"`{name}` must begin with `https://`, not {_quoted(url)}"
    elif parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield f"`{name}` {_quoted(url)} is reached over the network and needs `https://`"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    text = json.dumps(value)
    return text.removesuffix(".0") if isinstance(value, float) else text


def _quoted(value: object) -> str:
    """Return the first line of a value as written, without the rest of a key pasted by mistake."""
    whole = _shown(value)
    line = one_line(whole.partition("\n")[0])
    return f"`{line[:_SHOWN_CHARACTERS]}…`" if len(whole) > min(len(line), _SHOWN_CHARACTERS) else f"`{line}`"
