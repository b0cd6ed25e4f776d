"""Whom or what a mail is looked for by: as patterns for the log, and as a test of a mail."""

from collections.abc import Iterable

import msgspec

from bouncer.address import domain_of, normalise, normalise_domain
from bouncer.headers import message_id
from bouncer.pseudonym import pseudonym
from bouncer_console.facts.insights import literal
from bouncer_console.facts.mails import MailFacts

NULL_SENDER = "<>"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is given has to hold, all of it; "" asks for nothing.

    An address is one whole address, in whatever case; without a local part (`@example.com`,
    `example.com`), everybody in that domain.
    """

    recipient: str = ""
    sender: str = ""
    """`<>` for the null sender."""
    message_id_header: str = ""
    """The Message-ID that the sender's software wrote, with or without its angle brackets."""
    anywhere: str = ""
    """An address as sender or recipient, a Message-ID, SES's id, or the host it came from."""

    def __bool__(self) -> bool:
        return any((self.recipient, self.sender, self.message_id_header, self.anywhere))

    @property
    def needs_stored_mail(self) -> bool:
        """Whether a mail's record, which has its recipients only, can't answer."""
        return any((self.sender, self.message_id_header, self.anywhere))

    def patterns(self, key: bytes | None) -> tuple[str, ...]:
        """One for each thing that is given, each found in every line that may be meant.

        Args:
            key: what the log's hashes are made with; None where it has none, or nobody may know.
        """
        given = (
            _addresses(self.recipient),
            _addresses(self.sender),
            _ids(self.message_id_header),
            _anything(self.anywhere),
        )
        return tuple(
            "(?i)" + "|".join(sorted(map(literal, _keyed(each, key)))) for each in given if each
        )

    def holds(self, mail: MailFacts, key: bytes | None) -> bool:
        """Whether a mail is meant, be its addresses written out or hashed with this key."""
        recipients = [each.recipient for each in mail.recipients]
        senders = [mail.sender, mail.sender_domain]
        ids = [mail.message_id_header]
        everything = [*ids, mail.message_id, mail.client]
        return (
            _meant(_keyed(_addresses(self.recipient), key), recipients)
            and _meant(_keyed(_addresses(self.sender), key), senders)
            and _meant(_keyed(_ids(self.message_id_header), key), (), ids)
            and _meant(_keyed(_anything(self.anywhere), key), [*recipients, *senders], everything)
        )

    def first(self, mail: MailFacts, key: bytes | None) -> MailFacts:
        """The same mail, with the recipients first whom it was looked for."""
        wanted = _keyed(_addresses(self.recipient) | _anything(self.anywhere), key)
        if not wanted:
            return mail
        recipients = sorted(mail.recipients, key=lambda each: not _meant(wanted, [each.recipient]))
        return msgspec.structs.replace(mail, recipients=tuple(recipients))


def _addresses(text: str) -> set[str]:
    """How an address may stand in the log; everybody in a domain is written `@domain`."""
    text = text.strip()
    if not text or text == NULL_SENDER:
        return {text} - {""}
    if "@" not in text or text.startswith("@"):
        domain = text.removeprefix("@")
        return {f"@{domain.lower()}", f"@{normalise_domain(domain)}"}
    return {text.lower(), normalise(text)}


def _ids(text: str) -> set[str]:
    return {message_id(text).lower()} - {""}


def _anything(text: str) -> set[str]:
    text = text.strip()
    return (_addresses(text) | _ids(text) | {text.lower()}) - {""}


def _keyed(texts: set[str], key: bytes | None) -> set[str]:
    """The same, and their hashes."""
    if key is None:
        return texts
    return texts | {pseudonym(each.removeprefix("@"), key) for each in texts}


def _meant(wanted: set[str], addresses: Iterable[str], ids: Iterable[str] = ()) -> bool:
    if not wanted:
        return True
    return any(each.lower() in wanted for each in ids) or any(
        not wanted.isdisjoint({each.lower(), normalise(each), f"@{domain_of(each)}"})
        for each in addresses
        if each
    )
