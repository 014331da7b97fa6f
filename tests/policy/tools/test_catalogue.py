"""The catalogue of tools: real servers, awkward ones, and overlays."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdp.errors import BundleError, InvalidArgumentsError
from pdp.foundation.jsontext import definition_digest, parse_object
from pdp.policy.schema import action_schema
from pdp.policy.tools.catalogue import Catalogue, Tool, annotated_risk, load_catalogue
from pdp.policy.tools.mapping import map_resource
from pdp.policy.tools.overlay import Declared

AUTHOR_SCHEMA = """
entity User; entity Agent; entity Session; entity Server; entity Repository in [Server];
namespace Shop { entity Order; }
type PdpCaller = { id: String };
type PdpTargets = { provenance: Set<String>, links: Set<String> };
action read_only, mutating, destructive;
"""
PERMIT_ALL = "permit (principal, action, resource);"


def catalogue(tools: list[dict[str, Any]], overlay: str = "") -> Catalogue:
    """Load the catalogue of one server, `s`, with an overlay."""
    files = {"tools/s.json": json.dumps(tools).encode()}
    return load_catalogue(files | ({"tools/s.yaml": overlay.encode()} if overlay else {}))


def problems_of(files: dict[str, bytes]) -> list[str]:
    """Return every problem of files that do not load."""
    with pytest.raises(BundleError) as refusal:
        load_catalogue(files, Declared(groups=("critical", "leaves")))
    return [str(problem) for problem in refusal.value.problems]


def tool(name: str = "pay", **properties: Any) -> dict[str, Any]:
    """Return a definition whose parameters are all required."""
    return {"name": name, "inputSchema": {"type": "object", "properties": properties, "required": list(properties)}}


def allowed(found: Tool, schema: cedarpy.Schema, arguments: dict[str, Any]) -> bool:
    """Ask the engine about a call of a tool, under a policy that permits everything and with a strict schema."""
    shown, opaque = found.input.convert(arguments)
    resource_type, resource_id = map_resource(found, arguments)
    request = {
        "principal": {"type": "User", "id": "u"},
        "action": {"type": "Action", "id": found.action},
        "resource": {"type": resource_type, "id": resource_id},
        "context": {
            "agent": {"__entity": {"type": "Agent", "id": "a"}},
            "session": {"__entity": {"type": "Session", "id": "s"}},
            "caller": {"id": "pep"},
            "now": {"__extn": {"fn": "datetime", "arg": "2026-01-01T00:00:00Z"}},
            "opaque": list(opaque),
            "targets": {"provenance": [], "links": []},
            "input": shown,
        },
    }
    result = cedarpy.is_authorized(request, PERMIT_ALL, [], schema=schema)
    return result.decision is cedarpy.Decision.Allow and not result.diagnostics.errors


def values(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Make values that a JSON Schema allows, as far as the schemas of real tools go; knows nothing of our types."""
    if "$ref" in schema:
        return values(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema.get("type")
    if kinds is None:
        branches = schema.get("anyOf") or schema.get("oneOf") or [{"type": "string"}, {"type": "integer"}]
        return st.one_of([values(branch, root) for branch in branches])
    if isinstance(kinds, list):
        return st.one_of([values({**schema, "type": kind}, root) for kind in kinds])
    low, high = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)
    integers = st.integers(min_value=math.ceil(low), max_value=math.floor(high))
    makers: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "array": lambda: st.lists(values(schema.get("items", {}), root), max_size=3),
        "object": lambda: objects(schema, root),
        "string": lambda: st.text(st.characters(codec="utf-8"), max_size=20),
        "integer": lambda: integers,
        "number": lambda: integers | st.decimals(min_value=low, max_value=high, allow_nan=False, allow_infinity=False),
        "boolean": st.booleans,
        "null": st.none,
    }
    return makers[kinds]()


def objects(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Make objects with every required property and any choice of the others."""
    properties = {name: values(one, root) for name, one in schema.get("properties", {}).items()}
    required = set(schema.get("required", ()))
    return st.fixed_dictionaries(
        {name: one for name, one in properties.items() if name in required},
        optional={name: one for name, one in properties.items() if name not in required},
    )


def accepts_what_the_schemas_allow(files: dict[str, bytes]) -> int:
    """Let the engine judge generated calls of every tool; return how many tools there are."""
    tools = load_catalogue(files).tools
    judged = 0
    for file, text in files.items():
        server = file.removeprefix("tools/").removesuffix(".json")
        for definition in _entries(json.loads(text)):
            judge(tools[f"{server}/{definition['name']}"], definition["inputSchema"])
            judged += 1
    assert judged == len(tools)
    return judged


def judge(found: Tool, inputs: dict[str, Any]) -> None:
    """Let the engine judge generated calls of one tool, each in a request that its strict schema checks."""
    schema = cedarpy.Schema.from_str(AUTHOR_SCHEMA + action_schema(found))

    @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(objects(inputs, inputs))
    def judged(arguments: dict[str, Any]) -> None:
        assert allowed(found, schema, arguments)

    judged()


def _entries(answer: Any) -> list[dict[str, Any]]:
    answer = answer.get("result", answer) if isinstance(answer, dict) else answer
    entries: list[dict[str, Any]] = answer["tools"] if isinstance(answer, dict) else answer
    return entries


def real_files(test_data: Path) -> dict[str, bytes]:
    """Return the answers of five real servers as catalogue files."""
    paths = (test_data / "mcp-tools").glob("*.tools.json")
    return {f"tools/{path.name.removesuffix('.tools.json')}.json": path.read_bytes() for path in paths}


def test_real_tools(test_data: Path) -> None:
    """Each of the 146 tools of real servers gets an action that takes what its schema allows."""
    assert accepts_what_the_schemas_allow(real_files(test_data)) == 146


def test_agentdojo_tools(test_data: Path) -> None:
    """The same for the 35 tools of AgentDojo's suites workspace (24) and banking (11)."""
    suites: dict[str, list[dict[str, Any]]] = {}
    with gzip.open(test_data / "agentdojo" / "tools.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            suites.setdefault(f"tools/{entry['suite']}.json", []).append(entry)

    assert accepts_what_the_schemas_allow({name: json.dumps(tools).encode() for name, tools in suites.items()}) == 35


def test_one_schema_holds_all_real_tools(test_data: Path) -> None:
    """All actions together parse with the author's part, and the engine knows each of them by its group."""
    tools = load_catalogue(real_files(test_data)).tools
    text = AUTHOR_SCHEMA + "".join(action_schema(one) for one in tools.values())

    written = str(cedarpy.Schema.from_str(text))

    assert [
        action
        for action, one in tools.items()
        if f'action {json.dumps(action)} in [Action::"{one.risk}"] appliesTo' not in written
    ] == []


AWKWARD_NAMES = ["a/b", "a.b-c", "with space", 'quo"te', "back\\slash", "{brace}", "ünï", "日本語", "action", "x" * 128]


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_awkward_names(name: str) -> None:
    """A tool may be called anything that can be shown, and its parameters anything at all."""
    found = catalogue([tool(name, **{name: {"type": "string"}, 'new\nline "x"': {"type": "boolean"}})]).tools[
        f"s/{name}"
    ]

    schema = cedarpy.Schema.from_str(AUTHOR_SCHEMA + action_schema(found))

    assert (found.server, found.name) == ("s", name)
    assert allowed(found, schema, {name: "x", 'new\nline "x"': True})


def test_further_groups() -> None:
    """The overlay's groups hold for each tool that says nothing about groups; what a tool says replaces them."""
    found = catalogue(
        [tool("first"), tool("second"), tool("third")],
        "risk: mutating\ngroups: [leaves, critical]\ntools: {second: {groups: [critical]}, third: {groups: []}}",
    ).tools

    assert ["mutating", "critical", "leaves"] == list(found["s/first"].action_groups)
    assert ["mutating", "critical"] == list(found["s/second"].action_groups)
    assert ["mutating"] == list(found["s/third"].action_groups)
    assert action_schema(found["s/first"]).startswith(
        'action "s/first" in [Action::"mutating", Action::"critical", Action::"leaves"] appliesTo {'
    )


def test_action_schema() -> None:
    """The declaration of an action, as authors see it."""
    found = catalogue(
        [tool("create_issue", owner={"type": "string"}, repo={"type": "string"}, ratio={"type": "number"})],
        "tools: {create_issue: {risk: mutating, resource: {type: Repository, id: '{owner}/{repo}'}}}",
    )

    assert action_schema(found.tools["s/create_issue"]) == (
        'action "s/create_issue" in [Action::"mutating"] appliesTo {\n'
        "  principal: [User], resource: [Repository], context: {\n"
        "    agent: Agent,\n"
        "    session: Session,\n"
        "    caller: PdpCaller,\n"
        "    now: datetime,\n"
        "    opaque: Set<String>,\n"
        "    targets: PdpTargets,\n"
        '    input: { "owner": String, "repo": String },\n'
        "  }\n"
        "};\n"
    )


@pytest.mark.parametrize("shape", ['{"result": {"tools": [%s]}}', '{"jsonrpc": "2.0", "tools": [%s]}', "[%s]"])
def test_shapes_of_the_answer(shape: str) -> None:
    """The whole message, its result and the bare list are all taken, with digest and texts."""
    definition = {"name": "t", "description": "does", "annotations": {"title": "Tee", "readOnlyHint": True}}

    found = load_catalogue({"tools/s.json": (shape % json.dumps(definition)).encode()})

    assert found.servers == ("s",)
    assert found.tools["s/t"] == Tool(
        action="s/t",
        server="s",
        name="t",
        definition_digest=definition_digest(definition),
        approval_digest=definition_digest(definition),
        risk="destructive",
        digest_required=False,
        input=found.tools["s/t"].input,
        named=False,
        title="Tee",
        description="does",
    )


@pytest.mark.parametrize(
    ("annotations", "claimed"),
    [
        (None, "destructive"),
        ({}, "destructive"),
        ("readOnlyHint", "destructive"),
        ({"readOnlyHint": True}, "read_only"),
        ({"readOnlyHint": True, "destructiveHint": True}, "read_only"),
        ({"readOnlyHint": "true"}, "destructive"),
        ({"readOnlyHint": 1}, "destructive"),
        ({"readOnlyHint": False}, "destructive"),
        ({"destructiveHint": False}, "mutating"),
        ({"destructiveHint": True}, "destructive"),
        ({"destructiveHint": 0}, "destructive"),
    ],
)
def test_a_tool_that_no_overlay_names_is_destructive(annotations: object, claimed: str) -> None:
    """What a server says of its own tool is a claim for the import to propose; it puts the tool into no group."""
    definition = {"name": "t", "annotations": annotations}
    found = catalogue([definition], "tools: {}").tools["s/t"]

    assert ("destructive", False) == (found.risk, found.named)
    assert claimed == annotated_risk(definition)


def test_overlay() -> None:
    """The overlay sets defaults for the server and everything else tool by tool."""
    found = catalogue(
        [
            tool("a", owner={"type": "string"}, amount={"type": "number"}, note={"type": "string"}),
            {"name": "b", "annotations": {"readOnlyHint": True}},
        ],
        """
digest: required
risk: mutating
tools:
  a:
    risk: destructive
    digest: optional
    resource: {type: "Shop::Order", id: "{owner}", canonical: {owner: lower}, log: digest}
    log: [owner]
    parameters: {amount: {type: decimal}, note: {opaque: true}}
""",
    ).tools
    first, second = found["s/a"], found["s/b"]
    arguments = parse_object(b'{"owner": "Me", "amount": 7, "note": "x"}')

    assert (first.risk, first.digest_required, second.risk, second.digest_required) == (
        "destructive",
        False,
        "mutating",
        True,
    )
    assert (first.resource_type, first.log_resource) == ("Shop::Order", False)
    assert (second.resource_type, second.log_resource) == ("Server", True)
    assert (first.log, second.log) == (("owner",), ())
    assert map_resource(first, arguments) == ("Shop::Order", "me")
    assert first.input.convert(arguments) == (
        {"owner": "Me", "amount": {"__extn": {"fn": "decimal", "arg": "7.0"}}},
        ("note",),
    )
    assert allowed(first, cedarpy.Schema.from_str(AUTHOR_SCHEMA + action_schema(first)), arguments)


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("", ((), ())),
        ("tools: {a: {adds_labels: [y, x, y]}}", (("x", "y"), ())),
        ("adds_labels: [x]", (("x",), ("x",))),
        ("adds_labels: [x]\ntools: {a: {adds_labels: []}, b: {adds_labels: [y]}}", ((), ("y",))),
    ],
)
def test_added_labels(overlay: str, expected: tuple[tuple[str, ...], ...]) -> None:
    """Sorted, each once; what a tool says replaces what its server says."""
    files = {"tools/s.json": json.dumps([tool("a"), tool("b")]).encode(), "tools/s.yaml": overlay.encode()}
    found = load_catalogue(files, Declared(labels=("x", "y"))).tools

    assert expected == (found["s/a"].adds_labels, found["s/b"].adds_labels)


@pytest.mark.parametrize(
    ("overlay", "problem"),
    [
        ("tools: {a: {adds_labels: [untrused]}}", "unknown label: `untrused`; did you mean `untrusted`?"),
        ("adds_labels: [nothing]", "unknown label: `nothing`"),
        ("tools:\n  a:\n    adds_labels: untrusted", "must be a list of labels"),
        ("tools: {a: {adds_labels: [1]}}", "must be a list of labels"),
        ("tools: {a: {add_labels: [untrusted]}}", "did you mean `adds_labels`?"),
    ],
)
def test_a_label_that_is_not_declared_is_refused(overlay: str, problem: str) -> None:
    """With file and line."""
    files = {"tools/s.json": json.dumps([tool("a")]).encode(), "tools/s.yaml": overlay.encode()}

    with pytest.raises(BundleError) as caught:
        load_catalogue(files, Declared(labels=("untrusted",)))
    (found,) = caught.value.problems
    assert problem in found.message
    assert (found.file, found.line) == ("tools/s.yaml", overlay.count("\n") + 1)


OUTPUT = {
    "type": "object",
    "properties": {"files": {"type": "array", "items": {"properties": {"id_": {}, "name": {}}}}},
}


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("", (False, ())),
        ("tools: {a: {results: trusted}}", (True, ())),
        ("tools: {a: {results: untrusted, issues: [id_, id_]}}", (False, ("id_",))),
        ('tools: {a: {issues: ["files[].id_", "[].name"]}}', (False, ("files[].id_", "[].name"))),
    ],
)
def test_results(overlay: str, expected: tuple[bool, tuple[str, ...]]) -> None:
    """Trusted only where the overlay says so of this very tool; paths to fields that the results can have."""
    files = {"tools/s.json": json.dumps([tool("a") | {"outputSchema": OUTPUT}]).encode()}
    found = load_catalogue(files | {"tools/s.yaml": overlay.encode()}).tools["s/a"]

    assert expected == (found.trusted, found.issues)


@pytest.mark.parametrize(
    ("overlay", "problem"),
    [
        ("results: trusted", "unknown key: `results`"),
        ("tools: {a: {results: trustd}}", "unknown results: `trustd`; did you mean `trusted`? (one of `trusted`, "),
        ("tools: {a: {results: true}}", "unknown results: `True`"),
        ("tools: {a: {result: trusted}}", "did you mean `results`?"),
        ("tools: {a: {issues: id_}}", "`a`: `issues` must be a list of paths such as `id` or `[].id`"),
        ("tools: {a: {issues: [7]}}", "`a`: `issues` must be a list of paths"),
        ("tools:\n  a:\n    issues: [id]", "unknown field of the results of `a`: `id`; did you mean `id_`?"),
        ('tools: {a: {issues: ["..id_"]}}', "`a`: `issues`: not a path such as"),
        ('tools: {a: {issues: ["[]"]}}', "`a`: `issues`: `[]` names no field"),
        (f"tools: {{a: {{issues: {['id_'] * 17}}}}}", "`a`: `issues` holds more than 16 paths"),
    ],
)
def test_wrong_results_are_refused(overlay: str, problem: str) -> None:
    """With file and line."""
    files = {"tools/s.json": json.dumps([tool("a") | {"outputSchema": OUTPUT}]).encode()}

    with pytest.raises(BundleError) as caught:
        load_catalogue(files | {"tools/s.yaml": overlay.encode()})
    (found,) = caught.value.problems
    assert problem in found.message
    assert (found.file, found.line) == ("tools/s.yaml", overlay.count("\n") + 1)


@pytest.mark.parametrize("declared", [{"type": "number"}, {"type": "integer"}, {"type": ["number", "null"]}], ids=str)
def test_decimal(declared: dict[str, Any]) -> None:
    """Every parameter that is declared a number can be `decimal`; what does not fit is then refused."""
    found = catalogue([tool(amount=declared)], "tools: {pay: {parameters: {amount: {type: decimal}}}}").tools["s/pay"]

    assert "decimal" in found.input.cedar()
    for written in (b'{"amount": 500.00001}', b'{"amount": "500"}'):
        with pytest.raises(InvalidArgumentsError):
            found.input.convert(parse_object(written))


PAYMENTS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "iban": {"type": "string"},
            "cents": {"type": "integer"},
            "note": {"type": ["string", "null"]},
            "extra": {"type": "object"},
            "count": {"type": "integer"},
        },
        "required": ["iban"],
    },
}


PAY = tool(
    amount={"type": "number"},
    owner={"type": "string"},
    repo={"type": "string"},
    maybe={"type": ["string", "null"]},
    list={"type": "array", "items": {"type": "number"}},
    payments=PAYMENTS,
)
BAD_OVERLAYS = [
    ("connection: github", "1: `connection` must be a mapping"),
    ("connection: {scopes: [a]}", "1: `kind` must be 1 to 64 of a-z, 0-9 and `._-`, such as `github`"),
    ("connection: {kind: Git Hub}", "1: `kind` must be 1 to 64 of a-z"),
    ("connection: {kind: github, scope: [a]}", "1: unknown key: `scope`; did you mean `scopes`?"),
    ("tools:\n  pay:\n    connection: {kind: github, scopes: a}", "3: `scopes` must be a list of scopes"),
    ("connection: {kind: github, scopes: ['a b']}", "1: `scopes` must be a list of scopes, each of 1 to 128"),
    (f"connection: {{kind: github, scopes: {[f's{n}' for n in range(33)]}}}", "1: `scopes` holds more than 32"),
    ("rissk: mutating", "1: unknown key: `rissk`; did you mean `risk`?"),
    ("risk: mutatin", "1: unknown risk: `mutatin`; did you mean `mutating`? (one of `read_only`, "),
    ("digest: yes", "1: unknown digest: `True` (one of `required`, `optional`)"),
    ("groups: critical", "1: `groups` must be a list of groups that `bundle.yaml` declares"),
    ("groups: [7]", "1: `groups` must be a list of groups that `bundle.yaml` declares"),
    ("groups: [critcal]", "1: unknown group: `critcal`; did you mean `critical`?"),
    ("groups: [mutating]", "1: `mutating` is a risk group: write `risk: mutating`"),
    (
        "tools:\n  pay:\n    groups: [critical, other]",
        "3: unknown group: `other`; declare it in `bundle.yaml`: `groups: {other: {meaning: …}}`",
    ),
    ("tools: [pay]", "1: `tools` must be a mapping"),
    (
        "tools: {pay: {parameters: {list: {members: [x]}}}}",
        "1: `pay`: `list` is not declared as a list of objects",
    ),
    ("tools: {pay: {parameters: {payments: {members: x}}}}", "1: `pay`: `members` must be a list of names"),
    (
        "tools: {pay: {parameters: {payments: {members: [ibam]}}}}",
        "1: unknown member of `payments`: `ibam`; did you mean `iban`?",
    ),
    (
        "tools: {pay: {parameters: {payments: {members: [count]}}}}",
        "1: `pay`: `count` must be a text, integer or boolean, and not be named `count`",
    ),
    ("tools: {pay: {open: 1}}", "1: `pay`: `open` must be `true` or `false`"),
    ("tools: {pay: {open: true}}", "1: `pay`: its schema takes only the parameters that it declares"),
    ("tools:\n  pays: {}", "2: unknown tool: `pays`; did you mean `pay`?"),
    ("tools:\n  pay:\n    rsk: mutating", "3: unknown key: `rsk`; did you mean `risk`?"),
    ("tools:\n  pay: {}\n  pay: {}", "3: key `pay` appears twice"),
    ("tools: &a\n  pay: {}\nmore: *a", "3: aliases are not allowed"),
    ("risk: !!python/name:os.system x", "1: not a plain value"),
    ("- a", "1: must be a mapping"),
    (
        "tools:\n  pay:\n    parameters:\n      amont: {type: decimal}",
        "4: unknown parameter of `pay`: `amont`; did you mean `amount`?",
    ),
    (
        "tools:\n  pay:\n    parameters:\n      owner: {type: decimal}",
        "4: `pay`: `owner` is not declared as a number; only a number can be `decimal`",
    ),
    (
        "tools: {pay: {parameters: {list: {type: decimal}}}}",
        "1: `pay`: `list` is not declared as a number; only a number can be `decimal`",
    ),
    *(
        (
            f"tools: {{pay: {{parameters: {{amount: {said}}}}}}}",
            "1: `pay`: `amount` must be `{type: decimal}`, `{opaque: true}` or `{members: […]}`",
        )
        for said in ("{type: long}", "{opaque: false}", "{opaque: 1}", "{opaque: true, type: decimal}", "decimal", "{}")
    ),
]
BAD_RESOURCES = [
    ("{id: '{owner}'}", "`pay`: `type` must name an entity type of the schema"),
    ("{type: 'a b', id: '{owner}'}", "`pay`: `type` must name an entity type of the schema"),
    ("{type: User, id: '{owner}'}", "`pay`: no call can be mapped to a `User`; only the PDP makes these"),
    ("{type: Server, id: '{owner}'}", "`pay`: no call can be mapped to a `Server`; only the PDP makes these"),
    ("{type: R}", "`pay`: `id` must be a template such as `{owner}/{repo}`"),
    ("{type: R, id: 'x'}", "`pay`: `x`: names no parameter; write `{parameter}`"),
    ("{type: R, id: '{owner}{repo}'}", "`pay`: `{owner}{repo}`: two parameters need text between them"),
    ("{type: R, id: '{ownr}'}", "unknown parameter of `pay`: `ownr`; did you mean `owner`?"),
    ("{type: R, id: '{amount}'}", "`pay`: `amount` must be a required string to name a resource"),
    ("{type: R, id: '{maybe}'}", "`pay`: `maybe` must be a required string to name a resource"),
    ("{type: R, id: '{owner}', canonical: {repo: lower}}", "unknown placeholder: `repo`"),
    ("{type: R, id: '{owner}', canonical: {owner: lowr}}", "unknown owner: `lowr`; did you mean `lower`?"),
    (
        "{type: R, id: '{owner}/{repo}', canonical: {repo: path}}",
        "`pay`: the text of a template with a path must not hold `/`",
    ),
    (
        "{type: R, id: '{owner}/{repo}', canonical: {repo: absolute-path}}",
        "`pay`: the text of a template with a path must not hold `/`",
    ),
    ("{type: R, id: '{owner}', log: none}", "unknown log: `none` (one of `plain`, `digest`)"),
    ("{type: R, id: '{owner}', kind: x}", "unknown key: `kind`"),
]


BAD_LOGS = [
    ("owner", "`pay`: `log` must be a list of parameters whose values may be recorded"),
    ("[7]", "`pay`: `log` must be a list of parameters whose values may be recorded"),
    ("[ownr]", "unknown parameter of `pay`: `ownr`; did you mean `owner`?"),
]


@pytest.mark.parametrize(
    ("overlay", "problem"),
    BAD_OVERLAYS
    + [(f"tools:\n  pay:\n    resource: {said}", f"3: {problem}") for said, problem in BAD_RESOURCES]
    + [(f"tools:\n  pay:\n    log: {said}", f"3: {problem}") for said, problem in BAD_LOGS],
)
def test_bad_overlays(overlay: str, problem: str) -> None:
    """Each mistake in an overlay is named with file and line, and with the nearest name that would be right."""
    found = problems_of({"tools/s.json": json.dumps([PAY]).encode(), "tools/s.yaml": overlay.encode()})

    assert any(one.startswith(f"tools/s.yaml:{problem}") for one in found), found


def test_a_resource_needs_what_the_policies_see() -> None:
    """A parameter that the overlay makes opaque cannot name a resource."""
    overlay = "tools: {pay: {parameters: {owner: {opaque: true}}, resource: {type: R, id: '{owner}'}}}"

    assert problems_of({"tools/s.json": json.dumps([PAY]).encode(), "tools/s.yaml": overlay.encode()}) == [
        "tools/s.yaml:1: `pay`: `owner` must be a required string to name a resource"
    ]


BAD_CATALOGUES = [
    ("tools/s.json", "{", "tools/s.json:1: not JSON (line 1, column 2)"),
    ("tools/s.json", '[\n  {"name": a}]', "tools/s.json:2: not JSON (line 2, column 12)"),
    (
        "tools/s.json",
        "\ufeff[]",
        "tools/s.json:1: not JSON: it begins with a byte order mark; save it without one (line 1, column 1)",
    ),
    ("tools/s.json", '{"tools": {}}', "tools/s.json: not a `tools/list` answer: a list of tools is expected"),
    ("tools/s.json", "[1]", "tools/s.json: not a `tools/list` answer: a list of tools is expected"),
    (
        "tools/s.json",
        '{"tools": [], "nextCursor": "x"}',
        "tools/s.json: one page of several: `nextCursor` says that there are more tools",
    ),
    ("tools/s.json", '[{"name": "a"}, {"name": "a"}]', "tools/s.json: tool `a` appears twice"),
    ("tools/s.json", '[{"name": ""}]', "tools/s.json: a tool without a name"),
    ("tools/s.json", '[{"title": "a"}]', "tools/s.json: a tool without a name"),
    (
        "tools/s.json",
        '[{"name": "a\\nb"}]',
        "tools/s.json: a tool's name holds a control or format character: `'a\\nb'`",
    ),
    (
        "tools/s.json",
        '[{"name": "a\\u202eb"}]',
        "tools/s.json: a tool's name holds a control or format character: `'a\\u202eb'`",
    ),
    (
        "tools/s.json",
        json.dumps([{"name": "x" * 129}]),
        f"tools/s.json: a tool's name is longer than 128 characters: `'{'x' * 32}'…`",
    ),
    ("tools/s.json", '[{"name": "a", "x": 1e999}]', "tools/s.json: tool `a`: a number is beyond the range of doubles"),
    ("tools/pdp.json", "[]", "tools/pdp.json: the server name `pdp` is reserved"),
    ("tools/a b.json", "[]", "tools/a b.json: a server's name must be 1 to 64 characters of `A-Z a-z 0-9 . _ -`"),
    ("tools/a/b.json", "[]", "tools/a/b.json: a server's name must be 1 to 64 characters of `A-Z a-z 0-9 . _ -`"),
    ("tools/s.yaml", "", "tools/s.yaml: an overlay without a catalogue: `tools/s.json` is missing"),
    ("tools/s.yml", "", "tools/s.yml: an overlay must end in `.yaml`, or it is not read"),
]


@pytest.mark.parametrize(("file", "text", "problem"), BAD_CATALOGUES)
def test_bad_catalogues(file: str, text: str, problem: str) -> None:
    """Each mistake in a catalogue file is named."""
    assert problems_of({file: text.encode()}) == [problem]


def test_all_problems_are_reported_together() -> None:
    """One load names the problems of all files."""
    found = problems_of(
        {
            "tools/a.json": b"[]",
            "tools/a.yaml": b"risk: none\ndigest: none\ntools: {x: {}}",
            "tools/b.json": b"{",
            "tools/b.yaml": b"tools: {x: {}}",
            "tools/c.yaml": b"",
        }
    )

    assert [one.split(" ")[0] for one in found] == [
        "tools/c.yaml:",
        "tools/a.yaml:3:",
        "tools/a.yaml:1:",
        "tools/a.yaml:2:",
        "tools/b.json:1:",
    ]


def test_other_files_are_left_alone() -> None:
    """Only what stands below `tools/` is looked at."""
    assert load_catalogue({"bundle.yaml": b":", "schema.json": b"{", "tools/README.md": b"x"}).tools == {}


def test_further_parameters() -> None:
    """What a schema takes beside what it declares is refused, or passes under one label where the overlay says so."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "integer"}}
    tools = [{"name": name, "inputSchema": schema} for name in ("closed", "opened")]

    found = catalogue(tools, "tools: {opened: {open: true}}").tools

    opened = found["s/opened"]
    assert opened.input.convert({"a": "x", "b": 1, "c": 2}) == ({"a": "x"}, ("*",))
    assert opened.input.convert({"a": "x"}) == ({"a": "x"}, ())
    assert {"*"} == opened.input.opaque_labels().keys()
    with pytest.raises(InvalidArgumentsError):
        found["s/closed"].input.convert({"a": "x", "b": 1})
    assert opened.check is not None
    with pytest.raises(InvalidArgumentsError):
        opened.check.require({"b": "no integer"}, 20)


def test_a_list_of_objects() -> None:
    """The overlay shows policies how many objects there are, and chosen members as sets; what is hidden is named."""
    overlay = "tools: {pay: {parameters: {payments: {members: [iban, note]}}}}"
    found = catalogue([tool("pay", payments=PAYMENTS)], overlay).tools["s/pay"]
    schema = cedarpy.Schema.from_str(AUTHOR_SCHEMA + action_schema(found))
    one = {"iban": "DE1", "note": "rent"}

    assert found.input.cedar() == ('{ "payments": { "count": Long, "iban": Set<String>, "note": Set<String> } }')
    assert found.input.convert({"payments": [one, {"iban": "DE2", "note": "x"}]}) == (
        {"payments": {"count": 2, "iban": ["DE1", "DE2"], "note": ["rent", "x"]}},
        (),
    )
    assert found.input.convert({"payments": [one, {"iban": "DE2", "note": None, "cents": 1}]}) == (
        {"payments": {"count": 2, "iban": ["DE1", "DE2"], "note": ["rent"]}},
        ("payments.cents", "payments.note"),
    )
    assert found.input.convert({"payments": []}) == ({"payments": {"count": 0, "iban": [], "note": []}}, ())
    assert {"payments.cents", "payments.count", "payments.extra"} == found.input.opaque_labels().keys()
    assert allowed(found, schema, {"payments": [one]})
    # Nothing of it is shown or named, so no policy could refuse it.
    undeclared = '{"payments": [{"iban": "DE1", "note": "x", "bic": "X"}]}'
    for wrong in ('{"payments": {}}', '{"payments": [7]}', '{"payments": [{"iban": 7}]}', undeclared):
        with pytest.raises(InvalidArgumentsError):
            found.input.convert(parse_object(wrong.encode()))


@pytest.mark.parametrize(
    ("overlay", "shown", "hidden"),
    [
        ("tools: {pay: {risk: mutating}}", {}, ("payments",)),
        ("tools: {pay: {parameters: {payments: {members: []}}}}", {"payments": {"count": 1}}, ("payments.iban",)),
    ],
)
def test_the_number_of_objects_alone(overlay: str, shown: dict[str, Any], hidden: tuple[str, ...]) -> None:
    """Nothing of a list of objects is seen until the overlay says so; without a member that is their number."""
    found = catalogue([tool("pay", payments=PAYMENTS)], overlay).tools["s/pay"]

    assert (shown, hidden) == found.input.convert({"payments": [{"iban": "DE1"}]})


UNUSABLE = [
    ({"type": "string"}, "its `inputSchema` is not the schema of an object"),
    ({"properties": {"__entity": {}}}, "its `inputSchema` names `__entity`, which Cedar reserves"),
    ({"properties": {"a": {"properties": {"__extn": {}}}}}, "its `inputSchema` names `__extn`, which Cedar reserves"),
    (
        {"properties": {"a": {"type": "strnig"}}},
        "its `inputSchema` cannot be used: it is not a JSON schema at `inputSchema.properties.a.type`",
    ),
    (
        {"properties": {"a": {"$ref": "https://example.com/a.json"}}},
        "its `inputSchema` cannot be used: a `$ref` leads elsewhere: only `#` and `#/…` are followed",
    ),
]


@pytest.mark.parametrize(("schema", "reason"), UNUSABLE)
def test_one_bad_tool_costs_one_tool(schema: dict[str, Any], reason: str) -> None:
    """A tool whose schema cannot be used says why, its action is declared all the same, and the others load."""
    found = catalogue([{"name": "bad", "inputSchema": schema}, tool("good", x={"type": "string"})]).tools

    assert (reason, "") == (found["s/bad"].unusable, found["s/good"].unusable)
    assert cedarpy.Schema.from_str(AUTHOR_SCHEMA + action_schema(found["s/bad"]))


def test_patterns_are_bounded_in_all_tools_together() -> None:
    """What a catalogue's patterns may take in memory is bounded: those beyond are left out, and named."""
    patterns = {f"p{number}": {"type": "string", "pattern": f"^{number}$"} for number in range(400)}

    found = catalogue([tool(name, **patterns) for name in "abcd"]).tools

    checks = [found[f"s/{name}"].check for name in "abcd"]
    assert [400, 400, 224, 0] == [check.patterns for check in checks if check]
    assert [0, 0, 176, 400] == [len(check.unchecked) for check in checks if check]


def test_the_parameter_whose_values_are_added_up() -> None:
    """A required integer, or a number that the overlay types; a tool that names none has none."""
    tools = [tool("pay", amount={"type": "number"}), tool("buy", count={"type": "integer"}), tool("look")]
    overlay = "tools: {pay: {sums: amount, parameters: {amount: {type: decimal}}}, buy: {sums: count}}"
    found = catalogue(tools, overlay).tools

    assert ["amount", "count", ""] == [found[f"s/{name}"].sums for name in ("pay", "buy", "look")]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("amont", "unknown parameter of `pay`: `amont`; did you mean `amount`?"),
        ("[amount]", "unknown parameter of `pay`: `['amount']`"),
        ("''", "unknown parameter of `pay`: ``"),
        ("amount", "`pay`: `amount` must be a required integer, or a required number with `type: decimal`"),
        ("title", "`pay`: `title` must be a required integer"),
        ("more", "`pay`: `more` must be a required integer"),
        ("nothing", "`pay`: `nothing` must be a required integer"),
    ],
)
def test_what_cannot_be_added_up_is_refused(said: str, message: str) -> None:
    """A number without a type, a text, and what a call can leave out or have empty."""
    pay = tool(
        amount={"type": "number"},
        title={"type": "string"},
        nothing={"type": ["integer", "null"]},
        more={"type": "integer"},
    )
    pay["inputSchema"]["required"].remove("more")
    overlay = f"tools:\n  pay:\n    sums: {said}"
    (problem,) = problems_of({"tools/s.json": json.dumps([pay]).encode(), "tools/s.yaml": overlay.encode()})

    assert problem.startswith("tools/s.yaml:3: ")
    assert message in problem
