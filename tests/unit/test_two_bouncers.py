"""Two deployments that know nobody, and relays between them that spoil what they carry.

Whatever a relay makes of a DSN's reverse-path, and whichever of its headers it loses, the two do
not go on answering each other.
"""

import itertools
from collections.abc import Callable
from datetime import timedelta

import pytest

from bouncer.message import parse_event
from bouncer.plan import Disposition, Identity, make_plan
from bouncer_console.dsn import build_dsn
from bouncer_console.mail import lambda_event, receive
from tests.unit.builders import NOW, facts_of, policy

ONE, TWO = "one.example", "two.example"
POLICY = policy()

type Spoiling = Callable[[str, str], str]
"""What a relay makes of a DSN's reverse-path; given whom the DSN is from, and about whom it is."""

PATHS: dict[str, Spoiling] = {
    "as it has to be": lambda _sender, _about: "",
    "written out": lambda _sender, _about: "<>",
    "the From of the DSN": lambda sender, _about: sender,
    "whom it is about": lambda _sender, about: about,
    "SRS of the From": lambda sender, _about: (
        f"SRS0=HHH=TT={sender.partition('@')[2]}=x@relay.example"
    ),
    "the relay's daemon": lambda _sender, _about: "MAILER-DAEMON@relay.example",
}
SENDERS = ("mailer-daemon", "bounce", "no-reply", "mail")


def bounced_by(domain: str, local: str, data: bytes, path: str, recipient: str) -> bytes | None:
    """What a deployment sends to the path, if it does; SES proves every sender to it."""
    mail = receive(data, mail_from=path, recipients=(recipient,), received_at=NOW)
    event = lambda_event(mail, recipients=(recipient,), function_arn="arn")
    (message,) = parse_event(event)
    identity = Identity(
        bounce_sender=f"{local}@{domain}", region="us-east-1", stop=Disposition.STOP_RULE_SET
    )
    plan = make_plan(POLICY, message, facts_of(message), identity, NOW + timedelta(seconds=1))
    if plan.to_send is None:
        return None
    return build_dsn(
        dict(plan.to_send.request()),
        reverse_path=path,
        original=mail.fields(),
        bounce_id="0102018d",
        now=NOW,
    )


def answers(local: str, spoilt: Spoiling, lost: frozenset[str]) -> int:
    """How many bounces one mail to nobody causes, twenty at the most."""
    path, recipient = f"nobody@{ONE}", f"nobody@{TWO}"
    data = f"From: {path}\r\nSubject: hello\r\n\r\nhello\r\n".encode()
    for count in range(20):
        domain = recipient.partition("@")[2]
        dsn = bounced_by(domain, local, data, path, recipient)
        if dsn is None or not path:
            return count
        data = _without(dsn, lost)
        path, recipient = spoilt(f"{local}@{domain}", recipient), path
        if not recipient.endswith((ONE, TWO)):
            return count + 1
    return 20


def _without(data: bytes, lost: frozenset[str]) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    fields = [
        line for line in head.split(b"\r\n") if line.partition(b":")[0].decode().lower() not in lost
    ]
    return b"\r\n".join(fields) + b"\r\n\r\n" + body


@pytest.mark.parametrize("local", SENDERS)
@pytest.mark.parametrize("spoilt", PATHS.values(), ids=PATHS)
def test_a_dsn_is_answered_by_nobody_however_its_path_was_spoilt(
    local: str, spoilt: Spoiling
) -> None:
    for lost in ((), ("return-path",), ("from",), ("subject", "date", "message-id", "to")):
        assert answers(local, spoilt, frozenset(lost)) == 1


# Whom it is about, and nothing left that tells of a DSN: that is a mail of his, where he is proven.
# Only the budget ends it then: by default a hundred a day.
LEFT = {name: spoilt for name, spoilt in PATHS.items() if name != "whom it is about"}


@pytest.mark.parametrize("local", SENDERS)
@pytest.mark.parametrize("spoilt", LEFT.values(), ids=LEFT)
def test_nor_do_two_go_on_answering_where_the_type_of_the_dsn_is_lost_too(
    local: str, spoilt: Spoiling
) -> None:
    losses = ("content-type", "return-path", "mime-version", "x-ses-outgoing", "subject")
    for count in range(1, len(losses)):
        for more in itertools.combinations(losses[1:], count):
            assert answers(local, spoilt, frozenset({losses[0], *more})) <= 2
