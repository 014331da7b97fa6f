"""What results held: who may report it, in which class it counts, who sees it, and that no store or answer holds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdp.errors import AlreadyReportedError, InvalidRequestError, StoreUnavailableError
from pdp.foundation.names import Name, name_of
from pdp.foundation.valuedigests import MOST_DIGESTS, value_digest
from pdp.model import CacheResult, CallStatus, Decision, ValueClass
from pdp.registry.outcomes import OutcomeReport
from pdp.registry.readings import ReportedValues, ResultReading
from pdp.sessions.history import MemorySessionHistory
from pdp.testing.bundles import bundle_files, tool
from tests.machinery.oracle.opened import APPROVER, GATEWAY, Opened, opened

PROPERTIES = {"to": {"type": "string"}, "iban": {"type": "string"}, "body": {"type": "string"}}
POLICIES = """
@id("mail/all") permit (principal, action, resource);
@id("mail/unseen") forbid (principal, action == Action::"mail/send", resource)
unless { ["named", "known", "issued", "clean", "none"].containsAll(context.targets.provenance) };
"""
OVERLAY = """
tools:
  send: {risk: mutating, targets: {to: address, iban: iban}, text: [body]}
  find: {risk: read_only, results: trusted, issues: [id]}
  contacts: {risk: read_only, results: trusted}
  list: {risk: read_only, issues: ["[].id"]}
  read: {risk: read_only}
"""
MANIFEST = "labels: {untrusted: {meaning: strangers wrote a part}}"
DIRECTORY = "users: {alice: {}}\nagents: {coder: {ceiling: [mail/*]}}"
TOOLS = ("send", "find", "contacts", "list", "read")


def files(policies: str = POLICIES, overlay: str = OVERLAY) -> dict[str, bytes]:
    """Return the files of a bundle whose policies ask where targets come from."""
    return bundle_files(
        policies={"mail": policies},
        tools={"mail": [tool(name, PROPERTIES) for name in TOOLS]},
        overlays={"mail": overlay},
        directory=DIRECTORY,
        manifest=MANIFEST,
    )


@pytest.fixture
def pdp(tmp_path: Path) -> Iterator[Opened]:
    """Yield a PDP that takes reports of values."""
    with opened(tmp_path, files()) as found:
        yield found


def reading(pdp: Opened, handle: str, name: str) -> tuple[Decision, ResultReading]:
    """Ask about a call, and return how to read its result."""
    decision = pdp.ask(handle, f"mail/{name}")
    found = pdp.embedded.outcomes.reading(decision, handle)
    assert found is not None
    return decision, found


def report(pdp: Opened, decision: Decision, **said: Any) -> None:
    """Report what came of a call."""
    token = pdp.embedded.outcomes.token(decision)
    told = {"status": CallStatus.SUCCEEDED, **said}
    pdp.embedded.outcomes.report(OutcomeReport(outcome_token=token, **told), GATEWAY)


def read(pdp: Opened, handle: str, name: str, *texts: str, issued: tuple[str, ...] = ()) -> None:
    """Call a tool and report that its result held some values."""
    decision, found = reading(pdp, handle, name)
    values = ReportedValues(
        others=tuple(digest(found, text) for text in texts), issued=tuple(digest(found, text) for text in issued)
    )
    report(pdp, decision, values=values)


def digest(reading: ResultReading, text: str) -> bytes:
    """Return the digest of a value by its shape."""
    name = name_of(text, None)
    assert name is not None
    return value_digest(reading.key, name)


def seen(pdp: Opened, handle: str, to: str) -> tuple[str, ...]:
    """Return where the name of a recipient comes from."""
    targets = pdp.ask(handle, "mail/send", f'{{"to":"{to}"}}'.encode()).ruling.targets
    assert targets is not None
    return targets.provenance


@pytest.mark.parametrize(
    ("name", "class_", "allowed"), [("contacts", "clean", True), ("find", "clean", True), ("read", "tainted", False)]
)
def test_the_overlay_says_how_values_count(pdp: Opened, name: str, class_: str, allowed: bool) -> None:  # noqa: FBT001 - a column
    """What a trusted tool returned is clean; what any other one did is tainted, and unseen before."""
    _, handle = pdp.session("mail/*")
    before = seen(pdp, handle, "ann@x.com")
    read(pdp, handle, name, "ann@x.com")

    assert (("unseen",), (class_,)) == (before, seen(pdp, handle, "Ann@X.com"))
    assert allowed == pdp.ask(handle, "mail/send", b'{"to":"ann@x.com"}').allowed


def test_a_field_can_issue_ids(pdp: Opened) -> None:
    """Also of a tool that strangers write to: the id is issued, the rest is tainted."""
    _, handle = pdp.session("mail/*")
    read(pdp, handle, "list", "eve@x.com", issued=("new@x.com",))

    assert [("issued",), ("tainted",)] == [seen(pdp, handle, f"{one}@x.com") for one in ("new", "eve")]


def test_values_are_in_the_key_of_remembered_answers(pdp: Opened) -> None:
    """A deny of an unseen name is not the answer once a result has held it."""
    _, handle = pdp.session("mail/*")
    asked = [pdp.ask(handle, "mail/send", b'{"to":"ann@x.com"}') for _ in range(2)]
    read(pdp, handle, "contacts", "ann@x.com")
    asked += [pdp.ask(handle, "mail/send", b'{"to":"ann@x.com"}') for _ in range(2)]

    assert [(False, CacheResult.MISS), (False, CacheResult.HIT), (True, CacheResult.MISS), (True, CacheResult.HIT)] == [
        (one.allowed, one.cache_result) for one in asked
    ]


def test_links_come_from_results_too(pdp: Opened) -> None:
    """In the texts of a call."""
    _, handle = pdp.session("mail/*")
    read(pdp, handle, "contacts", "https://wiki.x.com/plan")
    found = pdp.ask(handle, "mail/send", b'{"body":"see https://wiki.x.com/plan and https://evil.com"}').ruling.targets

    assert found is not None
    assert ("clean", "unseen") == found.links


def test_a_clean_value_stays_clean_when_a_stranger_writes_it(pdp: Opened) -> None:
    """Only in results of others is tainted; what a mail repeats loses nothing."""
    _, handle = pdp.session("mail/*")
    read(pdp, handle, "contacts", "ann@x.com")
    read(pdp, handle, "read", "ann@x.com")

    assert ("clean",) == seen(pdp, handle, "ann@x.com")


def test_a_mail_makes_nothing_clean(pdp: Opened) -> None:
    """Its gateway cannot say otherwise: the class is in the token, and an untrusted tool's token says so."""
    _, handle = pdp.session("mail/*")
    decision, found = reading(pdp, handle, "read")

    assert (False, ()) == (found.trusted, found.issues)
    with pytest.raises(InvalidRequestError, match="issues no ids"):
        report(pdp, decision, values=ReportedValues(issued=(digest(found, "eve@x.com"),)))
    token = pdp.embedded.outcomes.token(pdp.ask(handle, "mail/contacts"))
    for other in (pdp.embedded.outcomes.token(decision)[:-8] + token[-8:], token[:30] + token[30:].swapcase()):
        with pytest.raises(InvalidRequestError, match="was not given to this caller"):
            pdp.embedded.outcomes.report(
                OutcomeReport(outcome_token=other, status=CallStatus.SUCCEEDED, values=ReportedValues()), GATEWAY
            )


def test_a_tree_shares_what_it_has_read(pdp: Opened) -> None:
    """A child has the same key, sees what its parent has read, and its parent what it has; another tree does not."""
    parent_id, parent = pdp.session("mail/*")
    _, other = pdp.session("mail/*")
    read(pdp, parent, "contacts", "ann@x.com")
    child_id, child = pdp.session("mail/*", parent_session_handle=parent)
    _, grandchild = pdp.session("mail/*", parent_session_handle=child)
    read(pdp, grandchild, "contacts", "bob@x.com")

    keys = {reading(pdp, handle, "read")[1].key for handle in (parent, child, grandchild)}
    assert 1 == len(keys)
    assert keys.isdisjoint({reading(pdp, other, "read")[1].key})
    assert [("clean",)] * 6 == [
        seen(pdp, one, to) for one in (parent, child, grandchild) for to in ("ann@x.com", "bob@x.com")
    ]
    assert ("unseen",) == seen(pdp, other, "ann@x.com")
    assert [2, 2] == [pdp.embedded.registrar.get(one, caller=APPROVER).values_kept for one in (parent_id, child_id)]


def test_a_child_launders_nothing(pdp: Opened) -> None:
    """What it read from strangers is tainted for its parent, and its mails make nothing clean either."""
    _, parent = pdp.session("mail/*")
    _, child = pdp.session("mail/*", parent_session_handle=parent)
    read(pdp, child, "read", "eve@x.com")

    assert [("tainted",)] * 2 == [seen(pdp, one, "eve@x.com") for one in (parent, child)]


def test_a_tool_that_was_forgotten_is_not_trusted(tmp_path: Path) -> None:
    """One that the overlay does not name, and one without an overlay at all."""
    with opened(tmp_path, files(overlay="tools: {send: {targets: [to]}}")) as pdp:
        _, handle = pdp.session("mail/*")
        for name in ("contacts", "read"):
            read(pdp, handle, name, "eve@x.com")

        assert ("tainted",) == seen(pdp, handle, "eve@x.com")


def test_what_is_pushed_out_is_unseen(pdp: Opened) -> None:
    """However many values come: the newest count, and an old one becomes less trusted, never more."""
    _, handle = pdp.session("mail/*")
    read(pdp, handle, "read", "eve@x.com")
    read(pdp, handle, "contacts", "ann@x.com")
    for start in range(0, 6000, 2000):
        read(pdp, handle, "contacts", *(f"{number}@y.com" for number in range(start, start + 2000)))
    tainted = seen(pdp, handle, "eve@x.com")
    read(pdp, handle, "read", *(f"{number}@z.com" for number in range(600)))

    assert ("tainted",) == tainted
    assert [("unseen",), ("unseen",), ("clean",)] == [
        seen(pdp, handle, one) for one in ("ann@x.com", "eve@x.com", "5999@y.com")
    ]


def test_the_kind_is_compared_too(pdp: Opened) -> None:
    """What is an account for one tool is no id of another; the overlay's kind is what counts."""
    _, handle = pdp.session("mail/*")
    decision, found = reading(pdp, handle, "contacts")
    digests = tuple(value_digest(found.key, Name(kind, "US133000000121212121212")) for kind in ("id", "text"))
    report(pdp, decision, values=ReportedValues(others=digests))
    arguments = b'{"iban":"US133000000121212121212"}'
    before = pdp.ask(handle, "mail/send", arguments).ruling.targets
    decision, found = reading(pdp, handle, "contacts")
    report(
        pdp, decision, values=ReportedValues(others=(value_digest(found.key, Name("iban", arguments[9:32].decode())),))
    )
    after = pdp.ask(handle, "mail/send", arguments).ruling.targets

    assert ("address", "iban") == found.kinds
    assert before is not None
    assert after is not None
    assert (("unseen",), ("clean",)) == (before.provenance, after.provenance)


@pytest.mark.parametrize(
    ("name", "said", "problem"),
    [
        (
            "contacts",
            {"status": CallStatus.FAILED, "values": ReportedValues(others=(b"v" * 16,))},
            "a call that failed",
        ),
        ("contacts", {"values": ReportedValues(others=(b"v" * 15,))}, "each must have 16 bytes"),
        ("list", {"values": ReportedValues(issued=(b"v" * 16, b""))}, "`values.issued`: each must have 16 bytes"),
        ("contacts", {"values": ReportedValues(issued=(b"v" * 16,))}, "`values.issued`: the tool issues no ids"),
        ("contacts", {"values": ReportedValues(others=(b"v" * 16,) * (MOST_DIGESTS + 1))}, "`values`: more than 2048"),
        (
            "find",
            {"values": ReportedValues(issued=(b"v" * 16,) * 1024, others=(b"v" * 16,) * 1025)},
            "`values`: more than 2048",
        ),
    ],
)
def test_other_values_are_refused(pdp: Opened, name: str, said: dict[str, Any], problem: str) -> None:
    """And nothing is reported: the same call can be reported rightly."""
    _, handle = pdp.session("mail/*")
    decision, _ = reading(pdp, handle, name)

    with pytest.raises(InvalidRequestError, match=problem):
        report(pdp, decision, **said)
    report(pdp, decision)


def test_a_report_covers_its_values(pdp: Opened) -> None:
    """The same again, in another order, is the same answer; other values are another report."""
    session_id, handle = pdp.session("mail/*")
    decision, found = reading(pdp, handle, "find")
    first, second = digest(found, "ann@x.com"), digest(found, "bob@x.com")
    report(pdp, decision, values=ReportedValues(others=(first, second)))
    report(pdp, decision, values=ReportedValues(others=(second, first, second)))

    for other in ((first,), ()):
        with pytest.raises(AlreadyReportedError):
            report(pdp, decision, values=ReportedValues(others=other))
    with pytest.raises(AlreadyReportedError):
        report(pdp, decision, values=ReportedValues(issued=(first, second)))
    assert 2 == pdp.embedded.registrar.get(session_id, caller=APPROVER).values_kept


def test_no_values_are_wanted_where_no_policy_looks(tmp_path: Path) -> None:
    """The gateway then gets no key, and cannot report values."""
    with opened(tmp_path, files(policies='@id("mail/all") permit (principal, action, resource);')) as pdp:
        _, handle = pdp.session("mail/*")
        decision = pdp.ask(handle, "mail/contacts")

        assert decision.reportable
        assert pdp.embedded.outcomes.reading(decision, handle) is None
        with pytest.raises(InvalidRequestError, match="no policy looks at values"):
            report(pdp, decision, values=ReportedValues(others=(b"v" * 16,)))


def test_another_bundle_trusts_nothing_of_a_call_before_it(pdp: Opened) -> None:
    """The call was decided by a bundle whose overlays said something else."""
    _, handle = pdp.session("mail/*")
    decision = pdp.ask(handle, "mail/read")
    pdp.reload(files(overlay=OVERLAY.replace("read: {risk", "read: {results: trusted, risk")))

    assert pdp.embedded.outcomes.reading(decision, handle) is None
    with pytest.raises(InvalidRequestError, match="no policy looks at values"):
        report(pdp, decision, values=ReportedValues(others=(b"v" * 16,)))


@pytest.mark.parametrize(
    ("now", "issued", "other"),
    [
        (OVERLAY.replace("results: trusted, issues", "issues"), "issued", "tainted"),
        (OVERLAY.replace("results: trusted, issues: [id]", "results: trusted"), "clean", "clean"),
        (OVERLAY.replace("  find: {risk: read_only, results: trusted, issues: [id]}\n", ""), "tainted", "tainted"),
        (OVERLAY.replace("  read:", "  # read:"), "issued", "clean"),
    ],
)
def test_a_bundle_that_ceases_to_trust_a_tool_counts_at_once(pdp: Opened, now: str, issued: str, other: str) -> None:
    """Also for the results of calls that were allowed before it came."""
    _, handle = pdp.session("mail/*")
    decision, found = reading(pdp, handle, "find")
    token = pdp.embedded.outcomes.token(decision)
    pdp.reload(files(overlay=now))
    values = ReportedValues(issued=(digest(found, "new@x.com"),), others=(digest(found, "ann@x.com"),))
    told = OutcomeReport(outcome_token=token, status=CallStatus.SUCCEEDED, values=values)
    pdp.embedded.outcomes.report(told, GATEWAY)

    assert [(issued,), (other,)] == [seen(pdp, handle, f"{one}@x.com") for one in ("new", "ann")]


def test_a_history_that_does_not_answer_is_no_unseen_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy could permit what is unseen: the call gets no decision. Names that need no look-up do."""
    history = MemorySessionHistory()
    with opened(tmp_path, files(), history=history) as pdp:
        _, handle = pdp.session("mail/*", purpose="write to ann@x.com")

        def fail(*_: object) -> dict[bytes, ValueClass]:
            raise StoreUnavailableError("the history does not answer")

        monkeypatch.setattr(history.values(), "classes", fail)

        assert ("named",) == seen(pdp, handle, "ann@x.com")
        with pytest.raises(StoreUnavailableError):
            pdp.ask(handle, "mail/send", b'{"to":"eve@x.com"}')


def test_one_look_up_answers_for_all_names_of_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the whole chain, and none where no name is left or no policy looks."""
    history, asked = MemorySessionHistory(), list[int]()
    with opened(tmp_path, files(), history=history) as pdp:
        _, parent = pdp.session("mail/*", purpose="write to ann@x.com")
        _, child = pdp.session("mail/*", purpose="write to ann@x.com", parent_session_handle=parent)
        find = history.values().classes

        def noted(tree_id: str, digests: Any) -> Any:
            asked.append(len(digests))
            return find(tree_id, digests)

        monkeypatch.setattr(history.values(), "classes", noted)
        seen(pdp, child, "ann@x.com")
        pdp.ask(child, "mail/read", b'{"to":"eve@x.com"}')
        pdp.ask(child, "mail/send", b'{"to":"eve@x.com","iban":"DE89370400440532013000","body":"eve@x.com x.org"}')

    assert [3] == asked


def test_a_session_without_the_key_sees_and_reports_nothing(pdp: Opened) -> None:
    """One below another that an earlier release has opened."""
    _, parent = pdp.session("mail/*")
    child_id, child = pdp.session("mail/*", parent_session_handle=parent)
    read(pdp, parent, "contacts", "ann@x.com")
    before = seen(pdp, child, "ann@x.com")
    session = pdp.stored(child_id)
    pdp.embedded.sessions.update([replace(session, epoch=session.epoch + 1, sealed_key=b"")], wall_at=1.0)

    assert (("clean",), ("unseen",)) == (before, seen(pdp, child, "ann@x.com"))
    assert pdp.embedded.outcomes.reading(pdp.ask(child, "mail/read"), child) is None


def test_a_reading_shows_no_key(pdp: Opened) -> None:
    """It is a secret of the gateway, as the token is."""
    _, handle = pdp.session("mail/*")
    decision, found = reading(pdp, handle, "contacts")

    assert "key" not in repr(found)
    assert found.key.hex() not in repr(
        (decision, found, pdp.embedded.registrar.get(decision.session_id, caller=APPROVER))
    )
