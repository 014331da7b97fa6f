"""Explain a call by a policy folder, without a server."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from pdp.app.embedded import open_embedded
from pdp.cli.problems import problems_in
from pdp.config.settings import Settings
from pdp.decision.explainer import SupposedSession
from pdp.model import Call, Caller, Role
from pdp.server.explaining import GATEWAY, explanation_message
from pdp.server.fields import in_fields
from pdp.v1.explain_pb2 import ExplainResponse

# Explaining a folder on one's own machine needs no token.
_AUTHOR = Caller(id="author", kind="local", roles=frozenset({Role.AUTHOR}))


def ask_folder(
    folder: str,
    settings: Settings,
    *,
    session_id: str,
    server: str,
    tool: str,
    arguments: bytes,
    definition_digest: str,
    facts: bytes,
    caller_id: str,
    at: float | None,
    user_attributes: bytes,
    terms: bytes,
    **supposed: Any,  # noqa: ANN401 - see `explain`
) -> ExplainResponse:
    """Return the explanation that a server with this folder gives.

    Raise `PDPError` when there is none.
    """
    if session_id:
        raise click.UsageError("a folder has no sessions: with --policies, pass --user and --agent")
    call = Call(
        session_handle="",
        server=server,
        tool=tool,
        arguments_json=arguments,
        definition_digest=definition_digest,
        facts_json=facts,
    )
    session = SupposedSession(**supposed, user_attributes_json=user_attributes, terms_json=terms)
    with problems_in(Path(folder)), closing(open_embedded(folder, limits=settings.limits)) as pdp:
        suppose = in_fields("Explain", pdp.explainer.suppose)
        explanation = suppose(session, call, _AUTHOR, made_by=caller_id or GATEWAY, at=at)
    return explanation_message(explanation)
