"""The receipt rule: where it stands, what it does, and whom it lets in."""

from bouncer.settings import stored_prefix
from bouncer_console.doctor.account import (
    Account,
    Rule,
    Unread,
    domain_named,
    our_rule,
    with_parents,
)
from bouncer_console.doctor.finding import (
    Checks,
    Result,
    deployed,
    read,
    right,
    rule_of,
    some,
    warning,
    wrong,
)

CHECKS = Checks()


@CHECKS.named("rule-set")
def _rule_set(account: Account) -> Result:
    wanted, active = read(account.rule_set), read(account.active_rule_set)
    if isinstance(account.rules, Unread):
        return wrong(
            f"the rule set {wanted} cannot be read: {account.rules.why}",
            f"make it, aws ses create-receipt-rule-set --rule-set-name {wanted}, "
            "or deploy with the ReceiptRuleSetName that exists",
        )
    if active == wanted:
        return right(f"{wanted} is the active rule set")
    if active is None:
        return warning(
            "no rule set is active: SES receives nothing", f"bouncer rules activate {wanted}"
        )
    return warning(
        f"the active rule set is {active}, not {wanted}",
        f"deploy into it (ReceiptRuleSetName={active}), or bouncer rules activate {wanted} "
        "--replace",
    )


@CHECKS.named("after-rule")
def _after_rule(account: Account) -> Result:
    rules, after = read(account.rules), account.after_rule
    if not after:
        return right("AfterRule is empty: our rule comes first")
    names = [each.name for each in rules]
    if after not in names:
        return wrong(
            f"the rule set has no rule {after}: a deployment with AfterRule={after} rolls back",
            f"name one of its rules: {some(names)}" if names else "deploy without AfterRule",
        )
    ours = Rule(name="", recipients=account.recipients)
    before = rules[: names.index(after) + 1]
    stopping = [each.name for each in before if each.enabled and each.stops]
    taking = [each.name for each in before if each.name in stopping and _same_mail(each, ours)]
    if taking:
        return wrong(
            f"our rule comes after {some(taking)}, which stops the same mail",
            "deploy with an AfterRule that comes before it, or with none",
        )
    return right(f"our rule comes after {after}")


@CHECKS.named("recipients-verified")
def _recipients_verified(account: Account) -> Result:
    if not account.recipients:
        return right("Recipients is empty: our rule is for every verified domain")
    verified = {name for name, state in read(account.receiving).items() if state == "Success"}
    domains = sorted({domain_named(each) for each in account.recipients})
    missing = [each for each in domains if not verified & {*with_parents(each)}]
    if missing:
        return wrong(
            f"SES takes no mail for {some(missing)}: not verified in {account.region}",
            f"verify it: aws sesv2 create-email-identity --email-identity {missing[0]}",
        )
    return right(f"{some(domains)}: verified")


@CHECKS.named("rule")
def _rule_there(account: Account) -> Result:
    deployment, rules = deployed(account), read(account.rules)
    name = deployment.outputs.get("ReceiptRule", "")
    rule = our_rule(account)
    if rule is None:
        return wrong(
            f"the rule set has no rule {name}",
            "deploy with CreateReceiptRule=yes, or write the rule by hand (README)",
        )
    if not rule.enabled:
        return wrong(f"the rule {name} is not enabled", "enable it in the SES console")
    return right(f"{name} is rule {rules.index(rule) + 1} of {len(rules)}")


@CHECKS.named("rule-actions")
def _rule_actions(account: Account) -> Result:
    deployment, rule = deployed(account), rule_of(account)
    ours = deployment.outputs.get("InboundFunction")
    invoked = [
        place
        for place, each in enumerate(rule.actions)
        if each.get("LambdaAction", {}).get("FunctionArn") == ours
    ]
    if not invoked:
        return wrong(
            f"the rule {rule.name} does not invoke this stack's function",
            f"add a Lambda action with {ours}",
        )
    stored = [place for place, each in enumerate(rule.actions) if "S3Action" in each]
    if deployment.outputs.get("MailBucket") and not any(each < invoked[0] for each in stored):
        return wrong(
            "the mail is not stored before the function runs: sizes are unknown",
            "put the S3 action before the Lambda action",
        )
    kind = rule.actions[invoked[0]]["LambdaAction"].get("InvocationType", "Event")
    return right(f"stored, then decided; the function is called as {kind}")


@CHECKS.named("rule-order")
def _rule_order(account: Account) -> Result:
    rule, rules = rule_of(account), read(account.rules)
    place = rules.index(rule)
    before = [each for each in rules[:place] if each.enabled and _same_mail(each, rule)]
    stopping = [each.name for each in before if each.stops]
    if stopping:
        return wrong(
            f"before {rule.name}, {some(stopping)} takes the same mail and stops it",
            "place ours before it: deploy with another AfterRule, or none",
        )
    if before:
        return warning(
            f"before {rule.name}, {some([each.name for each in before])} handles the same mail: "
            "what is refused has been delivered there",
            "place ours before rules that deliver",
        )
    return right(f"no rule before {rule.name} takes the same mail")


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


@CHECKS.named("rule-recipients")
def _rule_recipients(account: Account) -> Result:
    rule, rules = rule_of(account), read(account.rules)
    if not rule.recipients:
        return right("the rule is for every recipient of every verified domain")
    copies = [r for r in rules if r.name == rule.name or r.name.startswith(f"{rule.name}-")]
    named = {each.lower() for r in copies for each in r.recipients}
    addresses = [box.address for box in read(account.directory) if not box.address.startswith("@")]
    missed = [a for a in addresses if a not in named and not any(_covers(n, a) for n in named)]
    if missed:
        return wrong(
            f"{len(missed)} mailboxes are in no rule, so SES refuses their mail: {some(missed)}",
            "bouncer rules sync, or name their domains in Recipients",
        )
    return right(f"the rule names {len(named)} recipients, every mailbox among them")


@CHECKS.named("rule-stops-mail")
def _rule_stops(account: Account) -> Result:
    rule, rules = rule_of(account), read(account.rules)
    later = [each for each in rules[rules.index(rule) + 1 :] if each.enabled]
    if rule.recipients and [each for each in later if not each.name.startswith(f"{rule.name}-")]:
        return warning(
            f"{rule.name} is for some recipients only: mail that it refuses goes on to "
            f"{some([each.name for each in later])}, for other recipients may need it there",
            "put the actions that deliver into the same rule, after the Lambda action",
        )
    return right("mail refused for all its recipients stops here")


@CHECKS.named("prefix")
def _prefix(account: Account) -> Result:
    deployment, rule = deployed(account), rule_of(account)
    action = rule.action("S3Action")
    if action is None:
        return right("mail is not stored")
    expected = stored_prefix(deployment.outputs.get("MailPrefix", ""))
    written = stored_prefix(str(action.get("ObjectKeyPrefix") or ""))
    if expected != written or action.get("BucketName") != deployment.outputs.get("MailBucket"):
        return wrong(
            f"the rule stores mail at {action.get('BucketName')}/{written}, the function looks "
            f"at {deployment.outputs.get('MailBucket')}/{expected}",
            "make MailBucketName and MailPrefix what the rule's S3 action says",
        )
    return right(f"stored at {action.get('BucketName')}/{written}")


@CHECKS.named("function-permission")
def _function_permission(account: Account) -> Result:
    if read(account.may_invoke):
        return right("SES may invoke the function from our rule")
    return wrong("SES may not invoke the function", "deploy again: the permission is missing")


@CHECKS.named("bucket-permission")
def _bucket_permission(account: Account) -> Result:
    if read(account.may_store):
        return right("SES may store mail in the bucket")
    return wrong(
        "the bucket's policy does not let SES store mail for our rule",
        "docs.aws.amazon.com/ses/latest/dg/receiving-email-permissions.html has the statement",
    )


@CHECKS.named("topic-permission")
def _topic_permission(account: Account) -> Result:
    if read(account.may_publish):
        return right("SES may publish to the rule's topics")
    return wrong(
        "the topic's policy does not let SES publish for our rule: missed mail is not found",
        "deploy again, or add the statement to your own topic's policy",
    )
