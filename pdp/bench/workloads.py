"""The workload of a run: the generated one, or recorded calls with their expected outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from pdp.app.embedded import open_embedded
from pdp.bench.questions import Asker, Workload, generated_workload, question
from pdp.bench.recorded import RecordedCall, arguments_of, read_calls
from pdp.bench.sessions import PEP, open_sessions
from pdp.bench.shaped import shaped_files
from pdp.decision.cache import DecisionCache
from pdp.errors import ConfigurationError
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Call, CallRequest
from pdp.policy.contents import read_folder
from pdp.testing.inprocess import write_folder

# Each costs two calls to each server before the measurement; further sessions of the file share these.
MOST_SESSIONS = 64


def open_workload(file: str, policies: str = "") -> Workload:
    """Return the generated workload, or that of the calls in a file.

    The calls are under the policies of a folder, or shaped ones. Raise `ConfigurationError`, naming the line, for a
    call that breaks the format, or whose expected outcome differs from the policies'.
    """
    if not file:
        return generated_workload()
    calls = read_calls(Path(file))
    files = read_folder(Path(policies), DEFAULT_LIMITS) if policies else shaped_files(calls)
    askers, asker_numbers = _askers(calls)
    patterns = tuple(f"{server}/*" for server in dict.fromkeys(call.server for call in calls))
    allowed = _answers(files, calls, askers, asker_numbers, patterns)
    return Workload(
        name=f"{len(calls)} calls of {file}, in {len(askers)} sessions",
        file=file,
        files=files,
        askers=askers,
        tool_patterns=patterns,
        repeated=tuple(
            question(call.server, call.tool, arguments_of(call), allowed=one, asker=number)
            for call, one, number in zip(calls, allowed, asker_numbers, strict=True)
        ),
        fresh=None,
    )


def _askers(calls: Sequence[RecordedCall]) -> tuple[list[Asker], list[int]]:
    """Return the askers, and for each call the index of its asker."""
    sessions: dict[tuple[str, str, str], int] = {}
    askers: dict[tuple[str, str, int], int] = {}
    asker_numbers = []
    for call in calls:
        number = sessions.setdefault((call.session, call.user, call.agent), len(sessions))
        asker_numbers.append(askers.setdefault((call.user, call.agent, number % MOST_SESSIONS), len(askers)))
    return [Asker(user=user, agent=agent, name=f"session-{number}") for user, agent, number in askers], asker_numbers


def _answers(
    files: Mapping[str, bytes],
    calls: Sequence[RecordedCall],
    askers: Sequence[Asker],
    asker_numbers: Sequence[int],
    patterns: Sequence[str],
) -> list[bool]:
    """Return the policies' answer to each call, asked in this process without a cache."""
    with TemporaryDirectory(prefix="pdp-bench-") as folder:
        write_folder(Path(folder), files)
        with closing(open_embedded(Path(folder), cache=DecisionCache(size=0))) as pdp:
            handles = open_sessions(pdp, askers, patterns)
            answers, problems = [], []
            for call, number in zip(calls, asker_numbers, strict=True):
                asked = Call(
                    session_handle=handles[number],
                    server=call.server,
                    tool=call.tool,
                    arguments_json=arguments_of(call),
                )
                decision = pdp.authorizer.authorize(CallRequest(call=asked), PEP)
                if call.expected not in (None, decision.allowed):
                    problems.append(
                        f"{call.place}: `{_word(call.expected)}` is expected, and the policies say "
                        f"`{_word(decision.allowed)}` by `{decision.ruling.basis.value}`"
                    )
                answers.append(decision.allowed)
    if problems:
        raise ConfigurationError("\n".join(problems))
    return answers


def _word(allowed: bool) -> str:  # noqa: FBT001 - the one thing that it is about
    return "allow" if allowed else "deny"
