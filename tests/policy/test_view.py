"""What the engine is told of a context: what policies can see, and nothing else."""

from __future__ import annotations

import pytest

from pdp.policy.view import View

CONTEXT = {"agent": "a", "now": "n", "opaque": [], "input": {"path": "/x", "depth": 1, "a.b": 2}}


@pytest.mark.parametrize(
    ("reads", "expected"),
    [
        pytest.param([], {}, id="nothing"),
        pytest.param([{"resource", "below files"}], {}, id="not the context"),
        pytest.param([{"context.now"}], {"now": "n"}, id="an attribute"),
        pytest.param([{"has opaque"}], {"opaque": []}, id="asked for"),
        pytest.param([{"has input"}], {"input": {}}, id="input asked for"),
        pytest.param([{"context.input.path"}], {"input": {"path": "/x"}}, id="an argument"),
        pytest.param([{"context.input.a.b"}], {"input": {"a.b": 2}}, id="an argument with a dot"),
        pytest.param([{"context.input.gone"}, {"context.user"}], {"input": {}}, id="absent"),
        pytest.param(
            [{"context.input.path"}, {"context.input"}], {"input": CONTEXT["input"]}, id="all arguments after one"
        ),
        pytest.param([{"context.now"}, None], CONTEXT, id="the whole of it"),
    ],
)
def test_shown(reads: list[set[str] | None], expected: dict[str, object]) -> None:
    """The engine is shown what some policy reads or asks for."""
    view = View.of(None if one is None else frozenset(one) for one in reads)

    assert expected == view.shown(CONTEXT)
