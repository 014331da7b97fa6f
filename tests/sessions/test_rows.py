"""A session is read from its row as it was written, also by another version of the server."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pdp.model import Scope
from pdp.sessions.rows import row_of, session_of
from pdp.testing.stores.samples import make_scope, make_session

# As stored before the model's names changed.
OLD_TEXT = (
    '{"id":"ses_a","handle_digest":"6a09","state":"requested","user":"alice","agent":"worker","purpose":"Work",'
    '"tool_patterns":["files/*"],"duration":3600.0,"requested_at":1000.0,'
    '"deadline":{"wall_at":4600.0,"boot_at":3700.0,"boot_id":"boot-1"},"tenant":"default","environment":"",'
    '"opened_by":"pep","epoch":1,"scope":null,"parent_id":"","ancestor_ids":[],"may_delegate":false,"grants":[],'
    '"labels":[],"entities_json":"[]","attributes_json":"{\\"level\\": 3}","approved_at":0.0,"approved_by":"",'
    '"ended_at":0.0,"ended_by":"","reason":""}'
)


def no_scope(scope_id: str) -> Scope:
    """Fail: no scope is stored."""
    raise AssertionError(scope_id)


def test_a_row_of_an_earlier_version_is_read() -> None:
    """The attributes that the requester vouched for had another name in the model."""
    assert '{"level": 3}' == session_of(OLD_TEXT, no_scope).user_attributes_json


def test_a_row_keeps_its_names() -> None:
    """Servers of two versions may share a store, and one can go back after an upgrade."""
    written = json.loads(str(row_of(session_of(OLD_TEXT, no_scope))["session_json"]))

    assert json.loads(OLD_TEXT) | {"widening_labels": [], "label_origins": {}} == written


def test_a_row_without_terms_has_none() -> None:
    """A row from before there were terms, and one of a session without any, which an older server can read."""
    session = session_of(OLD_TEXT, no_scope)

    assert "{}" == session.terms_json
    assert "terms_json" not in json.loads(str(row_of(session)["session_json"]))


def test_a_row_at_the_root_has_no_key() -> None:
    """So a server of an earlier release can read it."""
    assert "sealed_key" not in json.loads(str(row_of(make_session("a"))["session_json"]))


def test_a_row_without_groups_of_a_token_has_none() -> None:
    """The same."""
    assert "user_groups" not in json.loads(str(row_of(make_session("a"))["session_json"]))


@pytest.mark.parametrize("sealed", [b"", b"\x00sealed\xff"])
@pytest.mark.parametrize("terms", ["{}", '{"max_sum":20.5}'])
@pytest.mark.parametrize("attributes", ["{}", '{"level": 3}'])
def test_nothing_is_lost_in_a_row(attributes: str, terms: str, sealed: bytes) -> None:
    """What is read equals what was written."""
    scope = make_scope("files/read")
    origins = {"untrusted": "dec_1"}
    session = replace(
        make_session("a"), scope=scope, user_attributes_json=attributes, terms_json=terms, label_origins=origins
    )
    session = replace(session, sealed_key=sealed, user_groups=("idp/a", "idp/b") if sealed else ())

    assert session == session_of(str(row_of(session)["session_json"]), lambda _: scope)
