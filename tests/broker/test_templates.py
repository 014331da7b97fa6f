"""A request is built from a template, and no argument leaves the place that it has there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.broker.templates import Template, TemplateError, UnfitArgumentsError

ISSUE = Template(
    method="POST",
    path="/repos/{owner}/{repo}/issues",
    query={"page": "{page}", "label": "{labels}", "fixed": "a b"},
    headers={"accept": "application/vnd.example+json"},
    body={"title": "{title}", "note": "by {owner}", "extra": ["{more}", 1]},
)
NEEDED: Mapping[str, Any] = {"owner": "o", "repo": "r"}


def test_each_argument_is_encoded_for_its_place() -> None:
    """In the path and the query by percent, in the body as JSON, where a value keeps its type."""
    request = ISSUE.filled(
        {**NEEDED, "owner": "a b&c", "page": 2, "labels": ["x&y", "z"], "title": 'say "hi"', "more": {"n": 1.5}}
    )

    assert "/repos/a%20b%26c/r/issues?page=2&label=x%26y&label=z&fixed=a%20b" == request.target
    assert {"title": 'say "hi"', "note": "by a b&c", "extra": [{"n": 1.5}, 1]} == json.loads(request.body or b"")
    assert {"accept": "application/vnd.example+json", "content-type": "application/json"} == request.headers


def test_an_argument_that_is_absent_is_left_out() -> None:
    """Of the query, and of the body where it is a whole value."""
    request = ISSUE.filled(NEEDED)

    assert "/repos/o/r/issues?fixed=a%20b" == request.target
    assert {"note": "by o", "extra": [1]} == json.loads(request.body or b"")


@pytest.mark.parametrize(
    "owner",
    [
        *("", ".", "..", "...", "a/b", "a\\b", "../x", "%2e%2e", "%2E%2E%2Fx", "a%2fb", "a%252fb", "a%5cb", "..;x"),
        *("a\r\nHost: evil", "a\x00b", "a%0d%0ab", "a%00b", "a\u2028b", None, ["a"], {"a": 1}),
    ],
)
def test_a_part_of_a_path_stays_one(owner: object) -> None:
    """What a server could take for another path is refused; nothing is sent."""
    with pytest.raises(UnfitArgumentsError, match="argument"):
        ISSUE.filled({**NEEDED, "owner": owner})


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"owner": "o"}, "`repo` is missing"),
        ({**NEEDED, "other": 1}, "`other` has no place"),
        ({**NEEDED, "page": {"a": 1}}, "`page` is no text"),
        ({**NEEDED, "labels": [["a"]]}, "`labels` is no text"),
        ({**NEEDED, "title": "x" * 2**20}, "more than 1048576 bytes"),
        ({**NEEDED, "page": "x" * 9000}, "longer than"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], problem: str) -> None:
    """One that is left out silently would make another call than was allowed."""
    with pytest.raises(UnfitArgumentsError, match=problem):
        ISSUE.filled(arguments)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "CONNECT"},
        {"method": "TRACE"},
        {"method": "get"},
        {"path": "x"},
        {"path": "https://evil.example/"},
        {"path": "//{owner}"},
        {"path": "/a/../b"},
        {"path": "/a?b={owner}"},
        {"path": "/{owner"},
        {"query": {"a": "{owner"}},
        {"query": {"{owner}": "a"}},
        {"body": {"{title}": 1}},
        {"body": {"title": "{ti tle}"}},
    ],
)
def test_what_is_no_template_is_refused(wrong: dict[str, Any]) -> None:
    """When it is configured, and not when it is used."""
    with pytest.raises(TemplateError):
        Template(**{"method": "GET", "path": "/x", **wrong})


@given(st.dictionaries(st.sampled_from(["owner", "repo", "title", "page", "more"]), st.text() | st.integers()))
def test_another_reader_finds_each_argument_in_its_place(arguments: dict[str, Any]) -> None:
    """For any texts: the form of the request is that of the template."""
    try:
        request = ISSUE.filled(arguments)
    except UnfitArgumentsError:
        return
    seen = urlsplit(f"https://host{request.target}")
    parts = [unquote(part) for part in seen.path.split("/")]

    assert ("host", "") == (seen.netloc, seen.fragment)
    assert ["", "repos", str(arguments["owner"]), str(arguments["repo"]), "issues"] == parts
    pages = [("page", str(arguments["page"]))] if "page" in arguments else []
    assert [*pages, ("fixed", "a b")] == parse_qsl(seen.query, keep_blank_values=True, errors="strict")
    assert arguments.get("title") == json.loads(request.body or b"").get("title")
    assert request.target.isascii()
