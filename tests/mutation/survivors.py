"""The mutants that no test notices, and why each is no mistake that one could: by module and name."""

from __future__ import annotations

from collections.abc import Mapping

_TYPE = "a type for readers and checkers; nothing runs by it"
_SLOWER = "the same is done, with more work"
_WEIGHTLESS = "values that weigh nothing fit into one byte as into none"
_PAIRS = "a charge that was made has a value for each of its debits"
_EMPTY = "nothing and an empty list are the same to what asks"
_SETTLED = "a call that waits is always settled; this tells the checker of types"
_CHAIN = "each session of a chain has its counts"
_VALUES = "the values are those of these fields"
_UNITS = "the pattern has as many groups as there are units"

EXPLAINED: Mapping[str, Mapping[str, str]] = {
    "pdp.decision.ruling": {
        "_no_targets: return () => return None": _EMPTY,
        "of_this_call: zip(chain, facts.counted, strict=True) => zip(chain, facts.counted)": _CHAIN,
        "of_this_call: True => False": _CHAIN,
        "_changed: …ip(_FIELDS, _values_of(ruling), strict=True) => …ip(_FIELDS, _values_of(ruling))": _VALUES,
        "_changed: True => False": _VALUES,
    },
    "pdp.record.entry": {
        "_obligations: …one)) for one in asked)) + ']' if asked else '[]' => …one)) for one in asked)) + ']'": _SLOWER,
    },
    "pdp.decision.ledger": {
        "Ledger._step_up: raise AssertionError('the use of an approval is settled') => pass": _SETTLED,
        (
            "Ledger.settles: snapshot.bundle.has_budgets and owes(snapshot, plan.tool, sel… => "
            "snapshot.bundle.has_budgets or owes(snapshot, plan.tool, sel…"
        ): _SLOWER,
        (
            "Ledger.settles: snapshot.bundle.has_budgets and owes(snapshot, plan.tool, self… => "
            "owes(snapshot, plan.tool, self…"
        ): _SLOWER,
        (
            "Ledger.settles: snapshot.bundle.has_budgets and owes(snapshot, plan.tool, self._budgets.of) => "
            "snapshot.bundle.has_budgets"
        ): _SLOWER,
        "_own: zip(owed, charged.used, strict=True) => zip(owed, charged.used)": _PAIRS,
        "_own: True => False": _PAIRS,
    },
    "pdp.decision.cache": {
        "module: (object, ...) => (...,)": _TYPE,
        "module: (object, ...) => (object,)": _TYPE,
    },
    "pdp.foundation.lrucache": {
        "module: 'V' => ''": _TYPE,
        "LRUCache.__init__: 0 => 1": _WEIGHTLESS,
    },
    "pdp.record.envelope": {
        "module: 160 => 161": _SLOWER,
        (
            "module: …s=(',', ':'), sort_keys=True, check_circular=False, allow_nan=False) => "
            "…s=(',', ':'), sort_keys=True, allow_nan=False)"
        ): _SLOWER,
        "module: False => True": _SLOWER,
        "place_of: line[-_PLACE_CHARACTERS:] => line": _SLOWER,
    },
    "pdp.telemetry.attributes": {
        "module: (str, str | int | float | tuple[str, ...]) => (str | int | float | tuple[str, ...],)": _TYPE,
        "module: (str, str | int | float | tuple[str, ...]) => (str,)": _TYPE,
        "module: (str, ...) => (...,)": _TYPE,
        "module: (str, ...) => (str,)": _TYPE,
    },
    "pdp.policy.reading": {
        "Reading.place_in_time: self.timed and self.moments is not None => self.moments is not None": (
            "among no moments every time has the empty place"
        ),
    },
    "pdp.policy.moments": {
        "module: (int, bool, int) => (bool, int)": _TYPE,
        "module: (int, bool, int) => (int, int)": _TYPE,
        "module: (int, bool, int) => (int, bool)": _TYPE,
        "_duration: zip(found.groups()[1:], _UNITS, strict=True) => zip(found.groups()[1:], _UNITS)": _UNITS,
        "_duration: True => False": _UNITS,
    },
}
