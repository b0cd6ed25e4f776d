"""What the account sends: SendRawEmail, delivered where the recipient's mail comes in here.

SES sends from an envelope sender of its own, `ID@REGION.amazonses.com` [S], and forwards what
comes back to it to the mail's Source (email feedback forwarding, on by default [V]).
"""

import base64
import binascii
import re
import secrets
from collections.abc import Callable, Iterable, Mapping

from bouncer_console.mail import REGION, ReceivedMail, Verdicts, receive
from local.aws.send_bounce import SesError, identity_of

_PATH = re.compile(rf"(?P<id>[0-9a-f-]+)@{re.escape(REGION)}\.amazonses\.com")
_PROVEN = Verdicts()
"""SES signs for the Source's domain and for its own: SPF, DKIM and DMARC pass."""


class Outgoing:
    """Takes mail from the account's programs."""

    def __init__(
        self,
        *,
        verified: Callable[[], Iterable[str]],
        accepts: Callable[[str], bool],
        deliver: Callable[[ReceivedMail], None],
    ) -> None:
        """
        Args:
            verified: the identities that may send.
            accepts: whether mail to an address comes in here.
            deliver: takes a mail that does.
        """
        self._verified = verified
        self._accepts = accepts
        self._deliver = deliver
        self._sources: dict[str, str] = {}

    def __call__(self, parameters: Mapping[str, str]) -> str:
        """Answer SendRawEmail.

        Returns:
            The mail's id.

        Raises:
            SesError: what the caller is to be told instead.
        """
        source = parameters.get("Source", "")
        if identity_of(source, self._verified()) is None:
            raise SesError(
                "MessageRejected",
                "Email address is not verified. The following identities failed the check in "
                f"region {REGION.upper()}: {source}",
            )
        try:
            raw = base64.b64decode(parameters.get("RawMessage.Data", ""), validate=True)
        except binascii.Error as error:
            raise SesError("InvalidParameterValue", f"RawMessage.Data: {error}") from error
        message_id = f"{secrets.token_hex(8)}-{secrets.token_hex(4)}-000000"
        self._sources[message_id] = source
        for name, recipient in sorted(parameters.items()):
            if name.startswith("Destinations.member.") and self._accepts(recipient):
                path = f"{message_id}@{REGION}.amazonses.com"
                self._deliver(
                    receive(raw, mail_from=path, recipients=(recipient,), defaults=_PROVEN)
                )
        return message_id

    def bounced(self, reverse_path: str, dsn: bytes) -> None:
        """A DSN for a mail that was sent here goes on to its Source, if that receives here."""
        found = _PATH.fullmatch(reverse_path)
        source = self._sources.get(found["id"]) if found else None
        if source is not None and self._accepts(source):
            self._deliver(receive(dsn, mail_from="", recipients=(source,), defaults=_PROVEN))
