"""The grants of a bundle: who asks for them, and what is said of any other."""

from __future__ import annotations

import pytest

from pdp.errors import InvalidRequestError
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.bundle import Bundle
from pdp.policy.grants import require_known
from pdp.policy.loading import load_bundle
from pdp.testing.bundles import SCHEMA, bundle_files, compile_here, tool

POLICIES = """
@id("files/read")
permit (principal, action, resource is Server) when { context.session in Grant::"read" };
@id("files/write")
permit (principal, action == Action::"files/write", resource)
when {
  context.session in [Grant::"read", Grant::"write"] || principal has needs && context.session in principal.needs
};
"""
DIRECTORY = """
users:
  alice: {attributes: {needs: {type: Grant, id: alice-only}}}
  bob: {}
"""


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Return a bundle with grants in policies and in the directory."""
    schema = SCHEMA.replace("team?: String", "team?: String, needs?: Grant")
    files = bundle_files(
        policies={"files": POLICIES}, tools={"files": [tool("write")]}, directory=DIRECTORY, schema=schema
    )
    return load_bundle(files, DEFAULT_LIMITS, compile_here)


def test_grants_are_those_that_somebody_names(bundle: Bundle) -> None:
    """Each stands beside the policies that name it; the directory names some as well."""
    assert {"alice-only": (), "read": ("files/read", "files/write"), "write": ("files/write",)} == bundle.grants


def test_other_policies_take_no_grant_away(bundle: Bundle) -> None:
    """A mutant without the only policy that names a grant is judged by what it decides, not by what can be given."""
    assert bundle.grants == bundle.with_policies(()).grants


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("read", "wirte"), "`grants[1]`: no policy asks for `wirte`; did you mean `write`?"),
        (("something-else",), "`grants[0]`: no policy asks for `something-else`"),
        (("Read",), "`grants[0]`: no policy asks for `Read`; did you mean `read`?"),
    ],
)
def test_an_unknown_grant_is_named(bundle: Bundle, given: tuple[str, ...], said: str) -> None:
    """With its place, and the nearest one that is known."""
    with pytest.raises(InvalidRequestError) as caught:
        require_known(given, bundle.grants)

    assert said == str(caught.value)


def test_known_grants_may_be_given(bundle: Bundle) -> None:
    """Any of them, and none."""
    require_known(tuple(bundle.grants), bundle.grants)
    require_known((), bundle.grants)
