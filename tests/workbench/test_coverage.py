"""Coverage: what tests show of each policy and condition, and what they do not, is counted and shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pdp.cli.root import root
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.bundle import Bundle
from pdp.policy.contents import read_folder
from pdp.policy.loading import load_bundle
from pdp.testing.bundles import bundle_files, compile_here
from pdp.workbench.coverage import Coverage, CoverageCounter, Share, coverage_lines, shortfall
from pdp.workbench.coveragepage import coverage_page
from pdp.workbench.runner import run
from tests.workbench import material
from tests.workbench.folder import write_bundle
from tests.workbench.material import HEAD, bundle, suite

READ = "  - {case: reading, session: work, call: read, expect: allow}\n"
HIDDEN = "  - {case: secrets, session: work, call: secret, expect: deny}\n"
WRITE = "  - {case: writing, session: granted, call: write, expect: allow}\n"
NO_WRITE = "  - {case: not writing, session: work, call: write, expect: deny}\n"
STEPS = """  - {case: eve asks, session: eves, step: request, expect: deny}
  - {case: own approval, session: own, step: approve, expect: deny}
  - {case: delegation, session: child, step: delegate, expect: allow}
"""
SESSIONS = """  eves: {user: eve, agent: coder, tools: ["files/*"]}
  own: {user: ada, agent: coder, tools: ["files/*"], approver: ada}
calls:
"""
Run = Callable[..., Result]


def covered(cases: str, tested: Bundle | None = None) -> Coverage:
    """Return the coverage of some cases."""
    tested = tested or bundle()
    counter = CoverageCounter(tested)
    for result in run(tested, [suite(cases, HEAD.replace("calls:\n", SESSIONS))]).results:
        counter.take(result)
    return counter.coverage()


def missing(coverage: Coverage, name: str) -> tuple[str, list[str]]:
    """Return what is missing of a policy and of each of its conditions."""
    (one,) = [one for one in coverage.policies if one.policy.id == name]
    return one.missing, [each.missing for each in one.conditions]


# (cases, policy, what no case shows of it, and of its conditions)
SHOWN = [
    (READ, "files/write-when-granted", "never asked", ["never reached", "never reached"]),
    (NO_WRITE, "files/write-when-granted", "never decided", ["never true", "never reached"]),
    (WRITE, "files/write-when-granted", "always matched", ["never false", "never false"]),
    (NO_WRITE + WRITE, "files/write-when-granted", "", ["", "never false"]),
    (READ, "guardrails/no-secrets", "never decided", ["never false", "never false", "never true"]),
    (READ + HIDDEN, "guardrails/no-secrets", "", ["never false", "never false", ""]),
    (READ, "files/staff-read", "always matched", []),
    # Opening a session asks the policies as well.
    (READ, "sessions/request", "always matched", []),
    (READ + STEPS, "sessions/request", "", []),
    (READ + STEPS, "sessions/approve", "", [""]),
    # It matches whenever it is asked, so there is nothing else to show.
    (STEPS, "sessions/delegate", "", []),
]


@pytest.mark.parametrize(("cases", "policy", "of_policy", "of_conditions"), SHOWN)
def test_what_no_case_shows_is_said(cases: str, policy: str, of_policy: str, of_conditions: list[str]) -> None:
    """A policy must decide once and not match once, a condition be true once and false once where it is reached."""
    assert (of_policy, of_conditions) == missing(covered(cases), policy)


def test_a_permit_that_a_forbid_beats_does_not_decide() -> None:
    """That it matched is not enough: the outcome must rest on it."""
    only_beaten, also_alone = covered(HIDDEN), covered(HIDDEN + READ)

    assert ("never decided, always matched", []) == missing(only_beaten, "files/staff-read")
    assert ("always matched", []) == missing(also_alone, "files/staff-read")


def test_lines_name_places_of_what_is_missing_alone() -> None:
    """First both shares, then each policy and condition that is not covered, as places that editors open."""
    lines = list(coverage_lines(covered(READ + HIDDEN + NO_WRITE + WRITE + STEPS), folder="policies"))

    assert [
        "coverage: policies 5 of 6 (83.3 %), conditions 3 of 6 (50.0 %)",
        "policies/files.cedar:2: files/staff-read: always matched",
        "policies/files.cedar:5: files/write-when-granted",
        "  policies/files.cedar:7:47: `context.input.size + 1 > 0`: never false",
        "policies/guardrails.cedar:2: guardrails/no-secrets",
        "  policies/guardrails.cedar:4:8: `context has input`: never false",
        "  policies/guardrails.cedar:4:29: `context.input has path`: never false",
    ] == lines


@pytest.mark.parametrize(
    ("share", "least", "enough"),
    [
        (Share(covered=2, total=3), 66.6, True),
        (Share(covered=2, total=3), 66.7, False),
        (Share(covered=0, total=0), 100.0, True),
    ],
)
def test_a_threshold_is_met_or_missed(share: Share, least: float, enough: bool) -> None:  # noqa: FBT001 - a column of the table
    """A share is compared in full precision; all of nothing is enough."""
    assert enough is (share.percent >= least)


def test_only_all_is_shown_as_all() -> None:
    """1,999 of 2,000 is not shown as 100 %."""
    assert "1999 of 2000 (99.9 %)" == str(Share(covered=1999, total=2000))


def test_shortfalls_are_told() -> None:
    """What is too little says how much there is and how much there must be."""
    coverage = covered(READ)

    assert () == shortfall(coverage, policies=None, conditions=0.0)
    assert ("coverage of policies is 0 of 6 (0.0 %), but must be 50 %",) == shortfall(
        coverage, policies=50.0, conditions=None
    )


class Page(HTMLParser):
    """What a browser would make of a page: its text, its tags, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a tag."""
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "onclick", "style")]

    def handle_data(self, data: str) -> None:
        """Take note of a text."""
        self.texts.append(data)


HOSTILE = """
// </pre><script>alert(1)</script> & \u202e
@id("files/hostile")
permit (principal, action == Action::"files/read", resource)
when { context.input.path == "<img src=x onerror=alert(1)>\\" '&amp;" && context.session.depth == 0 };
"""


def test_page_shows_sources_and_interprets_nothing() -> None:
    """The page holds every file as it is, with hidden characters made visible, and loads nothing."""
    files = bundle_files(
        policies={**material.POLICIES, "files": HOSTILE},
        tools=material.TOOLS,
        directory=material.DIRECTORY,
        overlays={"files": material.OVERLAY},
        sessions=material.SESSIONS,
    )
    hostile = load_bundle(files, DEFAULT_LIMITS, compile_here)

    text = coverage_page(covered(READ, hostile), files, title="<b>policies</b>")

    page = Page(text)
    assert {"script", "img"} & page.tags == set()
    assert all(link.startswith("#") for link in page.links)
    shown = "".join(page.texts)
    assert "// </pre><script>alert(1)</script> & \\u202e" in shown
    assert "<img src=x onerror=alert(1)>" in shown
    assert "<b>policies</b>" in shown
    assert "\u202e" not in text


def test_page_holds_sources_as_they_are(project_root: Path) -> None:
    """Whatever is marked, each line of the shipped policies reads as in its file."""
    files = read_folder(project_root / "policies", DEFAULT_LIMITS)
    shipped = load_bundle(files, DEFAULT_LIMITS, compile_here)

    text = coverage_page(CoverageCounter(shipped).coverage(), files, title="policies")

    sources = [unescape(re.sub(r"<[^>]*>", "", re.sub(r"<span class=n>\d+</span>", "\n", one))) for one in pres(text)]
    expected = ["\n" + files[name].decode() for name in dict.fromkeys(one.file for one in shipped.policies.values())]
    assert expected == sources


def pres(text: str) -> list[str]:
    """Return the text of the page's blocks of source."""
    return re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)


def test_page_colours_each_condition() -> None:
    """Each condition is a stretch of its own, coloured by what tests showed of it."""
    files = bundle_files(
        policies=material.POLICIES,
        tools=material.TOOLS,
        directory=material.DIRECTORY,
        overlays={"files": material.OVERLAY},
        sessions=material.SESSIONS,
    )

    text = coverage_page(covered(NO_WRITE + WRITE), files, title="policies")

    assert '<span class=yes title="seen true and false">context.session in Grant::&quot;writing&quot;</span>' in text
    assert '<span class=half title="never false">context.input.size + 1 &gt; 0</span>' in text


@pytest.fixture
def pdp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a folder with a bundle and one case."""
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "policies", {"one_test.yaml": f"{HEAD}cases:\n{READ}"})
    return lambda *words: CliRunner().invoke(root, ("test", "policies", *words), prog_name="pdp")


def test_command_reports_coverage(pdp: Run) -> None:
    """`--coverage` says it after the results, `--json` holds it, and without either there is none."""
    plain, text, found = pdp(), pdp("--coverage"), pdp("--coverage", "--json")

    assert "coverage" not in plain.stdout
    assert "coverage: policies 0 of 6 (0.0 %), conditions 0 of 6 (0.0 %)" in text.stdout
    counted = json.loads(found.stdout)["coverage"]
    assert {"covered": 0, "total": 6, "percent": 0.0} == counted["policies"]
    assert {"sessions/request", "guardrails/no-secrets"} < {one["policy_id"] for one in counted["by_policy"]}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--coverage-min", "0"), 0),
        (("--coverage-min", "50"), 1),
        (("--coverage-min-conditions", "1"), 1),
        (("--coverage-min", "101"), 2),
    ],
)
def test_command_fails_below_the_threshold(pdp: Run, words: tuple[str, ...], code: int) -> None:
    """Too little coverage is a failure although all cases pass."""
    done = pdp(*words)

    assert code == done.exit_code
    assert ("but must be" in done.stderr) is (code == 1)


def test_command_writes_the_page(pdp: Run) -> None:
    """`--coverage-html` writes the page to its file."""
    done = pdp("--coverage-html", "coverage.html")

    assert 0 == done.exit_code
    assert Path("coverage.html").read_text(encoding="utf-8").startswith("<!doctype html>")
