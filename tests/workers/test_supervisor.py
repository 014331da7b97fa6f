"""The supervisor over real processes that do almost nothing: who is started when, replaced, told and given up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pdp.errors import ConfigurationError
from pdp.workers.supervisor import Patience, WorkersFailedError
from tests.workers.conftest import Supervise, marks


def test_the_first_starts_alone(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """What the first worker does before it serves is done when the others are started."""
    script = """
if number == 1:
    serve()
elif os.path.exists("1-0"):
    serve()
else:
    fail("too early")
told()
"""

    assert supervise(script, count=3).start(until=end)
    assert ["1-0", "2-0", "3-0"] == marks(tmp_path)


def test_what_is_wrong_at_the_start_is_told(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """A worker that cannot start ends the start with its own words, and no other one is started."""
    supervisor = supervise('mark(str(number)); fail("one thing", "and another")')

    with pytest.raises(ConfigurationError, match=r"^one thing\nand another$"):
        supervisor.start(until=end)

    assert ["1"] == marks(tmp_path)


def test_a_silent_end_at_the_start_is_told(supervise: Supervise, end: int) -> None:
    """A worker that ends without a word is told with how it ended."""
    with pytest.raises(ConfigurationError, match=r"^worker 1 ended with signal `SIGKILL`$"):
        supervise("os.kill(os.getpid(), 9)").start(until=end)


def test_a_start_is_left_off(supervise: Supervise, end: int) -> None:
    """A signal is heard although the first worker does not serve yet."""
    assert not supervise("end_test(); told()").start(until=end)


@pytest.mark.parametrize("ending", ["sys.exit(0)", "os.kill(os.getpid(), 9)", 'fail("wrong")'])
def test_a_worker_is_replaced(supervise: Supervise, end: int, tmp_path: Path, ending: str) -> None:
    """Whoever ends, in whichever way, has another one in its place, and the others stay."""
    supervisor = supervise(f"""
serve()
if number == 2 and round < 2:
    {ending}
elif number == 2:
    end_test()
told()
""")

    supervisor.start(until=end)
    supervisor.tend(until=end)

    assert ["1-0", "2-0", "2-1", "2-2"] == marks(tmp_path)


def test_a_worker_that_never_stays_ends_all(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """After three early ends in a row there is no fourth worker, and the last one's words are told."""
    supervisor = supervise(
        'if round:\n  mark(f"{number}-{round}"); fail("the disk is full")\nserve()\nnumber == 2 or told()'
    )
    supervisor.start(until=end)

    with pytest.raises(WorkersFailedError, match=r"^worker 2 ended 3 times soon after its start\nthe disk is full$"):
        supervisor.tend(until=end)

    assert ["1-0", "2-0", "2-1", "2-2"] == marks(tmp_path)


def test_one_that_has_served_for_long_is_not_counted(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """Ends after a steady service are no reason to give up, however many there are."""
    supervisor = supervise(
        "serve()\nround == 5 and end_test()\nround < 5 or told()", count=1, patience=Patience(steady=0.0, deaths=1)
    )
    supervisor.start(until=end)

    supervisor.tend(until=end)

    assert [f"1-{round_}" for round_ in range(6)] == marks(tmp_path)


def test_all_are_told(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """Every worker hears that callers are to be read again, and then that it is to stop."""
    supervisor = supervise('serve()\nmark(f"told {number} {told()} {told()}")')
    supervisor.start(until=end)

    supervisor.reload_callers()
    supervisor.stop(60.0)

    assert ["1-0", "2-0", "told 1 1 15", "told 2 1 15"] == marks(tmp_path)


def test_who_does_not_stop_is_killed(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """A worker that does not end in time is ended."""
    supervisor = supervise("serve()\nwhile told(): pass\nos.read(report, 1)", patience=Patience(closing=0.0))
    supervisor.start(until=end)

    supervisor.stop(0.0)

    assert ["1-0", "2-0"] == marks(tmp_path)


@pytest.mark.parametrize(
    ("deaths", "expected"), [(0, 0.0), (1, 0.0), (2, 0.5), (3, 1.0), (4, 2.0), (5, 4.0), (6, 8.0), (7, 8.0)]
)
def test_pauses_double_up_to_a_bound(deaths: int, expected: float) -> None:
    """The first end costs no pause; then the pauses double and do not grow beyond the longest."""
    assert expected == Patience().pause(deaths)


def test_the_others_are_there_before_the_first_serves(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """Workers make themselves ready at the same time, although only one has begun."""
    script = """
if number == 1:
    beside = open(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read().split()
    mark(f"{len(beside) >= 3}")
serve()
told()
"""

    assert supervise(script, count=3).start(until=end)
    assert ["1-0", "2-0", "3-0", "True"] == marks(tmp_path)


def test_one_that_has_not_begun_is_ended_with_the_others(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """A start that is left off leaves no process that still waits for its job."""
    supervisor = supervise("end_test(); told()", count=3)

    assert not supervisor.start(until=end)
    supervisor.stop(0.0)

    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes().decode() for child in children]
    assert [] == [command for command in commands if str(tmp_path) in command]


def test_one_that_says_nothing_is_replaced(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """A worker that serves, says nothing and does nothing is stopped or hangs: it is killed, and the others stay."""
    script = """
serve()
if number == 1 or round:
    round and end_test()
    while True:
        say(Alive())
        time.sleep(0.05)
time.sleep(1000)
"""
    supervisor = supervise(script, patience=Patience(first=0.0, silent=2.0, closing=0.0))
    supervisor.start(until=end)

    supervisor.tend(until=end)

    assert ["1-0", "2-0", "2-1"] == marks(tmp_path)


def test_one_that_is_busy_has_more_time(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """A worker that uses its core may only be starved of it: its silence alone does not end it."""
    script = """
serve()
until = time.monotonic() + 3
while time.monotonic() < until:
    pass
end_test()
told()
"""
    supervisor = supervise(script, count=1, patience=Patience(silent=1.0, busy=1000.0))
    supervisor.start(until=end)

    supervisor.tend(until=end)

    assert ["1-0"] == marks(tmp_path)


def test_one_that_stops_right_after_work_is_replaced_as_soon(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """What a worker did between its last word and its stop is no sign that it is busy."""
    script = """
serve()
round and end_test()
while not round and time.process_time() < 0.5:
    pass
round or time.sleep(1000)
told()
"""
    supervisor = supervise(script, count=1, patience=Patience(first=0.0, silent=1.0, busy=1000.0))
    supervisor.start(until=end)

    supervisor.tend(until=end)

    assert ["1-0", "1-1"] == marks(tmp_path)


def test_one_that_waits_for_the_machine_has_more_time(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """A worker that the kernel keeps from running is no worker that hangs, though it uses no core time."""
    # What starts a process waits, as for a disk, until that process has opened its files.
    script = """
os.mkfifo("pipe")
os.system("(sleep 4; : > pipe) &")
serve()
os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, "pipe", os.O_RDONLY, 0)])
os.unlink("pipe")
end_test()
told()
"""
    supervisor = supervise(script, count=1, patience=Patience(silent=1.0, busy=1000.0))
    supervisor.start(until=end)

    supervisor.tend(until=end)

    assert ["1-0"] == marks(tmp_path)


def test_one_that_is_busy_and_silent_for_long_is_replaced(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """A worker that spins and never says a word is killed too."""
    # The second one serves only afterwards: one that waits for its core could be taken for one that spins.
    script = """
if round:
    mark("1-1")
    end_test()
    told()
serve()
while True:
    pass
"""
    supervisor = supervise(script, count=1, patience=Patience(first=0.0, silent=1.0, busy=2.0))
    supervisor.start(until=end)

    supervisor.tend(until=end)

    assert ["1-0", "1-1"] == marks(tmp_path)


def test_what_was_not_heard_because_nobody_listened_counts_anew(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """A supervisor that was itself stopped ends no worker for its silence meanwhile."""
    supervisor = supervise("serve()\ntime.sleep(2)\nend_test()\ntold()", count=1, patience=Patience(silent=10.0))
    supervisor.start(until=end)
    supervisor._checked_at -= 100
    for slot in supervisor._slots:
        slot.heard_at -= 100

    supervisor.tend(until=end)

    assert ["1-0"] == marks(tmp_path)
