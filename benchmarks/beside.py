"""`pdp bench` with Cerbos beside this server: `python -m benchmarks.beside`, with the same options and `--cerbos`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from benchmarks.cerbos import cerbos_server, find_cerbos, version_of
from pdp.bench import Plan, Result, run
from pdp.bench.running import Progress
from pdp.cli.operate.bench import bench
from pdp.cli.root import Bounded

_CERBOS = click.Option(["--cerbos"], metavar="PATH", help="The Cerbos program. [found on the PATH]")


@click.command(cls=Bounded, params=[*bench.params, _CERBOS])
@click.pass_context
def main(context: click.Context, /, *, cerbos: str | None, policies: str | None, **chosen: object) -> None:
    """Measure this server beside one that decides nothing, and beside Cerbos."""
    measuring = partial(run_beside, program=find_cerbos(cerbos), translated=policies is None)
    context.invoke(bench, policies=policies, measuring=measuring, **chosen)


def run_beside(plan: Plan, progress: Progress, *, program: Path | None, translated: bool = True) -> Result:
    """Measure as `pdp.bench.run` does, and also Cerbos if its program is found.

    `translated` says that the workload's policies exist in Cerbos's language.
    """
    version: dict[str, str] = {}
    if program is None:
        remark = "Cerbos was not measured: its program was not found; npm has it as `@cerbos/cerbos-linux-x64`"
    elif not translated:
        remark = "Cerbos was not measured: it has no policies that say the same as this workload's"
    else:
        remark = "Cerbos was measured on policies that say the same, without audit log and traces"
        version = {"cerbos": version_of(program)}
        plan = replace(plan, others=[partial(cerbos_server, program, plan.workload)])
    result = run(plan, progress)
    return replace(result, machine={**result.machine, **version}, remarks=[*result.remarks, remark])


if __name__ == "__main__":
    main()
