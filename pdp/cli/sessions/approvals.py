"""`pdp approvals`: the calls that wait for a person, for the people who answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import click

from pdp.cli.asking import require_quiet, require_yes
from pdp.cli.connection import with_client
from pdp.cli.groups import Group
from pdp.cli.options import id_token_option, json_option, read_id_token
from pdp.cli.output import print_json, print_table, time_text
from pdp.cli.sessions.accessview import (
    access_row,
    plain_access,
    plain_review,
    print_access,
)
from pdp.cli.sessions.selecting import NEWEST, Kind
from pdp.client import Client, OverloadedError, UnavailableError
from pdp.client.enumwords import access_state
from pdp.foundation.printable import visible
from pdp.model import Role
from pdp.sessions.access import AccessState
from pdp.v1.access_pb2 import ACCESS_STATE_OPEN, GetAccessRequestResponse, RequestedAccess
from pdp.v1.session_pb2 import Session

_REQUEST = Kind(prefix="acc_", noun="request", empty="the id of the request is empty")
# The pause before a watch that has ended is opened again, in seconds.
_AGAIN_SECONDS = 1.0
_COLUMNS = ("request", "state", "user", "agent", "tool", "until", "question")


@click.group(cls=Group)
def approvals() -> None:
    """List and answer calls that wait for a person."""


@approvals.command("list", epilog="Example:  pdp approvals list --state open")
@click.option(
    "--state", type=click.Choice([state.value for state in AccessState]), help="List only requests in this state."
)
@click.option("--session", "session_id", default="", help="List only requests of this session.")
@click.option("--user", default="", help="List only requests of sessions of this user.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Show at most this many.")
@json_option
@with_client(Role.APPROVER)
def list_requests(*, client: Client, state: str | None, session_id: str, user: str, limit: int, as_json: bool) -> None:
    """List access requests, newest first.

    `until` is until when an open request can be answered, and until when an approved call can be made.
    """
    found = list(islice(client.list_access_requests(state=state or "", session_id=session_id, user=user), limit))
    if as_json:
        print_json([plain_access(one) for one in found])
    else:
        print_table(_COLUMNS, map(access_row, found))


@approvals.command(epilog="Example:  pdp approvals show acc_…")
@click.argument("request_id")
@json_option
@with_client(Role.APPROVER)
def show(*, client: Client, request_id: str, as_json: bool) -> None:
    """Show one access request: the call, what is asked, and the session."""
    review = client.get_access_request(_full_id(client, request_id))
    approved = _approved_session(client, review)
    if as_json:
        print_json(plain_review(review, approved))
    else:
        print_access(review, approved)


@approvals.command(epilog="Example:  pdp approvals approve acc_…")
@click.argument("request_id")
@click.option(
    "--run",
    "calls",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    help="Approve this many calls like it within ten minutes, if the policies allow that.",
)
@click.option("--yes", is_flag=True, help="Approve without asking.")
@click.option("--request-digest", metavar="DIGEST", help="Approve only the request that was shown with this digest.")
@id_token_option
@json_option
@with_client(Role.APPROVER)
def approve(
    *,
    client: Client,
    request_id: str,
    calls: int,
    yes: bool,
    request_digest: str | None,
    id_token_file: str | None,
    as_json: bool,
) -> None:
    """Show a call that waits, and approve exactly what was shown.

    Asks before it approves, and exits with 1 if the answer is no.
    """
    require_quiet(as_json=as_json, yes=yes)
    id_token = read_id_token(id_token_file)
    review = client.get_access_request(_full_id(client, request_id, AccessState.OPEN))
    seen = review.access_request
    if seen.state != ACCESS_STATE_OPEN:
        raise click.ClickException(f"the request is {access_state(seen)} and does not wait for an answer")
    if request_digest is not None and request_digest != review.request_digest:
        raise click.ClickException(
            f"the request is not the one that was shown: its digest is `{review.request_digest}`"
        )
    if calls > review.most_calls:
        most = f"at most {review.most_calls} calls" if review.most_calls > 1 else "one call only"
        raise click.ClickException(f"an approval of this request is for {most}")
    if not as_json:
        print_access(review, _approved_session(client, review))
    if not yes:
        require_yes(f"approve {calls} calls?" if calls > 1 else "approve?", done="approved", does="approves")
    # INVARIANT: the digest is of what was printed; if anything has changed since, the server refuses.
    approved = client.approve_call(
        seen.access_request_id, request_digest=review.request_digest, calls=calls, id_token=id_token
    )
    if as_json:
        print_json(plain_access(approved))
    else:
        what = f"{approved.approved_calls} calls" if approved.approved_calls > 1 else "one call"
        until = time_text(approved, "expire_time")
        click.echo(f"approved {approved.access_request_id}: {what} until {until}")


@approvals.command(epilog='Example:  pdp approvals deny acc_… --reason "wrong recipient"')
@click.argument("request_id")
@click.option("--reason", default="", help="The reason, for the agent and the record.")
@json_option
@with_client(Role.APPROVER)
def deny(*, client: Client, request_id: str, reason: str, as_json: bool) -> None:
    """Refuse a call: in its session it is not asked for again.

    An admin can do it too: pass the admin's token with --token-file.
    """
    denied = client.deny_call(_full_id(client, request_id, AccessState.OPEN), reason=reason)
    if as_json:
        print_json(plain_access(denied))
    else:
        click.echo(f"denied {denied.access_request_id}")


@approvals.command(epilog='Example:  pdp approvals revoke acc_… --reason "not any more"')
@click.argument("request_id", required=False, default="")
@click.option("--session", "session_id", default="", help="Take back all approvals of this session.")
@click.option("--reason", required=True, help="The reason, for the record.")
@json_option
@with_client(Role.APPROVER)
def revoke(*, client: Client, request_id: str, session_id: str, reason: str, as_json: bool) -> None:
    """Take back an approval that is not used up, or all of a session.

    An admin can do it too: pass the admin's token with --token-file.
    """
    if bool(request_id) == bool(session_id):
        raise click.UsageError("pass exactly one of REQUEST_ID and --session")
    whole = _full_id(client, request_id, AccessState.APPROVED) if request_id else ""
    revoked = client.revoke_access(reason=reason, access_request_id=whole, session_id=session_id)
    if as_json:
        print_json({"revoked": list(revoked)})
    else:
        for one in revoked:
            click.echo(f"revoked {one}")
        if not revoked:
            click.echo("there was no approval to take back", err=True)


@approvals.command(epilog="Example:  pdp approvals watch")
@click.option("--session", "session_id", default="", help="Show only requests of this session.")
@click.option("--user", default="", help="Show only requests of sessions of this user.")
@click.option("--count", type=click.IntRange(min=1), help="End after this many lines.")
@json_option
@with_client(Role.APPROVER)
def watch(*, client: Client, session_id: str, user: str, count: int | None, as_json: bool) -> None:
    """Show the requests that wait, and then each change, until Ctrl-C.

    With --json each line is one JSON object.
    """
    with suppress(KeyboardInterrupt):
        for request in islice(_changes(client, session_id, user), count):
            # One line each, which no text from others can break.
            line = json.dumps(plain_access(request)) if as_json else visible("  ".join(_words(request)))
            click.echo(line)


def _approved_session(client: Client, review: GetAccessRequestResponse) -> Session | None:
    """Return the nearest session, of the call or above it, that a person approved; None for who may not see it.

    The digest of what was shown holds the id of the session above, and no purpose ever changes.
    """
    if not review.HasField("session"):
        return None
    session = review.session
    # As long as the session above, and no person, approved it.
    while session.parent_session_id and session.approved_by == session.parent_session_id:
        session = client.get_session(session.parent_session_id)
    return session


def _changes(client: Client, session_id: str, user: str) -> Iterator[RequestedAccess]:
    """Yield each change once, from one watch after the other."""
    known: dict[str, tuple[int, int]] = {}
    while True:
        try:
            for request in client.watch_access_requests(session_id=session_id, user=user):
                change = (request.state, request.used_calls)
                if known.get(request.access_request_id) != change:
                    known[request.access_request_id] = change
                    yield request
        except (UnavailableError, OverloadedError) as error:
            click.echo(f"the watch is opened again: {error}", err=True)
        time.sleep(_AGAIN_SECONDS)


def _words(request: RequestedAccess) -> Iterator[str]:
    name, state, user, agent, tool, until, question = access_row(request)
    yield name
    yield state
    yield f"{agent} for {user}: {tool}"
    if request.state == ACCESS_STATE_OPEN:
        yield f"until {until}"
        yield question
    elif request.answered_by:
        yield f"by {request.answered_by}"


def _full_id(client: Client, given: str, state: AccessState | None = None) -> str:
    """Return the one id of a request in a state that begins with the given text."""
    word = state.value if state else ""
    return _REQUEST.full_id(
        given,
        lambda: (one.access_request_id for one in client.list_access_requests(state=word, page_size=NEWEST)),
        state=word,
    )
