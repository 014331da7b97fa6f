"""Measure how secrets of the broker open: `python -m benchmarks.sealing`.

The vault is a real one, on the disk, with the provider that keeps keys in files. In each round all ways take turns: to
decrypt once, which is the control; to open a secret, and to fail at one whose seal is broken; to find a connection; and
to ask for one that another user has, and for one that nobody has. A caller must not learn from the time of a refusal
what there is: the differences within a round are shown for these pairs, and asserted nowhere. Figures are medians over
rounds of each round's median. A first round warms up and does not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pdp.broker.opening import make_broker, opened_vault
from pdp.broker.vault import Vault
from pdp.broker.words import Connection, SealBrokenError, UnknownConnectionError

_SECRET: Final = b"a-key-of-the-upstream-of-64-bytes-as-many-issuers-make-them-long"
_CONTROL, _OPEN, _BROKEN = "decrypt once (control)", "open a secret", "fail at a broken seal"
_FIND, _OTHERS, _NOBODYS = "find a connection", "ask for one that another user has", "ask for one that nobody has"
_PAIRS: Final = ((_OPEN, _BROKEN), (_NOBODYS, _OTHERS))
_Ways = dict[str, Callable[[], object]]


def ways_of(vault: Vault) -> _Ways:
    """Return what is measured, in a vault with the connections `github`, and `mail` of another user."""
    whole = vault.connection("github")
    # The seal binds the upstream, so it is one of another place.
    broken = replace(whole, upstream="https://api.example.org")
    cipher, nonce = AESGCM(bytes(32)), bytes(12)
    sealed = cipher.encrypt(nonce, _SECRET, b"")
    return {
        _CONTROL: lambda: cipher.decrypt(nonce, sealed, b""),
        _OPEN: lambda: vault.open(whole),
        _BROKEN: lambda: _failing(SealBrokenError, lambda: vault.open(broken)),
        _FIND: lambda: vault.of_kind("acme", "prod", "github", "alice"),
        _OTHERS: lambda: _failing(UnknownConnectionError, lambda: vault.of_kind("acme", "prod", "mail", "alice")),
        _NOBODYS: lambda: _failing(UnknownConnectionError, lambda: vault.of_kind("acme", "prod", "none", "alice")),
    }


def measured(ways: _Ways, rounds: int, count: int) -> list[dict[str, float]]:
    """Return the median of each way in each round, in seconds."""
    return [_round(ways, count) for _ in range(rounds + 1)][1:]


def table(rounds: list[dict[str, float]]) -> str:
    """Return the medians over all rounds; differences are paired."""
    lines = ["| | median, µs | a second | more than the control, µs |", "|---|---|---|---|"]
    for way in rounds[0]:
        took = statistics.median(one[way] for one in rounds)
        more = statistics.median(one[way] - one[_CONTROL] for one in rounds)
        lines.append(f"| {way} | {1e6 * took:.1f} | {1 / took:,.0f} | {1e6 * more:.1f} |")
    for one, other in _PAIRS:
        more = statistics.median(row[other] - row[one] for row in rounds)
        usual = statistics.median(row[one] for row in rounds)
        noise = statistics.median(abs(row[one] - usual) for row in rounds)
        lines.append(f"\n{other}: {1e6 * more:+.1f} µs beside {one}, which itself varies by {1e6 * noise:.1f} µs")
    return "\n".join(lines)


def main() -> None:
    """Measure in turns, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sealing", description="Measure how secrets open.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=1_500, help="turns of each way in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        with opened_vault(folder, lambda _: None) as vault:
            print(table(measured(ways_of(vault), options.rounds, options.count)))
    print(f"\n{options.rounds} rounds of {options.count} turns")


def make(folder: Path) -> None:
    """Make a broker with the connections of `ways_of`."""
    make_broker(folder)
    place: dict[str, Any] = {"tenant": "acme", "compartment": "prod", "upstream": "https://api.example.com"}
    with opened_vault(folder, lambda _: None) as vault:
        for name, owner in (("github", ""), ("mail", "bob")):
            vault.add(Connection(id=name, kind=name, owner=owner, **place), by="benchmark")
            vault.put(name, _SECRET, by="benchmark")


def _round(ways: _Ways, count: int) -> dict[str, float]:
    took: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways.items())
    for number in range(count):
        # Who comes after whom would otherwise be measured, too.
        for name, way in order[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            way()
            took[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in took.items()}


def _failing(error: type[Exception], work: Callable[[], object]) -> None:
    """Do what must fail, and end the program when it does not."""
    try:
        work()
    except error:
        return
    sys.exit(f"it did not raise {error.__name__}")


if __name__ == "__main__":
    main()
