"""The question before something is done that `--yes` does without asking, and `--json` cannot ask."""

from __future__ import annotations

import click

from pdp.cli.root import NO


def require_yes(question: str, *, done: str, does: str) -> None:
    """Ask, and exit with 1 unless the answer is yes.

    Without an answer the error says that nothing is `done`, and what `--yes` `does`: `lifted` and `lifts`.
    """
    try:
        agreed = click.confirm(question)
    except click.Abort:
        click.echo(err=True)  # The cursor is after the question.
        raise click.ClickException(f"no answer, so nothing is {done}; `--yes` {does} without asking") from None
    if not agreed:
        raise click.exceptions.Exit(NO)


def require_quiet(*, as_json: bool, yes: bool) -> None:
    """Raise `UsageError` for `--json` without `--yes`."""
    if as_json and not yes:
        raise click.UsageError("--json needs --yes, because it asks no question")
