"""A worker's part in what workers tell each other: it waits for the others, but not for ever."""

from __future__ import annotations

import logging
import queue
import threading
from pathlib import Path

import pytest

from pdp.testing.waiting import wait_until
from pdp.workers.telling import SupervisedPeers
from pdp.workers.words import Heard, News, Word


def test_news_stand_in_a_file_until_all_have_heard(tmp_path: Path) -> None:
    """The supervisor gets a name, the others read the file, which nobody else can, and which is gone afterwards."""
    file, seen = tmp_path / "worker-1.news", []

    def say(word: Word) -> None:
        assert isinstance(word, News)
        seen.append((Path(word.file).read_bytes(), Path(word.file).stat().st_mode & 0o777))
        peers.receive(Heard(id=word.id))

    peers = SupervisedPeers(say, file)
    peers.tell(b"one")
    peers.tell(b"two")

    assert [(b"one", 0o600), (b"two", 0o600)] == seen
    assert [] == list(tmp_path.iterdir())


def test_what_is_left_stays_for_those_that_begin_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each worker finds what any of them left last, in a file that nobody else can read."""
    first, second = (SupervisedPeers(lambda _: None, tmp_path / f"worker-{number}.news") for number in (1, 2))
    nothing = second.left()
    first.leave(b"one")
    second.leave(b"two")
    SupervisedPeers(lambda _: None, tmp_path / "none" / "worker-3.news").leave(b"three")

    (file,) = tmp_path.iterdir()
    assert (None, b"two", 0o600) == (nothing, first.left(), file.stat().st_mode & 0o777)
    assert ["the workers that begin later must compile the bundle again: No such file or directory"] == caplog.messages


def test_nobody_is_waited_for_without_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When others do not answer in time it goes on, and says so; an answer that comes later is of no matter."""
    said: list[Word] = []
    peers = SupervisedPeers(said.append, tmp_path / "worker-1.news", patience=0.0)

    peers.tell(b"news")

    (word,) = said
    assert isinstance(word, News)
    peers.receive(Heard(id=word.id))
    assert ["not all workers have confirmed a change within 0 s; it is made now"] == caplog.messages
    assert [] == list(tmp_path.iterdir())


def test_a_stop_waits_for_nobody(tmp_path: Path) -> None:
    """Who waits for the others when the server stops goes on at once, and so does who tells something afterwards."""
    waiting = threading.Event()
    peers = SupervisedPeers(lambda _: waiting.set(), tmp_path / "worker-1.news")
    telling = threading.Thread(target=peers.tell, args=(b"news",))
    telling.start()
    waiting.wait()

    peers.close()

    telling.join()
    peers.tell(b"more")


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """News that cannot be put down are not told, and whoever tells goes on."""
    said: list[Word] = []

    SupervisedPeers(said.append, tmp_path / "none" / "worker-1.news").tell(b"news")

    assert [] == said
    assert ["the other workers cannot be informed of a change before it is made: No such file or directory"] == (
        caplog.messages
    )


def test_what_others_tell_is_heard_in_turn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """News are read one after the other, from the first moment on, and each is answered, also what has gone."""
    said: queue.SimpleQueue[Word] = queue.SimpleQueue()
    heard: list[bytes] = []
    peers = SupervisedPeers(said.put, tmp_path / "worker-1.news")
    (tmp_path / "worker-2.news").write_bytes(b"news")
    caplog.set_level(logging.WARNING)

    for name, file in (("2-1", "worker-2.news"), ("3-1", "worker-3.news"), ("2-2", "worker-2.news")):
        peers.receive(News(id=name, file=str(tmp_path / file)))
    peers.begin(heard.append)

    assert [Heard(id=name) for name in ("2-1", "3-1", "2-2")] == [said.get(timeout=30.0) for _ in range(3)]
    assert [b"news", b"news"] == heard
    wait_until(lambda: ["a message from another worker cannot be read: No such file or directory"] == caplog.messages)
