"""What every door must do, at the door of agentgateway: agents behind a gateway that asks it over gRPC."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.doors.agentgateway.desk import DeskTarget
from tests.doors.agentgateway.gateway import Gateway, door
from tests.doors.conformance import DoorConformance, Stage
from tests.doors.desk import CountedTools, Driver, Step


class AgentgatewayDriver(Driver):
    """Names the door; the stage plays the gateway."""

    name = "agentgateway"


class GatewayStage(Stage):
    """Plays runs of an agent behind the gateway: each request brings the handle of its session in a header."""

    def play(
        self,
        tools: CountedTools,
        *steps: Step,
        handles: Mapping[Any, str] | None = None,
        run: Any = None,
        timeout: float = 60.0,
        **_: Any,
    ) -> list[str]:
        """Play the steps one after the other; return what the model saw."""
        with (
            door(self._address, self._options["token"], timeout=timeout) as address,
            Gateway(address, {"desk": DeskTarget(tools)}) as gateway,
        ):
            shown = []
            for step in steps:
                step.before()
                shown.append(self._step(gateway, step, (handles or {}).get(run, self.handle)))
        self.shown += shown
        return shown

    def many(self, runs: Mapping[Any, Step], tools: CountedTools, handles: Mapping[Any, str]) -> dict[Any, str]:
        """Play one step in each of many runs at the same time; return what each model saw."""
        shown: dict[Any, str] = {}
        with (
            door(self._address, self._options["token"]) as address,
            Gateway(address, {"desk": DeskTarget(tools)}) as gateway,
        ):

            def one(run: Any, step: Step) -> None:
                shown[run] = self._step(gateway, step, handles[run])

            threads = [threading.Thread(target=one, args=pair) for pair in runs.items()]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return shown

    @staticmethod
    def _step(gateway: Gateway, step: Step, handle: str) -> str:
        trace: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(trace)
        params = {"name": step.tool, "arguments": step.arguments}
        answer = gateway.send(handle, "tools/call", params, trace=trace)
        return str(answer["error"]["message"] if "error" in answer else answer["result"]["content"][0]["text"])


class TestAgentgateway(DoorConformance):
    """The shared cases."""

    driver = AgentgatewayDriver()
    ways = ("threads",)
    stage_type = GatewayStage
