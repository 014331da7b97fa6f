"""`pdp doctor --door envoy`: the configuration of the page has no hole, and each hole that is made in it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.doctor import Level
from pdp.doctor.envoyholes import examine_envoy
from tests.machinery import envoyholes
from tests.machinery.pages import blocks

PROBLEM, WARNING = Level.PROBLEM, Level.WARNING
# The beginnings of lines: of a filter, of its fields, and of fields of a route.
FILTER, FIELD, OF_FILTER, OF_ROUTE = (f"\n{' ' * width}" for width in (18, 22, 20, 32))
LUA = 'typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}'
TYPE = f'{OF_ROUTE[:-2]}"@type"'
ROUTER = f"{FILTER}- name: envoy.filters.http.router"
EXTENSIONS = "context_extensions: {server: git}"

# What is replaced by what, and what is found then.
HOLES: dict[str, tuple[str, str, Level, str]] = {
    "a door that may be away": ("allow: false", "allow: true", PROBLEM, "`failure_mode_allow`"),
    "the same in Envoy's other form": ("failure_mode_allow: false", "failureModeAllow: true", PROBLEM, "`failure_mode"),
    "a part of the body": ("message: false", "message: true", PROBLEM, "`allow_partial_message`"),
    "a body as text": ("pack_as_bytes: true", "pack_as_bytes: false", PROBLEM, "`pack_as_bytes`"),
    "a huge body": ("262144", "99262144", PROBLEM, "`max_request_bytes`"),
    "no body": ("with_request_body", "x_with_request_body", PROBLEM, "no `with_request_body`"),
    "no gRPC": ("grpc_service:", "http_service:", PROBLEM, "does not ask over gRPC"),
    "another version": ("api_version: V3", "api_version: V2", PROBLEM, "version 3"),
    "no timeout": ("timeout: 2s", "x: 2s", WARNING, "`grpc_service.timeout`"),
    "no status": ("status_on_error", "x_status_on_error", WARNING, "looks like a deny"),
    "a status of success": ("code: ServiceUnavailable", "code: OK", PROBLEM, "is no error"),
    "a status of another type": ("code: ServiceUnavailable", "code: []", PROBLEM, "is no error"),
    "a share of requests": ("failure_mode_allow:", f"filter_enabled: {{}}{FIELD}x:", PROBLEM, "skip"),
    "another route later": ("failure_mode_allow:", f"clear_route_cache: true{FIELD}x:", PROBLEM, "again"),
    "some headers": ("failure_mode_allow:", f"allowed_headers: {{}}{FIELD}x:", PROBLEM, "not see all"),
    "headers that are not exact": ("encode_raw_headers: true", "encode_raw_headers: false", WARNING, "else"),
    "no path normalisation": ("normalize_path: true", "normalize_path: false", PROBLEM, "not normalized"),
    "several slashes": ("merge_slashes: true", "x: true", WARNING, "not merged"),
    "escaped slashes": ("slashes_action: REJECT_REQUEST", "slashes_action: KEEP_UNCHANGED", PROBLEM, "`%2f`"),
    "underscores": ("headers_with_underscores_action: REJECT_REQUEST", "x: y", WARNING, "underscores"),
    "streams without end": ("max_stream_duration", "x_max_stream_duration", WARNING, "no end"),
    "upgrades": ("stat_prefix: agents", "upgrade_configs: [{upgrade_type: websocket}]", PROBLEM, "change its protocol"),
    "handles in the log": ("%REQ(:METHOD)%", "%REQ(X-PDP-Session)%", PROBLEM, "secret handles"),
    "routes from elsewhere": ("route_config:", "x_route_config:", WARNING, "come from elsewhere"),
    "a route that is not asked about": (
        f"check_settings:{OF_ROUTE}{EXTENSIONS}",
        "disabled: true",
        PROBLEM,
        "disabled",
    ),
    "a route without a server": (EXTENSIONS, "context_extensions: {}", PROBLEM, "neither its `server`"),
    "a route with both": (EXTENSIONS, "context_extensions: {server: a, table: b}", PROBLEM, "neither its `server`"),
    "a route of another filter": (f"ext_authz:{TYPE}", f"other:{TYPE}", PROBLEM, "neither its `server`"),
    "a route without its body": (
        EXTENSIONS,
        f"{EXTENSIONS}{OF_ROUTE}disable_request_body_buffering: true",
        PROBLEM,
        "the body",
    ),
    "a route that upgrades": (
        "timeout: 0s",
        "timeout: 0s, upgrade_configs: [{upgrade_type: websocket}]",
        PROBLEM,
        "after an upgrade",
    ),
    "a path that changes": ("timeout: 0s", "prefix_rewrite: /x", PROBLEM, "rewritten"),
    "headers that stay": ("failure_mode_allow:", f"decoder_header_mutation_rules: {{}}{FIELD}x:", PROBLEM, "keep the"),
    "a server that the agent chooses": ("{cluster: git", "{cluster_header: x-to", PROBLEM, "chooses the server"),
    "a call that is sent again": ("timeout: 0s", "retry_policy: {retry_on: 5xx}", WARNING, "run again"),
    "the same of a host": ('domains: ["*"]', f'domains: ["*"]{FIELD}retry_policy: {{}}', WARNING, "run again"),
    "a mirror": ("timeout: 0s", "request_mirror_policies: [{cluster: x}]", WARNING, "another server gets"),
    "a host that the agent chooses": ("host_rewrite_literal", "x", WARNING, "chooses the `Host`"),
    "a filter after it": (ROUTER, f"{FILTER}- name: lua{OF_FILTER}{LUA}{ROUTER}", WARNING, "`lua` comes after it"),
    "a filter that is off": (
        "- name: envoy.filters.http.ext_authz",
        f"- name: envoy.filters.http.ext_authz{OF_FILTER}disabled: true",
        PROBLEM,
        "is disabled",
    ),
    "no filter": (f"ext_authz.v3.ExtAuthz{FIELD}", f"other.v3.Other{FIELD}", PROBLEM, "no filter `ext_authz`"),
    "no listener": ("v3.HttpConnectionManager", "v3.TcpProxy", PROBLEM, "no HTTP connection manager"),
    "a door far away": ("127.0.0.1, port_value: 9191", "10.0.0.7, port_value: 9191", PROBLEM, "without TLS"),
    "a door far away, asked in another way": (
        "envoy_grpc: {cluster_name: pdp-door}",
        "google_grpc: {target_uri: 'door.example.org:9191'}",
        PROBLEM,
        "without TLS",
    ),
    "resources from elsewhere": (
        "static_resources:",
        "dynamic_resources: {lds_config: {}}\nstatic_resources:",
        WARNING,
        "from elsewhere",
    ),
    "a key twice": (
        "failure_mode_allow:",
        f"failure_mode_allow: false{FIELD}failureModeAllow:",
        PROBLEM,
        "appears twice",
    ),
    "no YAML": ("static_resources:", "static_resources: [", PROBLEM, "line "),
}


@pytest.fixture
def page(project_root: Path) -> str:
    """Return the configuration of the page."""
    (text,) = blocks(project_root / "pdp" / "doors" / "ENVOY.md", "yaml envoy")
    return text


def test_the_page_has_no_hole(page: str, tmp_path: Path) -> None:
    """Every part is looked at, and found well."""
    file = tmp_path / "envoy.yaml"
    file.write_text(page, encoding="utf-8")

    found = list(examine_envoy(file))

    assert {Level.OK} == {one.level for one in found}
    assert ["listener agents", "filter envoy.filters.http.ext_authz", "route /mcp", "cluster git"] == [
        one.check for one in found
    ]


@pytest.mark.parametrize("name", envoyholes.SOUND)
def test_what_is_no_hole_is_found_well(page: str, tmp_path: Path, name: str) -> None:
    """The real Envoy accepts each of these."""
    old, new = envoyholes.SOUND[name]
    assert old in page
    file = tmp_path / "envoy.yaml"
    file.write_text(page.replace(old, new), encoding="utf-8")

    assert {Level.OK} == {one.level for one in examine_envoy(file)}


@pytest.mark.parametrize("name", envoyholes.HOLES)
def test_a_hole_that_envoy_accepts_is_named(page: str, tmp_path: Path, name: str) -> None:
    """Once, with what closes it, and no other one."""
    (old, new), level, says = envoyholes.HOLES[name]
    assert old in page
    file = tmp_path / "envoy.yaml"
    file.write_text(page.replace(old, new), encoding="utf-8")

    (found,) = (one for one in examine_envoy(file) if one.level is not Level.OK)

    assert level is found.level
    assert says in found.found
    assert found.remedy


@pytest.mark.parametrize("name", HOLES)
def test_a_hole_is_named(page: str, tmp_path: Path, name: str) -> None:
    """With what closes it."""
    old, new, level, says = HOLES[name]
    assert old in page
    text = page.replace(old, new)
    if name == "a path that changes":
        text = text.replace("{server: git}", "{table: api}")
    file = tmp_path / "envoy.yaml"
    file.write_text(text, encoding="utf-8")

    found = [one for one in examine_envoy(file) if says in one.found]

    assert [level] * len(found) == [one.level for one in found]
    assert found
    assert all(one.remedy for one in found)


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    """It is named."""
    (found,) = examine_envoy(tmp_path / "nowhere.yaml")

    assert "nowhere.yaml" in found.found
    assert PROBLEM is found.level


@pytest.mark.parametrize(
    ("caller", "level", "says"),
    [
        ("envoy", Level.OK, "says that the door sees no results"),
        ("gateway", WARNING, "does not say that the door sees no results"),
        ("other", WARNING, "there is no caller `other`"),
        ("", WARNING, "cannot read `nowhere.yaml`"),
    ],
)
def test_the_callers_entry_says_what_the_door_sees(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: str, level: Level, says: str
) -> None:
    """In the file of callers, if it is here. For another door the option is a mistake."""
    monkeypatch.chdir(tmp_path)
    Path("envoy.yaml").write_text(page, encoding="utf-8")
    entry = "token_sha256: '{}', roles: [pep]"
    text = f"envoy: {{{entry.format('a' * 64)}, sees_results: false}}\ngateway: {{{entry.format('b' * 64)}}}\n"
    Path("callers.yaml").write_text(text, encoding="ascii")
    Path("callers.yaml").chmod(0o600)
    words = ["--callers-file", "callers.yaml" if caller else "nowhere.yaml", *(["--caller", caller] if caller else [])]

    done = CliRunner().invoke(root, ["doctor", "--json", "--door", "envoy", "envoy.yaml", *words])
    other = CliRunner().invoke(root, ["doctor", "--door", "agentgateway", "envoy.yaml", "--caller", "envoy"])

    found = json.loads(done.stdout)["findings"][-1]
    assert (0, "callers", level.value) == (done.exit_code, found["check"], found["level"])
    assert says in found["found"]
    assert 2 == other.exit_code


def test_the_command_tells(page: str, tmp_path: Path) -> None:
    """Exit code 0 when nothing must be fixed, and 1 when something must; a file needs its door."""
    sound, holed = tmp_path / "sound.yaml", tmp_path / "holed.yaml"
    sound.write_text(page, encoding="utf-8")
    holed.write_text(page.replace("allow: false", "allow: true"), encoding="utf-8")

    well = CliRunner().invoke(root, ["doctor", "--json", "--door", "envoy", str(sound)])
    bad = CliRunner().invoke(root, ["doctor", "--json", "--door", "envoy", str(holed)])
    wrong = [CliRunner().invoke(root, ["doctor", *words]) for words in ([str(sound)], ["--door", "envoy"])]

    assert (0, True) == (well.exit_code, json.loads(well.stdout)["sound"])
    assert (1, False) == (bad.exit_code, json.loads(bad.stdout)["sound"])
    assert [2, 2] == [one.exit_code for one in wrong]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]\n",
        "a: &a {b: *a}\n",
        "a0: &a0 [x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
    ],
    ids=["a circle", "a circle of mappings", "billions"],
)
def test_aliases_without_an_end_are_a_problem(tmp_path: Path, text: str) -> None:
    """A few lines can stand for more values than can be looked at."""
    path = tmp_path / "envoy.yaml"
    path.write_text(text, encoding="utf-8")

    (found,) = examine_envoy(path)

    assert (PROBLEM, True) == (found.level, "holds more than 1000000 values" in found.found)
