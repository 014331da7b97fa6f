"""Why there is no connection to PostgreSQL is said without naming who or where."""

from __future__ import annotations

import pytest

from pdp.foundation.postgrestexts import why_not_connected

AT = 'connection to server at "10.1.2.3", port 5432 failed: '


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('connection is bad: invalid sslmode value: "secret"', "a value in its connection string is not valid"),
        ('connection is bad: invalid integer value "secret" for connection option "port"', "value in its connection"),
        ('connection is bad: invalid port number: "99999"', "value in its connection"),
        ('connection is bad: definition of service "secret" not found', "value in its connection"),
        ('connection is bad: could not parse network address "secret": Name or service', "value in its connection"),
        ("could not match 3 port numbers to 1 hosts", "value in its connection"),
        (f"{AT}Connection refused\n\tIs the server running on that host", "nothing listens there"),
        ('connection to server on socket "/x/.s.PGSQL.5432" failed: No such file or directory', "no such socket"),
        ("failed to resolve host 'db.secret': [Errno -2] Name or service not known", "its host is not known"),
        ("connection timeout expired", "no answer in time"),
        (f"{AT}SSL error: certificate verify failed", "its certificate is not trusted"),
        (f'{AT}root certificate file "/home/secret/root.crt" does not exist', "`sslrootcert` names no file"),
        (f"{AT}server does not support SSL, but SSL was required", "it does not speak TLS"),
        (f'{AT}FATAL:  no pg_hba.conf entry for host "10.9.9.9", user "secret"', "`pg_hba.conf` lets nobody in"),
        (f'{AT}FATAL:  password authentication failed for user "secret"', "it does not take the password"),
        (f'{AT}FATAL:  role "secret" does not exist', "it has no such role"),
        (f'{AT}FATAL:  database "secret" does not exist', "it has no such database"),
        (f"{AT}FATAL:  sorry, too many clients already", "it has no place for another connection"),
        (f"{AT}FATAL:  the database system is starting up", "it starts or stops"),
        (f"{AT}FATAL:  unsupported startup parameter in options: secret", "a pooler is in between"),
        (f"{AT}session is read-only", "it only reads"),
        (f"{AT}FATAL:  Passwort-Authentifizierung fehlgeschlagen", ""),
    ],
)
def test_a_reason_is_said_in_our_words(text: str, words: str) -> None:
    """One of a closed list; a text that is not known gives none."""
    found = why_not_connected(text)

    assert words in found if words else "" == found
    assert "secret" not in found
    assert "10." not in found
