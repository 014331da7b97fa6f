"""The file that says which key provider a broker has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pdp.broker.providers.choosing import PROVIDER_FILE, chosen_provider
from pdp.errors import ConfigurationError
from tests.machinery.pages import blocks, run, surroundings


@pytest.mark.parametrize("kind", ["age", "transit", "pkcs11"])
def test_the_page_shows_providers_that_are_read(project_root: Path, tmp_path: Path, kind: str) -> None:
    """Each file of the page is a whole one."""
    [text] = blocks(project_root / "pdp" / "broker" / "README.md", f"yaml {kind}")
    (tmp_path / PROVIDER_FILE).write_text(text)

    assert callable(chosen_provider(tmp_path).open)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("provider: fil\n", ["1: `provider` is unknown: `fil`; did you mean `file`?"]),
        ("provider: file\nroot: x\n", ["2: unknown key: `root`"]),
        (
            "provider: age\n",
            ["1: `recipients` must list who can open the root key", "1: `identity_file` must name a file"],
        ),
        (
            "provider: transit\naddress: https://bao.example.org/v1\nmount: /x\n",
            [
                "2: `address` must be an origin such as `https://bao.example.org:8200`",
                "3: `mount` must be a path without a `/` at its ends",
                "1: `token_file` must name a file",
            ],
        ),
        (
            "provider: pkcs11\npin: 1234\n",
            [
                "2: unknown key: `pin`",
                "1: `token` must be the label of a token",
                "1: `module` must name a file",
                "1: `pin_file` must name a file",
            ],
        ),
    ],
)
def test_every_mistake_of_a_provider_has_its_line(tmp_path: Path, text: str, expected: list[str]) -> None:
    """All of them are told together."""
    (tmp_path / PROVIDER_FILE).write_text(text)

    with pytest.raises(ConfigurationError) as refused:
        chosen_provider(tmp_path)

    assert sorted(f"{tmp_path / PROVIDER_FILE}:{line}" for line in expected) == sorted(str(refused.value).splitlines())


@pytest.mark.parametrize(("provider", "library"), [("age", "pyrage"), ("pkcs11", "pkcs11")])
def test_a_provider_says_which_extra_it_needs(tmp_path: Path, provider: str, library: str) -> None:
    """Where its library is not installed."""
    (tmp_path / PROVIDER_FILE).write_text(f"provider: {provider}\n")
    code = f"import sys; sys.modules[{library!r}] = None; from pdp.broker.cli import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", code, "keys", "list", "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    expected = f"error: `{library}` is not installed: pip install 'agent-pdp[{provider}]'\n"
    assert (2, expected) == (done.returncode, done.stderr)


def test_the_commands_of_the_page_run(project_root: Path, tmp_path: Path) -> None:
    """Whoever types them has a secret in the store."""
    commands, *_ = blocks(project_root / "pdp" / "broker" / "README.md", "sh")

    done = run(commands, tmp_path, surroundings(tmp_path, Path(sys.executable).parent))

    assert (0, "") == (done.returncode, done.stderr)
    assert ["github", "acme", "prod", "github", "https://api.github.com", "1"] == done.stdout.splitlines()[-1].split()
