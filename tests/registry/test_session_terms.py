"""The terms of a session: in what is shown and approved, in what is stored and recorded, and unchanged afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pdp.decision.explainer import SupposedSession
from pdp.errors import InvalidRequestError, WrongStateError
from pdp.foundation.jsontext import keyed_digest
from pdp.limits import Limits
from pdp.model import Basis, Call, Visibility
from pdp.policy.bundle import MISFIT_TERMS
from pdp.registry.scope import expansion, request_digest_of
from pdp.testing.bundles import OPEN_SESSIONS, SCHEMA, bundle_files, tool, with_terms
from pdp.testing.evidence import KEY, Evidence
from tests.machinery.oracle.opened import APPROVER, GATEWAY, Opened, opened

DECLARED = "ticket?: String, max_sum?: decimal, targets?: Set<String>"
POLICIES = '@id("files/all") permit (principal, action, resource is Server);'
TERMS = b'{"targets": ["b", "a", "b"], "ticket": "OPS-1", "max_sum": 20.50}'
CANONICAL = '{"max_sum":20.5,"targets":["a","b"],"ticket":"OPS-1"}'


def files(declared: str = DECLARED) -> dict[str, bytes]:
    """Return a bundle whose sessions have terms."""
    return bundle_files(
        policies={"files": POLICIES},
        tools={"files": [tool("read")]},
        directory="users: {alice: {}}\nagents: {coder: {ceiling: ['files/*']}}\n",
        schema=with_terms(declared),
        sessions=OPEN_SESSIONS,
    )


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[Evidence]:
    """Yield what keeps a record, which may hold the values of two terms."""
    evidence = Evidence(tmp_path / "evidence", terms=frozenset({"ticket", "max_sum"}))
    yield evidence
    evidence.close()


@pytest.fixture
def pdp(tmp_path: Path, evidence: Evidence) -> Iterator[Opened]:
    """Yield a PDP whose sessions have terms."""
    with opened(tmp_path / "policies", files(), observer=evidence) as pdp:
        yield pdp


def test_terms_are_kept_in_one_form(pdp: Opened) -> None:
    """However the gateway writes them, the same text is stored, shown and reviewed, and nothing changes it."""
    session_id, _ = pdp.request("files/*", terms_json=TERMS)

    assert CANONICAL == pdp.stored(session_id).terms_json
    assert CANONICAL == pdp.embedded.registrar.get(session_id, caller=GATEWAY).session.terms_json
    review = pdp.embedded.registrar.review(session_id, grants=(), caller=APPROVER)
    assert CANONICAL == review.view.session.terms_json

    pdp.approve(session_id)
    pdp.embedded.registrar.narrow(session_id, tool_patterns=(), expires_at=None, labels=(), caller=APPROVER)

    assert CANONICAL == pdp.stored(session_id).terms_json


@pytest.mark.parametrize(
    "other",
    [
        '{"max_sum":20.5,"targets":["a","b"],"ticket":"OPS-2"}',
        '{"max_sum":20.5001,"targets":["a","b"],"ticket":"OPS-1"}',
        '{"max_sum":20.5,"targets":["a"],"ticket":"OPS-1"}',
        '{"max_sum":20.5,"targets":["a","b"]}',
        "{}",
    ],
)
def test_an_approval_is_of_exactly_these_terms(pdp: Opened, other: str) -> None:
    """Each change of a term changes the digest of what is shown."""
    session_id, _ = pdp.request("files/*", terms_json=TERMS)
    view = pdp.embedded.registrar.get(session_id, caller=APPROVER)
    bundle, session = pdp.embedded.keeper.current(), pdp.stored(session_id)
    scope = expansion(session, (), bundle)
    assert view.request_digest == request_digest_of(session, scope, bundle)
    assert view.request_digest != request_digest_of(replace(session, terms_json=other), scope, bundle)


def test_refused_terms_name_the_field_and_no_value(pdp: Opened) -> None:
    """The path says where, and the nearest name what was meant."""
    for terms, said in (
        (b'{"tickt": "secret"}', "`terms_json`: `$`: unknown term: `tickt`; did you mean `ticket`?"),
        (b'{"max_sum": "secret"}', "`terms_json`: `$.max_sum`: must be a number"),
        (b'{"targets": ["a", 7]}', "`terms_json`: `$.targets[*]`: must be a string"),
        (b"[]", "`terms_json`: not a JSON object"),
        (b'{"ticket": "a", "ticket": "b"}', "`terms_json`: a key appears twice in one object"),
    ):
        with pytest.raises(InvalidRequestError) as refused:
            pdp.request("files/*", terms_json=terms)

        assert said == str(refused.value)


def test_a_child_is_told_which_term_is_wider(pdp: Opened) -> None:
    """The message names the term, and not what the parent has."""
    _, handle = pdp.session("files/*", terms_json=TERMS)

    for terms, said in (
        (b'{"ticket": "OPS-2"}', "`terms_json`: `$.ticket`: must be as in the parent session"),
        (b'{"max_sum": 20.6}', "`terms_json`: `$.max_sum`: must not be more than in the parent session"),
        (b'{"targets": ["c"]}', "`terms_json`: `$.targets`: must hold only targets of the parent session"),
    ):
        with pytest.raises(InvalidRequestError) as refused:
            pdp.request("files/*", parent_session_handle=handle, terms_json=terms)

        assert said == str(refused.value)

    session_id, _ = pdp.request("files/*", parent_session_handle=handle, terms_json=b'{"max_sum": 1}')
    assert '{"max_sum":1.0,"targets":["a","b"],"ticket":"OPS-1"}' == pdp.stored(session_id).terms_json


def test_terms_are_bounded(tmp_path: Path) -> None:
    """A child that adds terms to those of its parent is within the same bound."""
    limits = Limits(terms_bytes=40)
    with opened(tmp_path, files(), limits=limits) as pdp:
        _, handle = pdp.session("files/*", terms_json=b'{"ticket": "0123456789"}')
        for more in (
            {"terms_json": b'{"ticket": "' + b"0" * 40 + b'"}'},
            {"terms_json": b'{"max_sum": 123456789}', "parent_session_handle": handle},
        ):
            with pytest.raises(
                InvalidRequestError, match=r"`terms_json`: larger than 40 bytes \(limit `terms_bytes`\)"
            ):
                pdp.request("files/*", **more)


def test_the_record_shows_the_terms_that_the_settings_name(pdp: Opened, evidence: Evidence) -> None:
    """Of any other there is a keyed digest; decimals are texts, which keep their digits."""
    pdp.session("files/*", terms_json=TERMS)

    shown = {"terms": {"max_sum": "20.5", "ticket": "OPS-1"}}
    hidden = {"term_digests": {"targets": keyed_digest(KEY, '["a","b"]')}}
    told = [one["facts"] for one in evidence.records if str(one["kind"]).startswith("session.")]
    assert 4 == len(told)
    for facts in told:
        assert shown | hidden == {name: facts[name] for name in ("terms", "term_digests")}


def test_a_request_without_terms_records_none(pdp: Opened, evidence: Evidence) -> None:
    """Nothing stands in the record for what is not there."""
    pdp.session("files/*")

    assert [] == [one for one in evidence.records if {"terms", "term_digests"} & one["facts"].keys()]


def test_terms_that_no_longer_fit_deny_and_say_so(pdp: Opened) -> None:
    """Every call is denied, no tool is listed, and no child is delegated, until a bundle fits again."""
    _, handle = pdp.session("files/*", terms_json=TERMS)
    assert pdp.ask(handle, "files/read").allowed

    for declared in ("ticket?: String", "ticket?: Long, max_sum?: decimal, targets?: Set<String>", "other: Bool"):
        pdp.reload(files(declared))

        ruling = pdp.ask(handle, "files/read").ruling
        assert (Basis.POLICY_ERROR, MISFIT_TERMS.detail) == (ruling.basis, ruling.detail)
        (listed,) = pdp.embedded.authorizer.list_tools(handle, GATEWAY).tools
        assert Visibility.NEVER is listed.visibility
        with pytest.raises(WrongStateError, match="the terms of the parent session do not fit the schema"):
            pdp.request("files/*", parent_session_handle=handle, terms_json=b"{}")

    pdp.reload(files())
    assert pdp.ask(handle, "files/read").allowed


def test_a_bundle_without_terms_denies_a_session_that_has_some(pdp: Opened) -> None:
    """The approval bound them, and its policies cannot read them; a session without any goes on."""
    _, bound = pdp.session("files/*", terms_json=TERMS)
    _, free = pdp.session("files/*")

    pdp.reload({"schema.cedarschema": SCHEMA.encode()})

    assert MISFIT_TERMS.detail == pdp.ask(bound, "files/read").ruling.detail
    assert pdp.ask(free, "files/read").allowed


def test_a_parent_of_another_type_gives_its_terms_in_the_form_of_now(pdp: Opened) -> None:
    """A whole number is a decimal too: the child has it as the bundle of its request writes it."""
    pdp.reload(files("max_sum?: Long"))
    _, handle = pdp.session("files/*", terms_json=b'{"max_sum": 5}')
    pdp.reload(files("max_sum?: decimal"))

    session_id, _ = pdp.request("files/*", parent_session_handle=handle, terms_json=b'{"max_sum": 4.5}')
    with pytest.raises(InvalidRequestError):
        pdp.request("files/*", parent_session_handle=handle, terms_json=b'{"max_sum": 5.1}')

    assert {"max_sum": 4.5} == json.loads(pdp.stored(session_id).terms_json)


@pytest.mark.parametrize("terms", [b"", b"{}", b'{"ticket": "OPS-1"}'])
def test_terms_can_be_supposed(pdp: Opened, terms: bytes) -> None:
    """An explanation of a hypothetical session takes terms as a request does."""
    call = Call(session_handle="", server="files", tool="read")
    supposed = SupposedSession(user="alice", agent="coder", terms_json=terms)
    suppose = partial(pdp.embedded.explainer.suppose, call=call, caller=GATEWAY, made_by="gateway")

    assert suppose(supposed).ruling.allowed
    with pytest.raises(InvalidRequestError, match=r"`supposed\.terms_json`: `\$\.ticket`: must be a string"):
        suppose(replace(supposed, terms_json=b'{"ticket": 1}'))
