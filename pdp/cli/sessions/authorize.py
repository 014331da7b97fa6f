"""`pdp authorize`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import replace

import click

from pdp.cli.connection import with_client
from pdp.cli.moments import duration
from pdp.cli.options import handle_option, json_option, read_handle
from pdp.cli.output import print_fields, print_json
from pdp.cli.root import NO
from pdp.client import Answer, CallToken, CallTokenRequest, Client, Obligation, PDPClientError, ToolCall
from pdp.model import Role


def _one_word(_context: click.Context, _parameter: click.Parameter, server: str) -> str:
    """Refuse `server/tool`, as other commands take it: the second word would be taken for the tool."""
    if "/" in server:
        raise click.UsageError(f"`{server}`: name server and tool in two words: {server.replace('/', ' ', 1)}")
    return server


@click.command(epilog='Example:  pdp authorize --session-handle-file handle git git_status \'{"repo_path": "/src"}\'')
@click.argument("server", callback=_one_word)
@click.argument("tool")
@click.argument("arguments", metavar="[ARGS_JSON|-]", default="{}")
@handle_option
@click.option("--definition-digest", metavar="DIGEST", default="", help="The digest of the tool's current definition.")
@click.option("--facts", metavar="JSON", default="", help="Facts that the gateway vouches for.")
@click.option(
    "--known-obligation", "known", metavar="ID", multiple=True, help="An obligation that you meet. Any other is a deny."
)
@click.option("--wait", type=duration, help="Wait this long for a person who must approve the call, such as `5m`.")
@click.option(
    "--call-token",
    "audiences",
    metavar="AUDIENCE",
    multiple=True,
    help="Get a call token for this audience too, to present over a Unix socket.",
)
@click.option("--tool-call-id", metavar="ID", default="", help="The model's id of this call, for traces.")
@json_option
@with_client(Role.PEP)
def authorize(
    *,
    client: Client,
    server: str,
    tool: str,
    arguments: str,
    session_handle_file: str | None,
    definition_digest: str,
    facts: str,
    known: tuple[str, ...],
    wait: float | None,
    audiences: tuple[str, ...],
    tool_call_id: str,
    as_json: bool,
) -> None:
    """Ask whether a tool call may go ahead, and with which obligations.

    Exits with 0 for allow, 1 for deny, 2 when there is no answer. Name with --known-obligation each obligation that
    you meet; the answer lists the others.
    """
    # Bytes that are no text go to the server unchanged: it judges and records an agent's arguments.
    text = sys.stdin.buffer.read() if arguments == "-" else os.fsencode(arguments)
    call = ToolCall(
        session_handle=read_handle(session_handle_file),
        server=server,
        tool=tool,
        arguments=text,
        definition_digest=definition_digest,
        facts=os.fsencode(facts),
        tool_call_id=tool_call_id,
        call_tokens=tuple(CallTokenRequest(audience=one) for one in audiences),
    )
    answer = client.ask(call, known_obligations=known)
    if wait and answer.waits:
        click.echo(f"waits for a person; next: pdp approvals approve {answer.access_request_id}", err=True)
        answer = client.ask(replace(call, request_id=answer.request_id), known_obligations=known, wait=wait)
    if as_json:
        print_json(_plain(answer))
    if answer.undecided:
        raise PDPClientError(answer.error)
    if not as_json:
        _print(answer)
    if not answer.allowed:
        raise click.exceptions.Exit(NO)


def _print(answer: Answer) -> None:
    more = f" and {answer.policies_left_out} more" if answer.policies_left_out else ""
    policies = " ".join(answer.policies) + more
    click.echo(f"{answer.outcome.value}  {answer.basis}  {policies}".rstrip())
    print_fields(
        (
            ("error", answer.error),
            ("decision", answer.decision_id),
            ("session", answer.session_id),
            ("ancestor", f"{answer.ancestor_session_id} {answer.ancestor_basis}".strip()),
            ("bundle", answer.bundle_version),
            ("labels added", " ".join(answer.labels_added)),
            ("lifted", " ".join(answer.policies_lifted)),
            ("cache", answer.cache_result),
            ("trace", answer.trace_id),
            ("obligations", _listed(answer.obligations)),
            ("not known", _listed(answer.unmet_obligations)),
            ("waits", answer.access_request_id),
            ("advice", "; ".join(answer.advice)),
            *(("call token", one.token or f"none: {one.refusal}") for one in answer.call_tokens),
        )
    )


def _listed(obligations: Iterable[Obligation]) -> str:
    return "; ".join(f"{one.id} {one.parameters_json.decode('utf-8')}" for one in obligations)


def _fields(one: Obligation) -> dict[str, object]:
    return {"id": one.id, "parameters": json.loads(one.parameters_json)}


def _call_token(one: CallToken) -> dict[str, object]:
    return {"audience": one.audience, "token": one.token, "expires_at": one.expires_at, "refusal": one.refusal}


def _plain(answer: Answer) -> dict[str, object]:
    return {
        "outcome": answer.outcome.value,
        "basis": answer.basis,
        "policies": list(answer.policies),
        "policies_left_out": answer.policies_left_out,
        "error": answer.error,
        "reason": answer.reason,
        "server": answer.server,
        "tool": answer.tool,
        "decision_id": answer.decision_id,
        "request_id": answer.request_id,
        "session_id": answer.session_id,
        "user": answer.user,
        "agent": answer.agent,
        "bundle_version": answer.bundle_version,
        "cache_result": answer.cache_result,
        "ancestor_session_id": answer.ancestor_session_id,
        "ancestor_basis": answer.ancestor_basis,
        "duration_us": answer.duration_us,
        "trace_id": answer.trace_id,
        "span_id": answer.span_id,
        "labels_added": list(answer.labels_added),
        "policies_lifted": list(answer.policies_lifted),
        "obligations": [_fields(one) for one in answer.obligations],
        "unmet_obligations": [_fields(one) for one in answer.unmet_obligations],
        "advice": list(answer.advice),
        "outcome_token": answer.outcome_token,
        "access_request_id": answer.access_request_id,
        "access_expires_at": answer.access_expires_at,
        "access_link": answer.access_link,
        "call_tokens": [_call_token(one) for one in answer.call_tokens],
    }
