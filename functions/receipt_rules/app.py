"""Keeps the receipt rules in step with the directory, on a schedule."""

import os
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from bouncer.aws import clients, wiring
from bouncer.aws.discretion import Discretion, entry
from bouncer.aws.mailbox_table import MailboxTable
from bouncer.aws.receipt_rules import ReceiptRules
from bouncer.aws.telemetry import Telemetry
from bouncer.receipt_rules import SyncError, changes, wanted
from bouncer.settings import RulesSettings, attribute_names, domain_names

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger(serialize_stacktrace=False)


@entry(logger)
def handler(_event: dict[str, Any], _context: "LambdaContext") -> None:
    """Safe to repeat: each run begins with the rules as they are."""
    settings = RulesSettings.read(os.environ)
    rules = ReceiptRules(
        wiring.ses_rules(settings), settings.receipt_rule_set, settings.receipt_rule
    )
    discretion = Discretion(settings.log_addresses)
    telemetry = Telemetry(logger, service=logger.service, discretion=discretion)
    table = MailboxTable(
        clients.dynamodb(),
        settings.mailbox_table,
        names=attribute_names(settings.mailbox_attributes),
        on_bad_item=telemetry.bad_mailbox,
    )
    needed = wanted(table.scan(), domain_names(settings.mailbox_domains))
    telemetry.flush()
    try:
        ours, others = rules.read()
        stale = rules.stale_copies()
        todo = changes(ours, settings.receipt_rule, needed.recipients, others, stale)
    except SyncError as error:
        logger.warning("rules not in step", extra={"why": discretion.words(error)})
        return
    rules.apply(todo, done=lambda: None)
    logger.info(
        "rules in step",
        extra={
            "changed": [change.name for change in todo],
            "recipients": len(needed.recipients),
            "whole_domains": needed.whole_domains,
        },
    )
