"""Facts for somebody who is not to know whom they are about."""

import msgspec

from bouncer.pseudonym import pseudonym
from bouncer_console.facts.mails import MailFacts, RecipientFacts
from bouncer_console.facts.search import NULL_SENDER


def pseudonymous(mail: MailFacts, key: bytes) -> MailFacts:
    """The same mail with keyed hashes for whatever names a person, and no words of SES's."""

    def hashed(text: str) -> str:
        return pseudonym(text, key) if text and text != NULL_SENDER else text

    def recipient(each: RecipientFacts) -> RecipientFacts:
        return msgspec.structs.replace(
            each, recipient=hashed(each.recipient), entry=hashed(each.entry), detail=""
        )

    return msgspec.structs.replace(
        mail,
        sender=hashed(mail.sender),
        sender_domain=hashed(mail.sender_domain),
        client=hashed(mail.client),
        message_id_header=hashed(mail.message_id_header),
        recipients=tuple(map(recipient, mail.recipients)),
    )
