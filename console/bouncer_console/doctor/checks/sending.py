"""The account: its Region, identities, sandbox, and what an earlier stack left."""

from bouncer.address import domain_of
from bouncer_console.doctor.account import (
    Account,
    Unread,
)
from bouncer_console.doctor.finding import (
    Checks,
    Health,
    Result,
    UnreadError,
    read,
    right,
    some,
    warning,
    wrong,
)

CHECKS = Checks()


@CHECKS.named("region")
def _region(account: Account) -> Result:
    if isinstance(account.active_rule_set, Unread):
        return (
            Health.UNKNOWN,
            f"{account.region}: {account.active_rule_set.why}",
            "choose a Region where SES receives mail, with --region "
            "(docs.aws.amazon.com/ses/latest/dg/regions.html)",
        )
    return right(f"SES receives mail in {account.region}")


@CHECKS.named("identity")
def _identity(account: Account) -> Result:
    sender, identities = read(account.bounce_sender), read(account.identities)
    verified = [name for name, state in identities.items() if state == "Success"]
    covering = [name for name in verified if name in (sender, domain_of(sender))]
    if covering:
        return right(f"{covering[0]} is verified; bounces come from {sender}")
    if verified:  # SES verifies subdomains with their parent
        return warning(
            f"{sender} is covered by its parent {verified[0]} only",
            f"deploy with BounceIdentity={verified[0]}, or the permission for SendBounce "
            "names an identity that SES does not check",
        )
    pending = f" (it is {next(iter(identities.values()))})" if identities else ""
    return wrong(
        f"neither {sender} nor {domain_of(sender)} is verified in {account.region}{pending}",
        f"verify it: aws sesv2 create-email-identity --email-identity {domain_of(sender)}",
    )


@CHECKS.named("sandbox")
def _sandbox(account: Account) -> Result:
    sending = read(account.sending)
    if sending.production:
        return right("the account is out of the sandbox")
    return warning(
        "the account is in SES's sandbox: SES may send bounces to verified addresses only",
        "ask for production access (SES console, Account dashboard)",
    )


@CHECKS.named("sending")
def _sending(account: Account) -> Result:
    sending = read(account.sending)
    if not sending.enabled or sending.enforcement == "SHUTDOWN":
        return wrong(
            f"SES has paused sending ({sending.enforcement or 'disabled'})",
            "resolve it with AWS (SES console, Reputation): no bounce leaves until then",
        )
    used = f"{sending.sent_today:.0f} of {sending.daily_quota:.0f} mails in 24 hours"
    if sending.enforcement == "PROBATION":
        return warning(f"SES reviews the account; {used}", "see SES console, Reputation")
    if sending.daily_quota > 0 and sending.sent_today > 0.8 * sending.daily_quota:
        return warning(f"{used}: bounces may count too", "ask for a higher sending quota")
    return right(used)


@CHECKS.named("bounce-sender-dmarc")
def _bounce_sender_dmarc(account: Account) -> Result:
    sender, record = read(account.bounce_sender), read(account.dmarc)
    domain = domain_of(sender)
    policy = record.get("p", "none").lower()
    if policy == "none":
        stated = "p=none" if record else "no DMARC record"
        return right(f"{domain} has {stated}: bounces, which SES signs as its own, may arrive")
    return warning(
        f"{domain} has DMARC p={policy}, and SES signs bounces as amazonses.com only: "
        f"receivers may {policy} them",
        f"use a subdomain of its own with p=none: BounceSender=mailer-daemon@bounce.{domain} and "
        f'a TXT record _dmarc.bounce.{domain} "v=DMARC1; p=none"',
    )


@CHECKS.named("mx")
def _mx(account: Account) -> Result:
    if not account.mx:
        raise UnreadError("no domain is known yet: neither the directory nor the rule names one")
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
        return warning(f"mail for {some(elsewhere)} does not come here", f"set its {record}")
    if mixed:
        return warning(
            f"{some(mixed)}: other exchangers stand beside {wanted}",
            "mail that they take never comes here: remove those that are not meant",
        )
    if unread:
        raise UnreadError(some(unread, 2))
    return right(f"{some(list(account.mx))}: mail comes to {wanted}")


@CHECKS.named("kept-from-before")
def _kept(account: Account) -> Result:
    kept = read(account.kept)
    if not kept:
        return right("no table or bucket of an earlier stack is left over")
    ledgers = [name for name in kept if "-bouncetable-" in name.lower()]
    mends = [] if len(ledgers) == len(kept) else [f"{_adoption(account, kept)}; or delete it"]
    mends += [f"bouncer adopt {name}, then delete it" for name in ledgers]
    return warning(
        f"an earlier stack's data is here and unused: {some(kept)}",
        f"{'; '.join(mends)} (docs/operations.md, Adopting what an earlier stack left)",
    )


def _adoption(account: Account, kept: tuple[str, ...]) -> str:
    """How to go on with directory and mail; in full where nobody has to choose."""
    tables = [name for name in kept if "-mailboxtable-" in name.lower()]
    buckets = [name for name in kept if "-mailbucket-" in name.lower()]
    given = {} if isinstance(account.deployment, Unread) else account.deployment.parameters
    chosen = given.get("MailboxTableName") or given.get("MailBucketName")
    if chosen or len(tables) != 1 or len(buckets) > 1:
        return "look which directory and bucket are wanted"
    said = f"MailboxTableName={tables[0]} Usage=managed"
    if buckets:
        said += f" StoreMail=existing-bucket MailBucketName={buckets[0]}"
    return f"adopt it: sam deploy --parameter-overrides {said}"
