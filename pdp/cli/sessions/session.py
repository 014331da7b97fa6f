"""`pdp session`: the life of a session, for gateways and for people."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from typing import TypedDict

import click

from pdp.cli.asking import require_quiet, require_yes
from pdp.cli.connection import with_client
from pdp.cli.fences import Fenced
from pdp.cli.groups import Group
from pdp.cli.moments import duration
from pdp.cli.options import handle_option, id_token_option, json_option, read_handle, read_id_token
from pdp.cli.output import new_file, print_json, print_table, time_text
from pdp.cli.sessions.accessview import plain_access
from pdp.cli.sessions.frozen import tell_frozen
from pdp.cli.sessions.review import print_review
from pdp.cli.sessions.selecting import NEWEST, Kind
from pdp.cli.sessions.terms import terms_named, terms_text
from pdp.cli.sessions.view import plain, print_session
from pdp.client import Client, PDPClientError, WrongStateError
from pdp.client.enumwords import session_state
from pdp.client.reviewing import changes
from pdp.foundation.counting import counted
from pdp.foundation.printable import visible
from pdp.model import Role, SessionState
from pdp.sessions.access import AccessState
from pdp.v1.access_pb2 import RequestedAccess
from pdp.v1.session_pb2 import ReviewSessionResponse, RevokeSessionsResponse, Session

_PURPOSE_CHARACTERS = 48
_COLUMNS = ("session", "state", "user", "agent", "until", "purpose")
_SESSION = Kind(prefix="ses_", noun="session", empty="the session id is empty")


class _Less(TypedDict):
    """What is approved of a request: the grants, and what narrows it."""

    grants: tuple[str, ...]
    tools: tuple[str, ...]
    duration: float | None
    terms: bytes | None


@click.group(cls=Group)
def session() -> None:
    """Request, approve, show and end sessions."""


@session.command(
    epilog="Example:  pdp session request --user alice --agent coder --purpose 'fix the build' --tool 'git/*' "
    "--handle-file handle"
)
@click.option("--user", required=True, help="The user whose authority is used.")
@click.option("--agent", required=True, help="The agent that makes the calls.")
@click.option("--purpose", required=True, help="The task, for the approver; it may have several lines.")
@click.option(
    "--tool", "patterns", metavar="PATTERN", required=True, multiple=True, help="The tools to ask for, such as `git/*`."
)
@click.option("--duration", "lifetime", type=duration, help="How long the session lives, such as `30m`.")
@click.option(
    "--parent-handle-file", metavar="FILE", help="The file of the secret handle of the session that delegates."
)
@click.option("--environment", default="", help="The environment, such as `production`.")
@click.option("--attributes", metavar="JSON", default="", help="Attributes of the user that you vouch for.")
@click.option("--label", "labels", multiple=True, help="A label of the session, declared in `bundle.yaml`.")
@click.option("--terms", metavar="JSON", default="", help="The terms of the session, declared in the policies' schema.")
@click.option("--term", "single_terms", metavar="NAME=VALUE", multiple=True, help="One term; JSON, or else a text.")
@click.option("--may-delegate", is_flag=True, help="Ask for permission to delegate without a person.")
@click.option("--handle-file", metavar="FILE", help="Write the secret handle to this new file instead of stdout.")
@json_option
@with_client(Role.PEP)
def request(
    *,
    client: Client,
    user: str,
    agent: str,
    purpose: str,
    patterns: tuple[str, ...],
    lifetime: float | None,
    parent_handle_file: str | None,
    environment: str,
    attributes: str,
    labels: tuple[str, ...],
    terms: str,
    single_terms: tuple[str, ...],
    may_delegate: bool,
    handle_file: str | None,
    as_json: bool,
) -> None:
    """Ask for a session, and print its secret handle.

    With --handle-file the handle goes to that file, and the session's public id is printed instead.
    """
    wanted_terms = os.fsencode(terms_text(terms, single_terms))
    # Before the session is requested: a handle that cannot be written would be lost.
    with new_file(handle_file) if handle_file is not None else nullcontext() as file, terms_named(terms, single_terms):
        opened = client.request_session(
            user=user,
            agent=agent,
            purpose=purpose,
            tools=patterns,
            duration=lifetime,
            parent_session_handle=read_handle(parent_handle_file) if parent_handle_file else "",
            environment=environment,
            user_attributes=os.fsencode(attributes) or None,
            labels=labels,
            may_delegate=may_delegate,
            terms=wanted_terms or None,
        )
        if file is not None:
            file.write(f"{opened.session_handle}\n".encode("ascii"))
    shown = {} if handle_file else {"session_handle": opened.session_handle}
    link = {"link": opened.link} if opened.link else {}
    if as_json:
        print_json({**plain(opened.session), **link, **shown})
        return
    name = opened.session.session_id
    if session_state(opened.session) == SessionState.REQUESTED.value:
        where = f", or at {opened.link}" if opened.link else ""
        click.echo(visible(f"requested {name}; next: pdp session approve {name}{where}"), err=True)
    click.echo(shown.get("session_handle", name))


@session.command(epilog="Example:  pdp session approve ses_… --grant merge-approved")
@click.argument("session_id")
@click.option("--grant", "grants", metavar="GRANT", multiple=True, help="A grant to give.")
@click.option("--tool", "patterns", metavar="PATTERN", multiple=True, help="Approve only tools that match.")
@click.option("--duration", "lifetime", type=duration, help="Approve a shorter time, such as `10m`.")
@click.option("--terms", metavar="JSON", default="", help="The terms that become smaller.")
@click.option("--term", "single_terms", metavar="NAME=VALUE", multiple=True, help="One term that becomes smaller.")
@click.option("--yes", is_flag=True, help="Approve without asking.")
@click.option("--request-digest", metavar="DIGEST", help="Approve only the request that was shown with this digest.")
@id_token_option
@json_option
@with_client(Role.APPROVER)
def approve(
    *,
    client: Client,
    session_id: str,
    grants: tuple[str, ...],
    patterns: tuple[str, ...],
    lifetime: float | None,
    terms: str,
    single_terms: tuple[str, ...],
    yes: bool,
    request_digest: str | None,
    id_token_file: str | None,
    as_json: bool,
) -> None:
    """Show a requested session, and approve exactly what was shown.

    With --tool, --duration or --term it shows and approves less than was asked for, never more. Asks before it
    approves, and exits with 1 if the answer is no.
    """
    require_quiet(as_json=as_json, yes=yes)
    id_token = read_id_token(id_token_file)
    smaller = os.fsencode(terms_text(terms, single_terms)) or None
    less = _Less(grants=grants, tools=patterns, duration=lifetime, terms=smaller)
    with terms_named(terms, single_terms, field="narrowing.terms_json"):
        review = client.review_session(_full_id(client, session_id, SessionState.REQUESTED), **less)
    seen = review.session
    if session_state(seen) != SessionState.REQUESTED.value:
        raise click.ClickException(f"the session is {session_state(seen)} and does not wait for approval")
    if request_digest is not None and request_digest != seen.request_digest:
        raise click.ClickException(f"the request is not the one that was shown: its digest is `{seen.request_digest}`")
    if not as_json:
        print_review(review, asked=client.get_session(seen.session_id))
    if not yes:
        require_yes("approve?", done="approved", does="approves")
    fenced = Fenced()
    try:
        # INVARIANT: the digest is of what was printed; if the session has changed since, the server refuses.
        approved = client.approve_session(
            seen.session_id, request_digest=seen.request_digest, id_token=id_token, on_fence=fenced.take, **less
        )
    except WrongStateError as error:
        raise click.ClickException(_with_changes(error, client, review, less)) from None
    if as_json:
        print_json({**plain(approved), **fenced.plain()})
    else:
        click.echo(f"approved {approved.session_id} until {time_text(approved, 'expire_time')}")
        fenced.tell()


@session.command(epilog='Example:  pdp session deny ses_… --reason "not this week"')
@click.argument("session_id")
@click.option("--reason", default="", help="The reason, for the record.")
@json_option
@with_client(Role.APPROVER)
def deny(*, client: Client, session_id: str, reason: str, as_json: bool) -> None:
    """Deny a requested session."""
    denied = client.deny_session(_full_id(client, session_id, SessionState.REQUESTED), reason=reason)
    if as_json:
        print_json(plain(denied))
    else:
        click.echo(f"denied {denied.session_id}")


@session.command("list", epilog="Example:  pdp session list --state requested")
@click.option(
    "--state", type=click.Choice([state.value for state in SessionState]), help="List only sessions in this state."
)
@click.option("--user", default="", help="List only sessions of this user.")
@click.option("--agent", default="", help="List only sessions of this agent.")
@click.option("--tenant", default="", help="List only sessions of this tenant.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Show at most this many.")
@json_option
@with_client(Role.APPROVER)
def list_sessions(
    *, client: Client, state: str | None, user: str, agent: str, tenant: str, limit: int, as_json: bool
) -> None:
    """List sessions, newest first.

    `until` is when a session ends, or for a requested one, until when it can be approved.
    """
    listed = client.list_sessions(state=state or "", user=user, agent=agent, tenant=tenant, summaries=not as_json)
    found = list(islice(listed, limit))
    if as_json:
        print_json([plain(one) for one in found])
    else:
        print_table(_COLUMNS, map(_row, found))
        tell_frozen(client)


@session.command(epilog="Example:  pdp session show ses_… --json")
@click.argument("session_id")
@json_option
@with_client(Role.APPROVER)
def show(*, client: Client, session_id: str, as_json: bool) -> None:
    """Show one session, with the calls that wait for a person."""
    found = client.get_session(_full_id(client, session_id))
    waiting = _waiting(client, found)
    if as_json:
        print_json({**plain(found), "access_requests": [plain_access(one) for one in waiting]})
    else:
        print_session(found)
        for one in waiting:
            click.echo(visible(f"waits: {one.access_request_id} {one.server}/{one.tool}"))
        tell_frozen(client)


@session.command(epilog="Example:  pdp session end --session-handle-file handle")
@handle_option
@json_option
@with_client(Role.PEP)
def end(*, client: Client, session_handle_file: str | None, as_json: bool) -> None:
    """End a session and all below it, by its secret handle, as the gateway that opened it."""
    fenced = Fenced()
    ended = client.end_session(read_handle(session_handle_file), on_fence=fenced.take)
    if as_json:
        print_json({**plain(ended), **fenced.plain()})
    else:
        click.echo(f"ended {ended.session_id}")
        fenced.tell()


@session.command(epilog='Example:  pdp session revoke --agent coder --reason "acts strangely"')
@click.argument("session_id", required=False, default="")
@click.option("--user", default="", help="Revoke all sessions of this user.")
@click.option("--agent", default="", help="Revoke all sessions of this agent.")
@click.option("--tenant", default="", help="Revoke all sessions of this tenant.")
@click.option("--of-tenant", default="", help="The tenant of the session, user or agent. [the caller's, if it is one]")
@click.option("--reason", default="", help="The reason, for the record. Required, except with --preview.")
@click.option("--preview", is_flag=True, help="Revoke nothing; say which sessions would be revoked.")
@json_option
@with_client(Role.APPROVER)
def revoke(
    *,
    client: Client,
    session_id: str,
    user: str,
    agent: str,
    tenant: str,
    of_tenant: str,
    reason: str,
    preview: bool,
    as_json: bool,
) -> None:
    """Revoke one session, or all of a user, agent or tenant, with all below them."""
    if bool(reason) == preview:
        raise click.UsageError("pass either --reason or --preview")
    if sum(map(bool, (session_id, user, agent, tenant))) != 1:
        raise click.UsageError("pass exactly one of SESSION_ID, --user, --agent and --tenant")
    whole = _full_id(client, session_id) if session_id else ""
    which = {"session_id": whole, "user": user, "agent": agent, "tenant": tenant, "of_tenant": of_tenant}
    if preview:
        _print_revocable(client.preview_revocation(**which), as_json=as_json)
        return
    fenced = Fenced()
    revoked = client.revoke_sessions(reason=reason, on_fence=fenced.take, **which)
    if as_json:
        print_json({"revoked": list(revoked), **fenced.plain()})
    else:
        for one in revoked:
            click.echo(f"revoked {one}")
        if not revoked:
            click.echo("no live session matched", err=True)
        fenced.tell()


@session.command(epilog="Example:  pdp session narrow ses_… --tool 'git/git_log' --ends-in 10m")
@click.argument("session_id")
@click.option("--tool", "patterns", metavar="PATTERN", multiple=True, help="Keep only tools that match.")
@click.option("--ends-in", type=duration, help="End it this long from now, such as `10m`.")
@click.option(
    "--label", "labels", multiple=True, help="A label to add, declared in `bundle.yaml`; not one that widens."
)
@json_option
@with_client(Role.APPROVER)
def narrow(
    *,
    client: Client,
    session_id: str,
    patterns: tuple[str, ...],
    ends_in: float | None,
    labels: tuple[str, ...],
    as_json: bool,
) -> None:
    """Narrow an active session.

    Leaves it fewer tools, an earlier end or more labels, never the reverse.
    """
    if not (patterns or ends_in or labels):
        raise click.UsageError("pass at least one of --tool, --ends-in and --label")
    expires_at = time.time() + ends_in if ends_in else None
    fenced = Fenced()
    narrowed = client.narrow_session(
        _full_id(client, session_id), tools=patterns, expires_at=expires_at, labels=labels, on_fence=fenced.take
    )
    if as_json:
        print_json({**plain(narrowed), **fenced.plain()})
    else:
        count = len(narrowed.tools)
        tools = counted(count, "tool")
        click.echo(f"narrowed {narrowed.session_id}: {tools} until {time_text(narrowed, 'expire_time')}")
        fenced.tell()


def _full_id(client: Client, given: str, state: SessionState | None = None) -> str:
    """Return the one id of a session in a state that begins with the given text."""
    word = state.value if state else ""
    return _SESSION.full_id(
        given,
        lambda: (one.session_id for one in client.list_sessions(state=word, summaries=True, page_size=NEWEST)),
        state=word,
    )


def _waiting(client: Client, session: Session) -> list[RequestedAccess]:
    """Return the access requests that wait in a session."""
    return list(client.list_access_requests(state=AccessState.OPEN.value, session_id=session.session_id))


def _with_changes(error: WrongStateError, client: Client, shown: ReviewSessionResponse, less: _Less) -> str:
    """Return an error of an approval with what has changed since the review."""
    try:
        found = changes(shown, client.review_session(shown.session.session_id, **less))
    except PDPClientError:
        # The session waits no more: the error itself says so.
        found = ()
    return f"{error}; what changed: {', '.join(found)}" if found else str(error)


def _print_revocable(found: RevokeSessionsResponse, *, as_json: bool) -> None:
    if as_json:
        print_json({"would_revoke": found.session_count, "sessions": [plain(one) for one in found.sessions]})
        return
    if found.sessions:
        print_table(_COLUMNS, map(_row, found.sessions))
    left_out = found.session_count - len(found.sessions)
    more = f", of which the newest {len(found.sessions)} are listed" if left_out else ""
    click.echo(f"would revoke {counted(found.session_count, 'session')}{more}", err=True)


def _row(session: Session) -> Sequence[str]:
    purpose = " ".join(session.purpose.split())
    if len(purpose) > _PURPOSE_CHARACTERS:
        purpose = purpose[: _PURPOSE_CHARACTERS - 1] + "…"
    expires = time_text(session, "expire_time")
    return session.session_id, session_state(session), session.user, session.agent, expires, purpose
