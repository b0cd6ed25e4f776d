"""The parts put together on AWS's clients: once a cold start, and once a console command."""

from collections.abc import Callable
from pathlib import Path

from bouncer.audit import Audit
from bouncer.aws import clients
from bouncer.aws.budget import DynamoBudget
from bouncer.aws.directory import DynamoDirectory
from bouncer.aws.ledger import DynamoLedger
from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.aws.policy_source import AppConfigPolicy, FilePolicy
from bouncer.aws.queue import SqsBounceQueue, SqsKeeper
from bouncer.aws.send_bounce import SesSendBounce
from bouncer.aws.slots import DynamoSlots
from bouncer.aws.stack_key import key_of
from bouncer.aws.stored_mail import StoredMail
from bouncer.aws.telemetry import Telemetry
from bouncer.aws.usage import DynamoUsage
from bouncer.delivery.delivery import Delivery
from bouncer.delivery.fate import Incident
from bouncer.inbound import Inbound, NoStore, Planner, Store
from bouncer.limiter import Limiter
from bouncer.plan import Disposition, Identity
from bouncer.settings import (
    AuditSettings,
    DecidingSettings,
    InboundSettings,
    SendSettings,
    Settings,
    UsageMode,
    UsageSettings,
    attribute_names,
    domain_names,
    stored_prefix,
)


def delivery(
    settings: Settings, *, count: Callable[[Incident], None], repaired: Callable[[float], None]
) -> Delivery:
    """
    Args:
        count: told of what is worth counting.
        repaired: told by how many seconds a wrong clock had moved the next slot.
    """
    dynamodb = clients.dynamodb()
    return Delivery(
        ledger=DynamoLedger(dynamodb, settings.bounce_table, retention=settings.ledger_retention),
        limiter=Limiter(DynamoSlots(dynamodb, settings.bounce_table, repaired), settings.pace),
        send_bounce=SesSendBounce(clients.ses()),
        queue=SqsBounceQueue(
            clients.sqs(), settings.bounce_queue_url, key_of(dynamodb, settings.bounce_table)
        ),
        terms=settings.terms,
        count=count,
    )


def observed_delivery(settings: Settings, telemetry: Telemetry) -> Delivery:
    """The functions' own: what is worth counting becomes a metric."""

    def repaired(ahead: float) -> None:
        telemetry.warn("SlotRepaired", f"the next slot was {ahead:.0f} s ahead: a clock was wrong")

    return delivery(settings, count=telemetry.event, repaired=repaired)


def inbound(
    settings: DecidingSettings,
    policy_file: Path,
    telemetry: Telemetry,
    stop: Disposition = Disposition.STOP_RULE,
) -> Inbound:
    """
    Args:
        stop: how refused mail stops, where that is still to be decided.
    """
    dynamodb = clients.dynamodb()
    store: Store = NoStore()
    if settings.mail_bucket:
        store = StoredMail(
            clients.s3(),
            settings.mail_bucket,
            stored_prefix(settings.mail_prefix),
            on_failure=lambda why: telemetry.warn("StoredMailUnavailable", why),
        )
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
    delivery = observed_delivery(settings, telemetry)
    return Inbound(
        planner=planner,
        budget=DynamoBudget(dynamodb, settings.bounce_table, delivery.backlog),
        delivery=delivery,
        records=mail_records(settings),
        usage=DynamoUsage(
            dynamodb,
            bounce_table=settings.bounce_table,
            mailbox_table=settings.mailbox_table,
            remember=settings.ledger_retention,
        )
        if settings.usage is UsageMode.MANAGED
        else None,
    )


def mail_records(settings: Settings) -> DynamoMailRecords:
    return DynamoMailRecords(
        clients.dynamodb(), settings.bounce_table, retention=settings.ledger_retention
    )


def audit(settings: AuditSettings, policy_file: Path, telemetry: Telemetry) -> Audit:
    return Audit(
        inbound=inbound(settings, policy_file, telemetry),
        records=mail_records(settings),
        ledger=DynamoLedger(
            clients.dynamodb(), settings.bounce_table, retention=settings.ledger_retention
        ),
        late=settings.late_bounces,
    )


def event_keeper(settings: InboundSettings) -> SqsKeeper:
    return SqsKeeper(clients.sqs(), settings.event_dead_letter_queue_url)


def bounce_dead_letters(settings: SendSettings) -> SqsKeeper:
    return SqsKeeper(clients.sqs(), settings.bounce_dead_letter_queue_url)


def usage(settings: UsageSettings) -> DynamoUsage:
    return DynamoUsage(
        clients.dynamodb(),
        bounce_table=settings.bounce_table,
        mailbox_table=settings.mailbox_table,
        remember=settings.ledger_retention,
    )
