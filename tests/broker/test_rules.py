"""The files of the broker are read strictly, and the page shows files that are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdp.broker.rules import read_rules, rules_of
from pdp.broker.settings import read_settings
from pdp.calltokens.checkouts import is_public_key
from pdp.errors import ConfigurationError
from tests.machinery.pages import blocks

PAGE = "pdp/broker/USING.md"
TEMPLATE = "a: {kind: a, tools: {t: {method: GET, path: /x}}}"


def test_the_page_of_checkouts_shows_rules_that_are_read(project_root: Path, tmp_path: Path) -> None:
    """They name the key of a tool server."""
    (text,) = blocks(project_root / "pdp/broker/CHECKOUT.md", "yaml rules")

    rules = rules_of("rules.yaml", text.encode(), tmp_path)

    assert ("app-db", True) == (rules["reports"].kind, is_public_key(rules["reports"].recipient))


def test_the_page_shows_files_that_are_read(project_root: Path, tmp_path: Path) -> None:
    """Settings, whose files are in their folder, and rules of every kind."""
    for kind in ("settings", "rules"):
        (text,) = blocks(project_root / PAGE, f"yaml {kind}")
        (tmp_path / f"{kind}.yaml").write_text(text)
        (tmp_path / f"{kind}.yaml").chmod(0o600)

    settings = read_settings(tmp_path / "settings.yaml")
    rules = read_rules(settings.rules)

    assert (f"unix:{tmp_path}/calls.sock", tmp_path / "tokens" / "broker.token") == (
        settings.calls,
        settings.pdp.token_file,
    )
    assert {"github", "remote"} == set(rules)
    assert (
        "/repos/o/r/issues?per_page=2"
        == rules["github"].templates["create_issue"].filled({"owner": "o", "repo": "r", "count": 2}).target
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: {kind: a}", "needs `proxy`, `tools` or `checkout`"),
        ("a: {kind: a, checkout: {key: x}}", "must be the public key of the tool server"),
        ("a: {kind: A b, tools: {t: {method: GET, path: /x}}}", "must name the kind"),
        ("a: {kind: a, tool: {}}", "did you mean `tools`"),
        ("a: {kind: a, tools: {t: {method: CONNECT, path: /x}}}", "`CONNECT` is no method"),
        ("a: {kind: a, tools: {t: {method: GET, path: 'https://x/'}}}", "is no path"),
        ("a: {kind: a, tools: {t: {method: GET, path: /x, headers: {authorization: x}}}}", "never passes"),
        ("a: {kind: a, tools: {t: {method: GET, path: /x, headers: {Accept: x}}}}", "not in lower case"),
        ("a: {kind: a, tools: {t: {method: GET, path: /x, query: {a: 1}}}}", "must hold texts"),
        ("a: {kind: a, proxy: {methods: [TRACE], paths: [/x]}}", "must list some of"),
        ("a: {kind: a, proxy: {methods: [GET], paths: [/../x]}}", "must list plain paths"),
        ("a: {kind: a, proxy: {methods: [GET], paths: [/x], response_headers: [set-cookie]}}", "never passes"),
        ("a: {kind: a, proxy: {methods: [GET], paths: [/x], mcp: {connection: c, presenters: [all]}}}", "thumbprints"),
        (f"{TEMPLATE[:-1]}, private: 1}}", "`true` or `false`"),
        (f"{TEMPLATE[:-1]}, answer_seconds: 0}}", "from 1 to 3600"),
        (f"{TEMPLATE[:-1]}, answer_bytes: true}}", "a whole number"),
        ("a: x", "must be a mapping"),
    ],
)
def test_a_mistake_in_the_rules_is_named_with_its_line(text: str, problem: str) -> None:
    """Before anything is served."""
    with pytest.raises(ConfigurationError, match=problem) as refused:
        rules_of("rules.yaml", text.encode(), Path())

    assert str(refused.value).startswith("rules.yaml:1: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("issuer: i\naudience: a\npdp: {address: x}", "must say where to listen"),
        ("issuer: i\naudience: a\ncalls: 'localhost:1'\npdp: {address: x}", "is a port, so it needs `tls`"),
        ("audience: a\ncalls: 'unix:x'\npdp: {address: x}", "`call_tokens.issuer`"),
        ("issuer: i\naudience: 'a b'\ncalls: 'unix:x'\npdp: {address: x}", "how call tokens name this broker"),
        ("issuer: i\naudience: a\ncalls: 'unix:x'\npdp: {}", "the address of the server"),
        ("issuer: i\naudience: a\ncalls: 'unix:x'\npdp: {address: x}\ntls: {key: k}", "must name a file"),
        ("issuer: i\naudience: a\ncalls: 'unix:x'\npdp: {address: x}\ncheckouts: {user: 0}", "must be from 1 to"),
    ],
)
def test_a_mistake_in_the_settings_is_named(tmp_path: Path, text: str, problem: str) -> None:
    """Where it listens, for whom, and whom it asks must be said."""
    file = tmp_path / "broker.yaml"
    file.write_text(text)
    file.chmod(0o600)

    with pytest.raises(ConfigurationError, match=problem):
        read_settings(file)
