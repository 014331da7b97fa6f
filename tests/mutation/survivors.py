"""The mutants that no test notices, and why each is no mistake that one could: by module and name."""

from __future__ import annotations

from collections.abc import Mapping

_TYPE = "a type for readers and checkers; nothing runs by it"

EXPLAINED: Mapping[str, Mapping[str, str]] = {
    "pdp.cache": {
        "module: 'V' => ''": _TYPE,
        "module: (object, ...) => (...,)": _TYPE,
        "module: (object, ...) => (object,)": _TYPE,
    },
    "pdp.policy.moments": {
        "module: (int, bool, int) => (bool, int)": _TYPE,
        "module: (int, bool, int) => (int, int)": _TYPE,
        "module: (int, bool, int) => (int, bool)": _TYPE,
        "_duration: zip(found.groups()[1:], _UNITS, strict=True) => zip(found.groups()[1:], _UNITS)": (
            "the pattern has as many groups as there are units"
        ),
        "_duration: True => False": "the pattern has as many groups as there are units",
    },
}
