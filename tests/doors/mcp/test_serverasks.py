"""The open questions of a server: so many, and each for so long."""

from __future__ import annotations

from pdp.doors.mcp.serverasks import ASKED_SECONDS, MOST_ASKED, ServerAsks


def test_a_question_is_open_for_a_time_only() -> None:
    """After that its answer is one to nothing, and it takes no place: a client need not answer."""
    now = [0.0]
    asks = ServerAsks(lambda: now[0])
    taken = [asks.ask(number) for number in range(MOST_ASKED + 1)]
    now[0] = ASKED_SECONDS - 1
    in_time, once = asks.close(0), asks.close(0)
    now[0] = ASKED_SECONDS

    assert [True] * MOST_ASKED + [False] == taken
    assert (True, False) == (in_time, once)
    assert asks.close(1) is False
    assert [True] * MOST_ASKED == [asks.ask(f"s-{number}") for number in range(MOST_ASKED)]


def test_an_id_is_that_of_one_question() -> None:
    """`1` and `"1"` are two ids, and one that is answered can come again."""
    asks = ServerAsks()

    assert (True, False, True) == (asks.ask(1), asks.ask(1), asks.ask("1"))
    assert (True, True) == (asks.close(1), asks.ask(1))
    assert ("1", 1) == asks.close_all()
    assert asks.close(1) is False
