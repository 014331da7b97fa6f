"""The child process: it answers, it may die, and it takes nothing with it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pdp.errors import EvaluatorUnavailableError, OverloadedError
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.child.main import read_frame, write_frame
from pdp.policy.child.process import PolicyChild, run_once
from pdp.testing.waiting import wait_until

PERMIT = "permit(principal, action, resource);"

# Each type doubles the one before, and the engine expands them all: this job would not end.
ENDLESS = {
    "schema": "type A0 = Long;"
    + "".join(f"type A{n} = {{x: A{n - 1}, y: A{n - 1}}};" for n in range(1, 60))
    + "entity U { a: A59 };"
}


def has_a_job(child: PolicyChild) -> bool:
    """Say whether a job has been written that the process, which is stopped, has not read."""
    process = child._process
    assert process is not None
    assert process.stdin is not None
    return int.from_bytes(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)), sys.byteorder) > 0


def question(user: str = "ada") -> dict[str, Any]:
    """Return a job with one request."""
    request = {
        "principal": {"type": "U", "id": user},
        "action": {"type": "Action", "id": "a"},
        "resource": {"type": "U", "id": "u"},
    }
    return {
        "policies": f'permit(principal == U::"{user}", action, resource);',
        "requests_json": [json.dumps(request)],
    }


def decision(answer: dict[str, Any]) -> str:
    """Return the decision of an answer to one request."""
    return str(answer["evaluations"][0]["decision"])


def pid_of(child: PolicyChild) -> int:
    """Return the id of the running process."""
    assert child._process is not None
    return child._process.pid


def state_of(pid: int) -> str:
    """Return the letter that proc(5) has for the state of a process; `Z` for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def alive(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    return state_of(pid) != "Z"


def stop(pid: int) -> None:
    """Stop a process. One that waits for input would else read what comes before the signal has reached it."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state_of(pid) == "T")


@pytest.fixture
def child() -> Iterator[PolicyChild]:
    """Yield a child with time to spare."""
    child = PolicyChild(timeout=60)
    yield child
    child.close()


def test_it_answers_from_one_process(child: PolicyChild) -> None:
    """Jobs are done one after the other by the same process."""
    first = child.evaluate(question())
    pid = pid_of(child)

    assert (decision(first), decision(child.call("evaluate", question("bob"))), pid_of(child)) == (
        "Allow",
        "Allow",
        pid,
    )


def test_an_interrupted_job_leaves_no_answer_behind(child: PolicyChild, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a caller is interrupted while it waits, the next caller does not get its answer."""
    child.evaluate(question())
    with monkeypatch.context() as patched:
        patched.setattr("pdp.policy.child.process.read_frame", interrupt)
        with pytest.raises(KeyboardInterrupt):
            child.evaluate(question())

    assert child.evaluate({"policies": PERMIT})["evaluations"] == []


def interrupt(_: object) -> None:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


def test_an_unknown_kind_is_an_error(child: PolicyChild) -> None:
    """Only the kinds that exist are run."""
    with pytest.raises(EvaluatorUnavailableError):
        child.call("os.system", {})


def test_bundles_compile(child: PolicyChild) -> None:
    """The kind `compile` compiles bundles: an empty one has problems."""
    job = {"files": {"bundle.yaml": ""}, "limits": asdict(DEFAULT_LIMITS)}

    assert child.call("compile", job).keys() == {"problems"}


def test_many_threads_get_their_own_answers() -> None:
    """Callers on many threads never get each other's answers."""
    child = PolicyChild(timeout=60, waiting=8)
    jobs = [question(f"user{n}") | {"policies": PERMIT * (n + 1)} for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(child.evaluate, jobs))
    child.close()

    assert [len(answer["evaluations"][0]["reasons"]) for answer in answers] == list(range(1, 201))


def test_large_jobs_fit(child: PolicyChild) -> None:
    """A job and a result may be larger than a pipe holds."""
    answer = child.evaluate(question() | {"policies": PERMIT * 20_000})

    assert len(answer["evaluations"][0]["reasons"]) == 20_000


def test_a_job_that_does_not_end_is_ended() -> None:
    """A job that takes too long is an error, and the next one is answered by a new process."""
    child = PolicyChild(timeout=1)
    with pytest.raises(EvaluatorUnavailableError, match="longer than `1` seconds"):
        child.evaluate(ENDLESS)
    child._timeout = 60  # a busy machine may need longer than a second for the next one

    assert decision(child.evaluate(question())) == "Allow"
    child.close()


def test_a_crash_is_an_error_and_the_next_job_works(child: PolicyChild) -> None:
    """When the process dies during a job, that job's caller is told, and nobody else notices."""
    child.evaluate(question())
    pid = pid_of(child)
    with ThreadPoolExecutor(1) as pool:
        stop(pid)
        answer = pool.submit(child.evaluate, question())
        wait_until(lambda: has_a_job(child))
        os.kill(pid, signal.SIGSEGV)
        os.kill(pid, signal.SIGCONT)

        with pytest.raises(EvaluatorUnavailableError, match=r"crashed the engine \(signal `SIGSEGV`\)"):
            answer.result(60)
    assert decision(child.evaluate(question())) == "Allow"


def test_a_death_between_jobs_goes_unnoticed(child: PolicyChild) -> None:
    """A process that died while idle is replaced before the next job."""
    child.evaluate(question())
    process = child._process
    assert process is not None
    process.kill()
    wait_until(lambda: process.poll() is not None)

    assert decision(child.evaluate(question())) == "Allow"


def test_a_failing_job_ends_the_process_and_says_nothing(child: PolicyChild) -> None:
    """A job that raises is no answer; the error holds nothing of the job."""
    with pytest.raises(EvaluatorUnavailableError) as caught:
        child.evaluate({"policies": PERMIT, "template_links": [{"secret": "x"}]})

    assert str(caught.value) == "the policies ended the engine (exit code `1`)"
    assert decision(child.evaluate(question())) == "Allow"


def test_too_many_callers_are_refused() -> None:
    """Beyond `waiting`, callers are told to come back."""
    child = PolicyChild(timeout=60, waiting=0)
    child.evaluate(question())
    stop(pid_of(child))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(child.evaluate, question())
        wait_until(child._turn.locked)

        with pytest.raises(OverloadedError):
            child.evaluate(question())
        os.kill(pid_of(child), signal.SIGCONT)
        assert decision(first.result(60)) == "Allow"
    child.close()


def test_waiting_ends() -> None:
    """A caller that waits as long as a job may take is told to come back."""
    child = PolicyChild(timeout=0.2)
    with child._turn, pytest.raises(OverloadedError):
        child.evaluate(question())


def test_close_ends_process_and_job() -> None:
    """Closing ends the process and the running job; afterwards nothing starts again."""
    child = PolicyChild(timeout=60)
    child.evaluate(question())
    pid = pid_of(child)
    stop(pid)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(child.evaluate, question())
        wait_until(child._turn.locked)
        child.close()

        with pytest.raises(EvaluatorUnavailableError):
            running.result(60)
    assert not alive(pid)
    with pytest.raises(EvaluatorUnavailableError, match="closed"):
        child.evaluate(question())


def test_run_once_leaves_no_process() -> None:
    """A throw-away child does one job and is gone."""
    before = set(children())

    assert run_once("evaluate", {"policies": PERMIT}, timeout=60)["evaluations"] == []
    assert set(children()) == before


def test_run_once_says_that_the_policies_did_it() -> None:
    """A bundle that stalls the engine gives an error that says so."""
    with pytest.raises(EvaluatorUnavailableError, match="the policies took the engine longer than"):
        run_once("evaluate", ENDLESS, timeout=0.5)


def test_it_knows_nothing_of_the_server(child: PolicyChild, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The child has no secrets in its environment, and imports nothing from where the server was started."""
    monkeypatch.setenv("PDP_SECRET", "canary")
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)

    assert decision(child.evaluate(question())) == "Allow"
    environment = Path(f"/proc/{pid_of(child)}/environ").read_text()
    assert {entry.partition("=")[0] for entry in environment.split("\0") if entry} <= {"PYTHONPATH", "LD_LIBRARY_PATH"}
    assert Path(f"/proc/{pid_of(child)}/cwd").resolve() == Path("/")


def test_its_memory_is_bounded(child: PolicyChild) -> None:
    """The child cannot take the machine's memory, and leaves no core file."""
    child.evaluate(question())
    limits = Path(f"/proc/{pid_of(child)}/limits").read_text()

    assert [line.split()[-3:-1] for line in limits.splitlines() if line.startswith(("Max address", "Max core"))] == [
        ["0", "0"],
        [str(4 * 1024**3)] * 2,
    ]


PARENT = """
import sys
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.child.process import PolicyChild
child = PolicyChild(timeout=60)
child.evaluate({})
print(child._process.pid, flush=True)
sys.stdin.read()
"""


def test_an_idle_child_ends_with_its_parent() -> None:
    """`kill -9` of the server leaves no child behind."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()

    wait_until(lambda: not alive(pid))
    parent.stdin.close()
    parent.stdout.close()


def test_a_busy_child_ends_by_itself() -> None:
    """A job without end is ended by the kernel's timer, should the parent be gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pdp.policy.child.main", "0.5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert read_frame(process.stdout) == {}
    write_frame(process.stdin, {"kind": "evaluate", "job": ENDLESS})

    assert process.wait(60) == -signal.SIGALRM
    process.stdin.close()
    process.stdout.close()


def test_it_works_beside_threads_that_come_and_go(child: PolicyChild) -> None:
    """The child outlives the thread that started it."""
    thread = threading.Thread(target=child.evaluate, args=(question(),))
    thread.start()
    thread.join()
    pid = pid_of(child)

    assert decision(child.evaluate(question())) == "Allow"
    assert pid_of(child) == pid


def children() -> Iterator[int]:
    """Yield the ids of this process's children."""
    for thread in Path("/proc/self/task").iterdir():
        # A thread of a server that another test has stopped may end while this looks.
        with suppress(FileNotFoundError, ProcessLookupError):
            yield from map(int, (thread / "children").read_text().split())
