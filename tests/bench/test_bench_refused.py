"""A server that refuses calls before it looks at them: raw frames ask again, and say so."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from pdp.bench import Measurement, Result, Shape, WrongAnswerError, frameload, frames, read_result, written
from pdp.bench.control import answer
from pdp.bench.dialects import ControlDialect
from pdp.bench.figures import Figures
from pdp.bench.frameload import frame_load
from pdp.bench.frames import END_STREAM, FrameReader, frame
from pdp.bench.load import Sample
from pdp.bench.questions import generated_workload
from pdp.bench.results import Finding
from pdp.bench.servers import Target
from pdp.cli.operate.benchview import refusals
from pdp.v1.authorization_pb2 import AuthorizeResponse
from tests.machinery.servers.http2frames import data, message

ENDED = frames.END_HEADERS | END_STREAM
REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 7, 8, 11
WARMED = len(generated_workload().repeated)


@contextmanager
def resetting(error: int, *, first: int, until: float = float("inf")) -> Iterator[Target]:
    """Serve one connection, on which calls number `first` to `until` are reset with an error, and others answered."""
    greeting = frames.settings_frame({}), frame(frames.SETTINGS, frames.ACK, 0), frames.window_frame(0, 1 << 30)
    numbers, answered = count(), message(AuthorizeResponse(decision=answer()).SerializeToString())
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.sendall(b"".join(greeting))
                connection.recv(len(frames.PREFACE), socket.MSG_WAITALL)
                reader = FrameReader()
                while received := connection.recv(1 << 16):
                    for one in reader.read(received):
                        if one.kind == frames.DATA and one.flags & END_STREAM:
                            connection.sendall(reply(one.stream))

        def reply(stream: int) -> bytes:
            if first <= next(numbers) < until:
                return frame(frames.RST_STREAM, 0, stream, error.to_bytes(4))
            trailers = frame(frames.HEADERS, ENDED, stream, b"\x00\x0bgrpc-status\x010")
            return (
                frame(frames.HEADERS, frames.END_HEADERS, stream, b"\x88")
                + data(stream, answered, ended=False)
                + trailers
            )

        serving = threading.Thread(target=serve)
        serving.start()
        dialect = ControlDialect(("pdps_x",) * len(generated_workload().askers), "")
        yield Target(
            name="peer", address=f"127.0.0.1:{listening.getsockname()[1]}", pid=None, core=None, dialect=dialect
        )
        serving.join()


def measure(target: Target, measurement: Measurement, seconds: float = 0.05) -> Sample:
    """Ask each question once, and then in a loop."""
    with frame_load(target, measurement, generated_workload(), seconds) as load:
        load.ask_each(WARMED)
        return load.run(measurement, seconds)


@pytest.mark.parametrize("loop", [{"rate": 400.0}, {"concurrency": 4}], ids=str)
def test_a_refused_call_is_asked_again_and_its_time_runs_on(loop: dict[str, float]) -> None:
    """The call that waited for its second chance is the slowest one by at least the pause."""
    with resetting(REFUSED_STREAM, first=WARMED + 1, until=WARMED + 3) as target:
        sample = measure(target, Measurement(shape=Shape.FRAMES, **loop))  # type: ignore[arg-type]  # fields

    assert (2, len(sample.took)) == (sample.again, sample.decisions)
    assert 2 == sum(took >= frameload.PAUSE_SECONDS for took in sorted(sample.took)[-2:])


def test_what_is_refused_while_each_question_is_asked_once_does_not_count() -> None:
    """Only the loop is measured, and there each of the calls is asked once."""
    with resetting(REFUSED_STREAM, first=1, until=3) as target:
        sample = measure(target, Measurement(shape=Shape.FRAMES, rate=400.0))

    assert (20, 0) == (sample.decisions, sample.again)


def test_a_server_that_refuses_on_and_on_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is asked a bounded number of times."""
    monkeypatch.setattr(frameload, "_MOST_REFUSALS", 3)

    with (
        resetting(REFUSED_STREAM, first=WARMED) as target,
        pytest.raises(WrongAnswerError, match="no answer: the server refused a call 4 times"),
    ):
        measure(target, Measurement(shape=Shape.FRAMES, concurrency=2))


@pytest.mark.parametrize(("error", "name"), [(CANCEL, "CANCEL"), (ENHANCE_YOUR_CALM, "ENHANCE_YOUR_CALM")])
def test_any_other_error_ends_the_run(error: int, name: str) -> None:
    """The call may have been begun: only a refusal says that it was not."""
    with (
        resetting(error, first=WARMED + 1, until=WARMED + 2) as target,
        pytest.raises(WrongAnswerError, match=f"no answer: the server reset a call with {name}"),
    ):
        measure(target, Measurement(shape=Shape.FRAMES, rate=400.0))


def test_a_result_says_how_often_calls_were_asked_again(tmp_path: Path) -> None:
    """The file keeps it, the reader of the tables is told, and nothing is said where nothing was refused."""
    rounds = {"refusing": [Figures(again=2), Figures(again=1)], "other": [Figures()]}
    finding = Finding(title="raw frames", control="other", rounds=rounds)
    result = Result(at="", yardstick="", machine={}, effort="", workload="", remarks=[], findings=[finding])
    file = tmp_path / "result.json"
    file.write_bytes(written(result))

    kept = read_result(file)
    assert [2, 1, 0] == [one.again for listed in kept.findings[0].rounds.values() for one in listed]
    assert 2 == file.read_text(encoding="utf-8").count("again")
    assert ["raw frames, refusing: refused calls were asked again 3 times, and their time ran on"] == [*refusals(kept)]
