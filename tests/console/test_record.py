"""What auditors find in the console: the record, and what must be revoked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from pdp.audit.coverage import NOTHING_LACKING, Lacking, LackingPart
from pdp.testing.inprocess import RunningServer
from tests.console.desk import Browser, Covered, console, live


@pytest.fixture(scope="module")
def auditor(server: RunningServer) -> Iterator[Browser]:
    """Return the browser of an auditor."""
    with console(server, "auditor") as opened:
        yield opened.person()


@pytest.fixture(scope="module")
def told(server: RunningServer) -> tuple[str, str]:
    """Return the id of a session of an own agent with an allowed and a denied call, and the id of the denied one."""
    session_id, handle = live(server, user="bob", purpose="Tidy the record up")
    server.client("pep").authorize(handle, "crm", "find_customer", {"id": "1"})
    denied = server.client("pep").authorize(handle, "crm", "delete_customer", {"id": "1"})
    return session_id, denied.decision_id


@pytest.mark.parametrize(
    ("query", "found", "not_found"),
    [
        ("outcome=deny", "crm/delete_customer", "crm/find_customer"),
        ("server=crm&outcome=allow", "crm/find_customer", "crm/delete_customer"),
        ("tool=find_customer", "must have the form `server/tool`", "crm/find_customer on"),
        ("tool=crm/find_customer&user=bob", "crm/find_customer", "crm/delete_customer"),
        ("resource=crm&basis=forbid", "crm/delete_customer", "crm/find_customer"),
        ("kind=session.approved&agent=coder", "approved", "crm/find_customer on"),
        ("since=2100-01-01", "Nothing matches.", "crm/find_customer on"),
        ("user=mallory", "Nothing matches.", "crm/find_customer on"),
        ("since=yesterday", "`yesterday` is not a time", "crm/find_customer on"),
        ("since=0001-01-01T00:00%2B23:59", "is not a time", "crm/find_customer on"),
        ("until=9999-12-31T23:59:59-23:59", "is not a time", "crm/find_customer on"),
        ("after=1.x", "is not whole", "crm/find_customer on"),
    ],
)
def test_a_search_finds_what_it_names(
    auditor: Browser, told: tuple[str, str], query: str, found: str, not_found: str
) -> None:
    """And nothing else of the session."""
    auditor.open(f"/record?session={told[0]}&{query}")

    assert found in auditor.words
    assert not_found not in auditor.words


@pytest.mark.parametrize(
    "page",
    ["record?session={0}", "record/sessions/{0}", "record/decisions/{1}", "record/plan?session={0}"],
)
def test_a_page_says_which_machines_it_lacks_records_of(
    auditor: Browser, told: tuple[str, str], covered: Covered, page: str
) -> None:
    """And nothing of the kind when it lacks none."""
    auditor.open("/" + page.format(*told))
    whole = auditor.words
    part = LackingPart(replica="pdp-1", chain="f" * 12, since_at=None, until_at=1.0)
    covered.found = Lacking(parts=(part,))
    auditor.open("/" + page.format(*told))
    in_part = auditor.words
    covered.found = Lacking(unknown="away")
    auditor.open("/" + page.format(*told))
    covered.found = NOTHING_LACKING

    assert (False, True) == tuple("Not all records of pdp-1 are here." in words for words in (whole, in_part))
    assert "The server cannot tell which records of other machines are not here." in auditor.words


def test_a_search_goes_on_where_it_ended(auditor: Browser, server: RunningServer) -> None:
    """Each record is on one page: none twice, and none left out."""
    session_id, handle = live(server)
    gateway = server.client("pep")
    made = [gateway.authorize(handle, "crm", "find_customer", {"id": str(number)}).decision_id for number in range(60)]
    auditor.open(f"/record?session={session_id}&kind=decision")
    further = auditor.leads("Go on with later records")
    first = _decisions(auditor)
    auditor.open(further)

    assert 50 == len(first)
    assert sorted(made) == sorted(first + _decisions(auditor))
    assert "That is all." in auditor.words


def test_the_record_of_a_search_is_downloaded_as_it_was_written(
    auditor: Browser, server: RunningServer, told: tuple[str, str]
) -> None:
    """One record on each line, byte for byte, and for keeping, not for showing."""
    auditor.open(f"/record?session={told[0]}&outcome=deny")
    answer = auditor.fetch("GET", auditor.leads("Download what matches"))

    assert 'attachment; filename="records.jsonl"' == answer.headers["content-disposition"]
    assert [server.client("auditor").get_records(told[1])[0].record_json] == answer.content.splitlines(keepends=True)
    assert "crm/delete" in json.loads(answer.content)["policies"]


def test_a_live_session_shows_what_it_called_last(
    auditor: Browser, server: RunningServer, told: tuple[str, str]
) -> None:
    """The latest first, to those who may read the record; to others nothing of it."""
    auditor.open(f"/sessions/{told[0]}")

    assert "What it called last crm/" in auditor.words
    assert "crm/delete_customer · 1 call denied" in auditor.words
    assert "crm/find_customer · 1 call allowed" in auditor.words
    with console(server, "approver") as opened:
        person = opened.person()
        person.open(f"/sessions/{told[0]}")
        assert "What it called last" not in person.words


def test_a_session_is_told_from_its_request(auditor: Browser, told: tuple[str, str]) -> None:
    """Who approved it, each event with policies and trace, the policies as they were, and whether the log verifies."""
    session_id, decision_id = told
    auditor.open(f"/record/sessions/{session_id}")
    assert "coder for bob" in auditor.words
    assert "approved by approver" in auditor.words
    order = [auditor.words.index(one) for one in ("requested by", "crm/find_customer on", "crm/delete_customer on")]
    assert sorted(order) == order
    _proven(auditor)
    assert "sessions/all permit sessions.cedar:2 @id(" in auditor.words
    auditor.open(auditor.leads(decision_id))

    _proven(auditor)
    assert "sessions/all permit" not in auditor.words
    assert "Trace" in auditor.words
    assert auditor.leads(session_id) == f"/record/sessions/{session_id}"


def _proven(browser: Browser) -> None:
    """Look for the policy that denied, in its bundle and with its text, and for the file that holds the records."""
    assert 'crm/delete forbid crm.cedar:3 @id("crm/delete")' in browser.words
    assert re.search(r"as it was written record-[0-9a-f]{12}-000001.jsonl [0-9]+ records up to number", browser.words)
    assert "no longer the running one" not in browser.words


def test_a_segment_that_was_changed_is_shown(server: RunningServer, auditor: Browser) -> None:
    """By lines, also where the record of the decision itself is as it was."""
    session_id, handle = live(server)
    server.client("pep").authorize(handle, "crm", "find_customer", {"id": "1"})
    (first, *_) = server.client("auditor").list_records(page_size=1)
    file = server.evidence.record_folder / first.segment
    written = file.read_bytes()
    try:
        file.write_bytes(written.replace(b'"v":1', b'"v":2', 1))
        auditor.open(f"/record/sessions/{session_id}")
    finally:
        file.write_bytes(written)

    assert "changed record-" in auditor.words
    assert "line 2: the record before this one is not the one" in auditor.words


def test_a_plan_names_what_is_live(auditor: Browser, server: RunningServer) -> None:
    """By a call that was made; who may not revoke sees no link for it, and nothing is revoked."""
    session_id, handle = live(server)
    server.client("pep").authorize(handle, "crm", "update_customer", {"id": "1"})
    auditor.open("/record/plan")
    assert "Name what went wrong" in auditor.words
    auditor.open(f"/record?session={session_id}&tool=crm/update_customer")
    auditor.open(auditor.leads("Which sessions are still live?"))
    assert session_id in auditor.text
    auditor.open(f"/record/plan?tool=crm/update_customer&session={session_id}")
    assert session_id in auditor.text
    assert "To revoke them is for approvers and admins." in auditor.words
    assert "/revoke?" not in auditor.text
    auditor.open(f"/record/plan?tool=crm/send_mail&session={session_id}")
    assert "No live session matches" in auditor.words

    assert "ACTIVE" in str(server.client("approver").get_session(session_id))


def test_an_admin_revokes_what_a_plan_names(server: RunningServer) -> None:
    """By its link, which leads to what would be hit."""
    session_id, _ = live(server)
    with console(server, "admin") as opened:
        admin = opened.person()
        admin.open(f"/record/plan?session={session_id}")
        admin.open(admin.leads("Revoke…"))
        admin.send("/revoke", {"reason": "leaked"})

    assert "REVOKED" in str(server.client("approver").get_session(session_id))


def test_the_record_is_for_auditors(person: Browser, auditor: Browser, told: tuple[str, str]) -> None:
    """An approver sees no link to it, and the server refuses each of its pages."""
    auditor.open("/now")
    assert "/record" == auditor.leads("Record")
    person.open("/now")
    assert "/record" not in person.text
    for path in ("", "/export", f"/sessions/{told[0]}", f"/decisions/{told[1]}", "/plan?user=bob"):
        assert 403 == person.open(f"/record{path}").status_code


def test_another_tenant_has_another_record(server: RunningServer, told: tuple[str, str]) -> None:
    """Its ids are as unknown as those that do not exist."""
    session_id, decision_id = told
    with console(server, "other") as opened:
        other = opened.person()
        for path in ("/record/sessions/{session}", "/record/decisions/{decision}", "/reach?session_id={session}"):
            assert 404 == other.open(path.format(session=session_id, decision=decision_id)).status_code
            assert "bob" not in other.words
        other.open(f"/record?session={session_id}")
        assert "Nothing matches." in other.words
        other.open(f"/record/plan?session={session_id}")
        assert "No live session matches" in other.words
        assert b"" == other.fetch("GET", f"/record/export?session={session_id}").content


def _decisions(browser: Browser) -> list[str]:
    return re.findall(r'href="/record/decisions/([^"]+)"', browser.text)
