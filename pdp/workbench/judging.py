"""Compare a case's expectation with the PDP's answer."""

from __future__ import annotations

from collections.abc import Iterable

from pdp.foundation.obligations import KNOWN
from pdp.foundation.yamltext import unknown
from pdp.model import Basis, Obligation, Ruling
from pdp.policy.bundle import Bundle
from pdp.workbench.suite import Expectation, ExpectedObligation

# A test that gets these by accident tests nothing: a mistake in it looks like a deny of the policies.
LIKELY_MISTAKES = {
    Basis.UNKNOWN_TOOL: "the tool is not in the catalogue",
    Basis.INVALID_ARGUMENTS: "the arguments do not fit the tool",
    Basis.POLICY_ERROR: "a policy could not be evaluated",
    Basis.TOOL_CHANGED: "the definition is not the approved one",
}


def judge(expect: Expectation, ruling: Ruling, bundle: Bundle) -> tuple[str, ...]:
    """Return the problems, one line each; none when the ruling is as expected."""
    return tuple(_differences(expect, ruling, bundle))


def _differences(expect: Expectation, ruling: Ruling, bundle: Bundle) -> Iterable[str]:
    unexpected_error = ruling.basis is Basis.POLICY_ERROR and expect.basis is not Basis.POLICY_ERROR
    if unexpected_error:
        which = ", ".join(f"`{name}`" for name in ruling.errors)
        yield f"unexpected error: {which + ' could not be evaluated' if which else ruling.detail}"
    if expect.outcome is not None and expect.outcome is not ruling.outcome:
        yield f"expected `{expect.outcome.value}`, got `{ruling.outcome.value}`"
    if expect.basis is not None:
        if expect.basis is not ruling.basis:
            yield f"expected basis `{expect.basis.value}`, got `{ruling.basis.value}`{_in_brackets(ruling.detail)}"
    elif ruling.basis in LIKELY_MISTAKES and not unexpected_error:
        yield (
            f"the basis of the deny is `{ruling.basis.value}`: {ruling.detail or LIKELY_MISTAKES[ruling.basis]}; "
            f"write `deny {ruling.basis.value}` if you mean that"
        )
    yield from _ids("policies", expect.policies, ruling.policies, bundle)
    if not unexpected_error:
        yield from _ids("errors", expect.errors, ruling.errors, bundle)
    yield from _obligations(expect.obligations, ruling.obligations, bundle)


def _ids(what: str, expected: tuple[str, ...] | None, actual: tuple[str, ...], bundle: Bundle) -> Iterable[str]:
    if expected is None:
        return
    for name in expected:
        if name not in bundle.policies:
            yield unknown("policy", name, bundle.policies)
        elif name not in actual:
            yield f"{what}: `{name}` is missing"
    for name in actual:
        if name not in expected:
            yield f"{what}: `{name}` was not expected"


def _obligations(
    expected: tuple[ExpectedObligation, ...] | None, actual: tuple[Obligation, ...], bundle: Bundle
) -> Iterable[str]:
    if expected is None:
        return
    known = (*KNOWN, *bundle.declared_obligations)
    left = list(actual)
    # Those with parameters first: the others fit any of the same name.
    for one in sorted(expected, key=lambda each: not each.parameters_json):
        found = next((each for each in left if one.fits(each)), None)
        if found is not None:
            left.remove(found)
        elif one.id not in known:
            yield unknown("obligation", one.id, known)
        else:
            yield f"obligations: `{one}` is missing"
    for each in left:
        yield f"obligations: `{each.id} {each.parameters_json}` was not expected"


def _in_brackets(detail: str) -> str:
    return f" ({detail})" if detail else ""
