"""Connected accounts in the console, and who used their secrets, with a real broker and a provider of the test's."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pdp.model import Caller, Role
from pdp.testing.inprocess import running_server
from tests.console.brokered import Site, brokered
from tests.console.desk import CALLERS, files


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve to all tests of this module."""
    people = [Caller(id=name, kind="token", roles=frozenset({Role.AUTHOR})) for name in ("alice", "mallory")]
    with (
        running_server(files(), callers=(*CALLERS, *people)) as server,
        brokered(server, tmp_path_factory.mktemp("broker")) as running,
    ):
        yield running


def test_a_person_connects_and_disconnects(site: Site) -> None:
    """Coming back alone connects nothing; then the page says what was granted, and an auditor sees it, too."""
    with site.person("alice") as alice:
        alice.open("/connections")
        assert "You have connected nothing." in alice.words
        alice.send("/connections/begin")
        back = site.agreed(alice)
        alice.open(back)
        assert "You are alice." in alice.words
        alice.send("/connections/finish")

        assert {"Granted issues", "State connected", "Last used never"} <= {*alice.facts}
        with site.person("auditor") as auditor:
            auditor.open("/connections")
            assert "User alice" in auditor.facts
            assert "Disconnect" not in auditor.words
        alice.send("/connections/end")
        assert "They are deleted here." in alice.words
        alice.open("/connections")
        assert "You have connected nothing." in alice.words


def test_who_was_lured_connects_nothing(site: Site) -> None:
    """Alice agrees in what Mallory has begun, and comes back to the console as herself."""
    with site.person("mallory") as mallory, site.person("alice") as alice:
        mallory.open("/connections")
        mallory.send("/connections/begin")
        alice.open(site.agreed(mallory))
        alice.send("/connections/finish")

        assert "another person began this" in alice.words
        for person in (alice, mallory):
            person.open("/connections")
            assert "You have connected nothing." in person.words


def test_an_auditor_sees_who_used_a_secret(site: Site) -> None:
    """From the page of connections on; each use once over all pages, with what leads to its session and the plan."""
    connection = site.connected("bob")
    for number in range(102):
        site.used(connection, decision_id=f"dec_{number}")
    with site.person("auditor") as auditor:
        auditor.open("/connections")
        auditor.open(auditor.leads("Who used it"))
        assert {"Uses 102 uses"} <= {" ".join(one.split(",")[0].split()) for one in auditor.facts}
        assert "this is all" in auditor.words
        assert "coder for alice in ses_1" in auditor.words
        assert "/record/plan?session=ses_1" == auditor.leads("Sessions to revoke")
        decisions = set(re.findall(r"dec_[0-9]+", auditor.text))
        auditor.open(auditor.leads("Earlier calls"))
        assert "Earlier calls" not in auditor.words

        assert {f"dec_{number}" for number in range(102)} == decisions | {*re.findall(r"dec_[0-9]+", auditor.text)}
        auditor.open(f"/record/exposure?connection={connection}&since=2099-01-01")
        assert "Nothing used it since then." in auditor.words


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ("connection=nothing", 400, "names no such connection or version"),
        ("connection=foreign", 400, "names no such connection or version"),
        ("connection=crm&version=2", 400, "names no such connection or version"),
        ("connection=crm&version=x", 400, "is not a version of a secret"),
        ("connection=crm&since=x", 400, "is not a time such as"),
        ("connection=crm&page=x", 400, "is not one that this service issued"),
        ("", 200, "Name the connection whose secret may have leaked"),
    ],
)
def test_what_cannot_be_answered_is_said(site: Site, asked: str, status: int, said: str) -> None:
    """A connection that only another tenant used is one that the record does not name."""
    site.used("foreign", tenant="acme")
    with site.person("auditor") as auditor:
        assert status == auditor.open(f"/record/exposure?{asked}").status_code
        assert said in auditor.words


def test_who_used_a_secret_is_for_auditors(site: Site) -> None:
    """An approver sees no link to it, and the broker refuses the page."""
    site.connected("carol")
    with site.person("approver") as approver:
        approver.open("/connections")
        assert "Who used it" not in approver.words

        assert 403 == approver.open("/record/exposure?connection=crm").status_code
