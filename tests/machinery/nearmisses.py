"""Values, and what a person or a program could take for one of them."""

from __future__ import annotations

KNOWN = {
    "address": "emma.johnson@company.com",
    "url": "https://wiki.example.com/plan?page=2",
    "iban": "DE89370400440532013000",
    "phone": "+4930123456",
    "id": "file_12",
    "text": "Book Club",
}
TEXTS = tuple(KNOWN.values())
# Letters of other scripts that look like these.
ALIKE = {
    "a": "\u0430",
    "c": "\u0441",
    "e": "\u0435",
    "o": "\u043e",
    "p": "\u0440",
    "i": "\u0456",
    "k": "\u212a",
    "s": "\u017f",
}
HIDDEN = ("\u200b", "\u200d", "\u202e", "\u2066", "\ufeff", "\u00ad", "\u034f", "\ufe0f", "\u3164", "\x00")


def near_misses() -> list[str]:
    """Return values that a person or a program could take for a known one."""
    found = [text.replace(old, new, 1) for text in TEXTS for old, new in ALIKE.items() if old in text]
    found += [
        text[:at] + mark + text[at:] for text in TEXTS for mark in HIDDEN for at in (1, len(text) // 2, len(text))
    ]
    user, _, host = KNOWN["address"].partition("@")
    found += [
        *(f"{user}+{tag}@{host}" for tag in ("x", "1", "")),
        *(
            f"{name}@{host}"
            for name in ("emmajohnson", "emma-johnson", "emma_johnson", "emma..johnson", ".emma.johnson")
        ),
        *(f"{user}@{other}" for other in ("company.co", "company.com.evil.com", "mail.company.com", "company.com.")),
        *(f"{user}@{other}" for other in ("com-pany.com", "company-com", "xn--company.com", "compaany.com")),
        *("emma@johnson-company.com", "emma.johnson.company@com", "emma@johnson@company.com", f"mailto:{user}@{host}"),
        *(f"Emma <{user}@{host}>", f"{user}@{host},eve@evil.com", f"{user}@{host} eve@evil.com", f"{user} @{host}"),
    ]
    schemes = ("http", "ftp", "httpss", "javascript", "")
    found += [f"{scheme}://wiki.example.com/plan?page=2" for scheme in schemes]
    hosts: tuple[str, ...] = (
        "wiki.example.co",
        "evil.wiki.example.com",
        "wikiexample.com",
        "wiki-example.com",
        "wiki.example.com.evil.com",
    )
    hosts += (
        "example.com",
        "wiki.example.com:8443",
        "wiki.example.com:80",
        "wiki.example.com@evil.com",
        "wiki.example.com:p@evil.com",
        "wiki.example.com:443@evil.com",
        "wiki.example.com.",
    )
    hosts += ("u:p@wiki.example.com", "wiki.example.com\\@evil.com", "wiki.exam\uff0eple.com", "wiki\u3002example.com")
    found += [f"https://{host}/plan?page=2" for host in hosts]
    rests: tuple[str, ...] = (
        "/plan",
        "/plan?page=3",
        "/plan?page=2&x",
        "/Plan?page=2",
        "/plan/?page=2",
        "/plan?page=2#x",
        "//plan?page=2",
    )
    rests += (
        "/./plan?page=2",
        "/%70lan?page=2",
        "/plan?Page=2",
        "/a/../plan?page=2",
        "",
        "/plan%3Fpage=2",
        "/plan;x?page=2",
    )
    found += [f"https://wiki.example.com{rest}" for rest in rests]
    found += ["DE89370400440532013001", "DE8937040044053201300", "DE893704004405320130000", "XDE89370400440532013000"]
    found += [
        "de89370400440532013000",
        "DE89.3704.0044.0532.0130.00",
        "DE89_370400440532013000",
        "DE98370400440532013000",
    ]
    found += [
        "4930123456",
        "+49301234567",
        "+4930123465",
        "0049 30123456",
        "++4930123456",
        "+49(30)123456",
        "+49.30.123456",
    ]
    found += [
        "file-12",
        "file12",
        "File_12",
        "file_1",
        "file_123",
        "file_12 ",
        " file_12",
        "file__12",
        "file_12.",
        "/file_12",
    ]
    found += [
        "BookClub",
        "Book-Club",
        "Book_Club",
        "Book Clubs",
        "Boo kClub",
        "The Book Club",
        "Book",
        "Club",
        "Book.Club",
    ]
    return [one for one in found if one not in TEXTS]
