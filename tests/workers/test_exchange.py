"""What workers tell each other by way of the supervisor, over real processes that do almost nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.workers.conftest import Supervise, marks

# The last of three workers tells something when all have been started, and says when it knows that all have heard it.
TELL = """
serve()
if number == 3 and round == 0:
    say(News(id="3-1", file="news"))
    mark(f"all heard {hear().id}")
    end_test()
"""


def test_all_others_hear(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """What one worker tells reaches each of the others, and it learns when they have dealt with it."""
    supervisor = supervise(
        TELL
        + """
if number < 3:
    word = hear()
    mark(f"{number} heard {word.file}")
    say(Heard(id=word.id))
told()
""",
        count=3,
    )

    supervisor.start(until=end)
    supervisor.tend(until=end)

    assert ["1-0", "1 heard news", "2-0", "2 heard news", "3-0", "all heard 3-1"] == sorted(
        marks(tmp_path), key=lambda name: (name[0], "heard" in name)
    )


def test_who_ends_is_not_waited_for(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """A worker that ends before it has dealt with something keeps nobody waiting."""
    supervisor = supervise("""
serve()
if number == 2:
    say(News(id="2-1", file="news"))
    mark(f"all heard {hear().id}")
    end_test()
if number == 1 and round == 0:
    hear()
    sys.exit()
told()
""")

    supervisor.start(until=end)
    supervisor.tend(until=end)

    assert "all heard 2-1" in marks(tmp_path)


def test_who_is_alone_waits_for_nobody(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """The first worker, who starts alone, may tell something before it serves."""
    script = 'say(News(id="1-1", file="news"))\nmark(f"all heard {hear().id}")\nserve()\ntold()'

    assert supervise(script, count=1).start(until=end)
    assert "all heard 1-1" in marks(tmp_path)


def test_who_starts_meanwhile_hears_too(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """A worker that takes the place of another one is told what is being told, and is waited for."""
    supervisor = supervise(
        TELL
        + """
if number == 1:
    word = hear()
    while not os.path.exists("2 heard news"):
        pass
    say(Heard(id=word.id))
if number == 2:
    word = hear()
    round or sys.exit()
    mark(f"{number} heard {word.file}")
    say(Heard(id=word.id))
told()
""",
        count=3,
    )

    supervisor.start(until=end)
    supervisor.tend(until=end)

    assert {"2-1", "2 heard news", "all heard 3-1"} <= set(marks(tmp_path))


def test_what_the_dead_told_is_forgotten(supervise: Supervise, end: int, tmp_path: Path) -> None:
    """When a worker ends before all have heard it, the others' answers are for nobody, and the next one may tell."""
    supervisor = supervise(
        """
serve()
if number == 3 and round == 0:
    say(News(id="3-0", file="all serve"))
    hear()
    say(News(id="3-1", file="news"))
    sys.exit()
if number == 3:
    say(News(id="3-2", file="other news"))
    mark(f"all heard {hear().id}")
    end_test()
if number < 3:
    for _ in range(3):
        word = hear()
        while word.file == "news" and not os.path.exists("3-1"):
            pass
        say(Heard(id=word.id))
told()
""",
        count=3,
    )

    supervisor.start(until=end)
    supervisor.tend(until=end)

    assert "all heard 3-2" in marks(tmp_path)
