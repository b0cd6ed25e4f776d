"""`bouncer preview`: the DSN as the sender would get it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bouncer.plan import Plan
from bouncer_console.checkout import DEFAULT_POLICY
from bouncer_console.deployment import RegionOption
from bouncer_console.dsn import build_dsn
from bouncer_console.explain.desk import Desk
from bouncer_console.explain.options import (
    EXPECTED,
    AttributesOption,
    MailboxesOption,
    MailFromOption,
    NowOption,
    PolicyOption,
    RcptOption,
    SenderOption,
    SizeOption,
    StackOption,
    TableOption,
)
from bouncer_console.output import Json, fail, plain_errors, print_json, say_mail


def preview(
    event: Annotated[Path, typer.Argument(help="An SES event (.json) or a mail (.eml).")],
    policy: PolicyOption = DEFAULT_POLICY,
    mailboxes: MailboxesOption = None,
    table: TableOption = None,
    attributes: AttributesOption = None,
    stack: StackOption = None,
    size: SizeOption = None,
    now: NowOption = None,
    bounce_sender: SenderOption = None,
    mail_from: MailFromOption = None,
    rcpt_to: RcptOption = None,
    region: RegionOption = None,
    as_json: Json = False,
) -> None:
    """Print the DSN as the sender would get it."""
    with plain_errors(*EXPECTED):
        desk = Desk(
            policy=policy,
            mailboxes=mailboxes,
            table=table,
            attributes=attributes,
            stack=stack,
            size=size,
            now=now,
            bounce_sender=bounce_sender,
            region=region,
        )
        for mail in desk.read(event, mail_from, rcpt_to):
            plan = desk.explain(mail, event).plan
            if plan.to_send is None or mail.reverse_path is None:
                fail(f"{mail.message_id}: no bounce is sent ({plan.suppressed or 'none decided'})")
            dsn = dsn_of(plan, mail.reverse_path).decode("ascii", "replace")
            if as_json:
                print_json({"message_id": mail.message_id, "to": mail.reverse_path, "dsn": dsn})
            else:
                say_mail(dsn)


def dsn_of(plan: Plan, reverse_path: str) -> bytes:
    request: Any = plan.to_send.request() if plan.to_send else {}
    return build_dsn(
        request,
        reverse_path=reverse_path,
        original=[(each.name, each.value) for each in plan.mail.headers],
        bounce_id="preview",
        now=datetime.now(UTC),
    )
