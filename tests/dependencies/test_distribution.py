"""The name under which the project is installed, and what is said where a part of it is not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

# `pip install` of another project that has this one's import name, with any options, quotes and extras.
_WRONG = re.compile(
    r"""(?:install\b[^\n`]*?\s["']?|["'`])pdp(?:\[\w+(?:,\w+)*\]|(?=[=<>~!]=))|install\s+(?:-\S+\s+)*pdp\b"""
)


def wrong_names(text: str) -> list[str]:
    """Return what a text says to install under a name that is somebody else's."""
    return [match.group() for match in _WRONG.finditer(text)]


def test_every_advice_names_the_distribution(project_root: Path) -> None:
    """The name `pdp` belongs to another project: no page and no message says to install it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=project_root, capture_output=True, text=True, check=True)
    pages = [
        project_root / name for name in listed.stdout.split("\0") if name.endswith((".md", ".py", ".yaml", "file"))
    ]

    found = {
        str(page.relative_to(project_root)): wrong
        for page in pages
        if page.is_file() and page != Path(__file__)
        if (wrong := wrong_names(page.read_text(encoding="utf-8")))
    }

    assert pages
    assert {} == found


@pytest.mark.parametrize(
    "advice", ["pip install pdp", "pip install -U pdp", "pip install 'pdp[parquet]'", "`pdp[demo]`"]
)
def test_the_wrong_name_would_be_found(advice: str) -> None:
    """What must not be written is what the test above looks for."""
    assert wrong_names(advice)


@pytest.mark.parametrize(
    ("library", "extra", "arguments"),
    [
        ("cedarpy", "server", "serve --server-workers 1"),
        ("mcp", "demo", "tools import x --command y"),
        ("apsw", "server", "store check"),
        ("uvicorn", "authzen", "door authzen --listen 127.0.0.1:0"),
        ("starlette", "console", "console"),
        ("httpcore2", "mcp", "tools import x --upstream http://127.0.0.1:1/"),
        ("httpcore2", "mcp", "mcp --server x --upstream http://127.0.0.1:1/ --listen 127.0.0.1:0"),
    ],
)
def test_a_command_says_which_extra_it_needs(library: str, extra: str, arguments: str, tmp_path: Path) -> None:
    """A command whose library is not installed says in one line what brings it."""
    program = f"import sys; sys.modules[{library!r}] = None; from pdp.cli import main; main()"
    command = [sys.executable, "-c", program, *arguments.split()]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)

    line = f"error: `{library}` is not installed: pip install 'agent-pdp[{extra}]'"
    assert (2, line) == (done.returncode, done.stderr.splitlines()[-1])


def test_an_export_says_which_extra_it_needs() -> None:
    """So does the embedded form, as an `ImportError` that names what was asked for."""
    program = "import sys; sys.modules['cedarpy'] = None; from pdp import open_embedded"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    line = "ImportError: `pdp.open_embedded`: `cedarpy` is not installed: pip install 'agent-pdp[server]'"
    assert line == done.stderr.splitlines()[-1]
