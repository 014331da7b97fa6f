"""What happens when something breaks: the table of the page, whose rows the tests hold the server to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.machinery.servers.served import WELL, Seen

_SERVING, _NOT = "SERVING", "NOT_SERVING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is seen while something is broken, what becomes of it afterwards, and which tests show that."""

    seen: Seen
    afterwards: str
    tests: tuple[str, ...]


_CLIENTS = "tests/faults/test_client_faults.py"
_STORE = "tests/faults/test_store_faults.py"
_RUNNING = (f"{_STORE}::test_while_the_store_is_broken",)
_BY_ITSELF = "recovers by itself"
_NO_CHANGES = Seen("as before", "`UNAVAILABLE`", (_SERVING, _SERVING, _NOT))
_NO_STORE = Seen("`UNAVAILABLE`", "`UNAVAILABLE`", (_NOT, _SERVING, _NOT))
_LATE = "`DEADLINE_EXCEEDED`"
_ENDS = "they end as before; none is opened: `UNAVAILABLE`"
_RECORD = "tests/faults/test_record_faults.py::test_while_the_record_cannot_be_written"
_NO_RECORD = Seen("`record_unavailable`", _ENDS, (_NOT, _NOT, _SERVING))
_DISK = "tests/workers/test_disk_full.py"
_RELOAD = "a reload is `FAILED_PRECONDITION` until it is back; a start runs the last good bundle"
_BUNDLE = (
    "tests/faults/test_bundle_faults.py::test_while_the_policies_are_broken",
    "tests/faults/test_bundle_faults.py::test_a_start_with_broken_policies",
)

ROWS: Mapping[str, Row] = {
    "the store is locked by another program": Row(
        seen=Seen("as before", "`RESOURCE_EXHAUSTED`", (_SERVING, _SERVING, _NOT)),
        afterwards=_BY_ITSELF,
        tests=_RUNNING,
    ),
    "the store's disk refuses every write": Row(seen=_NO_CHANGES, afterwards=_BY_ITSELF, tests=_RUNNING),
    "the store is read-only": Row(seen=_NO_CHANGES, afterwards=_BY_ITSELF, tests=_RUNNING),
    "the store's disk fails": Row(seen=_NO_CHANGES, afterwards=_BY_ITSELF, tests=_RUNNING),
    "the store's file is gone": Row(seen=_NO_STORE, afterwards=_BY_ITSELF, tests=_RUNNING),
    "the store's folder is gone": Row(seen=_NO_STORE, afterwards=_BY_ITSELF, tests=_RUNNING),
    "the store's disk hangs": Row(
        seen=Seen(_LATE, _LATE, ("DEADLINE_EXCEEDED", _SERVING, _NOT)),
        afterwards=_BY_ITSELF,
        tests=(f"{_STORE}::test_while_the_disk_hangs",),
    ),
    "the store is damaged": Row(
        seen=Seen("`UNAVAILABLE`, where the damage is met", "`UNAVAILABLE`", ()),
        afterwards="the server does not start until `pdp store restore` restores a backup",
        tests=(
            f"{_STORE}::test_a_damaged_store_is_never_believed",
            "tests/faults/test_damage.py::test_a_damaged_file_is_never_believed",
        ),
    ),
    "the store's log is damaged after a crash, or an old file is in its place": Row(
        seen=Seen("`UNAVAILABLE`", "`UNAVAILABLE`", ()),
        afterwards="the server does not start, and says how many changes are missing, until `pdp store restore`",
        tests=(
            "tests/faults/test_damage.py::test_a_damaged_log_brings_nothing_back",
            "tests/faults/test_damage.py::test_an_old_file_brings_nothing_back",
            f"{_STORE}::test_a_snapshot_of_the_store_brings_nothing_back",
        ),
    ),
    "the record's disk is full or read-only, in `written`": Row(
        seen=_NO_RECORD,
        afterwards=_BY_ITSELF,
        tests=(_RECORD, f"{_DISK}::test_a_full_disk_is_survived"),
    ),
    "the record's disk is full or read-only, in `durable`": Row(
        seen=_NO_RECORD,
        afterwards=_BY_ITSELF,
        tests=(_RECORD, f"{_DISK}::test_a_full_disk_is_survived"),
    ),
    "the one disk of store and record is full to the last byte": Row(
        seen=Seen("`record_unavailable`", _ENDS, (_NOT,) * 3),
        afterwards=_BY_ITSELF,
        tests=(f"{_DISK}::test_authority_ends_on_a_disk_that_is_full_to_the_last_byte",),
    ),
    "the folder of policies is missing": Row(seen=WELL, afterwards=_RELOAD, tests=_BUNDLE),
    "a file of policies cannot be read": Row(seen=WELL, afterwards=_RELOAD, tests=_BUNDLE),
    "the receiver of telemetry is dead or hangs": Row(
        seen=WELL,
        afterwards="telemetry is sent again; what was dropped is counted",
        tests=(
            "tests/faults/test_receiver_faults.py::test_while_the_receiver_is_broken",
            "tests/telemetry/test_receivers.py::test_every_decision_is_answered_and_recorded",
        ),
    ),
    "the wall clock steps back": Row(
        seen=WELL,
        afterwards=(
            "sessions end on time, by a clock that cannot be set; after a reboot with a wall clock that is more than "
            "ten minutes behind, none from before it goes on until the clock is right"
        ),
        tests=(
            "tests/faults/test_clock_faults.py::test_the_wall_clock_steps_back",
            "tests/faults/test_clock_faults.py::test_the_wall_clock_was_years_ahead_before_a_reboot",
            "tests/faults/test_clock_faults.py::test_a_clock_that_is_far_behind_is_told_at_the_start",
        ),
    ),
    "the wall clock steps forward": Row(
        seen=Seen("`session_expired`", "as before", WELL.health),
        afterwards="expired sessions stay expired when it steps back; new sessions work as before",
        tests=("tests/faults/test_clock_faults.py::test_the_wall_clock_steps_forth_and_back",),
    ),
    "the machine was asleep": Row(
        seen=Seen("`session_expired`", "as before", WELL.health),
        afterwards="sessions that ended meanwhile are over; new sessions work as before",
        tests=("tests/faults/test_clock_faults.py::test_the_machine_sleeps",),
    ),
    "a worker is killed": Row(
        seen=Seen("as before, by the others", "as before, by the others", ()),
        afterwards="another one replaces it, and continues its record",
        tests=("tests/workers/test_workers.py::test_a_killed_worker_is_replaced",),
    ),
    "a worker is stopped, or hangs": Row(
        seen=Seen("as before, by the others", "as before, by the others", ()),
        afterwards="it is killed after five seconds of silence, and replaced",
        tests=(
            "tests/workers/test_workers.py::test_a_stopped_worker_is_replaced",
            "tests/workers/test_supervisor.py::test_one_that_is_busy_has_more_time",
        ),
    ),
    "the server is killed": Row(
        seen=Seen("`UNAVAILABLE`", "`UNAVAILABLE`", ()),
        afterwards="everything acknowledged is there after a restart",
        tests=("tests/proofs/test_kill.py::test_what_was_acknowledged_survives_kills",),
    ),
    "the power goes": Row(
        seen=Seen("`UNAVAILABLE`", "`UNAVAILABLE`", ()),
        afterwards="everything acknowledged is there after a restart, and the record continues",
        tests=(
            "tests/proofs/power/test_power_loss.py::test_power_loss",
            "tests/proofs/power/test_power_loss_record.py::test_power_loss_of_the_record",
        ),
    ),
    "there are more calls than the server can answer": Row(
        seen=Seen("as before, or `RESOURCE_EXHAUSTED` with advice", "as before", WELL.health),
        afterwards=_BY_ITSELF,
        tests=(
            "tests/serving/test_boundary.py::test_overload_is_refused_with_advice",
            "tests/serving/test_boundary.py::test_the_server_has_a_deadline_of_its_own",
        ),
    ),
    "connections say nothing, or nonsense": Row(
        seen=WELL,
        afterwards="they are closed after at most ten seconds",
        tests=(f"{_CLIENTS}::test_connections_that_say_nothing_or_nonsense",),
    ),
    "a gateway starts calls and does not send their messages": Row(
        seen=WELL,
        afterwards="they hold no thread, and end after `limits.message_seconds`; one gateway has only a share",
        tests=(
            f"{_CLIENTS}::test_calls_that_are_begun_and_not_sent",
            "tests/serving/test_half_open.py::test_they_hold_no_thread_and_end",
            "tests/serving/test_half_open.py::test_they_take_no_more_than_a_share",
            "tests/serving/test_half_open.py::test_what_is_not_sent_gives_way_to_whole_calls",
        ),
    ),
    "the server is flooded, with credentials or without": Row(
        seen=WELL,
        afterwards="a process takes at most 256 MiB, also with half-sent messages over four connections, and more "
        "over more (below); authority can be ended meanwhile",
        tests=(
            "tests/workers/test_floods.py::test_authority_ends_while_the_server_is_flooded",
            "tests/workers/test_floods.py::test_half_sent_messages_take_little_memory",
            "tests/workers/test_floods.py::test_authority_ends_while_a_server_with_tls_is_flooded",
            "tests/workers/test_floods.py::test_authority_ends_while_a_worker_is_stopped",
            "tests/workers/test_floods.py::test_authority_ends_under_all_attacks_at_once",
            "tests/serving/test_boundary.py::test_many_calls_wait_for_their_turn",
        ),
    ),
    "callers do not read their answers": Row(
        seen=WELL,
        afterwards="their connections end after `limits.connection_age_seconds`",
        tests=(f"{_CLIENTS}::test_answers_that_nobody_reads",),
    ),
    "callers vanish before their answer": Row(
        seen=WELL, afterwards="nothing of them remains", tests=(f"{_CLIENTS}::test_a_connection_that_comes_and_goes",)
    ),
    "there are more connections or streams than the limits allow": Row(
        seen=WELL,
        afterwards="the rest is closed or gets `RESOURCE_EXHAUSTED`, until others leave",
        tests=(
            f"{_CLIENTS}::test_more_connections_than_the_bound",
            "tests/workers/test_stream_bound.py::test_silent_streams_starve_nobody",
        ),
    ),
}
