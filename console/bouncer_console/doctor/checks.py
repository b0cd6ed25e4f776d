"""The doctor's judgements: each a pure function of what was read, with the mend beside it."""

from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec

from bouncer.address import domain_of, is_deliverable, is_domain, normalise, split
from bouncer.mailboxes import EntryError, Mailbox, check_entry
from bouncer.policy.conditions import PolicyError
from bouncer.policy.file import Mode
from bouncer.policy.load import load
from bouncer.policy.review import review, unreachable
from bouncer.settings import stored_prefix
from bouncer_console.deployment import Deployment
from bouncer_console.doctor.account import (
    DIRECTORY_LIMIT,
    Account,
    Queue,
    Rule,
    Unread,
    domain_named,
    our_rule,
    own_domains,
    with_parents,
)
from bouncer_console.policy import senders_not_allowed


class Health(StrEnum):
    """How a check came out."""

    RIGHT = "right"
    WRONG = "wrong"
    """Mail is lost, wrongly bounced or not bounced until it is mended: nothing goes live so."""
    WARNING = "warning"
    UNKNOWN = "unknown"
    """It could not be read."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check's result, as a person and a program read it."""

    name: str
    state: Health
    found: str
    mend: str = ""


type _Result = tuple[Health, str, str]
type Check = Callable[[Account], _Result]

CHECKS: dict[str, Check] = {}
"""By name, in the order in which an operator would look."""


def _check(name: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return register


class _Missing(Exception):  # noqa: N818  (no error: the fact that a check needs was not read)
    pass


def examine(account: Account) -> Iterator[Finding]:
    """Every check, in order."""
    for name, check in CHECKS.items():
        try:
            state, found, mend = check(account)
        except _Missing as missing:
            state, found, mend = Health.UNKNOWN, str(missing), ""
        yield Finding(name=name, state=state, found=found, mend=mend)


def _read[Value](value: Value | Unread) -> Value:
    if isinstance(value, Unread):
        raise _Missing(value.why)
    return value


def _right(found: str) -> _Result:
    return Health.RIGHT, found, ""


def _wrong(found: str, mend: str) -> _Result:
    return Health.WRONG, found, mend


def _warning(found: str, mend: str) -> _Result:
    return Health.WARNING, found, mend


def _some(names: list[str] | tuple[str, ...], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


# --- The account ------------------------------------------------------------------------------


@_check("region")
def _region(account: Account) -> _Result:
    if isinstance(account.active_rule_set, Unread):
        return (
            Health.UNKNOWN,
            f"{account.region}: {account.active_rule_set.why}",
            "choose a Region where SES receives mail, with --region "
            "(docs.aws.amazon.com/ses/latest/dg/regions.html)",
        )
    return _right(f"SES receives mail in {account.region}")


@_check("identity")
def _identity(account: Account) -> _Result:
    sender, identities = _read(account.bounce_sender), _read(account.identities)
    verified = [name for name, state in identities.items() if state == "Success"]
    covering = [name for name in verified if name in (sender, domain_of(sender))]
    if covering:
        return _right(f"{covering[0]} is verified; bounces come from {sender}")
    if verified:  # SES verifies subdomains with their parent
        return _warning(
            f"{sender} is covered by its parent {verified[0]} only",
            f"deploy with BounceIdentity={verified[0]}, or the permission for SendBounce "
            "names an identity that SES does not check",
        )
    pending = f" (it is {next(iter(identities.values()))})" if identities else ""
    return _wrong(
        f"neither {sender} nor {domain_of(sender)} is verified in {account.region}{pending}",
        f"verify it: aws sesv2 create-email-identity --email-identity {domain_of(sender)}",
    )


@_check("sandbox")
def _sandbox(account: Account) -> _Result:
    sending = _read(account.sending)
    if sending.production:
        return _right("the account is out of the sandbox")
    return _warning(
        "the account is in SES's sandbox: SES may send bounces to verified addresses only",
        "ask for production access (SES console, Account dashboard)",
    )


@_check("sending")
def _sending(account: Account) -> _Result:
    sending = _read(account.sending)
    if not sending.enabled or sending.enforcement == "SHUTDOWN":
        return _wrong(
            f"SES has paused sending ({sending.enforcement or 'disabled'})",
            "resolve it with AWS (SES console, Reputation): no bounce leaves until then",
        )
    used = f"{sending.sent_today:.0f} of {sending.daily_quota:.0f} mails in 24 hours"
    if sending.enforcement == "PROBATION":
        return _warning(f"SES reviews the account; {used}", "see SES console, Reputation")
    if sending.daily_quota > 0 and sending.sent_today > 0.8 * sending.daily_quota:
        return _warning(f"{used}: bounces may count too", "ask for a higher sending quota")
    return _right(used)


@_check("bounce-sender-dmarc")
def _bounce_sender_dmarc(account: Account) -> _Result:
    sender, record = _read(account.bounce_sender), _read(account.dmarc)
    domain = domain_of(sender)
    policy = record.get("p", "none").lower()
    if policy == "none":
        stated = "p=none" if record else "no DMARC record"
        return _right(f"{domain} has {stated}: bounces, which SES signs as its own, may arrive")
    return _warning(
        f"{domain} has DMARC p={policy}, and SES signs bounces as amazonses.com only: "
        f"receivers may {policy} them",
        f"use a subdomain of its own with p=none: BounceSender=mailer-daemon@bounce.{domain} and "
        f'a TXT record _dmarc.bounce.{domain} "v=DMARC1; p=none"',
    )


@_check("mx")
def _mx(account: Account) -> _Result:
    if not account.mx:
        raise _Missing("no domain is known yet: neither the directory nor the rule names one")
    wanted = f"inbound-smtp.{account.region}.amazonaws.com"
    elsewhere, mixed, unread = [], [], []
    for domain, exchangers in account.mx.items():
        if isinstance(exchangers, Unread):
            unread.append(f"{domain} ({exchangers.why})")
        elif wanted not in exchangers:
            elsewhere.append(domain)
        elif len(exchangers) > 1:
            mixed.append(domain)
    record = f'MX "10 {wanted}"'
    if elsewhere:  # a gateway may stand before SES, so this stops nobody
        return _warning(f"mail for {_some(elsewhere)} does not come here", f"set its {record}")
    if mixed:
        return _warning(
            f"{_some(mixed)}: other exchangers stand beside {wanted}",
            "mail that they take never comes here: remove those that are not meant",
        )
    if unread:
        raise _Missing(_some(unread, 2))
    return _right(f"{_some(list(account.mx))}: mail comes to {wanted}")


@_check("kept-from-before")
def _kept(account: Account) -> _Result:
    kept = _read(account.kept)
    if not kept:
        return _right("no table or bucket of an earlier stack is left over")
    return _warning(
        f"an earlier stack's data is here and unused: {_some(kept)}",
        f"{_adoption(account, kept)} (docs/operations.md, Adopting what an earlier stack left); "
        "or delete it",
    )


def _adoption(account: Account, kept: tuple[str, ...]) -> str:
    """How to go on with what is kept; in full where nobody has to choose."""
    tables = [name for name in kept if "-mailboxtable-" in name.lower()]
    buckets = [name for name in kept if "-mailbucket-" in name.lower()]
    given = {} if isinstance(account.deployment, Unread) else account.deployment.parameters
    if given.get("MailboxTableName") or given.get("MailBucketName") or len(tables) != 1:
        return "look which are wanted"
    said = f"MailboxTableName={tables[0]} Usage=managed"
    if len(buckets) == 1:
        said += f" StoreMail=existing-bucket MailBucketName={buckets[0]}"
    return f"adopt it: sam deploy --parameter-overrides {said}"


# --- The stack --------------------------------------------------------------------------------


@_check("stack")
def _stack(account: Account) -> _Result:
    status = _read(account.stack_status)
    if status.endswith("_IN_PROGRESS"):
        return _warning(f"the stack is {status}", "wait, and look again")
    if "ROLLBACK" in status or "FAILED" in status:
        mend = "sam delete, then sam deploy" if status.startswith("ROLLBACK") else "sam deploy"
        return _wrong(f"the stack is {status}", f"see the stack's events for the cause; {mend}")
    return _right(f"the stack is {status}")


@_check("versions")
def _versions(account: Account) -> _Result:
    stack, command = _read(account.stack_version), account.command_version
    if stack == command:
        return _right(f"stack and command are {command}")
    return _warning(
        f"the stack is {stack or 'of no stated version'}, the command {command}",
        "bring both to the same version: docs/upgrading.md",
    )


@_check("architecture")
def _architecture(account: Account) -> _Result:
    functions = _read(account.functions)
    wrong = [
        f"{name} is {each.architecture}, its layer {'/'.join(each.layer_architectures)}"
        for name, each in functions.items()
        if each.layer_architectures and each.architecture not in each.layer_architectures
    ]
    if wrong:
        return _wrong(
            _some(wrong, 2), "build and deploy with one Architecture: make build, sam deploy"
        )
    kinds = sorted({each.architecture for each in functions.values()})
    return _right(f"functions and layer are {', '.join(kinds)}")


@_check("errors")
def _errors(account: Account) -> _Result:
    failing = {n: each.errors for n, each in _read(account.functions).items() if each.errors}
    if not failing:
        return _right("no function has failed in 24 hours")
    counts = [f"{name} {count:.0f} times" for name, count in failing.items()]
    return _warning(
        f"in 24 hours failed: {_some(counts)}",
        "read its log; docs/operations.md has a line for each alarm",
    )


@_check("throttles")
def _throttles(account: Account) -> _Result:
    held = {n: each.throttles for n, each in _read(account.functions).items() if each.throttles}
    reserved = [n for n, each in _read(account.functions).items() if each.reserved == 0]
    if reserved:
        return _wrong(
            f"{_some(reserved)} has a reserved concurrency of 0: it never runs",
            "aws lambda delete-function-concurrency --function-name …",
        )
    if not held:
        return _right("no invocation was throttled in 24 hours")
    counts = [f"{name} {count:.0f} times" for name, count in held.items()]
    return _warning(f"in 24 hours throttled: {_some(counts)}", "raise the account's concurrency")


@_check("concurrency")
def _concurrency(account: Account) -> _Result:
    left = _read(account.concurrency_left)
    if left >= 100:
        return _right(f"{left} concurrent invocations are left for functions without their own")
    return _warning(
        f"only {left} concurrent invocations are left: a burst of mail would be throttled",
        "ask for more (Service Quotas, Lambda, Concurrent executions)",
    )


# --- The receipt rule -------------------------------------------------------------------------


def _deployed(account: Account) -> Deployment:
    return _read(account.deployment)


def _rule(account: Account) -> Rule:
    _deployed(account)
    _read(account.rules)
    rule = our_rule(account)
    if rule is None:
        raise _Missing("the receipt rule is not there: see the check `rule`")
    return rule


@_check("rule-set")
def _rule_set(account: Account) -> _Result:
    wanted, active = _read(account.rule_set), _read(account.active_rule_set)
    if isinstance(account.rules, Unread):
        return _wrong(
            f"the rule set {wanted} cannot be read: {account.rules.why}",
            f"make it, aws ses create-receipt-rule-set --rule-set-name {wanted}, "
            "or deploy with the ReceiptRuleSetName that exists",
        )
    if active == wanted:
        return _right(f"{wanted} is the active rule set")
    if active is None:
        return _warning(
            "no rule set is active: SES receives nothing", f"bouncer rules activate {wanted}"
        )
    return _warning(
        f"the active rule set is {active}, not {wanted}",
        f"deploy into it (ReceiptRuleSetName={active}), or bouncer rules activate {wanted} "
        "--replace",
    )


@_check("after-rule")
def _after_rule(account: Account) -> _Result:
    rules, after = _read(account.rules), account.after_rule
    if not after:
        return _right("AfterRule is empty: our rule comes first")
    names = [each.name for each in rules]
    if after not in names:
        return _wrong(
            f"the rule set has no rule {after}: a deployment with AfterRule={after} rolls back",
            f"name one of its rules: {_some(names)}" if names else "deploy without AfterRule",
        )
    ours = Rule(name="", recipients=account.recipients)
    before = rules[: names.index(after) + 1]
    stopping = [each.name for each in before if each.enabled and each.stops]
    taking = [each.name for each in before if each.name in stopping and _same_mail(each, ours)]
    if taking:
        return _wrong(
            f"our rule comes after {_some(taking)}, which stops the same mail",
            "deploy with an AfterRule that comes before it, or with none",
        )
    return _right(f"our rule comes after {after}")


@_check("recipients-verified")
def _recipients_verified(account: Account) -> _Result:
    if not account.recipients:
        return _right("Recipients is empty: our rule is for every verified domain")
    verified = {name for name, state in _read(account.receiving).items() if state == "Success"}
    domains = sorted({domain_named(each) for each in account.recipients})
    missing = [each for each in domains if not verified & {*with_parents(each)}]
    if missing:
        return _wrong(
            f"SES takes no mail for {_some(missing)}: not verified in {account.region}",
            f"verify it: aws sesv2 create-email-identity --email-identity {missing[0]}",
        )
    return _right(f"{_some(domains)}: verified")


@_check("rule")
def _rule_there(account: Account) -> _Result:
    deployment, rules = _deployed(account), _read(account.rules)
    name = deployment.outputs.get("ReceiptRule", "")
    rule = our_rule(account)
    if rule is None:
        return _wrong(
            f"the rule set has no rule {name}",
            "deploy with CreateReceiptRule=yes, or write the rule by hand (README)",
        )
    if not rule.enabled:
        return _wrong(f"the rule {name} is not enabled", "enable it in the SES console")
    return _right(f"{name} is rule {rules.index(rule) + 1} of {len(rules)}")


@_check("rule-actions")
def _rule_actions(account: Account) -> _Result:
    deployment, rule = _deployed(account), _rule(account)
    ours = deployment.outputs.get("InboundFunction")
    invoked = [
        place
        for place, each in enumerate(rule.actions)
        if each.get("LambdaAction", {}).get("FunctionArn") == ours
    ]
    if not invoked:
        return _wrong(
            f"the rule {rule.name} does not invoke this stack's function",
            f"add a Lambda action with {ours}",
        )
    stored = [place for place, each in enumerate(rule.actions) if "S3Action" in each]
    if deployment.outputs.get("MailBucket") and not any(each < invoked[0] for each in stored):
        return _wrong(
            "the mail is not stored before the function runs: sizes are unknown",
            "put the S3 action before the Lambda action",
        )
    kind = rule.actions[invoked[0]]["LambdaAction"].get("InvocationType", "Event")
    return _right(f"stored, then decided; the function is called as {kind}")


@_check("rule-order")
def _rule_order(account: Account) -> _Result:
    rule, rules = _rule(account), _read(account.rules)
    place = rules.index(rule)
    before = [each for each in rules[:place] if each.enabled and _same_mail(each, rule)]
    stopping = [each.name for each in before if each.stops]
    if stopping:
        return _wrong(
            f"before {rule.name}, {_some(stopping)} takes the same mail and stops it",
            "place ours before it: deploy with another AfterRule, or none",
        )
    if before:
        return _warning(
            f"before {rule.name}, {_some([each.name for each in before])} handles the same mail: "
            "what is refused has been delivered there",
            "place ours before rules that deliver",
        )
    return _right(f"no rule before {rule.name} takes the same mail")


def _same_mail(one: Rule, other: Rule) -> bool:
    """Whether some recipient could match both."""
    if not one.recipients or not other.recipients:
        return True
    return any(_overlap(a, b) for a in one.recipients for b in other.recipients)


def _overlap(one: str, other: str) -> bool:
    one, other = one.lower(), other.lower()
    return one == other or _covers(one, other) or _covers(other, one)


def _covers(wide: str, narrow: str) -> bool:
    """Whether a rule's recipient covers another: a domain its addresses, `.domain` those below."""
    domain = narrow.rpartition("@")[2]
    if "@" in wide:
        return False
    if wide.startswith("."):
        return domain.lstrip(".").endswith(wide)
    return domain == wide


@_check("rule-recipients")
def _rule_recipients(account: Account) -> _Result:
    rule, rules = _rule(account), _read(account.rules)
    if not rule.recipients:
        return _right("the rule is for every recipient of every verified domain")
    copies = [r for r in rules if r.name == rule.name or r.name.startswith(f"{rule.name}-")]
    named = {each.lower() for r in copies for each in r.recipients}
    addresses = [box.address for box in _read(account.directory) if not box.address.startswith("@")]
    missed = [a for a in addresses if a not in named and not any(_covers(n, a) for n in named)]
    if missed:
        return _wrong(
            f"{len(missed)} mailboxes are in no rule, so SES refuses their mail: {_some(missed)}",
            "bouncer rules sync, or name their domains in Recipients",
        )
    return _right(f"the rule names {len(named)} recipients, every mailbox among them")


@_check("rule-stops-mail")
def _rule_stops(account: Account) -> _Result:
    rule, rules = _rule(account), _read(account.rules)
    later = [each for each in rules[rules.index(rule) + 1 :] if each.enabled]
    if rule.recipients and [each for each in later if not each.name.startswith(f"{rule.name}-")]:
        return _warning(
            f"{rule.name} is for some recipients only: mail that it refuses goes on to "
            f"{_some([each.name for each in later])}, for other recipients may need it there",
            "put the actions that deliver into the same rule, after the Lambda action",
        )
    return _right("mail refused for all its recipients stops here")


@_check("prefix")
def _prefix(account: Account) -> _Result:
    deployment, rule = _deployed(account), _rule(account)
    action = rule.action("S3Action")
    if action is None:
        return _right("mail is not stored")
    deployed = stored_prefix(deployment.outputs.get("MailPrefix", ""))
    written = stored_prefix(str(action.get("ObjectKeyPrefix") or ""))
    if deployed != written or action.get("BucketName") != deployment.outputs.get("MailBucket"):
        return _wrong(
            f"the rule stores mail at {action.get('BucketName')}/{written}, the function looks "
            f"at {deployment.outputs.get('MailBucket')}/{deployed}",
            "make MailBucketName and MailPrefix what the rule's S3 action says",
        )
    return _right(f"stored at {action.get('BucketName')}/{written}")


@_check("function-permission")
def _function_permission(account: Account) -> _Result:
    if _read(account.may_invoke):
        return _right("SES may invoke the function from our rule")
    return _wrong("SES may not invoke the function", "deploy again: the permission is missing")


@_check("bucket-permission")
def _bucket_permission(account: Account) -> _Result:
    if _read(account.may_store):
        return _right("SES may store mail in the bucket")
    return _wrong(
        "the bucket's policy does not let SES store mail for our rule",
        "docs.aws.amazon.com/ses/latest/dg/receiving-email-permissions.html has the statement",
    )


@_check("topic-permission")
def _topic_permission(account: Account) -> _Result:
    if _read(account.may_publish):
        return _right("SES may publish to the rule's topics")
    return _wrong(
        "the topic's policy does not let SES publish for our rule: missed mail is not found",
        "deploy again, or add the statement to your own topic's policy",
    )


# --- What runs --------------------------------------------------------------------------------


@_check("mode")
def _mode(account: Account) -> _Result:
    mode = _deployed(account).parameters.get("Mode", Mode.OBSERVE)
    if mode == Mode.ENFORCE:
        return _right("enforce: bounces are sent, refused mail stops")
    refused = account.would_refuse
    seen = "" if isinstance(refused, Unread) else f"; {refused:.0f} recipients refused in 24 hours"
    return _warning(
        f"observe: everything is decided and logged, nothing is sent or stopped{seen}",
        "is one of them a mailbox of yours? bouncer report names them; when nobody is: "
        "bouncer mode enforce",
    )


@_check("queue")
def _queue(account: Account) -> _Result:
    waiting = _read(account.queues).get("BounceQueue", Queue(messages=0))
    hours = (waiting.oldest_seconds or 0) / 3600
    text = f"{waiting.messages} bounces wait, the oldest for {hours:.1f} hours"
    if hours > 6 or waiting.messages > 20_000:
        return _warning(text, "see what is attacked: docs/operations.md, In a flood")
    return _right(text)


@_check("dead-letters")
def _dead_letters(account: Account) -> _Result:
    dead = {
        name: each.messages
        for name, each in _read(account.queues).items()
        if name.endswith("DeadLetterQueue") and each.messages
    }
    if not dead:
        return _right("no dead letters")
    counts = [f"{name} {count}" for name, count in dead.items()]
    return _warning(f"dead letters: {_some(counts)}", "bouncer redrive shows them")


@_check("limiter")
def _limiter(account: Account) -> _Result:
    slot = _read(account.next_slot)
    if slot is None:
        return _right("no bounce was sent yet")
    ahead = slot - account.now.timestamp()
    if ahead > 600:
        return _warning(
            f"the next slot is {ahead:.0f} s ahead: somebody's clock was wrong",
            "it repairs itself with the next bounce; look for SlotRepaired in the log",
        )
    return _right(f"the next slot is {'free' if ahead <= 0 else f'in {ahead:.0f} s'}")


@_check("pace")
def _pace(account: Account) -> _Result:
    deployment = _deployed(account)
    table = deployment.output("PaceTable")
    if isinstance(account.next_slot, Unread) and "ResourceNotFound" in account.next_slot.why:
        return _wrong(
            f"the limiter's table {table} does not exist",
            "every bounce waits in the queue; name an existing table of this account and Region "
            "with PaceTable, or none",
        )
    interval = float(deployment.parameters.get("SendIntervalSeconds", "1"))
    neighbours = _read(account.neighbours)
    apart = [each.stack for each in neighbours if each.pace_table != table]
    if apart:
        return _warning(
            f"{_some(apart)} here has a pace of its own: together they call SES too often",
            f"deploy all of them with PaceTable={table}",
        )
    other = [f"{n.stack} {n.interval:g} s" for n in neighbours if n.interval != interval]
    if other:
        return _warning(
            f"SendIntervalSeconds is {interval:g} here, and differs in {_some(other)}",
            "deploy all that share a pace with the same SendIntervalSeconds",
        )
    shared = [each.stack for each in neighbours]
    return _right(f"shared with {_some(shared)}" if shared else "no other stack calls SES here")


@_check("clock")
def _clock(account: Account) -> _Result:
    ahead = _read(account.clock_ahead)
    if abs(ahead) <= 3:
        return _right("this machine's clock agrees with AWS's")
    return _warning(
        f"this machine's clock is {ahead:+.0f} s off AWS's",
        "set it: `bouncer send-bounce` would be refused a slot",
    )


@_check("alarms")
def _alarms(account: Account) -> _Result:
    _deployed(account)
    alarms, silent = _read(account.alarms), _read(account.silent_alarms)
    ringing = [name for name, state in alarms.items() if state == "ALARM"]
    if ringing:
        return _warning(f"ringing: {_some(ringing)}", "docs/operations.md has a line for each")
    if not alarms:
        return _warning("the stack has no alarms", "deploy again")
    if silent:
        return _warning(
            f"{len(silent)} of {len(alarms)} alarms tell nobody", "deploy with AlarmTopicArn"
        )
    return _right(f"{len(alarms)} alarms, none ringing")


# --- What it decides by -----------------------------------------------------------------------


@_check("policy")
def _policy(account: Account) -> _Result:
    deployment = _deployed(account)
    in_appconfig = deployment.parameters.get("PolicySource") == "appconfig"
    bring = "bouncer policy push FILE.toml" if in_appconfig else "make build, sam deploy"
    if isinstance(account.policy, Unread):
        if in_appconfig and "NotFound" in account.policy.why:
            return _wrong("AppConfig has no policy yet: all mail goes on undecided", bring)
        raise _Missing(account.policy.why)
    try:
        policy = load(account.policy.text, "the policy in force")
    except PolicyError as error:
        return _wrong(
            f"{str(error).splitlines()[0]}: all mail goes on undecided",
            f"bouncer policy check FILE.toml names every mistake; then {bring}",
        )
    if problems := senders_not_allowed(policy, deployment):
        return _wrong(problems[0], "change the policy, or deploy with those parameters")
    hints = [*review(policy), *unreachable(policy)]
    if policy.file.mode is Mode.OBSERVE:
        hints.insert(0, 'it says mode = "observe": nothing is sent or stopped, whatever the stack')
    if hints:
        return _warning(_some(hints, 2), f"bouncer policy check FILE.toml; then {bring}")
    return _right(f"{len(policy.shared)} rules ({account.policy.source})")


@_check("directory")
def _directory(account: Account) -> _Result:
    boxes = _read(account.directory)
    if not boxes:
        return _wrong(
            "the directory is empty: nobody's mail could be told from a stranger's",
            "bouncer mailbox import FILE.csv",
        )
    if len(boxes) >= DIRECTORY_LIMIT:
        return _right(f"over {DIRECTORY_LIMIT:,} entries; the checks below saw the first")
    return _right(f"{len(boxes):,} entries in {len(own_domains(account)):,} domains")


@_check("directory-domains")
def _directory_domains(account: Account) -> _Result:
    boxes, rule = _read(account.directory), _rule(account)
    if len(boxes) >= DIRECTORY_LIMIT:
        raise _Missing(f"over {DIRECTORY_LIMIT:,} entries; bouncer mailbox check reads all of them")
    spoken_for = _deployed(account).mailbox_domains | {
        domain_of(box.address) for box in boxes if box.address.startswith("@")
    }
    named = {each.rpartition("@")[2] for each in rule.recipients if not each.startswith(".")}
    identities = {} if isinstance(account.identities, Unread) else account.identities
    received = named or {name for name in identities if "@" not in name}
    missing = sorted((received | {domain_of(box.address) for box in boxes}) - spoken_for)
    if missing:
        return _warning(
            f"the directory does not speak for {_some(missing)}: no address is unknown there, and "
            "all mail goes on",
            "bouncer mailbox import FILE.csv with its mailboxes, or bouncer mailbox add @DOMAIN "
            "--no-catch-all; for a table of your own, MailboxDomains",
        )
    return _right("the directory speaks for every domain that mail comes for")


@_check("directory-postmaster")
def _directory_postmaster(account: Account) -> _Result:
    boxes = _read(account.directory)
    reached = {
        domain_of(box.address)
        for box in boxes
        if split(box.address)[0] == "postmaster" or (box.address.startswith("@") and box.catch_all)
    }
    without = sorted({domain_of(box.address) for box in boxes} - reached)
    if without:
        return _warning(
            f"no postmaster at {_some(without)} (RFC 5321 §4.5.1)",
            "bouncer mailbox add postmaster@DOMAIN --alias-for YOU@DOMAIN; the shipped policy "
            "lets its mail on all the same",
        )
    return _right("every domain has a postmaster")


@_check("directory-entries")
def _directory_entries(account: Account) -> _Result:
    boxes = _read(account.directory)
    if account.unreadable:
        return _warning(
            f"items that cannot be read: {_some(account.unreadable)}; they count as active, "
            "without limits",
            "mend them: bouncer mailbox show ADDRESS tells what is wrong",
        )
    odd = [fault for box in boxes if (fault := _fault(box))]
    if odd:
        return _warning(
            f"{len(odd)} entries that no mail finds or that lead nowhere: {_some(odd, 3)}",
            "bouncer mailbox check lists them with the mend",
        )
    return _right("no entry looks wrong")


def _fault(box: Mailbox) -> str:
    if normalise(box.address) != box.address and not box.address.startswith("@"):
        return f"{box.address} (no mail matches a key that is not in lower case)"
    local, domain = split(box.address)
    if not (is_deliverable(box.address) if local else is_domain(domain)):
        return box.address
    try:
        check_entry(box)
    except EntryError as error:
        return f"{box.address} ({error})"
    return ""


@_check("records")
def _records(account: Account) -> _Result:
    sample = _read(account.sample)
    if sample.outside_prefix:
        return _warning(
            f"{sample.outside_prefix} objects of the bucket are not where the function looks",
            "see the check `prefix`",
        )
    if sample.without_record:
        return _warning(
            f"{len(sample.without_record)} of {sample.looked_at} stored mails have no record: "
            f"{_some(sample.without_record, 2)}",
            "they came before this stack, or were missed: see the alarm on found-undecided",
        )
    return _right(f"{sample.looked_at} stored mails looked up, each has its record")
