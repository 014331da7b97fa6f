"""Where the links of messages lead."""

from __future__ import annotations

import pytest

from pdp.config.settings import ServerSettings, Settings
from pdp.messagesettings import link_to_of


@pytest.mark.parametrize(
    ("found", "page"),
    [("ses_a", "sessions/ses_a"), ("acc_a", "approvals/acc_a"), ("frz_a", "freeze")],
)
def test_a_link_leads_to_the_page_of_what_it_names(found: str, page: str) -> None:
    """In the console; without one there is no link."""
    with_console = Settings(server=ServerSettings(console_url="https://console.example/pdp/"))

    assert link_to_of(with_console)(found) == f"https://console.example/pdp/{page}"
    assert link_to_of(Settings())(found) == ""
