"""Compiling a bundle: everything that is wrong is named with file and line."""

from __future__ import annotations

from typing import Any

import cedarpy
import pytest

from pdp.errors import BundleError
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.bundle import Bundle
from pdp.policy.directory import entity
from pdp.policy.entities import SessionEntities
from pdp.policy.loading import load_bundle
from pdp.policy.question import Question
from pdp.testing.bundles import SCHEMA, bundle_files, compile_here, tool

DIRECTORY = """
user_groups: {staff: {}}
users: {alice: {groups: [staff]}}
agents: {worker: {ceiling: ["files/*"]}}
"""
READ = tool("read", {"path": {"type": "string"}, "n": {"type": "integer"}}, ["path"])


def files(policies: str = "", **changes: Any) -> dict[str, bytes]:
    """Return a small bundle with some policies in `files.cedar`."""
    wanted = {"policies": {"files": policies}, "tools": {"files": [READ]}, "directory": DIRECTORY, **changes}
    return bundle_files(**wanted)


def load(contents: dict[str, bytes]) -> Bundle:
    """Load a bundle in this process."""
    return load_bundle(contents, DEFAULT_LIMITS, compile_here)


def test_good_bundle_loads() -> None:
    """Policies, tools and directory stand under one version."""
    bundle = load(files('@id("files/read") permit (principal, action == Action::"files/read", resource);'))

    assert {"files/read", "sessions/all"} == set(bundle.policies)
    assert ("files.cedar", 1, "permit") == (
        bundle.policies["files/read"].file,
        bundle.policies["files/read"].line,
        bundle.policies["files/read"].effect,
    )
    assert ["files/read"] == list(bundle.catalogue.tools)


# (policies, what the problem must say)
POLICY_PROBLEMS = [
    ("permit (principal, action, resource);", "files.cedar:1: a policy needs an `@id`"),
    ('\n@id("Files/X") permit (principal, action, resource);', "files.cedar:2: `@id` must match [a-z0-9._/-]{1,128}"),
    ('@id("other/x") permit (principal, action, resource);', "files.cedar:1: `@id` must start with the name of its"),
    (
        '@id("files/x") permit (principal, action, resource);\n@id("files/x") permit (principal, action, resource);',
        "files.cedar:2: `@id` appears twice: `files/x`; first at files.cedar:1",
    ),
    ('\n\n@id("files/x") permit (principal, action, resource', "files.cedar:3: `(` is never closed"),
    ('@id("files/x") permit (principal == ?principal, action, resource);', "files.cedar:1: templates are not allowed"),
    (
        '@id("files/x")\npermit (principal, action, resource)\nwhen { true &&\ncontext.input.pth == "" };',
        "files.cedar:4: policy `files/x`: attribute `input.pth`",
    ),
    (
        '@id("files/x") permit (principal, action == Action::"files/raed", resource);',
        "files.cedar:1: policy `files/x`: unrecognized action",
    ),
    (
        '@id("files/x") forbid (principal, action == Action::"files/read", resource) when { context.input.n > 5 };',
        "files.cedar:1: policy `files/x`:",
    ),
    (
        '@id("files/x") permit (principal, action, resource) when { ' + "(" * 40 + "true" + ")" * 40 + " };",
        "files.cedar:1:",
    ),
    (
        '\n@id("files/x") permit (principal, action, resource) when { ' + " || ".join(["true"] * 300) + " };",
        "files.cedar:2:",
    ),
]


@pytest.mark.parametrize(("policies", "expected"), POLICY_PROBLEMS)
def test_policy_problems_name_file_and_line(policies: str, expected: str) -> None:
    """An author is led to the line that is wrong."""
    with pytest.raises(BundleError) as caught:
        load(files(policies))

    assert str(caught.value.problems[0]).startswith(expected), caught.value.problems


OTHER_PROBLEMS = [
    ({"schema": SCHEMA.replace("entity Grant;", "")}, "schema.cedarschema"),
    (
        {"schema": SCHEMA + "\nentty X;\nentity Y;"},
        "schema.cedarschema:13: error parsing schema: unexpected token `entty`",
    ),
    # The missing semicolon is noticed at the next word, which the schema holds before, too.
    (
        {"schema": SCHEMA + "entity Doc\nentity X;\nentity Y;"},
        "schema.cedarschema:13: error parsing schema: unexpected",
    ),
    (
        {"schema": SCHEMA + "entity Doc;\nentity X;\nentity Doc;\n"},
        "schema.cedarschema:14: error parsing schema: `Doc`",
    ),
    # This one is noticed only in what is generated.
    ({"schema": SCHEMA + "entity X;\nentity Doc\n\n"}, "schema.cedarschema:13: error parsing schema: unexpected end"),
    ({"schema": SCHEMA.replace("purpose: String, ", "")}, "schema.cedarschema:"),
    ({"schema": SCHEMA.replace("purpose: String", "purpose: Long")}, "schema.cedarschema:"),
    ({"directory": DIRECTORY.replace("staff]", "stuff]")}, "directory.yaml:3: unknown parent: `UserGroup::stuff`"),
    ({"directory": DIRECTORY + "usrs: {}"}, "directory.yaml:5: unknown key: `usrs`; did you mean `users`?"),
    (
        {"directory": DIRECTORY.replace("groups: [staff]", "attributes: {level: high}")},
        "directory.yaml:3: `User::alice` does not fit the schema",
    ),
    (
        {"directory": DIRECTORY.replace("files/*", "*")},
        "directory.yaml:4: ceiling `*`: must have the form `server/tool`",
    ),
    ({"directory": DIRECTORY + "entities:\n- {type: Grant, id: x}"}, "directory.yaml:6: entities of type `Grant` are"),
    ({"manifest": "nme: x"}, "bundle.yaml:1: unknown key: `nme`; did you mean `name`?"),
    (
        {"manifest": "name: x\nsession_seconds: 99999"},
        "bundle.yaml:2: `session_seconds` must be seconds, at most 28800",
    ),
    ({"manifest": "caller_facts: {properties: {id: {type: string}}}"}, "bundle.yaml:1: `caller_facts`: `id` is the"),
    ({"overlays": {"files": "tools:\n  raed: {risk: mutating}"}}, "tools/files.yaml:2: unknown tool: `raed`"),
    (
        {"overlays": {"files": 'tools: {read: {resource: {type: UserGroup, id: "{path}"}}}'}},
        "tools/files.yaml:1:",
    ),
    (
        {
            "overlays": {"files": 'tools: {read: {resource: {type: Doc, id: "{path}"}}}'},
            "schema": SCHEMA + "entity Doc in [Server] = { owner: User };",
        },
        "schema.cedarschema:12: `Doc`: a type to which calls are mapped must be declared `in [Server]`",
    ),
]


@pytest.mark.parametrize(("changes", "expected"), OTHER_PROBLEMS)
def test_other_problems_name_file_and_line(changes: dict[str, Any], expected: str) -> None:
    """What is wrong outside the policies is named as exactly."""
    with pytest.raises(BundleError) as caught:
        load(files(**changes))

    assert str(caught.value.problems[0]).startswith(expected), caught.value.problems


def test_all_problems_are_reported_together() -> None:
    """An author mends everything in one go."""
    contents = files(directory="usrs: {}", manifest="nme: x", overlays={"files": "risk: high"})

    with pytest.raises(BundleError) as caught:
        load(contents)

    assert {"bundle.yaml", "directory.yaml", "tools/files.yaml"} == {p.file for p in caught.value.problems}


def test_version_is_of_content_alone() -> None:
    """The same files in another order have the same version; one changed byte gives another."""
    contents = files('@id("files/read") permit (principal, action, resource);')
    turned = dict(reversed(contents.items()))
    changed = {**contents, "bundle.yaml": contents["bundle.yaml"] + b"#"}

    assert load(contents).version == load(turned).version
    assert load(contents).version != load(changed).version


def test_entities_are_made_by_the_pdp_alone() -> None:
    """An empty bundle of policies denies everything: no slice permits."""
    bundle = load(files(sessions=""))

    assert () == bundle.slice("files/read").policies


MANY = 200
OF_ALL = """
@id("files/all") permit (principal, action, resource);
@id("files/drops") forbid (principal, action in Action::"destructive", resource);
@id("files/both") forbid (principal, action in [Action::"files/t0", Action::"files/drop"], resource);
@id("files/nobody") forbid (principal, action == Action::"pdp/approve_session", resource);
"""


def test_a_slice_is_as_small_as_what_speaks_of_its_action() -> None:
    """However many tools and policies a bundle has, a decision is made with those that can match the action."""
    of_each = "".join(
        f'@id("files/p{n}") permit (principal, action == Action::"files/t{n}", resource);' for n in range(MANY)
    )
    tools = [tool("drop"), *(tool(f"t{n}") for n in range(MANY))]
    overlay = "risk: mutating\ntools: {drop: {risk: destructive}}"
    bundle = load(files(OF_ALL + of_each, tools={"files": tools}, overlays={"files": overlay}))

    found = {
        action: {policy.id for policy in bundle.slice(action).policies}
        for action in ("files/t0", f"files/t{MANY - 1}", "files/drop")
    }

    assert {
        "files/t0": {"files/all", "files/both", "files/p0"},
        f"files/t{MANY - 1}": {"files/all", f"files/p{MANY - 1}"},
        "files/drop": {"files/all", "files/both", "files/drops"},
    } == found


@pytest.mark.parametrize("gone", [("User", "alice"), ("Agent", "worker"), ("Session", "ses_a")], ids=lambda uid: uid[0])
def test_a_question_without_its_entities_is_never_asked(gone: tuple[str, str]) -> None:
    """Cedar would skip a forbid about an entity that is absent; the slice refuses to ask instead."""
    bundle = load(files('@id("files/all") permit (principal, action, resource);'))
    found = {uid: entity(uid, {}, ()).json for uid in (("User", "alice"), ("Agent", "worker"), ("Session", "ses_a"))}
    known = SessionEntities(handle=cedarpy.Entities.from_json_str("[]"), entities=found, weight=0)
    question = Question(user="alice", agent="worker", session_id="ses_a", resource=("Server", "files"), context={})
    asked = bundle.slice("files/read")
    asked.ask(question, asked.beside(known))

    del found[gone]

    with pytest.raises(AssertionError, match="must be among the entities"):
        asked.ask(question, asked.beside(known))
