"""A gateway's knowledge of a session that it holds."""

from __future__ import annotations

import dataclasses

from pdp.client.definitions import DefinitionDigests
from pdp.client.values import ToolCall


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeldSession:
    """A session as a gateway knows it: its secret handle, its public id, and the definitions of live tools.

    `wait_for_approval` is how long its calls wait for a person, in seconds.
    """

    handle: str = dataclasses.field(repr=False)
    id: str = ""
    definitions: DefinitionDigests = dataclasses.field(default_factory=dict, repr=False)
    wait_for_approval: float = 0.0

    def completed(self, call: ToolCall) -> ToolCall:
        """Return the call with this session, and with the tool's definition digest where it is known."""
        return dataclasses.replace(
            call,
            session_handle=self.handle,
            session_id=self.id,
            definition_digest=call.definition_digest or self.definitions.get((call.server, call.tool), ""),
        )
