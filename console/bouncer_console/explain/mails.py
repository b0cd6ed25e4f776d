"""The mails of an event file, or the one of an .eml."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from bouncer.headers import read_block
from bouncer.message import InboundMessage, MalformedEventError, parse_event
from bouncer_console.mail import addresses_of, lambda_event, receive
from bouncer_console.output import note


def is_mail(path: Path) -> bool:
    return path.suffix.lower() == ".eml"


def read_mails(
    path: Path,
    mail_from: str | None = None,
    rcpt_to: list[str] | None = None,
    received_at: datetime | None = None,
) -> list[InboundMessage]:
    """The mails of an event file, or the one of an .eml.

    Args:
        mail_from, rcpt_to: an .eml's envelope; else its headers have to tell.
        received_at: when an .eml arrives; now, if absent.

    Raises:
        MalformedEventError: not an SES event; the text names the place.
        OSError: it cannot be read.
    """
    if is_mail(path):
        return parse_event(_event_of(path, mail_from, rcpt_to, received_at))
    try:
        event = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MalformedEventError(f"{path} is not JSON: {error}") from error
    try:
        return parse_event(event)
    except MalformedEventError as error:
        raise MalformedEventError(f"{path}: {error}") from error


def _event_of(
    path: Path, mail_from: str | None, rcpt_to: list[str] | None, received_at: datetime | None
) -> dict[str, Any]:
    data = path.read_bytes()
    fields = [(each.name, each.value) for each in read_block(data).headers]
    recipients = tuple(rcpt_to or addresses_of(fields, "To", "Cc"))
    if not recipients:
        raise MalformedEventError(f"{path} names nobody in To or Cc: say who with --rcpt-to")
    if mail_from is None:
        mail_from = sender_of(path, fields)
    mail = receive(
        data, mail_from=mail_from.strip("<> "), recipients=recipients, received_at=received_at
    )
    return lambda_event(mail, recipients=mail.recipients, function_arn="")


def sender_of(path: Path, fields: list[tuple[str, str]]) -> str:
    """The envelope sender as the headers have it; said where it is only a guess."""
    paths = [value.strip() for name, value in fields if name.lower() == "return-path"]
    if "<>" in paths:
        return ""
    told = addresses_of(fields, "Return-Path")
    if told:
        return told[0]
    guessed = next(iter(addresses_of(fields, "From", "Sender")), "")
    note(
        f"{path} has no Return-Path, so its sender is taken to be "
        f"{guessed or 'the null sender'}: see --mail-from"
    )
    return guessed
