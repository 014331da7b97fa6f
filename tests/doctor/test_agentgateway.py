"""`pdp doctor --door agentgateway`: the page's configuration has no hole, and each hole that is made in it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.doctor import Level
from pdp.doctor.agentgatewayholes import examine_agentgateway
from pdp.doctor.agentgatewayphases import phase_of
from tests.machinery.pages import blocks

PROBLEM, WARNING = Level.PROBLEM, Level.WARNING
# The beginnings of lines: of a processor, of its methods, and of a target.
PROCESSOR, METHOD, TARGET = (f"\n{' ' * width}" for width in (18, 22, 20))
METHODS = f'methods:{METHOD}"*": full{METHOD}completion/complete: response'
EXCHANGE = 'pdp_exchange: default(mcpGuardrails.pdp_exchange, "")'
SHOWN = "requestHeaders:"


def of(*pairs: str) -> str:
    """Return `methods` with these lines."""
    return f"methods: {{{', '.join(pairs)}}}"


ASKED = ("prompts/get: full", "resources/read: full", "completion/complete: response")

# What is replaced by what, and what is found then.
HOLES: dict[str, tuple[str, str, Level, str]] = {
    "a door that may be away": ("failClosed", "failOpen", PROBLEM, "`failureMode`"),
    "no methods": (METHODS, "x: {}", PROBLEM, "`tools/call` is not asked about"),
    "calls that are not asked about": (
        METHODS,
        of("tools/call: response", '"*": full'),
        PROBLEM,
        "`tools/call` is not asked about",
    ),
    "results that are not shown": (METHODS, of("tools/*: request", '"*": full'), PROBLEM, "what must be redacted"),
    "content that is not asked about": (METHODS, of("tools/*: full", *ASKED[1:]), PROBLEM, "`prompts/get`"),
    "lists that are not shown": (METHODS, of("tools/list: request", '"*": full'), PROBLEM, "not filtered"),
    "completions that are not shown": (
        METHODS,
        of("completion/*: off", '"*": full'),
        PROBLEM,
        "`completion/complete` may",
    ),
    "other methods": (
        METHODS,
        of("tools/*: full", "resources/*: full", *ASKED),
        WARNING,
        "does not name goes on unasked",
    ),
    "a pattern that fits nothing": (METHODS, of("t*/call: full", '"*": full'), PROBLEM, "fits no method"),
    "no name of a request": (EXCHANGE, "x: y", WARNING, "does not name a request again"),
    "another name": (EXCHANGE, "pdp_exchange: request.path", PROBLEM, "every result is withheld"),
    "a handle that is not shown": (SHOWN, f"{SHOWN}{METHOD}allowed: [accept]", PROBLEM, "does not see the handle"),
    "a handle that is taken away": ("[authorization,", "[x-pdp-session,", PROBLEM, "does not see the handle"),
    "credentials that are shown": ("[authorization,", "[other,", WARNING, "`authorization`"),
    "no timeout": ("requestTimeout", "x", WARNING, "no `requestTimeout`"),
    "a short timeout": ("requestTimeout: 3s", "requestTimeout: 500ms", WARNING, "ends before"),
    "a door far away": ("host: 127.0.0.1:9191", "host: door.example.org:9191", PROBLEM, "without TLS"),
    "a door by reference": ("host: 127.0.0.1:9191", "backend: door", WARNING, "stands elsewhere"),
    "a processor after it": (
        "            backends:",
        f"{PROCESSOR[1:]}- kind: expression{PROCESSOR}  transform: x\n            backends:",
        WARNING,
        "comes after it",
    ),
    "a processor of another kind": ("kind: remote", "kind: expression", PROBLEM, "no processor is the door"),
    "no processor": ("mcpGuardrails:", "x:", PROBLEM, "no `mcpGuardrails`"),
    "a handle for the server": ("remove: [x-pdp-session]", "remove: []", WARNING, "reaches the server"),
    "a merged name": (
        "- name: git",
        f"- name: my_git{TARGET}  stdio: {{cmd: x}}{TARGET}- name: git",
        PROBLEM,
        "cannot be told apart",
    ),
    "no target": ("targets:", "x:", PROBLEM, "no targets"),
    "handles in the log": ("binds:", "logging: {x: 'request.headers[\"X-PDP-Session\"]'}\nbinds:", PROBLEM, "secret"),
    "a cache": ("- policies:", "- policies:\n              extAuthz: {cache: {}}", WARNING, "outlives"),
    "a mirror": (
        "- policies:",
        "- policies:\n              requestMirror: {backend: {host: 'a:1'}, percentage: 1.0}",
        WARNING,
        "also those that are denied",
    ),
    "a call that is sent again": ("- policies:", "- policies:\n              retry: {attempts: 2}", WARNING, "again"),
    "a key twice": ("failureMode:", f"failureMode: failClosed{TARGET}failureMode:", PROBLEM, "appears twice"),
    "no YAML": ("binds:", "binds: [", PROBLEM, "line "),
}


@pytest.fixture
def page(project_root: Path) -> str:
    """Return the configuration of the page."""
    (text,) = blocks(project_root / "pdp" / "doors" / "AGENTGATEWAY.md", "yaml agentgateway")
    return text


def test_the_page_has_no_hole(page: str, tmp_path: Path) -> None:
    """Every part is looked at, and found well."""
    file = tmp_path / "agentgateway.yaml"
    file.write_text(page, encoding="utf-8")

    found = list(examine_agentgateway(file))

    assert {Level.OK} == {one.level for one in found}
    assert ["processor 127.0.0.1:9191", "target git"] == [one.check for one in found]


@pytest.mark.parametrize("name", HOLES)
def test_each_hole_is_named(page: str, tmp_path: Path, name: str) -> None:
    """With what closes it."""
    old, new, level, says = HOLES[name]
    assert old in page
    file = tmp_path / "agentgateway.yaml"
    file.write_text(page.replace(old, new), encoding="utf-8")

    (found,) = [one for one in examine_agentgateway(file) if says in one.found]

    assert level is found.level
    assert found.remedy


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("tools/call", "full"),
        ("tools/list", "request"),
        ("prompts/list", "response"),
        ("resources/templates/list", "off"),
        ("ping", "response"),
    ],
)
def test_the_pattern_that_says_most_counts(method: str, expected: str) -> None:
    """As the gateway decides."""
    methods = {
        "*": "response",
        "*/list": "response",
        "tools/*": "request",
        "tools/call": "full",
        "resources/*": "request",
        "resources/templates/*": "off",
    }

    assert expected == phase_of(method, methods)


def test_the_command_says_what_it_found(page: str, tmp_path: Path) -> None:
    """And exits with 1 for a hole."""
    file = tmp_path / "agentgateway.yaml"
    file.write_text(page.replace("failClosed", "failOpen"), encoding="utf-8")

    done = CliRunner().invoke(root, ["doctor", "--door", "agentgateway", "--json", str(file)])

    assert 1 == done.exit_code
    assert not json.loads(done.stdout)["sound"]
