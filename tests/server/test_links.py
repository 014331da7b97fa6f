"""Links to the console, which the server gives with what waits for a person."""

from __future__ import annotations

import pytest

from pdp.server.links import Links
from pdp.testing.inprocess import running_server
from tests.machinery.servers.desk import CALLERS, FILES


@pytest.mark.parametrize("url", ["https://pdp.example.org/console", "https://pdp.example.org/console/"])
def test_a_link_is_the_console_and_an_id(url: str) -> None:
    """It holds nothing else: whoever opens it logs in there."""
    links = Links(url)

    assert "https://pdp.example.org/console/sessions/ses_1" == links.to_session("ses_1")
    assert "https://pdp.example.org/console/approvals/acc_1" == links.to_access_request("acc_1")


def test_without_a_console_there_is_no_link() -> None:
    """A link that leads nowhere would be worse."""
    assert "" == Links().to_session("ses_1")
    assert "" == Links().to_access_request("acc_1")


@pytest.mark.parametrize("console", ["", "https://pdp.example.org"])
def test_a_requested_session_has_its_link(console: str) -> None:
    """The gateway can tell its user where to answer."""
    with running_server(FILES, callers=CALLERS, console_url=console) as server:
        opened = server.client("gateway").request_session(
            user="ada", agent="coder", purpose="to read", tools=("git/*",)
        )

    assert Links(console).to_session(opened.session.session_id) == opened.link
