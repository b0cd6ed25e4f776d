"""Bounces of unknown recipients, for whoever sends some."""

from datetime import UTC, datetime, timedelta

from bouncer.delivery.bounce import Bounce, BouncedRecipient, BounceType

BOUNCE_SENDER = "mailer-daemon@example.com"
NOBODY = "nobody@example.com"


def bounce(
    message_id: str = "msg1",
    *recipients: str,
    received_at: datetime | None = None,
    explanation: str = "",
) -> Bounce:
    """A bounce of unknown recipients, of a mail that came a minute ago."""
    return Bounce(
        message_id=message_id,
        received_at=received_at or datetime.now(UTC) - timedelta(minutes=1),
        bounce_sender=BOUNCE_SENDER,
        recipients=tuple(
            BouncedRecipient(
                recipient=each,
                reason="unknown-recipient",
                bounce_type=BounceType.DOES_NOT_EXIST,
                explanation=explanation,
            )
            for each in recipients or (NOBODY,)
        ),
    )
