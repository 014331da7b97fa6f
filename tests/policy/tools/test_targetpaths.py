"""Paths into the arguments of a tool: which the overlay can name, and what is found at them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pdp.errors import BundleError
from pdp.policy.tools.catalogue import Tool, load_catalogue
from pdp.policy.tools.targetpaths import KnownPaths, TargetPath, known_paths, path_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "to": {"type": "array", "items": {"type": "string"}},
        "url": {"type": ["string", "null"]},
        "payments": {"type": "array", "items": {"$ref": "#/$defs/payment"}},
        "meta": {"type": "object"},
        "any": {},
        "a.b": {"type": "string"},
        "either": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"name": {"type": "string"}}}]},
    },
    "$defs": {
        "payment": {"type": "object", "properties": {"iban": {"type": "string"}, "next": {"$ref": "#/$defs/payment"}}}
    },
}


def read(overlay: str) -> Tool:
    """Return the tool with an overlay."""
    files = {
        "tools/s.json": json.dumps([{"name": "pay", "inputSchema": SCHEMA}]).encode(),
        "tools/s.yaml": f"tools:\n  pay:\n    risk: mutating\n    {overlay}\n".encode(),
    }
    return load_catalogue(files).tools["s/pay"]


def test_an_overlay_names_paths_and_kinds() -> None:
    """A list leaves the kind to the shape of the value, a mapping states it; nothing and an empty list differ."""
    listed = read("targets: [to, 'payments[].iban', meta.to, 'any[].x', a.b, either.name]").targets
    stated = read("targets: {to: address, 'payments[].iban': iban}").targets
    silent = read("text: [url]")

    assert [("to",), ("payments", "iban"), ("meta", "to"), ("any", "x"), ("a.b",), ("either", "name")] == [
        path.steps for path in listed or ()
    ]
    assert [("to", "address"), ("payments[].iban", "iban")] == [(path.text, path.kind) for path in stated or ()]
    assert (None, "url") == (silent.targets, (silent.text or ())[0].text)
    assert () == read("targets: []").targets


@pytest.mark.parametrize(
    ("overlay", "problem"),
    [
        ("targets: {to: [iban]}", "tools/s.yaml:4: unknown kind of target: `['iban']`"),
        ("targets: [urll]", "tools/s.yaml:4: unknown parameter of `pay`: `urll`; did you mean `url`?"),
        (
            "targets: ['payments[].ibam']",
            "unknown parameter of `pay`: `payments[].ibam`; did you mean `payments[].iban`?",
        ),
        ("targets: [payments.iban]", "did you mean `payments[].iban`?"),
        ("targets: [to.name]", "unknown parameter of `pay`: `to.name`"),
        ("text: [payments, urll]", "unknown parameter of `pay`: `urll`; did you mean `url`?"),
        (
            "targets: {to: adress}",
            "unknown kind of target: `adress`; did you mean `address`? (one of `address`, `url`,",
        ),
        ("targets: {urll: address}", "tools/s.yaml:4: unknown parameter of `pay`: `urll`; did you mean `url`?"),
        ("targets: to", "`pay`: `targets` must be a list of parameters, or a mapping of parameters to kinds"),
        ("targets: [1]", "`pay`: `targets` must be a list of parameters, or a mapping"),
        ("text: {to: address}", "`pay`: `text` must be a list of parameters that can hold links"),
    ],
)
def test_a_path_that_the_schema_does_not_know_is_refused(overlay: str, problem: str) -> None:
    """The message has file and line, and the nearest path that the schema declares."""
    with pytest.raises(BundleError) as refusal:
        read(overlay)

    assert problem in str(refusal.value)


def test_a_schema_without_an_end_has_few_paths() -> None:
    """A circle of references is followed eight steps deep, and wide schemas to so many nodes."""
    circle = known_paths(SCHEMA)
    wide = {"properties": {f"p{number}": {"$ref": "#"} for number in range(100)}}

    assert KnownPaths(known=(), free=()) == known_paths(None)
    assert 8 == max(path.count(".") + path.count("[]") for path in circle.known)
    assert ("meta", "any") == circle.free
    assert len(known_paths(wide).known) < 500_000


@pytest.mark.parametrize(
    ("path", "arguments", "expected"),
    [
        ("to", {"to": ["a", "b"]}, {"to[0]": "a", "to[1]": "b"}),
        ("to", {"to": "a"}, {"to": "a"}),
        ("to", {"to": []}, {}),
        ("to", {"to": None}, {}),
        ("to", {"to": [None, ["a"]]}, {"to[1][0]": "a"}),
        ("to", {"to": {"x": "a"}}, {"to": {"x": "a"}}),
        ("to", {}, {}),
        (
            "payments[].iban",
            {"payments": [{"iban": "a"}, {}, {"iban": 1}]},
            {"payments[0].iban": "a", "payments[2].iban": 1},
        ),
        ("payments[].iban", {"payments": {"iban": "a"}}, {"payments.iban": "a"}),
        ("payments[].iban", {"payments": ["a"]}, {"payments[0]": "a"}),
        ("a.b", {"a.b": "x", "a": {"b": "y"}}, {"a.b": "x"}),
    ],
)
def test_every_value_at_a_path_is_found(path: str, arguments: dict[str, Any], expected: dict[str, Any]) -> None:
    """Lists are opened, and what does not fit the path is found itself: it could name anything."""
    assert expected == dict(path_of(path, {"a.b": None, "to": None}).found(arguments))


def test_a_path_keeps_its_text() -> None:
    """Messages name a path as the author wrote it."""
    assert TargetPath(text="payments[].iban", steps=("payments", "iban")) == path_of("payments[].iban", {})
