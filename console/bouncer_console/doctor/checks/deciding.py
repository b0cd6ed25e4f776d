"""What mails are decided by: policy, directory, records."""

from bouncer.address import domain_of, is_deliverable, is_domain, normalise, split
from bouncer.mailboxes import EntryError, Mailbox, check_entry
from bouncer.policy.conditions import PolicyError
from bouncer.policy.file import Mode
from bouncer.policy.load import load
from bouncer.policy.review import review, unreachable
from bouncer_console.doctor.account import (
    DIRECTORY_LIMIT,
    Account,
    Unread,
    own_domains,
)
from bouncer_console.doctor.finding import (
    Checks,
    Result,
    UnreadError,
    deployed,
    read,
    right,
    rule_of,
    some,
    warning,
    wrong,
)
from bouncer_console.policy import senders_not_allowed

CHECKS = Checks()


@CHECKS.named("policy")
def _policy(account: Account) -> Result:
    deployment = deployed(account)
    in_appconfig = deployment.parameters.get("PolicySource") == "appconfig"
    bring = "bouncer policy push FILE.toml" if in_appconfig else "make build, sam deploy"
    if isinstance(account.policy, Unread):
        if in_appconfig and "NotFound" in account.policy.why:
            return wrong("AppConfig has no policy yet: all mail goes on undecided", bring)
        raise UnreadError(account.policy.why)
    try:
        policy = load(account.policy.text, "the policy in force")
    except PolicyError as error:
        return wrong(
            f"{str(error).splitlines()[0]}: all mail goes on undecided",
            f"bouncer policy check FILE.toml names every mistake; then {bring}",
        )
    if problems := senders_not_allowed(policy, deployment):
        return wrong(problems[0], "change the policy, or deploy with those parameters")
    hints = [*review(policy), *unreachable(policy)]
    if policy.file.mode is Mode.OBSERVE:
        hints.insert(0, 'it says mode = "observe": nothing is sent or stopped, whatever the stack')
    if hints:
        return warning(some(hints, 2), f"bouncer policy check FILE.toml; then {bring}")
    return right(f"{len(policy.shared)} rules ({account.policy.source})")


@CHECKS.named("directory")
def _directory(account: Account) -> Result:
    boxes = read(account.directory)
    if not boxes:
        return wrong(
            "the directory is empty: nobody's mail could be told from a stranger's",
            "bouncer mailbox import FILE.csv",
        )
    if len(boxes) >= DIRECTORY_LIMIT:
        return right(f"over {DIRECTORY_LIMIT:,} entries; the checks below saw the first")
    return right(f"{len(boxes):,} entries in {len(own_domains(account)):,} domains")


@CHECKS.named("directory-domains")
def _directory_domains(account: Account) -> Result:
    boxes, rule = read(account.directory), rule_of(account)
    if len(boxes) >= DIRECTORY_LIMIT:
        raise UnreadError(
            f"over {DIRECTORY_LIMIT:,} entries; bouncer mailbox check reads all of them"
        )
    spoken_for = deployed(account).mailbox_domains | {
        domain_of(box.address) for box in boxes if box.address.startswith("@")
    }
    named = {each.rpartition("@")[2] for each in rule.recipients if not each.startswith(".")}
    identities = {} if isinstance(account.identities, Unread) else account.identities
    received = named or {name for name in identities if "@" not in name}
    missing = sorted((received | {domain_of(box.address) for box in boxes}) - spoken_for)
    if missing:
        return warning(
            f"the directory does not speak for {some(missing)}: no address is unknown there, and "
            "all mail goes on",
            "bouncer mailbox import FILE.csv --new-domains with all its mailboxes, or, if they are "
            "in the directory, bouncer mailbox add @DOMAIN --no-catch-all --domain; for a table of "
            "your own, MailboxDomains",
        )
    return right("the directory speaks for every domain that mail comes for")


@CHECKS.named("directory-postmaster")
def _directory_postmaster(account: Account) -> Result:
    boxes = read(account.directory)
    reached = {
        domain_of(box.address)
        for box in boxes
        if split(box.address)[0] == "postmaster" or (box.address.startswith("@") and box.catch_all)
    }
    without = sorted({domain_of(box.address) for box in boxes} - reached)
    if without:
        return warning(
            f"no postmaster at {some(without)} (RFC 5321 §4.5.1)",
            "bouncer mailbox add postmaster@DOMAIN --alias-for YOU@DOMAIN; the shipped policy "
            "lets its mail on all the same",
        )
    return right("every domain has a postmaster")


@CHECKS.named("directory-entries")
def _directory_entries(account: Account) -> Result:
    boxes = read(account.directory)
    if account.unreadable:
        return warning(
            f"items that cannot be read: {some(account.unreadable)}; they count as active, "
            "without limits",
            "mend them: bouncer mailbox show ADDRESS tells what is wrong",
        )
    odd = [fault for box in boxes if (fault := _fault(box))]
    if odd:
        return warning(
            f"{len(odd)} entries that no mail finds or that lead nowhere: {some(odd, 3)}",
            "bouncer mailbox check lists them with the mend",
        )
    return right("no entry looks wrong")


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


@CHECKS.named("records")
def _records(account: Account) -> Result:
    sample = read(account.sample)
    if sample.outside_prefix:
        return warning(
            f"{sample.outside_prefix} objects of the bucket are not where the function looks",
            "see the check `prefix`",
        )
    if sample.without_record:
        return warning(
            f"{len(sample.without_record)} of {sample.looked_at} stored mails have no record: "
            f"{some(sample.without_record, 2)}",
            "they came before this stack, or were missed: see the alarm on found-undecided",
        )
    return right(f"{sample.looked_at} stored mails looked up, each has its record")
