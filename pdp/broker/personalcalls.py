"""What people ask over gRPC: each call is answered as the person whose token it brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pdp.broker.calls import MOST_OF_PEOPLE, ending_on_error
from pdp.broker.persons import Person, Persons
from pdp.broker.shares import Shares
from pdp.serving.decoding import read

Answer: TypeAlias = Callable[[Any, Person], Message]

_BEARER: Final = "Bearer "
_MOST_OF_ONE: Final = 3


def handlers_of(answers: Mapping[str, tuple[type[Any], Answer]], persons: Persons) -> Mapping[str, Any]:
    """Return the handlers of a service by RPC, for the kind of its request and what answers it.

    A person has so many calls open at once that others have room: some wait for a provider.
    """
    open_ = Shares(MOST_OF_PEOPLE, each=_MOST_OF_ONE)
    return {name: _handler(kind, answer, persons, open_) for name, (kind, answer) in answers.items()}


def time_of(at: float) -> Timestamp | None:
    """Return unix seconds as an answer has them; None for 0.0, which is no time."""
    if not at:
        return None
    moment = Timestamp()
    moment.FromNanoseconds(round(at * 1e9))
    return moment


def _handler(kind: type[Any], answer: Answer, persons: Persons, open_: Shares) -> Any:  # noqa: ANN401 - gRPC has no types
    def answered(wire: bytes, context: Any) -> bytes:  # noqa: ANN401 - gRPC has no types
        with ending_on_error(context):
            request = read(kind, wire)
            person = replace(persons(_token(context)), waits=context.is_active)
            with open_.taken_by(person.id):
                return answer(request, person).SerializeToString()

    return grpc.unary_unary_rpc_method_handler(answered)


def _token(context: Any) -> str:  # noqa: ANN401 - gRPC has no types
    found = [str(value) for name, value in context.invocation_metadata() or () if name == "authorization"]
    return found[0].removeprefix(_BEARER) if len(found) == 1 and found[0].startswith(_BEARER) else ""
