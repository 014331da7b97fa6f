"""Where the names of targets come from, as a session sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pdp.errors import BundleError
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Session, Targets
from pdp.policy.bundle import Bundle
from pdp.policy.loading import load_bundle
from pdp.policy.provenance import MOST_TARGETS, Target
from pdp.testing.bundles import SCHEMA, bundle_files, compile_here, tool, with_terms
from pdp.testing.stores.samples import make_session

PROPERTIES = {"to": {"type": "array"}, "id": {"type": "integer"}, "body": {}}
OVERLAY = "tools: {send: {risk: mutating, targets: [to, id], text: [body]}, file: {risk: mutating, targets: []}}"
DIRECTORY = """
users:
  ada: {attributes: {contacts: [Max@x.com], boss: {type: User, id: lead@x.com}}}
  lead@x.com: {}
agents: {coder: {ceiling: [mail/*]}}
"""


def files(known: str = "[contacts, boss]", directory: str = DIRECTORY) -> dict[str, bytes]:
    """Return the files of a bundle whose users know what some of their attributes hold."""
    users = "team?: String, level?: Long, contacts?: Set<String>, boss?: User, odd?: { x: Long }"
    return bundle_files(
        policies={"mail": '@id("mail/all") permit (principal, action, resource);'},
        tools={"mail": [tool("send", PROPERTIES), tool("file", PROPERTIES), tool("draft", PROPERTIES)]},
        overlays={"mail": OVERLAY},
        directory=directory,
        manifest=f"known: {known}",
        schema=with_terms("targets?: Set<String>", SCHEMA.replace("team?: String, level?: Long", users)),
    )


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Return the bundle."""
    return load_bundle(files(), DEFAULT_LIMITS, compile_here)


def session(**more: Any) -> Session:
    """Return a session that names `zoe@x.com` in its purpose and `kim@x.com` in its terms."""
    told = {"user": "ada", "purpose": "write to zoe@x.com", "terms_json": '{"targets":["kim@x.com"]}', **more}
    return replace(make_session("own"), **told)


def seen(bundle: Bundle, arguments: dict[str, Any], *chain: Session, name: str = "send") -> tuple[Targets, ...]:
    """Return what each session of a chain sees of a call."""
    return bundle.provenances.of(chain or (session(),), bundle.catalogue.tools[f"mail/{name}"], arguments)


@pytest.mark.parametrize(
    ("arguments", "provenance", "links"),
    [
        ({"to": ["zoe@x.com", "KIM@x.com"]}, ("named",), ()),
        ({"to": ["max@x.com"]}, ("known",), ()),
        ({"to": ["lead@x.com"]}, ("known",), ()),
        ({"to": ["ada@x.com"]}, ("unseen",), ()),
        ({"to": ["zoe@x.com", "max@x.com", "eve@x.com"]}, ("known", "named", "unseen"), ()),
        ({"to": [True]}, ("unseen",), ()),
        ({"to": [1.5]}, ("unseen",), ()),
        ({"to": [{}]}, ("unseen",), ()),
        ({"id": 7}, ("unseen",), ()),
        ({}, ("none",), ()),
        ({"body": "see max@x.com and https://evil.com"}, ("none",), ("known", "unseen")),
        ({"body": {"deep": ["https://evil.com"]}}, ("none",), ("unseen",)),
        ({"body": {"https://evil.com": 1}}, ("none",), ("unseen",)),
        ({"body": 7}, ("none",), ()),
    ],
)
def test_a_name_comes_from_somewhere(
    bundle: Bundle, arguments: dict[str, Any], provenance: tuple[str, ...], links: tuple[str, ...]
) -> None:
    """Terms, purpose and directory; other values than texts and integers equal nothing."""
    assert (Targets(provenance, links),) == seen(bundle, arguments)


def test_a_tool_that_says_nothing_is_not_one_without_targets(bundle: Bundle) -> None:
    """What nobody looked at could go anywhere."""
    assert (Targets(("undeclared",), ("undeclared",)),) == seen(bundle, {"to": ["zoe@x.com"]}, name="draft")
    assert (Targets(("none",), ()),) == seen(bundle, {"to": ["eve@x.com"]}, name="file")


def test_each_session_of_a_chain_sees_its_own(bundle: Bundle) -> None:
    """A delegated session names what the one above it names, an approved one what its own approver saw."""
    root = session(id="ses_root", approved_by="lead")
    above = session(id="ses_a", parent_id="ses_root", approved_by="lead", purpose="write to amy@x.com")
    below = session(id="ses_b", parent_id="ses_a", approved_by="ses_a", purpose="write to eve@x.com")
    other = replace(above, user="lead@x.com")
    calls = [{"to": [f"{name}@x.com"]} for name in ("amy", "eve", "zoe", "max")]

    assert [[("named",), ("named",), ("unseen",)], [("unseen",)] * 3, [("unseen",), ("unseen",), ("named",)]] == [
        [one.provenance for one in seen(bundle, call, below, above, root)] for call in calls[:3]
    ]
    assert [("unseen",), ("known",)] == [one.provenance for one in seen(bundle, calls[3], other, root)]


def test_of_very_many_targets_only_some_are_compared(bundle: Bundle) -> None:
    """The others are unseen, so that a call cannot take long."""
    fine = ["zoe@x.com", "max@x.com", *([f"{n}@y.com" for n in range(MOST_TARGETS - 2)])]

    assert ("known", "named", "unseen") == seen(bundle, {"to": fine})[0].provenance
    assert ("named", "unseen") == seen(
        bundle,
        {"to": [*fine[2:], "kim@x.com", "zoe@x.com", "max@x.com"]},
        session(terms_json='{"targets":["0@y.com"]}'),
    )[0].provenance


def test_each_target_has_its_path(bundle: Bundle) -> None:
    """An explanation names the path of each target and link, and no value."""
    arguments = {"to": ["zoe@x.com", "eve@x.com"], "body": "https://evil.com https://evil.org"}
    found = bundle.provenances.each((session(),), bundle.catalogue.tools["mail/send"], arguments)

    assert (Target("to[0]", "named"), Target("to[1]", "unseen"), Target("body", "unseen")) == found


def test_another_directory_knows_others(bundle: Bundle) -> None:
    """A bundle with another directory forgets what users knew."""
    other = bundle.with_directory(replace(bundle.directory, entities={}))

    assert ("unseen",) == seen(other, {"to": ["max@x.com"]})[0].provenance
    assert ("known",) == seen(bundle, {"to": ["max@x.com"]})[0].provenance


@pytest.mark.parametrize(
    ("known", "directory", "problem"),
    [
        ("[contact]", DIRECTORY, "bundle.yaml:1: unknown attribute of users: `contact`; did you mean `contacts`?"),
        ("contacts", DIRECTORY, "bundle.yaml:1: `known` must be a list of attributes of users"),
        ("[1]", DIRECTORY, "bundle.yaml:1: `known` must be a list of attributes of users"),
        (
            "[odd]",
            DIRECTORY.replace("contacts:", "odd: {x: 1}, contacts:"),
            "`odd` of user `ada` must hold texts or entities",
        ),
        (
            "[level]",
            DIRECTORY.replace("contacts:", "level: 1, contacts:"),
            "`level` of user `ada` must hold texts or entities",
        ),
    ],
)
def test_a_bundle_names_attributes_that_users_have(known: str, directory: str, problem: str) -> None:
    """The message names the nearest attribute, or the user whose attribute holds something else."""
    with pytest.raises(BundleError) as refusal:
        load_bundle(files(known, directory), DEFAULT_LIMITS, compile_here)

    assert problem in str(refusal.value)
