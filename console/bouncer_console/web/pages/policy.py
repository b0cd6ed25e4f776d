"""The policy: the one in force, what it makes of a mail, and what another would."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from starlette.responses import Response

from bouncer.aws.directory import DynamoDirectory
from bouncer.aws.mail_records import DynamoMailRecords
from bouncer.aws.stored_mail import S3StoredMail
from bouncer.delivery.bounce import BounceError
from bouncer.inbound import Planner
from bouncer.mailboxes import Answer, Directory
from bouncer.plan import Disposition, Identity, Plan
from bouncer.policy.conditions import PolicyError, parse_size
from bouncer.policy.decide import Policy
from bouncer.policy.load import load
from bouncer.policy.review import review, sample_texts, unreachable
from bouncer.proof import SAYS, is_proven
from bouncer.settings import attribute_names, stored_prefix
from bouncer_console.as_received import as_received
from bouncer_console.explain.desk import Desk
from bouncer_console.explain.explained import Explained
from bouncer_console.explain.preview import dsn_of
from bouncer_console.explain.replay import differences
from bouncer_console.facts.source import MailLog
from bouncer_console.policy import pushed
from bouncer_console.policy_in_force import InForce, policy_in_force
from bouncer_console.web.site import UPLOAD_LIMIT, Ask, Page, Standing, get, post
from bouncer_console.web.text import link

MAILS = 500
"""Mails that two policies are compared by: the newest of the last day."""
_READERS = 16
_SHOWN = 200
_POLICY_BYTES = 1_000_000


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What the checker finds, as `bouncer policy check` prints it."""

    problems: list[str]
    warnings: list[str]
    texts: list[tuple[str, str]]
    """Places, each with its text as an example's sender reads it."""
    digest: str = ""
    """As the log names the policy that decided."""


def examined(text: str, origin: str) -> Examined:
    try:
        policy = load(text, origin)
    except PolicyError as error:
        return Examined(problems=str(error).splitlines(), warnings=[], texts=[])
    return Examined(
        problems=[],
        warnings=[*review(policy), *unreachable(policy)],
        texts=[(each.place, each.text) for each in sample_texts(policy)],
        digest=policy.digest,
    )


def in_force(ask: Ask) -> InForce:
    deployment = ask.deployment
    job = ask.job(("policy", deployment.stack), lambda _says: policy_in_force(deployment), wait=20)
    if not job.done:
        ask.fail("The policy in force is still being read.", "Load this page again.", 503)
    return job.answer()


def show(ask: Ask) -> Response:
    force = in_force(ask)
    return ask.show("policy.html", force=force, found=examined(force.text, "the policy"))


# --- What becomes of a mail ---------------------------------------------------------------------


_GIVEN = ("mail", "mail_from", "rcpt_to", "policy", "size")


def explain_form(ask: Ask) -> Response:
    return ask.show("explain.html", given=dict.fromkeys(_GIVEN, ""), explained=[])


def explain(ask: Ask) -> Response:
    """What a pasted or uploaded mail or event would come to, now, by this policy."""
    given = {name: ask.form.get(name, "") for name in _GIVEN}
    data = ask.files.get("file") or given["mail"].replace("\r\n", "\n").encode("utf-8", "replace")
    if not data.strip():
        ask.fail(
            "Paste a mail or an event, or choose a file.",
            "An event is JSON, a mail begins with its headers.",
        )
    text = _policy_given(ask) or in_force(ask).text
    policy = load(text, "the policy")
    is_event = data.lstrip()[:1] in (b"{", b"[")
    recipients = given["rcpt_to"].replace(",", " ").split()
    with tempfile.TemporaryDirectory(prefix="bouncer-") as folder:  # 0700
        path = Path(folder) / ("event.json" if is_event else "mail.eml")
        path.write_bytes(data)
        desk = Desk(
            policy=policy,
            deployment=ask.deployment,
            size=parse_size(given["size"]) if given["size"].strip() else None,
        )
        mails = desk.read(path, given["mail_from"].strip() or None, recipients or None)
        found = [desk.explain(mail, path) for mail in mails[:20]]
    given["mail"] = given["mail"] if not ask.files.get("file") else ""
    return ask.show("explain.html", given=given, explained=[in_words(each) for each in found])


def in_words(explained: Explained) -> dict[str, Any]:
    """What the template shows of one explained mail."""
    plan, proof = explained.plan, explained.proof
    dsn = ""
    if plan.to_send is not None and plan.mail.reverse_path is not None:
        dsn = dsn_of(plan, plan.mail.reverse_path).decode("ascii", "replace")
    request = explained.as_json()["send_bounce"]
    return explained.as_json() | {
        "proven": proof is not None and is_proven(proof),
        "proof_says": SAYS[proof] if proof is not None else "",
        "request": "" if request is None else pretty(request),
        "dsn": dsn,
    }


def pretty(value: Any) -> str:
    """JSON for people."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode()


def _policy_given(ask: Ask) -> str:
    """The policy that was pasted or uploaded, or ""."""
    uploaded = ask.files.get("policy_file", b"")
    if len(uploaded) > _POLICY_BYTES:
        ask.fail("That is no policy: it has over 1 MB.")
    text = uploaded.decode("utf-8-sig", "replace") or ask.form.get("policy", "")
    return text.replace("\r\n", "\n").strip()


# --- Two policies over the last day's mails -----------------------------------------------------


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What another policy would have changed."""

    mails: int
    unread: int
    """Mails of which no copy is stored, or nobody knows to whom they were."""
    before: Counter[tuple[str, str, str]]
    """Recipients by outcome, reason and why the sender is not told."""
    after: Counter[tuple[str, str, str]]
    changes: list[dict[str, str]]
    more: int
    """Changes that are not listed."""


def compare_form(ask: Ask) -> Response:
    key = ask.query.get("draft", "")
    if not key:
        return ask.show(
            "compare.html", text=in_force(ask).text, compared=None, found=None, mails=MAILS
        )
    text = ask.site.kept(key)
    if text is None:
        ask.fail("That policy is not kept any more.", "Paste it again.", 404)
    found = examined(text, "your policy")
    if found.problems:
        return ask.show(
            "compare.html", status=400, text=text, compared=None, found=found, mails=MAILS
        )
    deployment, force = ask.deployment, in_force(ask)
    job = ask.job(
        ("compare", deployment.stack, force.text, text),
        lambda says: compared(
            deployment, load(force.text, "the policy"), load(text, "your policy"), says
        ),
        fresh=300,
        wait=1.5,
    )
    result = job.answer() if job.done else None
    return ask.show(
        "compare.html",
        asking=None if job.done else job,
        text=text,
        found=found,
        compared=result,
        draft=key if in_appconfig(deployment) else "",
        rows=_rows(result) if result else [],
        mails=MAILS,
    )


def compare(ask: Ask) -> Response:
    text = _policy_given(ask)
    if not text:
        ask.fail("Paste a policy, or choose a file.")
    return ask.go(link("/policy/compare", draft=ask.site.keep(text)))


def push(ask: Ask) -> Response:
    """Deploy a policy that was compared, by AppConfig, after a question."""
    key = ask.form.get("draft", "")
    text = ask.site.kept(key)
    if text is None:
        ask.fail("That policy is not kept any more.", "Paste it again.", 404)
    if not in_appconfig(ask.deployment):
        ask.fail("This stack's policy is deployed with its functions: `sam deploy`.", status=409)
    if not ask.sure:
        return ask.question(
            f"Deploy this policy to {ask.site.stack}?",
            yes="Deploy it",
            post="/policy/push",
            fields={"draft": key},
            no=link("/policy/compare", draft=key),
            detail=f"bouncer policy push policy.toml\n\nIt holds within a minute:\n\n{text}",
        )
    version = pushed(ask.deployment, text, "your policy")
    ask.site.jobs.forget(("policy",))
    return ask.done(f"Version {version} is being deployed: it holds within a minute.", "/policy")


def in_appconfig(deployment: Standing) -> bool:
    """Whether a policy can be deployed without the functions."""
    return deployment.parameters.get("PolicySource") == "appconfig"


def _rows(result: Compared) -> list[tuple[str, str, str, int, int]]:
    keys = sorted(result.before.keys() | result.after.keys())
    return [(*key, result.before[key], result.after[key]) for key in keys]


def compared(
    deployment: Standing, now: Policy, other: Policy, says: Callable[[str], None]
) -> Compared:
    """Decide the last day's mails by both policies; nothing is sent or written."""
    until = datetime.now(UTC)
    says("asking the log for the last day's mails")
    log = MailLog.of(deployment)
    facts = log.between(until - timedelta(days=1), until, at_most=MAILS)
    ids = [each.message_id for each in facts]
    never: Any = None  # it only reads
    records = DynamoMailRecords(
        deployment.client("dynamodb"), deployment.output("BounceTable"), retention=never
    ).of(ids)
    stored = S3StoredMail(
        deployment.client("s3"),
        deployment.output("MailBucket"),
        stored_prefix(deployment.outputs.get("MailPrefix", "")),
    )
    directory = _Remembered(directory_of(deployment))
    planners = [planner_of(deployment, each, directory, stored) for each in (now, other)]
    done = 0

    def both(message_id: str) -> list[Plan] | None:
        nonlocal done
        done += 1
        if not done % 25:
            says(f"{done} of {len(ids)} mails decided")
        record = records.get(message_id)
        headers = stored.headers(message_id) if record else None
        if record is None or headers is None:
            return None
        recipients = sorted(each.recipient for each in record.recipients)
        mail = as_received(message_id, headers, recipients, record.received_at)
        try:
            return [each.plan(mail).plan for each in planners]
        except BounceError:
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        pairs = [each for each in pool.map(both, ids) if each is not None]
    changes = [change for pair in pairs for change in differences(pair[0].mail.message_id, pair)]
    return Compared(
        mails=len(pairs),
        unread=len(ids) - len(pairs),
        before=_counted(pair[0] for pair in pairs),
        after=_counted(pair[1] for pair in pairs),
        changes=changes[:_SHOWN],
        more=max(len(changes) - _SHOWN, 0),
    )


def _counted(plans: Iterator[Plan]) -> Counter[tuple[str, str, str]]:
    return Counter(
        (str(each.outcome), each.reason, (plan.suppressed or "") if each.bounce else "")
        for plan in plans
        for each in plan.decisions
    )


class _Remembered:
    """A directory that is asked for each address once."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._answers: dict[str, Answer] = {}

    def look_up(self, recipients: Any) -> Mapping[str, Answer]:
        wanted = list(recipients)
        missing = [each for each in wanted if each not in self._answers]
        if missing:
            self._answers.update(self._directory.look_up(missing))
        return {each: self._answers[each] for each in wanted}


def directory_of(deployment: Standing) -> Directory:
    return DynamoDirectory(
        deployment.client("dynamodb"),
        deployment.output("MailboxTable"),
        attribute_names(deployment.parameters.get("MailboxAttributes", "")),
        domains=deployment.mailbox_domains,
    )


def identity_of(deployment: Standing) -> Identity:
    return Identity(
        bounce_sender=deployment.parameters.get("BounceSender") or "mailer-daemon@example.com",
        region=deployment.region or "us-east-1",
        stop=Disposition.STOP_RULE_SET,
    )


def planner_of(
    deployment: Standing,
    policy: Policy,
    directory: Directory,
    stored: S3StoredMail,
    *,
    now: datetime | None = None,
) -> Planner:
    """
    Args:
        now: when the mail is decided; else when it is asked.
    """
    return Planner(
        policy=lambda: policy,
        directory=directory,
        store=stored,
        identity=identity_of(deployment),
        clock=lambda: now or datetime.now(UTC),
    )


PAGE = Page(
    path="/policy",
    title="Policy",
    views=[
        get("", show),
        get("/explain", explain_form),
        post("/explain", explain, limit=UPLOAD_LIMIT),
        get("/compare", compare_form),
        post("/compare", compare, limit=2 * _POLICY_BYTES),
        post("/push", push),
    ],
)
