"""What an approver is told when the session is no longer the one that was shown."""

from __future__ import annotations

from typing import Any

import pytest

from pdp.client.reviewing import changes
from pdp.v1.authorization_pb2 import VISIBILITY_ALWAYS, VISIBILITY_DEPENDS
from pdp.v1.session_pb2 import ReviewedTool, ReviewSessionResponse, ScopedTool, Session


def review(*tools: ReviewedTool, bundle: str = "v1", **session: Any) -> ReviewSessionResponse:
    """Return a review of some tools."""
    return ReviewSessionResponse(session=Session(**session), tools=tools, bundle_version=bundle)


def tool(name: str, *, visibility: Any = VISIBILITY_ALWAYS, **more: Any) -> ReviewedTool:
    """Return a tool as an approver sees it."""
    return ReviewedTool(tool=ScopedTool(server="git", tool=name, **more), visibility=visibility)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (review(tool("log")), review(tool("log")), ()),
        (review(tool("log")), review(), ("`git/log` is no longer among the tools",)),
        (review(), review(tool("log")), ("`git/log` is new among the tools",)),
        (
            review(tool("log", definition_digest="sha256:1", risk="read_only")),
            review(tool("log", definition_digest="sha256:2", risk="mutating"), bundle="v2"),
            ("the definition of `git/log` changed", "the groups of `git/log` changed", "other policies are active"),
        ),
        (
            review(tool("log")),
            review(tool("log", visibility=VISIBILITY_DEPENDS)),
            ("what the policies say (`always`, now `depends`) of `git/log` changed",),
        ),
        (review(labels=["a"]), review(labels=["a", "b"]), ("`labels` changed",)),
    ],
)
def test_each_difference_is_named(
    before: ReviewSessionResponse, after: ReviewSessionResponse, said: tuple[str, ...]
) -> None:
    """Each tool that came, went or changed, and each other part that is shown."""
    assert said == changes(before, after)
