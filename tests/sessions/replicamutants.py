"""The mutants of the program in `replicamutants.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A rule left out of a module of `pdp/sessions`, each text `of` which becomes another one. `tests` notice it."""

    name: str
    module: str
    changes: Mapping[str, str]
    tests: tuple[str, ...]

    @property
    def number(self) -> str:
        """Return what it is called in the tables."""
        return self.name.partition(":")[0]

    def file(self, root: Path) -> Path:
        """Return its module in a copy of the project."""
        return root / "pdp" / "sessions" / f"{self.module}.py"

    def made(self, source: str) -> str:
        """Return the source of its module with it."""
        for before, after in self.changes.items():
            assert source.count(before) == 1, f"`{before}` is not once in `{self.module}`"
            source = source.replace(before, after)
        return source


def mutants() -> tuple[Mutant, ...]:
    """Return all of them."""
    return tuple(
        Mutant(
            name=one["mutant"],
            module=one["module"],
            changes={change["of"]: change["to"] for change in one["changes"]},
            tests=tuple(one["tests"]),
        )
        for one in yaml.safe_load((HERE / "replicamutants.yaml").read_text(encoding="utf-8"))
    )
