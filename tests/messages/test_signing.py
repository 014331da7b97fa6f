"""Messages are signed by Standard Webhooks, also while a secret is replaced."""

from __future__ import annotations

import base64

import pytest

from pdp.errors import ConfigurationError
from pdp.messages.signing import secrets_of, signed
from tests.machinery.messagereceiver import SECRET

OTHER = "whsec_" + base64.b64encode(bytes(range(24))).decode()


def test_a_message_is_signed_as_the_specification_signs_its_example() -> None:
    """Id, time and body of the example that all libraries of the specification test themselves with."""
    headers = signed(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.9, b'{"test": 2432232314}', secrets_of("secret", SECRET)
    )

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_two_secrets_sign_beside_each_other() -> None:
    """So a receiver that knows only the old one, or only the new one, finds its signature."""
    both = signed("msg_1", 1.0, b"{}", secrets_of("secret", f"{OTHER}\n{SECRET}\n"))["webhook-signature"].split()
    alone = [signed("msg_1", 1.0, b"{}", secrets_of("secret", one))["webhook-signature"] for one in (OTHER, SECRET)]

    assert both == alone


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{SECRET}\n{OTHER}\n{SECRET}",
        SECRET.removeprefix("whsec_"),
        "whsec_",
        "whsec_AAAA",
        "whsec_é",
        "whsec_" + "!" * 40,
    ],
)
def test_another_secret_is_refused_without_being_quoted(text: str) -> None:
    """None, three, without the prefix, too short, or no base64."""
    with pytest.raises(ConfigurationError) as refused:
        secrets_of("on-call.secret", text)

    assert "`on-call.secret`" in str(refused.value)
    assert not any(part in str(refused.value) for part in text.split() if len(part) > len("whsec_"))
