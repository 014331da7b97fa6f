"""What auditors ask the broker over gRPC: who used a secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from pdp.broker.exposure import Exposure, Question, Tally, Uses, exposure_of
from pdp.broker.opening import RECORD_FOLDER
from pdp.broker.personalcalls import handlers_of
from pdp.broker.persons import Person, Persons
from pdp.broker.v1 import exposure_pb2 as messages
from pdp.broker.words import UnknownConnectionError
from pdp.errors import (
    InvalidRequestError,
    OverloadedError,
    PermissionDeniedError,
    StoreUnavailableError,
    UnavailableError,
    reason_of,
)
from pdp.foundation.paging import page_size_of, page_start_of, page_token_of
from pdp.model import Role
from pdp.record.keys import PUBLIC_KEY_FILE, PublicKeys
from pdp.record.secretuses import SecretUse

SERVICE: Final = "pdp.broker.v1.ExposureService"
_MOST_NAMES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureFace:
    """Answers from the record in the folder of a broker. Safe for threads."""

    persons: Persons
    folder: Path
    _alone: Lock = field(default_factory=Lock, init=False)

    @property
    def handlers(self) -> Mapping[str, Any]:
        """Return the handlers of the service, by RPC."""
        return handlers_of({"GetExposure": (messages.GetExposureRequest, self.show)}, self.persons)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let one question at a time read the record, which may be long."""
        if not self._alone.acquire(blocking=False):
            raise OverloadedError("the record is being read for another question; try again")
        try:
            yield
        except OSError as error:
            raise StoreUnavailableError(f"the record cannot be read: {reason_of(error)}") from None
        finally:
            self._alone.release()

    def show(self, request: messages.GetExposureRequest, person: Person) -> messages.GetExposureResponse:
        """Say who used a secret in the tenants of an auditor or admin."""
        if not person.has(Role.AUDITOR, Role.ADMIN):
            raise PermissionDeniedError("only auditors and admins see who used a secret")
        if request.version < 0:
            raise InvalidRequestError("version", f"`{request.version}` is negative")
        size, start = page_size_of(request.page_size), page_start_of(request.page_token, int)
        asked = Question(
            connection=request.connection_id,
            version=request.version,
            since_at=request.since_time.ToMicroseconds() / 1e6 if request.HasField("since_time") else 0.0,
            tenants=frozenset(person.tenants),
            most_names=_MOST_NAMES,
            most_calls=size,
            before=start[0] if start else None,
        )

        def require_waiting() -> None:
            if not person.waits():
                raise UnavailableError("nobody waits for the answer any more")

        with self.reading():
            keys = PublicKeys.load([self.folder / PUBLIC_KEY_FILE])
            found, report = exposure_of(self.folder / RECORD_FOLDER, keys, asked, before_each=require_waiting)
        if not found.known:
            raise UnknownConnectionError(f"the record names no such connection or version: `{asked.connection}`")
        return _shown(found, len(report.findings) + report.more_findings)


def _shown(found: Exposure, findings: int) -> messages.GetExposureResponse:
    return messages.GetExposureResponse(
        uses=_uses(found.uses),
        by=[_by(what, tally) for what, tally in found.about.items()],
        calls=map(_call, found.calls),
        next_page_token=page_token_of(found.calls_before) if found.calls_before else "",
        answer_count=found.answers,
        answer_bytes=found.answer_bytes,
        finding_count=findings,
        gap=found.gap,
    )


def _by(what: str, tally: Tally) -> messages.UsesBy:
    values = [messages.UsesOf(name=name, uses=_uses(uses)) for name, uses in tally.by_value.items()]
    return messages.UsesBy(what=what, values=values, others=_uses(tally.others))


def _uses(uses: Uses) -> messages.Uses:
    return messages.Uses(count=uses.count, first_time=_time(uses.first), last_time=_time(uses.last))


def _call(use: SecretUse) -> messages.SecretUse:
    return messages.SecretUse(
        time=_time(use.time),
        token_id=use.token_id,
        decision_id=use.decision_id,
        session_id=use.session_id,
        user=use.user,
        agent=use.agent,
        tenant=use.tenant,
        action=use.action,
        version=use.version,
        mode=use.mode,
        upstream=use.upstream,
        presenter=use.presenter,
    )


def _time(text: str) -> Timestamp | None:
    """Return a time of the record; None where somebody has changed it to what is none."""
    moment = Timestamp()
    try:
        moment.FromJsonString(text)
    except ValueError:
        return None
    return moment
