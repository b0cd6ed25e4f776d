"""Addresses are compared the way SES and mail compare them."""

import pytest

from bouncer.address import (
    domain_of,
    is_deliverable,
    is_domain,
    normalise,
    normalise_domain,
    split,
)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("pat@sender.example", ("pat", "sender.example")),
        ('"a@b"@sender.example', ('"a@b"', "sender.example")),
        ("@sender.example", ("", "sender.example")),
        ("pat@", ("pat", "")),
        ("pat", ("pat", "")),
        ("", ("", "")),
    ],
)
def test_an_address_is_cut_at_its_last_at_sign(address: str, parts: tuple[str, str]) -> None:
    assert split(address) == parts


@pytest.mark.parametrize(
    ("domain", "normal"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        (" example.com ", "example.com"),
        ("B\u00fccher.example", "xn--bcher-kva.example"),
        ("\uff42\u00fccher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("", ""),
    ],
)
def test_a_domain_is_lower_case_with_a_labels_and_no_final_dot(domain: str, normal: str) -> None:
    assert normalise_domain(domain) == normal


@pytest.mark.parametrize(
    "domain", ["\u2665..example", "\u00fc" * 80 + ".example", "a\u0301\u200d."]
)
def test_a_domain_that_idna_refuses_matches_only_itself(domain: str) -> None:
    assert normalise_domain(domain) == domain.rstrip(".").lower()


@pytest.mark.parametrize(
    ("address", "normal"),
    [
        ("Alice@Example.COM", "alice@example.com"),
        ("ALICE+News@example.com", "alice+news@example.com"),
        ("  alice@example.com.\t", "alice@example.com"),
        ("alice@B\u00fccher.example", "alice@xn--bcher-kva.example"),
        ("@Example.COM", "@example.com"),
        ('"Alice"@example.com', "alice@example.com"),
        ('"a.b+news"@example.com', "a.b+news@example.com"),
        (r'"al\ice"@example.com', "alice@example.com"),
        ('"Al Ice"@example.com', '"al ice"@example.com'),
        ('"a..b"@example.com', '"a..b"@example.com'),
        ('"a@b"@example.com', '"a@b"@example.com'),
        ('""@example.com', '""@example.com'),
        ('"@example.com', '"@example.com'),
        (r'"\"a\""@example.com', r'"\"a\""@example.com'),
    ],
)
def test_two_spellings_of_an_address_have_one_normal_form(address: str, normal: str) -> None:
    assert normalise(address) == normal
    assert normalise(normal) == normal


def test_the_domain_of_an_address_is_normalised() -> None:
    assert domain_of("Alice@EXAMPLE.com.") == "example.com"
    assert domain_of("alice") == ""


@pytest.mark.parametrize(
    "name", ["example.com", "Example.COM.", "a.b.example", "B\u00fccher.example", "1.example"]
)
def test_two_labels_or_more_are_a_domain(name: str) -> None:
    assert is_domain(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "localhost",
        "@example.com",
        "pat@example.com",
        "*.example.com",
        ".example.com",
        "a..example",
        "-a.example",
        "a_b.example",
        "exam ple.com",
        "[192.0.2.1]",
        "d" * 64 + ".example",
        "\u2665..example",
    ],
)
def test_what_no_mail_could_go_to_is_no_domain(name: str) -> None:
    assert not is_domain(name)


@pytest.mark.parametrize(
    "address",
    [
        "pat@sender.example",
        "pat.o'brien+tag=x@mail.sender.example",
        "_%~!#$&*/?^`{|}-@sender.example",
        '"pat example"@sender.example',
        r'"quoted \" and \\"@sender.example',
        "pat@xn--bcher-kva.example",
        "PAT@SENDER.EXAMPLE",
        "l" * 64 + "@sender.example",
        "pat@" + "d" * 63 + ".example",
        "pat@" + ".".join(["d" * 60] * 4) + ".exampl",
    ],
)
def test_an_ascii_mailbox_within_the_lengths_is_deliverable(address: str) -> None:
    assert is_deliverable(address)


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("", id="nothing"),
        pytest.param("pat", id="no domain"),
        pytest.param("pat@", id="empty domain"),
        pytest.param("@sender.example", id="empty local part"),
        pytest.param("pat@localhost", id="one label"),
        pytest.param("pat@[192.0.2.1]", id="address literal"),
        pytest.param("pat@[IPv6:2001:db8::1]", id="IPv6 literal"),
        pytest.param("#@[]", id="qmail's double bounce"),
        pytest.param("p\u00e4t@sender.example", id="non-ASCII local part"),
        pytest.param("pat@s\u00e4nder.example", id="non-ASCII domain"),
        pytest.param("pat example@sender.example", id="unquoted space"),
        pytest.param("pat..x@sender.example", id="two dots"),
        pytest.param(".pat@sender.example", id="leading dot"),
        pytest.param("pat.@sender.example", id="trailing dot"),
        pytest.param("pat@sender.example.", id="domain with final dot"),
        pytest.param("pat@-sender.example", id="label begins with hyphen"),
        pytest.param("pat@sender_x.example", id="underscore in domain"),
        pytest.param("pat@sender..example", id="empty label"),
        pytest.param("<pat@sender.example>", id="angle brackets"),
        pytest.param("pat@sender.example\n", id="line break at the end"),
        pytest.param("pat@sender.example\r\nBcc: x@y.example", id="header injection"),
        pytest.param('"pat\n"@sender.example', id="line break in quotes"),
        pytest.param("pat@" + "d" * 64 + ".example", id="label of 64"),
        pytest.param("pat@" + ".".join(["d" * 60] * 4) + ".example", id="255 characters"),
    ],
)
def test_what_ses_could_not_send_to_is_not_deliverable(address: str) -> None:
    assert not is_deliverable(address)
