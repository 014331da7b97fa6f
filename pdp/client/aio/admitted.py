"""A call that was allowed, until what came of it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pdp.client.errors import PDPClientError
from pdp.client.fulfilling import Duties
from pdp.client.guard import labels_of
from pdp.client.results import says_failure
from pdp.client.values import Answer, ToolCallDenied, ToolCallStopped, ToolResultWithheld

if TYPE_CHECKING:  # A session admits calls, so a real import would be circular.
    from pdp.client.aio.session import AsyncClientSession
    from pdp.client.aio.underway import AsyncCallUnderWay


class AsyncAdmittedCall:
    """An allowed call: set `result` within `async with`, then take what may be handed on.

    The error of a tool is reported and goes on. Where it could say what must be redacted, or is larger than a result
    may be, it is replaced instead, without a trace of it.
    """

    def __init__(
        self,
        session: AsyncClientSession,
        duties: Duties,
        labels: Callable[[Any], Iterable[str]] | None,
        *,
        report: bool,
    ) -> None:
        self._session = session
        self._duties = duties
        self._labels = labels
        self._report = report
        # Why the error of the tool must be replaced.
        self._hidden = ""
        self.result: Any = None

    @property
    def answer(self) -> Answer:
        """Return the answer that allowed the call."""
        return self._duties.answer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return isinstance(error, Exception) and await self.failed(error)

    async def failed(self, error: Any = None) -> bool:  # noqa: ANN401 - an exception, or what a framework made of it
        """Report that the tool failed, and say whether its error must be replaced by what `handed_on` raises.

        An error of a guard in the tool is never replaced. Without a report the error goes on too.
        """
        guards = isinstance(error, ToolCallDenied | ToolCallStopped | ToolResultWithheld)
        self._hidden = "" if guards else self._duties.on_error(error)
        if self._report and self.answer.outcome_token:
            with suppress(PDPClientError):
                await self._session.report_outcome(self.answer, succeeded=False)
        return bool(self._hidden)

    def hides(self, error: Any) -> bool:  # noqa: ANN401 - as in `failed`
        """Say whether `failed` would have this error replaced; nothing is reported."""
        return bool(self._duties.on_error(error))

    def under_way(self) -> AsyncCallUnderWay:
        """Stop the call when its session is over, as `AsyncClient.under_way` does."""
        return self._session.under_way(self.answer)

    async def handed_on(self) -> Any:  # noqa: ANN401 - whatever the tool returns
        """Report the result, and return what the obligations leave of it.

        Raise `ToolResultWithheld` when it must not be handed on, or cannot be reported.
        """
        await self.reported()
        return self.kept()

    async def reported(self) -> None:
        """Report the result. Raise `ToolResultWithheld` as `handed_on`."""
        if self._hidden:
            raise ToolResultWithheld(self.answer, self._hidden)
        if self._report:
            await self._report_result(labels_of(self.answer, self._labels, self.result))

    def kept(self) -> Any:  # noqa: ANN401 - whatever the tool returns
        """Return what the obligations leave of the result, once it is reported; this takes long for a large one.

        Raise `ToolResultWithheld` when it must not be handed on.
        """
        return self._duties.on_result(self.result)

    async def _report_result(self, labels: tuple[str, ...]) -> None:
        if not (self.answer.outcome_token or labels):
            return
        try:
            succeeded = not says_failure(self.result)
            await self._session.report_outcome(self.answer, succeeded=succeeded, labels=labels, result=self.result)
        except PDPClientError as error:
            why = "what came of the call could not be reported"
            raise ToolResultWithheld(self.answer, why, detail=str(error)) from None
