"""Write coverage as one page of HTML: the policies as in their files, coloured. Needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pdp.foundation.printable import visible
from pdp.workbench.coverage import ConditionCoverage, Coverage, PolicyCoverage, Share

_STYLE = """
:root { color-scheme: light dark; --yes: #1a7f37; --half: #9a6700; --no: #cf222e; --line: #8886; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; }
td, th { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0; vertical-align: top; }
code, pre { font: 13px/1.6 ui-monospace, monospace; }
pre { border: 1px solid var(--line); border-radius: 6px; overflow-x: auto; padding: .75rem 0; }
pre span.l { display: block; padding-right: 1rem; } pre span.n { color: #888; display: inline-block; width: 3.5rem;
  padding-right: 1rem; text-align: right; user-select: none; }
span.yes { background: #2da44e33; } span.half { background: #d4a72c44; } span.no { background: #ff818266; }
span.l.yes { box-shadow: inset 4px 0 var(--yes); background: none; }
span.l.half { box-shadow: inset 4px 0 var(--half); background: none; }
span.l.no { box-shadow: inset 4px 0 var(--no); background: none; }
b.yes { color: var(--yes); } b.half { color: var(--half); } b.no { color: var(--no); }
"""

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
"""


@dataclass(frozen=True, slots=True)
class _Mark:
    """A part of one line, from a column to before another, with its colour and its description."""

    start: int
    end: int
    colour: str
    title: str


def coverage_page(coverage: Coverage, files: Mapping[str, bytes], *, title: str) -> str:
    """Return the page; the bundle's `files` are shown and never interpreted."""
    by_file: dict[str, list[PolicyCoverage]] = {}
    for one in coverage.policies:
        by_file.setdefault(one.policy.file, []).append(one)
    parts = [
        _HEAD.format(title=_shown(title), style=_STYLE),
        _summary(coverage),
        *_table(coverage),
        *(_file(name, files.get(name, b"").decode("utf-8", "replace"), found) for name, found in by_file.items()),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _summary(coverage: Coverage) -> str:
    shares = (("policies", coverage.policy_share), ("conditions", coverage.condition_share))
    said = ", ".join(f"{what} <b class={_colour_of(share)}>{share}</b>" for what, share in shares)
    return f"<p>{said}.</p>\n<p>Green was seen both ways, amber one way, red never.</p>"


def _table(coverage: Coverage) -> Iterator[str]:
    yield "<table>\n<tr><th>policy</th><th>file and line</th><th>what no test covers</th></tr>"
    for one in coverage.policies:
        missed = [f"{_shown(str(each.condition))}: {each.missing}" for each in one.conditions if each.missing]
        said = "<br>".join(filter(None, (_shown(one.missing), *missed))) or "&nbsp;"
        link = f'<a href="#{_shown(one.policy.id)}">{_shown(f"{one.policy.file}:{one.policy.line}")}</a>'
        yield (
            f"<tr><td><b class={_policy_colour(one)}>{_shown(one.policy.id)}</b></td>"
            f"<td>{link}</td><td>{said}</td></tr>"
        )
    yield "</table>"


def _file(name: str, text: str, policies: Sequence[PolicyCoverage]) -> str:
    marks: dict[int, list[_Mark]] = {}
    for one in policies:
        for condition in one.conditions:
            _mark(marks, condition)
    owners = {
        line: one
        for one in policies
        for line in range(one.policy.line, one.policy.line + one.policy.text.count("\n") + 1)
    }
    lines = (
        _line(number, line, marks.get(number, ()), owners.get(number))
        for number, line in enumerate(text.split("\n"), 1)
    )
    return f"<h2>{_shown(name)}</h2>\n<pre>{''.join(lines)}</pre>"


def _mark(marks: dict[int, list[_Mark]], one: ConditionCoverage) -> None:
    condition = one.condition
    for line in range(condition.line, condition.end_line + 1):
        start = condition.column - 1 if line == condition.line else 0
        end = condition.end_column if line == condition.end_line else 1 << 30
        title = one.missing or "seen true and false"
        marks.setdefault(line, []).append(_Mark(start, end, _condition_colour(one), title))


def _line(number: int, text: str, marks: Sequence[_Mark], owner: PolicyCoverage | None) -> str:
    shown, position = [], 0
    for mark in sorted(marks, key=lambda one: one.start):
        # Where a condition continues from the line above, its indentation is not part of it.
        start = max(mark.start, len(text) - len(text.lstrip()))
        end = min(mark.end, len(text))
        shown.append(_shown(text[position:start]))
        shown.append(f'<span class={mark.colour} title="{_shown(mark.title)}">{_shown(text[start:end])}</span>')
        position = end
    shown.append(_shown(text[position:]))
    opens = f' id="{_shown(owner.policy.id)}"' if owner and owner.policy.line == number else ""
    colour = f" {_policy_colour(owner)}" if owner else ""
    title = f' title="{_shown(owner.missing or "covered")}"' if owner else ""
    return f'<span class="l{colour}"{opens}{title}><span class=n>{number}</span>{"".join(shown)}</span>'


def _policy_colour(one: PolicyCoverage) -> str:
    if one.covered:
        return "yes"
    return "half" if one.determining or one.unmatched else "no"


def _condition_colour(one: ConditionCoverage) -> str:
    if one.covered:
        return "yes"
    return "half" if one.seen_true or one.seen_false else "no"


def _colour_of(share: Share) -> str:
    return "yes" if share.covered == share.total else "half"


def _shown(text: str) -> str:
    """Escape characters that HTML would interpret, and those that hide or turn others."""
    return escape(visible(text.replace("\r", ""), kept="\t"))
