"""Refused requests are counted one by one and recorded in sums: what anybody may send does not fill the disk."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.client.connection import Connection
from pdp.config.settings import PolicySettings, ServerSettings, Settings
from pdp.observer import Event, EventKind
from pdp.record.reader import read_records
from pdp.serving.refusals import MOST_KINDS, RefusalSums
from tests.machinery.servers.running import Notes

AUTHORIZE = "pdp.v1.AuthorizationService/Authorize"


def refusal(at: float, caller: str = "", status: str = "UNAUTHENTICATED", **facts: str) -> Event:
    """Return a refusal of `Authorize`."""
    named = {"rpc": AUTHORIZE, "status": status, **facts}
    return Event(kind=EventKind.REQUEST_REFUSED, at=at, caller_id=caller, tenant="t" if caller else "", facts=named)


def test_the_first_of_each_kind_is_passed_on_and_then_the_sum() -> None:
    """Kinds differ in RPC, status and caller; the sum says how many followed, from when to when, with a sample."""
    told, counted = Notes(), list[Event]()
    sums = RefusalSums(told, count=counted.append)
    first, other = refusal(1.0), refusal(1.5, caller="gateway", field="call")

    for event in (first, other, refusal(2.0), refusal(3.0), refusal(4.0, traceparent="00-1-2-01", field="x")):
        sums.event(event)
    before = list(told.events)
    sums.flush()
    sums.flush()

    assert [first, other] == before
    assert 3 == len(counted)
    facts = {"rpc": AUTHORIZE, "status": "UNAUTHENTICATED", "traceparent": "00-1-2-01", "count": "3"}
    times = {"first_at": "1970-01-01T00:00:02.000000Z", "last_at": "1970-01-01T00:00:04.000000Z"}
    assert [Event(kind=EventKind.REQUESTS_REFUSED, at=4.0, facts={**facts, **times})] == told.events[2:]


def test_a_kind_begins_anew_after_its_sum() -> None:
    """The next refusal is the first again, and other events are never held up."""
    told = Notes()
    sums = RefusalSums(told)
    started = Event(kind=EventKind.SERVER_STARTED, at=0.5)

    sums.event(refusal(1.0))
    sums.flush()
    for event in (started, refusal(2.0)):
        sums.event(event)

    assert [refusal(1.0), started, refusal(2.0)] == told.events


def test_kinds_are_bounded() -> None:
    """However many kinds there are, so many are told apart between two sums, and all others are one, of no caller."""
    told = Notes()
    sums = RefusalSums(told)

    for number in range(MOST_KINDS + 500):
        sums.event(refusal(float(number), caller=f"caller-{number}"))
    passed = len(told.events)
    sums.flush()

    assert MOST_KINDS == passed
    (others,) = told.events[passed:]
    assert ("", "", "other", "500") == (others.caller_id, others.tenant, others.facts["rpc"], others.facts["count"])


def test_a_flood_of_refusals_costs_two_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five hundred calls without credentials leave the first of them and one sum in the record of a real server."""
    # On a busy machine they take longer than the product's minute.
    monkeypatch.setattr("pdp.serving.refusals.SUM_SECONDS", 3600.0)
    policies = Path(__file__).parents[2] / "policies"
    settings = Settings(
        data_dir=str(tmp_path / "data"),
        server=ServerSettings(address="127.0.0.1:0"),
        policies=PolicySettings(folder=str(policies), watch=False),
    )
    prepare(settings, development=True)
    app = App(settings)
    app.start()

    with Connection.to(app.address, data_dir=settings.data_dir).open(grpc) as channel:
        ask = channel.unary_unary(f"/{AUTHORIZE}")
        codes = {ask.future(b"", timeout=60.0).code() for _ in range(500)}
    app.stop()

    assert {grpc.StatusCode.UNAUTHENTICATED} == codes
    found = [read.record for read in read_records(settings.record_folder)]
    refused = [one for one in found if one["kind"].startswith("request")]
    assert ["request.refused", "requests.refused"] == [one["kind"] for one in refused]
    assert "499" == refused[1]["facts"]["count"]
