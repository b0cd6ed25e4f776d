"""The parts put together on AWS's clients: once a cold start, and once a console command."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bouncer.audit import Audit
from bouncer.aws import clients
from bouncer.aws.budget import DynamoBudget
from bouncer.aws.clients import Clients
from bouncer.aws.directory import DynamoDirectory
from bouncer.aws.discretion import Discretion
from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.aws.pacing import paced
from bouncer.aws.policy_source import AppConfigPolicy, FilePolicy
from bouncer.aws.queue import SqsBounceQueue, SqsKeeper
from bouncer.aws.send_bounce import SesSendBounce
from bouncer.aws.slots import DynamoSlots
from bouncer.aws.stack_key import key_of
from bouncer.aws.stored_mail import S3StoredMail
from bouncer.aws.telemetry import Telemetry
from bouncer.aws.usage import DynamoUsage
from bouncer.delivery.delivery import Delivery
from bouncer.delivery.fate import Incident
from bouncer.inbound import Inbound, NoStoredMail, Planner, StoredMail
from bouncer.limiter import Limiter, NoSlotError
from bouncer.plan import Disposition, Identity
from bouncer.settings import (
    AuditSettings,
    DecidingSettings,
    InboundSettings,
    PaceSettings,
    SendSettings,
    Settings,
    StopScope,
    UsageMode,
    UsageSettings,
    attribute_names,
    domain_names,
    stored_prefix,
)

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger
    from mypy_boto3_ses import SESClient


def telemetry(settings: Settings, logger: "Logger", key: Callable[[], bytes]) -> Telemetry:
    """
    Args:
        key: the stack's, by which addresses are hashed where they are.
    """
    discretion = Discretion(settings.log_addresses, key)
    return Telemetry(logger, service=logger.service, discretion=discretion)


def delivery(
    settings: Settings,
    aws: Clients,
    *,
    count: Callable[[Incident], None],
    repaired: Callable[[float], None],
) -> Delivery:
    """
    Args:
        count: told of what is worth counting.
        repaired: told by how many seconds a wrong clock had moved the next slot.
    """
    dynamodb = aws.dynamodb
    return Delivery(
        ledger=_ledger(settings, aws),
        limiter=Limiter(DynamoSlots(dynamodb, settings.pace_table, repaired), settings.pace),
        send_bounce=clients.lazily(lambda: SesSendBounce(clients.ses())),
        queue=SqsBounceQueue(
            aws.sqs, settings.bounce_queue_url, key_of(dynamodb, settings.bounce_table)
        ),
        terms=settings.terms,
        count=count,
    )


def observed_delivery(settings: Settings, aws: Clients, telemetry: Telemetry) -> Delivery:
    """The functions' own: what is worth counting becomes a metric."""

    def repaired(ahead: float) -> None:
        telemetry.warn("SlotRepaired", f"the next slot was {ahead:.0f} s ahead: a clock was wrong")

    return delivery(settings, aws, count=telemetry.incident, repaired=repaired)


def inbound(
    settings: DecidingSettings,
    aws: Clients,
    policy_file: Path,
    telemetry: Telemetry,
    stop: Disposition = Disposition.STOP_RULE,
) -> Inbound:
    """
    Args:
        stop: how refused mail stops, where that is still to be decided.
    """
    dynamodb = aws.dynamodb
    store: StoredMail = NoStoredMail()
    if settings.mail_bucket:
        store = _stored_mail(settings, telemetry, "StoredMailUnavailable")
    policy: FilePolicy | AppConfigPolicy = FilePolicy(policy_file)
    if settings.policy_profile:
        policy = AppConfigPolicy(
            clients.appconfigdata(),
            application=settings.policy_application,
            environment=settings.policy_environment,
            profile=settings.policy_profile,
            on_failure=lambda why: telemetry.warn("PolicyRefreshFailed", why),
        )
    planner = Planner(
        policy=policy,
        directory=DynamoDirectory(
            dynamodb,
            settings.mailbox_table,
            attribute_names(settings.mailbox_attributes),
            on_bad_item=telemetry.bad_mailbox,
            domains=domain_names(settings.mailbox_domains),
        ),
        store=store,
        identity=Identity(
            bounce_sender=settings.bounce_sender,
            region=settings.aws_region,
            mode=settings.mode,
            stop=stop,
            window_margin=settings.terms.window_margin,
        ),
    )
    delivery = observed_delivery(settings, aws, telemetry)
    return Inbound(
        planner=planner,
        budget=DynamoBudget(dynamodb, settings.bounce_table, delivery.backlog),
        delivery=delivery,
        records=mail_records(settings, aws),
        usage=usage(settings, aws) if settings.usage is UsageMode.MANAGED else None,
    )


def refused_mail(settings: InboundSettings, telemetry: Telemetry) -> S3StoredMail | None:
    """Where refused mail is marked; None where it stays as it is.

    Only where it stops whole rule sets: another rule's recipients may have the same copy.
    """
    whole = settings.refused_mail_stops is StopScope.RULE_SET
    if not (settings.mark_refused_mail and settings.mail_bucket and whole):
        return None
    return _stored_mail(settings, telemetry, "RefusedMailNotMarked")


def _stored_mail(settings: DecidingSettings, telemetry: Telemetry, failure: str) -> S3StoredMail:
    return S3StoredMail(
        clients.s3(),  # at init: every mail that is delivered asks how large it is
        settings.mail_bucket,
        stored_prefix(settings.mail_prefix),
        on_failure=lambda why: telemetry.warn(failure, why),
    )


def mail_records(settings: Settings, aws: Clients) -> DynamoMailRecords:
    return DynamoMailRecords(
        aws.dynamodb, settings.bounce_table, retention=settings.ledger_retention
    )


def audit(settings: AuditSettings, aws: Clients, policy_file: Path, telemetry: Telemetry) -> Audit:
    return Audit(
        inbound=inbound(settings, aws, policy_file, telemetry),
        records=mail_records(settings, aws),
        ledger=_ledger(settings, aws),
        late=settings.late_bounces,
    )


def event_keeper(settings: InboundSettings, aws: Clients) -> SqsKeeper:
    return SqsKeeper(aws.sqs, settings.event_dead_letter_queue_url)


def bounce_dead_letters(settings: SendSettings, aws: Clients) -> SqsKeeper:
    return SqsKeeper(aws.sqs, settings.bounce_dead_letter_queue_url)


def usage(settings: DecidingSettings | UsageSettings, aws: Clients) -> DynamoUsage:
    return DynamoUsage(
        aws.dynamodb,
        bounce_table=settings.bounce_table,
        mailbox_table=settings.mailbox_table,
        remember=settings.ledger_retention,
    )


def _ledger(settings: Settings, aws: Clients) -> DynamoLedger:
    return DynamoLedger(aws.dynamodb, settings.bounce_table, retention=settings.ledger_retention)


def ses_rules(settings: PaceSettings) -> "SESClient":
    """For receipt rules: each call takes its turn among the bounces.

    AWS does not say whether these calls share SendBounce's one a second. Where the limiter gives
    no turn, a call is made an interval later all the same: rules matter more than a throttled call.
    """
    limiter = Limiter(DynamoSlots(clients.dynamodb(), settings.pace_table), settings.pace)

    def without(_: NoSlotError) -> None:
        limiter.pause(settings.pace.step)

    return paced(clients.ses_rules(), limiter, without=without)
