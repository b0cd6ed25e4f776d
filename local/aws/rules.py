"""Receipt rules that run: whom they match, and what each of their actions does to a mail.

https://docs.aws.amazon.com/ses/latest/dg/receiving-email-receipt-rules-console-walkthrough.html
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from bouncer.settings import stored_prefix
from bouncer_console.mail import ReceivedMail, lambda_event, topic_notice
from local.aws.weather import Weather

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ses import SESClient
    from mypy_boto3_sns import SNSClient

logger = logging.getLogger("local.aws.rules")

# SES tries a failed action again for up to four hours; here for a minute, which is also before
# the audit has looked at the mail, and after.
_PAUSES = (1.0, 2.0, 5.0, 10.0, 10.0, 10.0, 10.0, 10.0)

# The account's Lambda concurrency, so to speak: so many functions run for SES at once.
_CONCURRENT_CALLS = 8

type Rule = Mapping[str, Any]
"""A receipt rule as DescribeReceiptRule returns it."""


def matches(condition: str, recipient: str) -> bool:
    """Whether a rule's recipient condition is met.

    `user@domain` also matches the address with a label (user+label@domain), `domain` every
    address in it but in none of its subdomains, `.domain` every address in its subdomains.
    """
    wanted, address = condition.lower(), recipient.lower()
    local, _, domain = address.rpartition("@")
    if wanted.startswith("."):
        return domain.endswith(wanted)
    if "@" not in wanted:
        return domain == wanted
    return wanted in (address, f"{local.partition('+')[0]}@{domain}")


def matched(rule: Rule, recipients: Iterable[str], verified_domains: Iterable[str]) -> list[str]:
    """The recipients that an enabled rule is for."""
    if not rule.get("Enabled"):
        return []
    conditions = rule.get("Recipients") or list(verified_domains)
    return [each for each in recipients if any(matches(c, each) for c in conditions)]


class Step(msgspec.Struct, kw_only=True):
    """One action that ran, for `GET /_local/mails`."""

    rule: str
    action: str
    recipients: list[str]
    result: str
    seconds: float


class Trace(msgspec.Struct, kw_only=True):
    """What happened to one mail."""

    message_id: str
    received_at: datetime
    mail_from: str
    recipients: list[str]
    steps: list[Step] = []
    done: bool = False


class _Stop(Exception):  # noqa: N818  (control flow, not an error)
    """A disposition or a Stop action ends the rule, or the whole set."""

    def __init__(self, *, rule_set: bool) -> None:
        super().__init__()
        self.rule_set = rule_set


class RuleRunner:
    """Runs the active rule set for each mail, action by action, in order."""

    def __init__(
        self,
        *,
        ses: "SESClient",
        s3: "S3Client",
        lambda_: "LambdaClient",
        sns: "SNSClient",
        may: Callable[[str, str, str], bool],
        weather: Weather,
    ) -> None:
        """
        Args:
            may: whether SES, calling from a rule, may do an action on a resource.
        """
        self._ses = ses
        self._s3 = s3
        self._lambda = lambda_
        self._sns = sns
        self._may = may
        self._weather = weather
        self._calls = threading.Semaphore(_CONCURRENT_CALLS)
        self.own_bounce: Callable[[ReceivedMail, Mapping[str, Any], list[str]], None] | None = None
        """Sends the DSN of SES's own Bounce action."""
        self._actions: dict[str, Callable[[_Run], str]] = {
            "S3Action": self._store,
            "LambdaAction": self._invoke,
            "BounceAction": self._bounce_action,
            "AddHeaderAction": _add_header,
            "StopAction": _stop,
        }

    def active(self) -> tuple[str, list[Rule]]:
        """Name and rules of the active set; no name when there is none."""
        answer = self._ses.describe_active_receipt_rule_set()
        name = answer.get("Metadata", {}).get("Name", "")
        rules: list[Rule] = [*answer.get("Rules", [])]
        return name, rules

    def verified_domains(self) -> list[str]:
        return [each for each in self.verified() if "@" not in each]

    def verified(self) -> list[str]:
        names = self._ses.list_identities()["Identities"]
        if not names:
            return []
        states = self._ses.get_identity_verification_attributes(Identities=names)
        attributes = states["VerificationAttributes"]
        return [n for n in names if attributes[n]["VerificationStatus"] == "Success"]

    def accepts(self, recipient: str) -> bool:
        """Whether SES takes mail for this recipient at RCPT TO: some enabled rule is for it."""
        domains = self.verified_domains()
        if not any(matches(d, recipient) or matches("." + d, recipient) for d in domains):
            return False
        _, rules = self.active()
        return any(matched(rule, [recipient], domains) for rule in rules)

    def run(self, mail: ReceivedMail, trace: Trace) -> None:
        """Run every rule that is for one of the mail's recipients."""
        set_name, rules = self.active()
        domains = self.verified_domains()
        try:
            for rule in rules:
                recipients = matched(rule, mail.recipients, domains)
                if recipients:
                    mail = self._run_rule(set_name, rule, mail, recipients, trace)
        except _Stop:
            pass
        finally:
            trace.done = True

    def _run_rule(
        self, set_name: str, rule: Rule, mail: ReceivedMail, recipients: list[str], trace: Trace
    ) -> ReceivedMail:
        run = _Run(set_name=set_name, rule=rule, mail=mail, recipients=recipients)
        for action in rule.get("Actions", []):
            (name, settings), *_ = action.items()
            started = time.monotonic()
            step = Step(
                rule=rule["Name"], action=name, recipients=recipients, result="", seconds=0.0
            )
            trace.steps.append(step)
            run.settings = settings
            try:
                do = self._actions.get(name, _unsupported)
                step.result = do(run)
            except _Stop as stop:
                step.result = "STOP_RULE_SET" if stop.rule_set else "STOP_RULE"
                if stop.rule_set:
                    raise
                break
            finally:
                step.seconds = round(time.monotonic() - started, 3)
        return run.mail

    def _store(self, run: "_Run") -> str:
        bucket = run.settings["BucketName"]
        topic = run.settings.get("TopicArn", "")
        key = stored_prefix(run.settings.get("ObjectKeyPrefix", "")) + run.mail.message_id
        if not self._may("s3:PutObject", f"arn:aws:s3:::{bucket}/{key}", run.rule_name):
            return _failed(f"the bucket policy does not let SES put {bucket}/{key}")
        try:
            self._s3.put_object(Bucket=bucket, Key=key, Body=run.mail.raw)
        except ClientError as error:
            return _failed(str(error))
        self._publish(
            run,
            {
                "type": "S3",
                "topicArn": topic,
                "bucketName": bucket,
                "objectKeyPrefix": run.settings.get("ObjectKeyPrefix", ""),
                "objectKey": key,
            },
        )
        return f"s3://{bucket}/{key}"

    def _publish(self, run: "_Run", action: dict[str, Any]) -> None:
        """Tell the action's topic of the mail, whatever becomes of the action's effect."""
        topic = run.settings.get("TopicArn")
        if not topic:
            return
        if not self._may("sns:Publish", topic, run.rule_name):
            _failed(f"the topic's policy does not let SES publish to {topic}")
            return
        notice = topic_notice(
            run.mail,
            recipients=tuple(run.recipients),
            action=action,
            scanned=bool(run.rule.get("ScanEnabled")),
        )
        for late in self._weather.notices():
            self._later(late, lambda: self._sns.publish(TopicArn=topic, Message=json.dumps(notice)))

    def _later(self, seconds: float, do: Callable[[], object]) -> None:
        if seconds <= 0:
            do()
            return
        timer = threading.Timer(seconds, do)
        timer.daemon = True
        timer.start()

    def _invoke(self, run: "_Run") -> str:
        arn = run.settings["FunctionArn"]
        kind = run.settings.get("InvocationType", "Event")
        if not self._may("lambda:InvokeFunction", arn, run.rule_name):
            return _failed(f"the function's policy does not let SES invoke {arn}")
        event = lambda_event(
            run.mail,
            recipients=tuple(run.recipients),
            function_arn=arn,
            invocation_type=kind,
            scanned=bool(run.rule.get("ScanEnabled")),
        )
        self._publish(
            run,
            {
                "type": "Lambda",
                "topicArn": run.settings.get("TopicArn", ""),
                "functionArn": arn,
                "invocationType": kind,
            },
        )
        why = ""
        for pause in (*_PAUSES, 0.0):
            try:
                payload = self._answer(arn, kind, event)
            except ClientError as crowded:  # too many functions run at once on this machine
                why = str(crowded)
            except _NoAnswerError as error:
                why = str(error)
                if not self._weather.ses_calls_again:
                    break
            else:
                return _disposition(payload) if kind == "RequestResponse" else "invoked"
            time.sleep(pause)
        return _failed(why)

    def _answer(self, arn: str, kind: Any, event: Mapping[str, Any]) -> bytes:
        """
        Raises:
            ClientError, _NoAnswerError
        """
        if self._weather.refuses():
            raise _NoAnswerError("TooManyRequestsException")
        try:
            with self._calls:
                answer = self._lambda.invoke(
                    FunctionName=arn, InvocationType=kind, Payload=json.dumps(event)
                )
                payload = answer["Payload"].read()
        except BotoCoreError as silence:  # SES waits no longer; the function may go on meanwhile
            raise _NoAnswerError(str(silence)) from silence
        if self._weather.unheard():
            raise _NoAnswerError("nothing was heard of the answer")
        if answer.get("FunctionError"):
            raise _NoAnswerError(payload.decode())
        return payload

    def _bounce_action(self, run: "_Run") -> str:
        if self.own_bounce is None:
            return _failed("nobody sends this machine's bounces")
        self.own_bounce(run.mail, run.settings, run.recipients)
        return "bounced"


class _NoAnswerError(Exception):
    """The function was not invoked, failed or said nothing; AWS does not document what SES does."""


class _Run(msgspec.Struct, kw_only=True):
    """One rule at work on one mail."""

    set_name: str
    rule: Rule
    mail: ReceivedMail
    recipients: list[str]
    settings: Mapping[str, Any] = {}

    @property
    def rule_name(self) -> str:
        return f"receipt-rule-set/{self.set_name}:receipt-rule/{self.rule['Name']}"


def _disposition(payload: bytes) -> str:
    """Anything but the two words means CONTINUE."""
    try:
        answer = json.loads(payload)
    except ValueError:
        answer = None
    word = answer.get("disposition") if isinstance(answer, dict) else None
    if word in ("STOP_RULE", "STOP_RULE_SET"):
        raise _Stop(rule_set=word == "STOP_RULE_SET")
    return "CONTINUE"


def _add_header(run: _Run) -> str:
    line = f"{run.settings['HeaderName']}: {run.settings['HeaderValue']}\r\n"
    run.mail = msgspec.structs.replace(run.mail, raw=line.encode() + run.mail.raw)
    return line.strip()


def _stop(_: _Run) -> str:
    raise _Stop(rule_set=True)


def _unsupported(_: _Run) -> str:
    return _failed("this action does nothing on this machine")


def _failed(why: str) -> str:
    logger.warning("action failed: %s", why)
    return f"failed: {why}"
