"""When a lease holds, and how the servers of a machine see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.clock import Instant
from pdp.model import Head
from pdp.sessions.lease import Lease, LeaseTerms
from pdp.sessions.leasepage import LeasePage, LeaseStanding
from pdp.testing.clock import FakeClock

BEGUN = FakeClock().now()
LEASE = Lease(head=Head(revision=7, tag="a tag"), begun=BEGUN, seconds=1.0, behind=0.25, timeline="00000002")
LATER = replace(LEASE, head=Head(revision=8, tag="another"))


def moved(*, wall: float, boot: float, boot_id: str = BEGUN.boot_id) -> Instant:
    """Return the time so many seconds after the lease has begun, on each clock."""
    return Instant(wall_at=BEGUN.wall_at + wall, boot_at=BEGUN.boot_at + boot, boot_id=boot_id)


@pytest.fixture
def clock() -> FakeClock:
    """Give the clock of the machine, at the time when the lease began."""
    return FakeClock()


@pytest.fixture
def pages(tmp_path: Path, clock: FakeClock) -> Iterator[tuple[LeasePage, LeasePage]]:
    """Give the pages of two servers of one machine."""
    with ExitStack() as opened:
        terms = LeaseTerms(file=tmp_path / "lease", seconds=1.0, clock=clock)
        pages = [opened.enter_context(closing(LeasePage(terms, deployment="ours"))) for _ in range(2)]
        yield pages[0], pages[1]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(moved(wall=0.0, boot=0.0), True, id="at once"),
        pytest.param(moved(wall=0.75, boot=0.75), True, id="almost over"),
        pytest.param(moved(wall=1.0, boot=1.0), False, id="over"),
        pytest.param(moved(wall=0.0, boot=1.5), False, id="the wall clock was set back"),
        pytest.param(moved(wall=0.7, boot=0.5), False, id="the boot clock stood still"),
        pytest.param(moved(wall=0.0, boot=0.2), False, id="the wall clock stood still"),
        pytest.param(moved(wall=-0.1, boot=-0.1), False, id="not yet begun"),
        pytest.param(moved(wall=0.5, boot=0.5, boot_id="another"), False, id="another boot"),
    ],
)
def test_a_lease_holds_by_the_boot_clock_while_both_clocks_agree(now: Instant, *, expected: bool) -> None:
    """A wall clock alone neither makes it longer nor is it overlooked."""
    assert expected == LEASE.holds(now)


def test_every_server_of_the_machine_sees_the_lease(pages: tuple[LeasePage, LeasePage]) -> None:
    """The one that renews it, and the others; and that it was replaced or taken away."""
    here, there = pages
    seen = []
    for lease in (None, LEASE, LATER, None):
        here.publish(lease)
        seen.append((here.held(), there.held()))

    assert [(None, None), (LEASE, LEASE), (LATER, LATER), (None, None)] == seen


def test_a_lease_ends_by_the_clock(pages: tuple[LeasePage, LeasePage], clock: FakeClock) -> None:
    """Nothing needs to be written for it."""
    here, there = pages
    here.publish(LEASE)
    clock.advance(1.0)

    assert there.held() is None
    assert there.lease() == LEASE


def test_the_age_of_a_lease_goes_on_when_it_is_over(pages: tuple[LeasePage, LeasePage], clock: FakeClock) -> None:
    """And when it was taken away: for how long there has been none is what an alert wants to know."""
    here, there = pages
    standing = LeaseStanding(there, clock)
    ages = []
    for lease in (LEASE, LEASE, None):
        clock.advance(0.75)
        here.publish(lease)
        ages.append((standing.held(), standing.age()))

    assert [(True, 0.75), (False, 1.5), (False, 2.25)] == ages


def test_half_of_a_record_is_no_lease(pages: tuple[LeasePage, LeasePage], tmp_path: Path) -> None:
    """Wherever the old one ends and the new one begins, a reader never sees the new lease with the old head."""
    here, there = pages
    here.publish(LEASE)
    old = (tmp_path / "lease").read_bytes()
    here.publish(LATER)
    new = (tmp_path / "lease").read_bytes()
    seen = set()
    for cut in range(1, len(new)):
        with (tmp_path / "lease").open("r+b") as file:
            file.write(new[:cut] + old[cut:])
        seen.add(there.held())

    # Before the first byte that differs it is the old record.
    assert {LEASE, None} == seen


def test_a_lease_of_another_database_is_none(pages: tuple[LeasePage, LeasePage], tmp_path: Path) -> None:
    """The file can be older than the setting."""
    here, _ = pages
    here.publish(LEASE)
    terms = LeaseTerms(file=tmp_path / "lease", seconds=1.0, clock=FakeClock())
    with closing(LeasePage(terms, deployment="another")) as page:
        assert page.held() is None


def test_one_server_renews_until_it_ends(pages: tuple[LeasePage, LeasePage]) -> None:
    """Then another one can."""
    here, there = pages
    before = (here.hold(), there.hold(), here.hold())
    here.close()

    assert (True, False, True) == before
    assert there.hold()


def test_a_closed_page_has_no_lease(pages: tuple[LeasePage, LeasePage]) -> None:
    """It is closed while others may still ask."""
    here, _ = pages
    here.publish(LEASE)
    here.close()

    assert here.held() is None
