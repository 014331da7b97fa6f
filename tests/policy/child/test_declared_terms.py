"""Which terms a schema declares, as the engine has parsed it, and which declarations are refused."""

from __future__ import annotations

from typing import Any

import cedarpy
import pytest

from pdp.errors import BundleError
from pdp.limits import DEFAULT_LIMITS, MOST_TERMS
from pdp.policy.child.terms import declared_terms
from pdp.policy.loading import load_bundle
from pdp.policy.terms import slices_in
from pdp.policy.tools.typing import terms_type
from pdp.testing.bundles import SCHEMA, bundle_files, compile_here, with_terms

SESSION = "entity User; entity Session = { terms: SessionTerms };"


def declared(schema: str) -> Any:
    """Return what a schema declares."""
    return declared_terms(schema, cedarpy.Schema.from_str(schema))


def cedar(schema: str) -> str:
    """Return the declared type as Cedar."""
    return terms_type(declared(schema)).cedar()


@pytest.mark.parametrize(
    ("declarations", "expected"),
    [
        ("type SessionTerms = {};", "{  }"),
        ("type SessionTerms = { a: String, b?: Long, };", '{ "a": String, "b"?: Long }'),
        ("type SessionTerms = { a: decimal, b: Bool };", '{ "a": decimal, "b": Bool }'),
        ("type SessionTerms = { a: Set<String>, b: Set<Long> };", '{ "a": Set<String>, "b": Set<Long> }'),
        ("type SessionTerms = { a: { b?: { c: Long } } };", '{ "a": { "b"?: { "c": Long } } }'),
        ('type SessionTerms = { "a b": String, "in": Long, "é": Bool };', '{ "a b": String, "in": Long, "é": Bool }'),
        ("entity Long; type SessionTerms = { a: __cedar::Long };", '{ "a": Long }'),
        ("type M = decimal; type I = { m: M }; type SessionTerms = { a: I };", '{ "a": { "m": decimal } }'),
        ("type A = Set<B>; type B = String; type SessionTerms = { a: A };", '{ "a": Set<String> }'),
        ("type A = { a: Long }; type SessionTerms = A;", '{ "a": Long }'),
        ("// type SessionTerms = { x: Long };\ntype SessionTerms = { a: Long };", '{ "a": Long }'),
        ('type SessionTerms = { @doc("b: Long };") a: Long };', '{ "a": Long }'),
        ('@doc("type SessionTerms = {};") @x entity E enum ["a;"]; type SessionTerms = { a: Long };', '{ "a": Long }'),
        (
            'namespace N { type T = {}; entity E = { terms: T }; action "x;}"; } type SessionTerms = { a: Long };',
            '{ "a": Long }',
        ),
    ],
)
def test_a_declaration_is_read_as_the_engine_parsed_it(declarations: str, expected: str) -> None:
    """However it is written: common types, quotes, comments, annotations, namespaces."""
    assert expected == cedar(f"{declarations} {SESSION}")


@pytest.mark.parametrize(
    "session",
    [
        "entity G; entity Session in [G] = { terms: SessionTerms };",
        "entity G, H; entity A, Session in [G, H] { terms: SessionTerms } tags { terms: Long };",
        "entity Session = { a: Long, terms: SessionTerms } tags Long; entity Other = { terms: Long };",
        "type T = SessionTerms; entity Session = { @doc terms: SessionTerms, };",
    ],
)
def test_the_entity_of_a_session_is_found(session: str) -> None:
    """With parents, tags, other names and annotations."""
    assert '{ "a": Long }' == cedar(f"type SessionTerms = {{ a: Long }}; {session}")


def test_a_schema_may_declare_no_terms() -> None:
    """Neither the type nor the attribute."""
    assert declared(SCHEMA) is None


DEEP = " ".join(f"type {one} = {{ a: {next_one} }};" for one, next_one in zip("ABCDEFG", "BCDEFGH", strict=True))
DEEP += " type H = { a: Long };"
WIDE = " ".join(f"type {one} = {{ a: {two}, b: {two}, c: {two}, d: {two} }};" for one, two in ("AB", "BC", "CD"))
WIDE += " type D = { a: Long };"
NOT_JSON = (
    "has a type that a request cannot give as JSON; possible are `String`, `Long`, `Bool`, `decimal`, `Set<String>`, "
    "`Set<Long>` and records of these"
)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            "entity Session = {\n  terms: Long };",
            "2: `terms` of a session needs its type: declare `type SessionTerms = { … };`",
        ),
        (
            "entity Session = {};\ntype SessionTerms = {};",
            "2: `type SessionTerms` is declared, so `entity Session` must declare `terms: SessionTerms`",
        ),
        (
            "type SessionTerms = {};\nentity Session = {\n\n terms?: SessionTerms };",
            "4: `type SessionTerms` is declared, so `entity Session` must declare `terms: SessionTerms`",
        ),
        (
            "type SessionTerms = {};\nentity Session = {\n terms: { a: Long } };",
            "3: `type SessionTerms` is declared, so `entity Session` must declare `terms: SessionTerms`",
        ),
        (f"\ntype SessionTerms = Set<Long>; {SESSION}", "2: `SessionTerms` must be a record"),
        (f"type SessionTerms = {{\n a: Long,\n b: User }}; {SESSION}", f"3: `SessionTerms`: `b` {NOT_JSON}"),
        (f"type SessionTerms = {{ a: {{\n b: datetime }} }}; {SESSION}", f"2: `SessionTerms`: `a.b` {NOT_JSON}"),
        (f"type SessionTerms = {{ a: duration }}; {SESSION}", f"1: `SessionTerms`: `a` {NOT_JSON}"),
        (f"type SessionTerms = {{ a: ipaddr }}; {SESSION}", f"1: `SessionTerms`: `a` {NOT_JSON}"),
        (f"type SessionTerms = {{ a: Set<Bool> }}; {SESSION}", f"1: `SessionTerms`: `a` {NOT_JSON}"),
        (f"type SessionTerms = {{ a: Set<decimal> }}; {SESSION}", f"1: `SessionTerms`: `a` {NOT_JSON}"),
        (f"type SessionTerms = {{ a: Set<Set<Long>> }}; {SESSION}", f"1: `SessionTerms`: `a` {NOT_JSON}"),
        (f"type SessionTerms = {{ a: Set<{{ b: Long }}> }}; {SESSION}", f"1: `SessionTerms`: `a` {NOT_JSON}"),
        (f"type SessionTerms = {{ a: Long }}; entity Long; {SESSION}", f"1: `SessionTerms`: `a` {NOT_JSON}"),
        (
            f"namespace N {{ type T = Long; }} type SessionTerms = {{ a: N::T }}; {SESSION}",
            f"1: `SessionTerms`: `a` {NOT_JSON}",
        ),
        (f'type SessionTerms = {{ "a\\"b": Long }}; {SESSION}', '1: `SessionTerms`: `a\\"b` is not a name that a term'),
        (
            f"type SessionTerms = {{\n max_calls: decimal }}; {SESSION}",
            "2: `SessionTerms`: `max_calls` must be a `Long`, since the name is reserved",
        ),
        (
            f"type SessionTerms = {{\n\n targets: Set<Long> }}; {SESSION}",
            "3: `SessionTerms`: `targets` must be a `Set<String>`, since the name is reserved",
        ),
        (
            DEEP + f"\ntype SessionTerms = {{ a: A }}; {SESSION}",
            "2: `SessionTerms`: `a.a.a.a.a.a.a.a.a` is deeper than 8 records",
        ),
        (
            WIDE + f"\ntype SessionTerms = {{ a: A }}; {SESSION}",
            f"2: `SessionTerms` has more than {MOST_TERMS} attributes, those of its records included",
        ),
    ],
)
def test_what_a_request_cannot_give_is_refused(schema: str, expected: str) -> None:
    """The problem names the attribute, with the line of the author's file."""
    with pytest.raises(BundleError) as refused:
        declared(schema)

    assert str(refused.value).startswith(f"schema.cedarschema:{expected}")


@pytest.mark.parametrize(
    ("terms", "plain", "expected"),
    [
        ('@slices("20") max_calls?: Long, b: Long', "max_calls?: Long, b: Long", {"max_calls": 20}),
        ('@doc("x") @slices("2") max_sum: decimal', "max_sum: decimal", {"max_sum": 2}),
        (
            '@slices("1000") "max_calls_of_mutating": Long',
            "max_calls_of_mutating: Long",
            {"max_calls_of_mutating": 1000},
        ),
        ('@doc("slices") max_calls: Long', "max_calls: Long", {}),
    ],
)
def test_a_budget_can_be_cut_into_slices(terms: str, plain: str, expected: dict[str, int]) -> None:
    """Only those with the annotation, which changes nothing else."""
    found, other = (declared(f"type SessionTerms = {{ {one} }}; {SESSION}") for one in (terms, plain))

    assert expected == slices_in(found)
    assert terms_type(other) == terms_type(found)


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ("\n@slices max_calls: Long", "`max_calls` has `@slices`, which must have a number from 2 to 1000"),
        ('\n@slices("1") max_calls: Long', "`max_calls` has `@slices`, which must have a number from 2 to 1000"),
        ('\n@slices("1001") max_calls: Long', "`max_calls` has `@slices`, which must have a number from 2 to 1000"),
        ('\n@slices("k") max_sum: Long', "`max_sum` has `@slices`, which must have a number from 2 to 1000"),
        ('\n@slices("9") ticket: String', "`ticket` has `@slices`, which is at a term that limits no calls"),
        ('a: {\n@slices("9") max_calls: Long }', "`a.max_calls` has `@slices`, which is at a term that limits no"),
        ('\n@slice("9") max_calls: Long', "`max_calls` has `@slice`, which is unknown; did you mean `slices`?"),
    ],
)
def test_slices_that_cannot_be_meant_are_refused(terms: str, expected: str) -> None:
    """With the line of the term."""
    with pytest.raises(BundleError) as refused:
        declared(f"type SessionTerms = {{ {terms} }}; {SESSION}")

    assert str(refused.value).startswith(f"schema.cedarschema:2: `SessionTerms`: {expected}")


@pytest.mark.parametrize("name", ["__entity", "__extn", "__expr"])
def test_a_term_cannot_make_an_entity(name: str) -> None:
    """The engine would read such an attribute as a reference, or refuses the name itself."""
    schema = with_terms(f'a: {{ "{name}": Long }}')
    with pytest.raises(BundleError, match=r"schema\.cedarschema"):
        load_bundle(bundle_files(policies={}, tools={}, directory="", schema=schema), DEFAULT_LIMITS, compile_here)


def test_as_many_terms_as_the_limit_says() -> None:
    """One more is refused."""
    most = [f"t{number}: Long" for number in range(MOST_TERMS)]

    assert MOST_TERMS == len(declared(f"type SessionTerms = {{ {', '.join(most)} }}; {SESSION}")["properties"])
    with pytest.raises(BundleError, match=f"more than {MOST_TERMS} attributes"):
        declared(f"type SessionTerms = {{ {', '.join([*most, 'x: Long'])} }}; {SESSION}")


@pytest.mark.parametrize(
    "text", ["<unrenderable Schema: something>", "entity Session = { terms: ", "type SessionTerms", 'entity "']
)
def test_a_schema_that_the_engine_cannot_write_is_refused(text: str) -> None:
    """Nothing is guessed: whether terms are declared is unknown."""

    class Schema:
        def __str__(self) -> str:
            return text

    with pytest.raises(BundleError, match="the engine cannot write the schema"):
        declared_terms("", Schema())  # type: ignore[arg-type]


def test_the_other_attributes_of_a_session_are_needed_too() -> None:
    """The message shows the whole entity."""
    schema = with_terms("ticket: String").replace("purpose: String,", "")
    with pytest.raises(BundleError, match=r"these required attributes .* labels: Set<String>, terms: SessionTerms \};"):
        load_bundle(bundle_files(policies={}, tools={}, directory="", schema=schema), DEFAULT_LIMITS, compile_here)


def test_a_bundle_knows_its_terms() -> None:
    """They come with what the child process found, and go to another process in the same form."""
    files = bundle_files(policies={}, tools={}, directory="", schema=with_terms("ticket: String, max_sum?: decimal"))

    bundle = load_bundle(files, DEFAULT_LIMITS, compile_here)

    assert bundle.terms == terms_type(bundle.parts.terms or {})
    assert '{ "max_sum"?: decimal, "ticket": String }' == bundle.terms.cedar()


@pytest.mark.parametrize("group", ["read_only", "mutating", "destructive", "leaves"])
def test_calls_of_a_declared_group_can_be_limited(group: str) -> None:
    """The risk groups, and those that the bundle declares."""
    schema = f"type SessionTerms = {{ max_calls_of_{group}: Long }}; {SESSION}"

    assert declared_terms(schema, cedarpy.Schema.from_str(schema), ["leaves"]) is not None


def test_calls_of_an_unknown_group_cannot_be_limited() -> None:
    """Nothing would count them; the nearest group is named, and the line."""
    schema = f"type SessionTerms = {{\n  max_calls_of_leave: Long,\n}};\n{SESSION}"
    with pytest.raises(BundleError) as refusal:
        declared_terms(schema, cedarpy.Schema.from_str(schema), ["leaves"])

    (problem,) = refusal.value.problems
    assert ("schema.cedarschema", 2) == (problem.file, problem.line)
    assert "`max_calls_of_leave` names no group of actions: unknown group: `leave`; did you mean `leaves`?" in str(
        problem
    )


def test_a_bundle_limits_calls_of_its_own_groups() -> None:
    """Those of its manifest."""
    schema, manifest = with_terms("max_calls_of_leaves?: Long"), "groups: {leaves: {meaning: sends something}}"
    files = bundle_files(policies={}, tools={}, directory="", schema=schema, manifest=manifest)

    assert load_bundle(files, DEFAULT_LIMITS, compile_here).terms is not None
