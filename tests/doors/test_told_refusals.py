"""What a model is told by every door, as it is written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pdp.client import Answer, Obligation
from pdp.doors import refusals
from pdp.model import Outcome

DENIED = Answer(
    outcome=Outcome.DENY, basis="forbid", server="files", tool="read", request_id="r", policies=("files/secret",)
)
LOCK = Obligation(id="lock", parameters_json=b"{}")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (DENIED, "Denied (forbid): the call of `files/read` did not run; do not retry it."),
        (
            replace(DENIED, decision_id="dec_1", advice=("do not retry it; find another way", "Ask the owner")),
            (
                "Denied (forbid): the call of `files/read` did not run; do not retry it; find another way; "
                "Ask the owner. Decision dec_1."
            ),
        ),
        (
            replace(DENIED, basis="tool_changed"),
            (
                "Denied (tool_changed): the call of `files/read` did not run; do not retry it; "
                "a policy author sees what has changed with `pdp tools diff files`."
            ),
        ),
        (replace(DENIED, basis="error", error="127.0.0.1:1 is away"), refusals.UNDECIDED),
        (
            replace(DENIED, basis="error", reason="MESSAGE_TOO_LARGE"),
            (
                "Denied (too_large): the call of `files/read` did not run; "
                "its arguments are too large to be asked about; do not retry it."
            ),
        ),
        (
            replace(DENIED, basis="error", unmet_obligations=(LOCK,)),
            (
                "Denied (unknown_obligation): the call of `files/read` did not run; "
                "it has an obligation that cannot be met here; do not retry it."
            ),
        ),
        (
            replace(DENIED, basis="approval_required", access_request_id="acr_1", decision_id="dec_1"),
            (
                "The call of `files/read` did not run: a person must approve exactly this call first. Tell the user "
                "to run `pdp approvals approve acr_1`, and make the same call again after that. Decision dec_1."
            ),
        ),
        (
            replace(
                DENIED,
                basis="approval_required",
                access_request_id="acr_1",
                access_link="https://pdp.example.org/approvals/acr_1",
            ),
            (
                "The call of `files/read` did not run: a person must approve exactly this call first. Tell the user "
                "to open https://pdp.example.org/approvals/acr_1, and make the same call again after that."
            ),
        ),
    ],
)
def test_a_deny_tells_a_model_what_to_do(answer: Answer, text: str) -> None:
    """It names no policy and nothing of an error, and is the same each time."""
    assert text == refusals.denied(answer)


def test_a_deny_names_the_tool_as_the_model_knows_it() -> None:
    """Where a framework has names of its own."""
    assert "the call of `reset` did not run" in refusals.denied(DENIED, call="reset")
    assert "The call of `reset` was made" in refusals.withheld(DENIED, "it is too large", call="reset")
