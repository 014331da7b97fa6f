"""The settings: one name in three spellings, four sources in order, and every problem told at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from pdp.config import reading
from pdp.config.reading import describe, dump, environment_name, flag_name, load, restore
from pdp.config.settings import Settings
from pdp.errors import ConfigurationError
from pdp.limits import Limits

NAMES = [row.name for row in describe()]
TLS = {"server.tls_certificate": "chain.pem", "server.tls_key": "key.pem"}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems(
    *, environ: Mapping[str, str] | None = None, flags: Mapping[str, str] | None = None, text: str = ""
) -> list[str]:
    """Return what is wrong, line by line; `text` is the content of `pdp.yaml`."""
    Path("pdp.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load(environ=environ or {}, flags=flags)
    return str(caught.value).splitlines()


def value_of(settings: Settings, name: str) -> Any:
    """Return a setting by its dotted name."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


# Where not any text will do.
PARTICULAR: dict[str, Any] = {
    "server.address": "127.0.0.1:7",
    "server.control_address": "127.0.0.1:8",
    "telemetry.prometheus_address": "127.0.0.1:9464",
    "jwt.algorithms": ("ES256",),
    "jwt.keys_url": "https://i.example/keys",
    "server.console_url": "https://pdp.example/console",
    "policies.url": "https://policies.example/b",
}


def another_value(name: str) -> Any:
    """Return a legal value that is not the setting's default."""
    setting = reading._known()[name]
    if name in PARTICULAR:
        return PARTICULAR[name]
    if get_origin(setting.kind) is Literal:
        return get_args(setting.kind)[-1]
    if get_origin(setting.kind) is tuple:
        return ("team", "level")
    if setting.kind is str:
        return "other"
    return not setting.default if setting.kind is bool else setting.default + 1


# What must be set as well.
_SIGNED: dict[str, Any] = {"policies.file": "b", "policies.public_keys": "k"}
_JWT: dict[str, Any] = {"jwt.issuer": "https://i.example", "jwt.audience": "pdp", "jwt.keys_file": "k"}
_BY_URL: dict[str, Any] = {
    "jwt.issuer": "https://i.example", "jwt.audience": "pdp", "jwt.keys_url": "https://i.example/keys"
}  # fmt: skip
_POSTGRES: dict[str, Any] = {"sessions.store": "postgres", "sessions.postgres_file": "f"}
COMPANIONS: dict[str, dict[str, Any]] = {
    "jwt.issuer": {"jwt.audience": "pdp", "jwt.keys_file": "k"},
    "jwt.audience": {"jwt.issuer": "https://i.example", "jwt.keys_file": "k"},
    "jwt.keys_file": {"jwt.issuer": "https://i.example", "jwt.audience": "pdp"},
    "jwt.keys_url": {"jwt.issuer": "https://i.example", "jwt.audience": "pdp"},
    "jwt.person_claim": _JWT,
    "jwt.groups_claim": _JWT,
    "jwt.user_group_prefix": {**_JWT, "jwt.groups_claim": "groups"},
    "jwt.console_client": _JWT,
    "jwt.keys_ca_file": _BY_URL,
    "jwt.algorithms": _JWT,
    "sessions.postgres_file": {"sessions.store": "postgres"},
    "sessions.lease_seconds": _POSTGRES,
    "sessions.replication": {**_POSTGRES, "sessions.lease_seconds": 1.0},
    "sessions.after_going_back": {**_POSTGRES, "sessions.replication": "async"},
    "record.shared_folder": _POSTGRES,
    "server.tls_client_roots": TLS,
    "policies.url_token_file": {"policies.url": "https://policies.example/b"},
    "policies.url_ca_file": {"policies.url": "https://policies.example/b"},
    "policies.require_signature": _SIGNED,
    "policies.never_older": {**_SIGNED, "policies.require_signature": True},
}


def written(value: Any) -> str:
    """Write a value as the environment and flags have it."""
    return ",".join(value) if isinstance(value, tuple) else value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize(
    ("file", "variable", "flag", "expected"),
    [
        (None, None, None, 300.0),
        ("1", None, None, 1.0),
        (None, "2", None, 2.0),
        (None, None, "3", 3.0),
        ("1", "2", None, 2.0),
        ("1", None, "3", 3.0),
        (None, "2", "3", 3.0),
        ("1", "2", "3", 3.0),
        ("1.5", None, None, 1.5),
        (None, "0", None, 0.0),
    ],
)
def test_later_source_wins(file: str | None, variable: str | None, flag: str | None, expected: float) -> None:
    """Defaults give way to the file, the file to the environment, the environment to flags."""
    Path("pdp.yaml").write_text(f"cache: {{max_ttl: {file}}}" if file else "", encoding="utf-8")
    environ = {"PDP_CACHE__MAX_TTL": variable} if variable else {}
    flags = {"cache.max_ttl": flag} if flag else {}

    settings = load(environ=environ, flags=flags)

    assert expected == settings.cache.max_ttl


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_three_spellings(name: str) -> None:
    """Every setting can be set in the file, in the environment and by a flag, to the same effect."""
    value = another_value(name)
    extra = {other: text for other, text in TLS.items() if name in TLS and other != name} | COMPANIONS.get(name, {})
    tree: dict[str, Any] = {}
    for one, chosen in {name: value, **extra}.items():
        section, _, key = one.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[key] = list(chosen) if isinstance(chosen, tuple) else chosen
    Path("in_file.yaml").write_text(json.dumps(tree), encoding="utf-8")
    texts = {one: written(chosen) for one, chosen in {name: value, **extra}.items()}
    variables = {environment_name(one): text for one, text in texts.items()}

    in_file = load(environ={}, file="in_file.yaml")
    in_environment = load(environ=variables)
    by_flag = load(environ={}, flags=texts)

    assert value != value_of(Settings(), name)
    assert [value] * 3 == [value_of(settings, name) for settings in (in_file, in_environment, by_flag)]
    assert in_file == in_environment == by_flag


def test_spellings_are_unique() -> None:
    """No two settings share a spelling, and no spelling is another thing's variable."""
    variables = [environment_name(name) for name in NAMES]

    assert len(NAMES) == len(set(NAMES)) == len(set(variables)) == len({flag_name(name) for name in NAMES})
    assert [] == [variable for variable in variables if reading._is_other(variable)]


def test_spellings_follow_the_rule() -> None:
    """A dot becomes two underscores in the environment and a hyphen in the flag."""
    row = next(row for row in describe() if row.name == "cache.max_ttl")

    assert ("PDP_CACHE__MAX_TTL", "--cache-max-ttl", "300") == (row.environment, row.flag, row.default)


def test_every_limit_is_a_setting() -> None:
    """All fields of `Limits` stand among the settings with their defaults."""
    expected = {f"limits.{field.name}": getattr(Limits(), field.name) for field in dataclasses.fields(Limits)}

    assert expected == {name: value_of(Settings(), name) for name in NAMES if name.startswith("limits.")}


def test_defaults_are_described() -> None:
    """What is described as the default is the default."""
    flags = {row.name: row.default for row in describe()}

    assert Settings() == load(environ={}, flags=flags)


def test_every_setting_says_what_it_is_for() -> None:
    """No setting is without help."""
    assert [] == [row.name for row in describe() if not row.help]


@pytest.mark.parametrize(
    ("environ", "flags", "text", "expected"),
    [
        ({"PDP_CACHE__TTL": "3"}, {}, "", "unknown setting: `PDP_CACHE__TTL`; did you mean `PDP_CACHE__MAX_TTL`?"),
        ({"PDP_TOKENFILE": "x"}, {}, "", "unknown setting: `PDP_TOKENFILE`; did you mean `PDP_TOKEN_FILE`?"),
        ({"PDP_QQQQQQQQQQ": "x"}, {}, "", "unknown setting: `PDP_QQQQQQQQQQ`"),
        ({}, {"cache.ttl": "3"}, "", "unknown setting: `cache.ttl`; did you mean `cache.max_ttl`?"),
        ({}, {}, "cache:\n  ttl: 3", "pdp.yaml:2: unknown setting: `cache.ttl`; did you mean `cache.max_ttl`?"),
        ({"PDP_SERVER__CALLERS": "x"}, {}, "", "`PDP_SERVER__CALLERS` is now called `PDP_CALLERS__FILE`"),
        ({}, {"server.callers": "x"}, "", "`server.callers` is now called `callers.file`"),
        ({}, {}, "server:\n  callers: x", "pdp.yaml:2: `server.callers` is now called `callers.file`"),
        ({}, {}, "data_dri: x", "pdp.yaml:1: unknown setting: `data_dri`; did you mean `data_dir`?"),
        ({}, {}, "cahce: {size: 1}", "pdp.yaml:1: unknown setting: `cahce`; did you mean `cache`?"),
        ({}, {}, "cache.max_ttl: 1", "pdp.yaml:1: `cache.max_ttl` must be written as `max_ttl` below `cache`"),
    ],
)
def test_unknown_names_are_refused(environ: dict[str, str], flags: dict[str, str], text: str, expected: str) -> None:
    """An unknown name is an error that names the nearest known one."""
    found = problems(environ=environ, flags=flags, text=text)

    assert [expected] == found


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("cache.max_ttl", "soon", "must be a number, not `soon`"),
        ("cache.max_ttl", "nan", "must be a number, not `nan`"),
        ("cache.max_ttl", "1e999", "must be a number, not `Infinity`"),
        ("cache.max_ttl", "-1", "must be at least `0`, not `-1`"),
        ("cache.size", "1.5", "must be a whole number, not `1.5`"),
        ("cache.size", "", "must be a whole number, not ``"),
        ("cache.size", "1_000", "must be a whole number, not `1_000`"),
        ("server.threads", "0", "must be at least `1`, not `0`"),
        ("server.reflection", "yes", "must be `true` or `false`, not `yes`"),
        ("sessions.store", "redis", "must be one of `sqlite`, `postgres`, `memory`, not `redis`"),
        ("sessions.trusted_attributes", "a b", 'must be a list of names, not `["a b"]`'),
        ("policies.folder", "a\nb", "must be one line of text, not `a…`"),
        ("limits.streams", "0", "must be at least `1`, not `0`"),
        ("limits.delegation_depth", "-1", "must be at least `0`, not `-1`"),
        ("limits.message_bytes", "1000000001", "must be at most `1000000000`, not `1000000001`"),
        ("limits.connection_age_seconds", "1e10", "must be at most `2000000`, not `10000000000`"),
        ("server.workers", "1025", "must be at most `1024`, not `1025`"),
    ],
)
def test_wrong_text_is_refused(name: str, text: str, expected: str) -> None:
    """The environment and flags take only text that means a value of the setting's type."""
    in_environment = problems(environ={environment_name(name): text})
    by_flag = problems(flags={name: text})

    assert [f"`{environment_name(name)}` {expected}"] == in_environment
    assert [f"`{flag_name(name)}` {expected}"] == by_flag


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cache: {max_ttl: '60'}", "pdp.yaml:1: `cache.max_ttl` must be a number, not `60`"),
        ("cache: {size: true}", "pdp.yaml:1: `cache.size` must be a whole number, not `true`"),
        ("cache: {size: 2.0}", "pdp.yaml:1: `cache.size` must be a whole number, not `2`"),
        ("server: {reflection: 1}", "pdp.yaml:1: `server.reflection` must be `true` or `false`, not `1`"),
        ("data_dir: 3", "pdp.yaml:1: `data_dir` must be one line of text, not `3`"),
        ("data_dir: null", "pdp.yaml:1: `data_dir` must be one line of text, not `null`"),
        (
            "sessions: {trusted_attributes: team}",
            "pdp.yaml:1: `sessions.trusted_attributes` must be a list of names, not `team`",
        ),
        ("cache: 3", "pdp.yaml:1: `cache` must hold settings, not `3`"),
        ("- a", "pdp.yaml:1: must be a mapping"),
        ("cache: {size: 1, size: 2}", "pdp.yaml:1: key `size` appears twice"),
        ('"a\\nb\\u202e": 1', "pdp.yaml:1: unknown setting: `a b `"),
        ("cache: {", "pdp.yaml:2: not YAML: did not find expected node content"),
    ],
)
def test_wrong_file_is_refused(text: str, expected: str) -> None:
    """The file is read strictly: a text is no number and a number is no text."""
    assert [expected] == problems(text=text)


def test_all_problems_are_reported_together() -> None:
    """One error holds a line for each thing that is wrong in any source, though a later source would win."""
    text = "cache:\n  max_ttl: soon\n  ttl: 3\nsessions: {store: redis}\n"

    found = problems(
        environ={"PDP_SERVER__THREADS": "many", "PDP_SEVER__THREADS": "3"}, flags={"cache.max_ttl": "never"}, text=text
    )

    assert [
        "pdp.yaml:2: `cache.max_ttl` must be a number, not `soon`",
        "pdp.yaml:3: unknown setting: `cache.ttl`; did you mean `cache.max_ttl`?",
        "pdp.yaml:4: `sessions.store` must be one of `sqlite`, `postgres`, `memory`, not `redis`",
        "`PDP_SERVER__THREADS` must be a whole number, not `many`",
        "unknown setting: `PDP_SEVER__THREADS`; did you mean `PDP_SERVER__THREADS`?",
        "`--cache-max-ttl` must be a number, not `never`",
    ] == found


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"server.tls_key": "k"}, "`server.tls_key` needs `server.tls_certificate`"),
        ({"server.tls_certificate": "c"}, "`server.tls_certificate` needs `server.tls_key`"),
        (
            {"server.tls_client_roots": "r"},
            "`server.tls_client_roots` needs `server.tls_certificate` and `server.tls_key`",
        ),
        ({"server.address": "50151"}, "`server.address` must be `host:port` or `unix:PATH`, not `50151`"),
        ({"server.address": "::1:1"}, "`server.address` must be `host:port` or `unix:PATH`, not `::1:1`"),
        ({"server.address": "h:65536"}, "`server.address` must be `host:port` or `unix:PATH`, not `h:65536`"),
        ({"server.address": "h:\u0663"}, "`server.address` must be `host:port` or `unix:PATH`, not `h:\u0663`"),
        (
            {"server.address": "unix:@pdp"},
            (
                "`server.address` `unix:@pdp` is an abstract socket: it has no file, so any user of this machine "
                "could connect; write `unix:PATH`"
            ),
        ),
        (
            {"server.control_address": "50151"},
            "`server.control_address` must be `host:port` or `unix:PATH`, not `50151`",
        ),
        (
            {"server.address": "localhost:1", "server.control_address": "localhost:1"},
            "`server.control_address` must differ from `server.address`",
        ),
        ({"data_dir": ""}, "`data_dir` must not be empty"),
        ({"policies.folder": ""}, "`policies.folder` must not be empty"),
        ({"policies.file": "f", "policies.url": "https://h/"}, "`policies.file` and `policies.url` cannot both be set"),
        ({"policies.url_ca_file": "f"}, "`policies.url_ca_file` needs `policies.url`"),
        ({"policies.url_token_file": "f"}, "`policies.url_token_file` needs `policies.url`"),
        ({"policies.url": "h/b"}, "`policies.url` must be a URL, not `h/b`"),
        ({"policies.url": "https:///b"}, "`policies.url` must be a URL, not `https:///b`"),
        ({"policies.url": "https://h:port/"}, "`policies.url` must be a URL, not `https://h:port/`"),
        ({"policies.url": "https://h/ä"}, "`policies.url` must be a URL, not `https://h/ä`"),
        (
            {"jwt.issuer": "i", "jwt.keys_file": "k"},
            "`jwt.issuer` needs `jwt.audience`: otherwise a token for any other server would be accepted here",
        ),
        ({"jwt.audience": "a"}, "`jwt.audience` needs `jwt.issuer`"),
        ({"jwt.groups_claim": "groups"}, "`jwt.groups_claim` needs `jwt.issuer`"),
        ({"jwt.console_client": "c"}, "`jwt.console_client` needs `jwt.issuer`"),
        ({**_JWT, "jwt.user_group_prefix": "idp/"}, "`jwt.user_group_prefix` needs `jwt.groups_claim`"),
        ({**_JWT, "jwt.id_claim": ""}, "`jwt.id_claim` must not be empty"),
        ({**_JWT, "jwt.person_claim": "idtyp="}, "`jwt.person_claim` must be `NAME` or `NAME=TEXT`, not `idtyp=`"),
        ({"jwt.issuer": "i", "jwt.audience": "a"}, "`jwt.issuer` needs either `jwt.keys_file` or `jwt.keys_url`"),
        (
            {"jwt.issuer": "i", "jwt.audience": "a", "jwt.keys_url": "http://h/keys"},
            "`jwt.keys_url` `http://h/keys` is reached over the network and needs `https://`",
        ),
        (
            {"jwt.issuer": "i", "jwt.audience": "a", "jwt.keys_file": "k", "jwt.algorithms": "HS256"},
            "`jwt.algorithms`: unknown algorithm: `HS256`; did you mean `RS256`?; a shared secret is not a public key",
        ),
        ({"server.console_url": "pdp.example"}, "`server.console_url` must be a URL, not `pdp.example`"),
        (
            {"server.console_url": "https://pdp.example/?tenant=a"},
            "`server.console_url` must not have a query, since links add to it: `https://pdp.example/?tenant=a`",
        ),
        ({"call_tokens.seconds": "61"}, "`call_tokens.seconds` must be at most `60`"),
        ({"policies.url": "ftp://h/b"}, "`policies.url` must begin with `https://`, not `ftp://h/b`"),
        (
            {"policies.url": "https://me:secret@h/"},
            "`policies.url` must not hold a user or a password; use `policies.url_token_file`",
        ),
        (
            {"policies.url": "http://10.0.0.1/b"},
            "`policies.url` `http://10.0.0.1/b` is reached over the network and needs `https://`",
        ),
        (
            {"policies.file": "f", "policies.require_signature": "true"},
            "`policies.require_signature` needs `policies.public_keys`",
        ),
        (
            {"policies.public_keys": "k", "policies.require_signature": "true"},
            "`policies.require_signature` needs `policies.file` or `policies.url`: a folder is never signed",
        ),
        (
            {"policies.file": "f", "policies.never_older": "true"},
            "`policies.never_older` needs `policies.require_signature`: the number is signed with the bundle",
        ),
    ],
)
def test_contradictions_are_refused(flags: dict[str, str], expected: str) -> None:
    """Settings that are right one by one may still be wrong together."""
    assert [expected] == problems(flags=flags)


@pytest.mark.parametrize(
    "flags",
    [{"limits.session_tools": "3000"}, {"limits.text_characters": "30000"}, {"limits.attributes_bytes": "131072"}],
    ids=lambda flags: next(iter(flags)),
)
def test_a_session_must_fit_into_a_line_of_the_record(flags: dict[str, str]) -> None:
    """Limits that admit more are refused at the start, and not when a session is approved."""
    (found,) = problems(flags=flags)

    assert "bytes of the record, but a line holds 4194304: lower" in found


@pytest.mark.parametrize("url", ["https://policies.example/b?v=1", "http://127.0.0.1:8000/b", "http://[::1]/b"])
def test_url_of_bundles(url: str) -> None:
    """TLS to anywhere, and plain HTTP to this machine."""
    assert url == load(environ={}, flags={"policies.url": url}).policies.url


@pytest.mark.parametrize("address", ["0.0.0.0:50151", "[::]:1", "10.0.0.1:1", "pdp.example:1", "127.0.0.1.example:1"])
def test_reachable_listener_needs_tls(address: str) -> None:
    """A listener that others can reach is refused without TLS and accepted with it."""
    found = problems(flags={"server.address": address})
    settings = load(environ={}, flags={"server.address": address, **TLS})

    assert 1 == len(found)
    assert found[0].startswith(f"`server.address` `{address}` can be reached by others and needs TLS")
    assert address == settings.server.address


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.8.8:1", "[::1]:1", "localhost:1", "unix:/run/pdp"])
def test_loopback_needs_no_tls(address: str) -> None:
    """Nobody else can reach a loopback listener."""
    assert address == load(environ={}, flags={"server.address": address}).server.address


def test_pasted_key_is_not_repeated() -> None:
    """Who pastes a key in place of a path does not find it in the logs."""
    found = problems(environ={"PDP_SERVER__TLS_KEY": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n"})

    assert "c2VjcmV0" not in "\n".join(found)


def test_named_file_must_exist() -> None:
    """A file that is named and absent is an error; `pdp.yaml` may be absent."""
    with pytest.raises(ConfigurationError, match=r"the configuration file: cannot read `nope\.yaml`: no such file"):
        load(environ={"PDP_CONFIG": "nope.yaml"})
    assert Settings() == load(environ={})


def test_named_file_counts_instead_of_default_file() -> None:
    """`--config` wins over `PDP_CONFIG`, and each over `pdp.yaml`."""
    for number, name in enumerate(["pdp.yaml", "variable.yaml", "flag.yaml"]):
        Path(name).write_text(f"cache: {{size: {number}}}", encoding="utf-8")
    environ = {"PDP_CONFIG": "variable.yaml"}

    sizes = [load(environ={}), load(environ=environ), load(environ=environ, file="flag.yaml")]

    assert [0, 1, 2] == [settings.cache.size for settings in sizes]


@pytest.mark.parametrize(
    "variable",
    [
        "PDP_SERVICE_HOST",
        "PDP_SERVICE_PORT",
        "PDP_SERVICE_PORT_GRPC",
        "PDP_PORT",
        "PDP_PORT_50151_TCP",
        "PDP_PORT_50151_TCP_ADDR",
        "PDP_SHADOW_SERVICE_HOST",
        *reading.OTHER_VARIABLES,
    ],
)
def test_variables_of_others_are_left_alone(variable: str) -> None:
    """What a cluster sets for a service of this name, and what the commands read, is no unknown setting."""
    Path("x").write_text("", encoding="utf-8")

    assert Settings() == load(environ={variable: "x"})


def test_folders_follow_from_the_data_folder() -> None:
    """The decision log lies in the data folder unless it has a folder of its own."""
    plain = load(environ={}, flags={"data_dir": "d"})
    apart = load(environ={}, flags={"data_dir": "d", "record.folder": "r"})

    assert (Path("d/record"), Path("r")) == (plain.record_folder, apart.record_folder)
    assert Path("d/tokens") == plain.tokens_folder


def test_a_settings_file_that_leads_nowhere_is_a_problem() -> None:
    """A server must not go by defaults because the target of a link is gone."""
    Path("pdp.yaml").symlink_to("nowhere.yaml")

    with pytest.raises(ConfigurationError, match=r"cannot read `pdp\.yaml`: no such file"):
        load(environ={})


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"sessions.store": "memory"}, "`sessions.store: memory`, not `3`: workers share no memory"),
        ({"server.address": "unix:a"}, "on a Unix socket, not `3`: workers can share only a port"),
    ],
)
def test_several_workers_need_what_they_can_share(flags: dict[str, str], expected: str) -> None:
    """Several workers with a store in memory or on a Unix socket are refused; one is not, nor is one for each core."""
    assert [expected] == [
        line.partition(" must be `1` ")[2].removeprefix("with ")
        for line in problems(flags={**flags, "server.workers": "3"})
    ]
    assert [0, 1] == [
        load(environ={}, flags={**flags, **more}).server.workers for more in ({}, {"server.workers": "1"})
    ]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"sessions.store": "postgres"}, "`sessions.store: postgres` needs `sessions.postgres_file`"),
        ({"sessions.postgres_file": "f"}, "`sessions.postgres_file` needs `sessions.store: postgres`, not `sqlite`"),
        ({"sessions.lease_seconds": "1"}, "`sessions.lease_seconds` needs `sessions.store: postgres`, not `sqlite`"),
        ({"sessions.replication": "async"}, "`sessions.replication` needs `sessions.store: postgres`, not `sqlite`"),
        ({"record.shared_folder": "f"}, "`record.shared_folder` needs `sessions.store: postgres`, not `sqlite`"),
        ({"record.replica": "a b"}, "`record.replica` must be up to 64 letters, digits, `.`, `_` and `-`, not `a b`"),
        (
            {**_POSTGRES, "sessions.replication": "quorum"},
            "`sessions.replication: quorum` needs `sessions.lease_seconds`: no other answer counts",
        ),
        (
            {**_POSTGRES, "sessions.after_going_back": "reassert"},
            "`sessions.after_going_back: reassert` needs `sessions.replication: async`, not `none`",
        ),
        ({**_POSTGRES, "sessions.lease_seconds": "9"}, "`sessions.lease_seconds` must be 0, or from 0.3 to 5, not `9`"),
    ],
)
def test_settings_of_postgres_go_together(flags: dict[str, str], expected: str) -> None:
    """None is set without the others, and a lease has bounds."""
    assert [expected] == problems(flags=flags)


@pytest.mark.parametrize("name", NAMES)
def test_a_dump_is_restored(name: str) -> None:
    """A worker has the settings of its parent, each of them."""
    settings = load(
        environ={},
        flags={
            name: written(another_value(name)),
            **{n: written(v) for n, v in COMPANIONS.get(name, {}).items()},
            **(TLS if name in TLS else {}),
        },
    )

    assert settings == restore(dump(settings))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "unix:.pdp/control.sock"),
        ({"data_dir": "/var/lib/pdp"}, "unix:/var/lib/pdp/control.sock"),
        ({"server.address": "localhost:9", **TLS}, "localhost:10"),
        ({"server.address": "[::]:9", **TLS}, "[::]:10"),
        ({"server.address": "localhost:0", **TLS}, "localhost:0"),
        ({"server.address": "unix:/run/pdp", **TLS}, "unix:.pdp/control.sock"),
        ({"server.control_address": "localhost:9", **TLS}, "localhost:9"),
    ],
)
def test_where_authority_ends(flags: dict[str, str], expected: str) -> None:
    """Without a control address it is a socket in the data folder, and with TLS the next port."""
    assert expected == load(environ={}, flags=flags).control_address
