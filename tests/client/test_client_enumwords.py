"""The words for values of the API's enumerations."""

from __future__ import annotations

from pdp.client.enumwords import access_state, session_state, visibility, word_of
from pdp.v1.access_pb2 import ACCESS_STATE_OPEN, RequestedAccess
from pdp.v1.authorization_pb2 import VISIBILITY_DEPENDS
from pdp.v1.session_pb2 import SESSION_STATE_ACTIVE, ReviewedTool, Session, SessionState


def test_a_value_is_a_word_without_what_all_have_in_common() -> None:
    """As people and policies write it."""
    assert ("active", "open", "depends") == (
        session_state(Session(state=SESSION_STATE_ACTIVE)),
        access_state(RequestedAccess(state=ACCESS_STATE_OPEN)),
        visibility(ReviewedTool(visibility=VISIBILITY_DEPENDS)),
    )


def test_what_a_later_server_says_is_unknown() -> None:
    """It is no error, and none of the words that this version knows."""
    assert "unknown" == word_of(SessionState, max(SessionState.values()) + 1)
