"""What can be wrong in a policy although every value has the right type: all of it is said."""

import re

import pytest

from bouncer.guards import NOT_CONFIGURABLE, GuardName, OtherReason
from bouncer.policy.conditions import PolicyError
from bouncer.policy.load import load
from tests.unit.builders import UNKNOWN_BOUNCES, bounce_rule, mail, plan, policy, policy_text, rule


def problems_of(text: str) -> list[str]:
    """The problems, each without the file's name."""
    with pytest.raises(PolicyError) as caught:
        load(text, "p.toml")
    lines = str(caught.value).splitlines()
    assert all(re.match(r"p\.toml(:[0-9]+)?: ", line) for line in lines)
    return [line.partition(": ")[2] for line in lines]


def problem_of(body: str) -> str:
    """The one problem of the one rule."""
    (problem,) = problems_of(policy_text(rule(body)))
    assert problem.startswith('rules[0] "rule": ')
    return problem.removeprefix('rules[0] "rule": ')


# --- Rules -----------------------------------------------------------------------------------


def test_reason_codes_are_unique() -> None:
    twice = rule('action = "drop"\nwhen.spam = "FAIL"') * 2
    assert problems_of(policy_text(twice)) == [
        'rules[1] "rule": another rule has this name; reason codes are unique'
    ]


@pytest.mark.parametrize("name", [*GuardName, *OtherReason])
def test_a_reason_code_of_a_rule_is_not_one_of_a_guard(name: str) -> None:
    text = policy_text(rule('action = "drop"\nwhen.spam = "FAIL"', name))
    assert problems_of(text) == [
        f'rules[0] "{name}": the name is the code of a guard; choose another'
    ]


ONE_RULE = 'version = 1\n[[rules]]\nname = "rule"\n'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("version = 1\nrules = []", id="no rule"),
        pytest.param(ONE_RULE + 'action = "drop"\nwhen.spam = "FAIL"', id="when"),
        pytest.param(ONE_RULE + 'action = "drop"\nunless.spam = "FAIL"', id="unless"),
        pytest.param(ONE_RULE + 'action = "accept"\nenabled = false', id="not enabled"),
        pytest.param(
            policy_text().replace('action = "accept"', 'action = "accept"\nenabled = false'),
            id="the last one is not enabled",
        ),
    ],
)
def test_the_last_rule_must_decide_for_everyone_who_is_left(text: str) -> None:
    (problem,) = problems_of(text)
    assert problem.startswith("rules[0] ")
    assert problem.endswith(
        "the last rule must have no conditions, so that every recipient is decided: "
        'end with name = "accept", action = "accept"'
    )


def test_a_disabled_rule_may_be_unfinished_and_may_stand_last() -> None:
    draft = rule('action = "bounce"\nenabled = false', "draft")
    assert [each.section.name for each in policy(draft).shared] == ["accept"]
    last = policy_text() + rule('action = "drop"\nwhen.spam = "FAIL"\nenabled = false', "draft")
    assert [each.section.name for each in load(last).shared] == ["unknown-recipient", "accept"]


# --- Outcomes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            'action = "bounce"',
            "say what it bounces as: bounce_type = one of DoesNotExist, MessageTooLarge, "
            "ExceededQuota, ContentRejected, Undefined, TemporaryFailure",
        ),
        (
            'action = "bounce"\nbounce_type = "Undefined"\nrecipient_dsn_fields.status = "5.0.0"',
            "give bounce_type or recipient_dsn_fields, not both: SES does not say which wins",
        ),
        (
            'action = "defer"\nbounce_type = "DoesNotExist"',
            "defer is temporary: bounce_type 'TemporaryFailure' or a 4.x.x status",
        ),
        (
            'action = "defer"\nrecipient_dsn_fields.status = "5.1.1"',
            "defer is temporary: bounce_type 'TemporaryFailure' or a 4.x.x status",
        ),
        (
            'action = "drop"\nbounce_type = "Undefined"',
            "bounce_type goes with action 'bounce' or 'defer', not with 'drop'",
        ),
        (
            'action = "accept"\nrecipient_dsn_fields.status = "5.0.0"\nwhen.spf = "PASS"',
            "recipient_dsn_fields goes with action 'bounce' or 'defer', not with 'accept'",
        ),
        (
            'action = "drop"\nrecipient_arn = "arn:aws:ses:us-east-1:1:identity/example.com"',
            "recipient_arn goes with action 'bounce' or 'defer', not with 'drop'",
        ),
        (
            'action = "drop"\nexplanation = "Nobody will read this."',
            "explanation goes with action 'bounce' or 'defer', not with 'drop'",
        ),
        ('action = "drop"\nkeep = true', "keep goes with a bounce, not with 'drop'"),
    ],
)
def test_an_outcome_that_contradicts_itself_is_refused(body: str, problem: str) -> None:
    assert problem_of(body) == problem


@pytest.mark.parametrize(
    "body",
    [
        'action = "bounce"\nbounce_type = "TemporaryFailure"',
        'action = "bounce"\nrecipient_dsn_fields.status = "4.2.2"',
        'action = "defer"\nbounce_type = "TemporaryFailure"',
        'action = "defer"\nrecipient_dsn_fields.status = "4.3.2"\nkeep = true\ndry_run = true',
        'action = "drop"\ndry_run = true',
        'action = "accept"\nwhen.spf = "PASS"',
    ],
)
def test_an_outcome_that_makes_sense_is_taken(body: str) -> None:
    assert policy(rule(body)).shared[0].section.name == "rule"


# --- Texts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("No {recepient}.", "explanation: no variable is called {recepient}; there are: "),
        ("50 % { off", "explanation: expected '}' before end of string; write {{ and }}"),
        ("{recipient!r}", "explanation: write {recipient} alone, without `!` or `:`"),
        (r"tab\there", "explanation: '\\t' is not allowed: SES takes printable 7-bit ASCII"),
        ("x" * 501, "explanation has over 500 characters: shorten it"),
    ],
)
def test_a_text_that_cannot_be_sent_is_refused(text: str, problem: str) -> None:
    bounce = 'action = "bounce"\nbounce_type = "Undefined"\n'
    assert problem_of(f'{bounce}explanation = "{text}"').startswith(problem)
    inherited = policy_text(rule(bounce), f'send_bounce.explanation = "{text}"')
    assert problems_of(inherited)[0].startswith(f'rules[0] "rule": {problem}')


def test_an_explanation_may_have_five_hundred_characters() -> None:
    assert policy(bounce_rule(f'explanation = "{"x" * 500}"')).shared


# --- What SendBounce documents ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ('status = "5.1"', "'5.1' is not an enhanced status code"),
        ('status = "05.1.1"', "'05.1.1' is not an enhanced status code"),
        ('status = "5.01.1"', "'5.01.1' is not an enhanced status code"),
        ('status = "5.1.1000"', "'5.1.1000' is not an enhanced status code"),
        ('status = "3.1.1"', "'3.1.1' is not an enhanced status code"),
        ('status = "550 5.1.1"', "'550 5.1.1' is not an enhanced status code"),
        ('status = "2.0.0"', "action 'failed' goes with 4.x.x or 5.x.x, not 2.0.0"),
        (
            'status = "5.1.1"\naction = "delayed"\ndiagnostic_code = "smtp; 450 later"',
            "action 'delayed' goes with 4.x.x, not 5.1.1",
        ),
        (
            'status = "4.2.2"\naction = "delayed"',
            "action 'delayed' promises that delivery is tried again: say why it waits",
        ),
        (
            'status = "5.1.1"\nfinal_recipient = "rfc822; x@example.com"',
            "final_recipient is the bare address, without 'rfc822;'",
        ),
        (
            'status = "5.1.1"\nremote_mta = "mx.example.com"',
            "remote_mta 'mx.example.com' lacks its type: write it as in 'dns; mx.example.com'",
        ),
        (
            'status = "5.1.1"\nremote_mta = "dns; mx\\r\\nX: y"',
            "remote_mta: a line break is not allowed",
        ),
        (
            'status = "5.1.1"\ndiagnostic_code = "550 no such user"',
            "diagnostic_code '550 no such user' lacks its type: write it as in 'smtp; 550 5.1.1",
        ),
        (
            'status = "5.1.1"\nextension_fields."X Y" = "z"',
            "extension field name 'X Y': use 1 to 50 letters, digits and hyphens",
        ),
        (
            f'status = "5.1.1"\nextension_fields.{"X" * 51} = "z"',
            f"extension field name '{'X' * 51}': use 1 to 50 letters",
        ),
        (
            f'status = "5.1.1"\nextension_fields.X-A = "{"x" * 2049}"',
            "extension field 'X-A': its value has 2049 characters, at most 2048 are allowed",
        ),
        (
            'status = "5.1.1"\nextension_fields.diagnostic-code = "smtp; 550"',
            "extension field name 'diagnostic-code' is a DSN's own: choose another, as X-\u2026",
        ),
    ],
)
def test_recipient_dsn_fields_that_ses_would_refuse_are_refused(fields: str, problem: str) -> None:
    body = f'action = "bounce"\n[rules.recipient_dsn_fields]\n{fields}'
    assert problem_of(body).startswith(f"recipient_dsn_fields: {problem}")


DELIVERED = ("delivered", "relayed", "expanded")


def dsn(fields: str, more: str = "") -> str:
    return f'action = "bounce"\n{more}\n[rules.recipient_dsn_fields]\n{fields}'


@pytest.mark.parametrize("action", DELIVERED)
def test_a_dsn_that_says_that_mail_arrived_has_a_status_of_success(action: str) -> None:
    fields = f'status = "5.0.0"\naction = "{action}"'
    assert problem_of(dsn(fields, "keep = true")) == (
        f"recipient_dsn_fields: action '{action}' goes with 2.x.x, not 5.0.0"
    )


@pytest.mark.parametrize("action", DELIVERED)
def test_a_dsn_that_says_that_mail_arrived_is_for_mail_that_does_not_stop(action: str) -> None:
    fields = f'status = "2.0.0"\naction = "{action}"'
    assert problem_of(dsn(fields)) == (
        f"a DSN that says '{action}' is for mail that does not stop: keep = true"
    )
    assert policy(rule(dsn(fields, "keep = true"))).shared[0].section.keep


def test_a_literal_of_an_extension_field_may_be_as_long_as_ses_documents() -> None:
    assert policy(rule(dsn(f'status = "5.0.0"\nextension_fields.X-A = "{"x" * 2048}"'))).shared


def test_a_filled_extension_field_is_cut_where_its_limit_is() -> None:
    subject = "{subject}" * 100
    rules = policy(rule(dsn(f'status = "5.0.0"\nextension_fields.X-A = "{subject}"')))
    bounced = plan(rules, mail(f"Subject: {'x' * 200}")).to_send
    assert bounced is not None
    (only,) = bounced.recipients
    assert only.dsn_fields is not None
    (field,) = only.dsn_fields.extension_fields
    assert (field.name, len(field.value)) == ("X-A", 2048)


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("final_recipient", "final_recipient"),
        ("diagnostic_code", "diagnostic_code"),
        ("extension_fields.X-A", "extension_fields.X-A"),
    ],
)
def test_a_text_in_recipient_dsn_fields_is_checked_as_a_text(field: str, place: str) -> None:
    body = (
        f'action = "bounce"\n[rules.recipient_dsn_fields]\nstatus = "5.1.1"\n{field} = "{{oops}}"'
    )
    assert problem_of(body).startswith(
        f"recipient_dsn_fields.{place}: no variable is called {{oops}}"
    )


@pytest.mark.parametrize(
    ("parameter", "problem"),
    [
        ('bounce_sender = "daemon"', "send_bounce.bounce_sender 'daemon': write an address"),
        (
            'bounce_sender = "Daemon <daemon@example.com>"',
            "send_bounce.bounce_sender 'Daemon <daemon@example.com>': write an address",
        ),
        (
            'message_dsn.reporting_mta = "mx.example.com"',
            "send_bounce.message_dsn: reporting_mta 'mx.example.com' lacks its type: "
            "write it as in 'dns; mx.example.com'",
        ),
        (
            'message_dsn.reporting_mta = "dns; mx\\nX: y"',
            "send_bounce.message_dsn: reporting_mta: a line break is not allowed",
        ),
        (
            'message_dsn.extension_fields."X:Y" = "z"',
            "send_bounce.message_dsn: extension field name 'X:Y'",
        ),
        (
            'message_dsn.extension_fields.X-A = "a\\nb"',
            "send_bounce.message_dsn: extension field 'X-A': a line break is not allowed",
        ),
        (
            f'message_dsn.extension_fields.X-A = "{"x" * 2049}"',
            "send_bounce.message_dsn: extension field 'X-A': its value has 2049 characters",
        ),
        (
            'message_dsn.extension_fields.Arrival-Date = "today"',
            "send_bounce.message_dsn: extension field name 'Arrival-Date' is a DSN's own",
        ),
        (
            'message_dsn.extension_fields.x-ses-bouncer = "mine"',
            "send_bounce.message_dsn: x-ses-bouncer is set in every bounce already: remove it",
        ),
        (
            'message_dsn.extension_fields.X-For = "{recipient}"',
            "send_bounce.message_dsn: X-For is about the whole message and takes no variables: "
            "put them into recipient_dsn_fields",
        ),
        (
            'message_dsn.reporting_mta = "dns; {domain}"',
            "send_bounce.message_dsn: reporting_mta is about the whole message and takes no",
        ),
        (
            'bounce_sender_arn = "example.com"',
            "send_bounce.bounce_sender_arn 'example.com' is no identity's ARN: write it as in "
            "arn:aws:ses:us-east-1:123456789012:identity/example.com",
        ),
    ],
)
def test_send_bounce_parameters_that_ses_would_refuse_are_refused(
    parameter: str, problem: str
) -> None:
    bounce = 'action = "bounce"\nbounce_type = "Undefined"\n'
    assert problem_of(f"{bounce}send_bounce.{parameter}").startswith(problem)
    inherited = policy_text(rule(bounce), f"send_bounce.{parameter}")
    assert problems_of(inherited)[0].startswith(f'rules[0] "rule": {problem}')


def test_an_arn_of_a_recipient_that_ses_would_refuse_is_refused() -> None:
    body = 'action = "bounce"\nbounce_type = "Undefined"\nrecipient_arn = "example.com"'
    assert problem_of(body).startswith("recipient_arn 'example.com' is no identity's ARN")


def test_braces_that_name_no_variable_may_stand_in_a_message_dsn() -> None:
    fields = 'send_bounce.message_dsn.extension_fields.X-A = "{site} {}"'
    assert policy(top=fields).shared


# --- Guards and mailboxes --------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NOT_CONFIGURABLE))
def test_a_guard_that_must_stay_cannot_be_switched_off(name: GuardName) -> None:
    assert problems_of(policy_text(top=f'guards.off = ["list-mail", "{name}"]')) == [
        f"guards.off: '{name}' cannot be switched off"
    ]


@pytest.mark.parametrize("name", sorted(set(GuardName) - NOT_CONFIGURABLE))
def test_every_other_guard_can_be_switched_off_by_name(name: GuardName) -> None:
    assert policy(top=f'guards.off = ["{name}"]').file.guards.off == [name]


@pytest.mark.parametrize("domain", ["localhost", "@example.com", "*.example.com", ""])
def test_a_domain_of_ours_is_a_domain(domain: str) -> None:
    text = policy_text(top=f'guards.own_domains = ["example.net", "{domain}"]')
    assert problems_of(text) == [
        f"guards.own_domains: '{domain}' is no domain: write it as in 'example.com'"
    ]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ('"alice" = {}', "mailboxes.\"alice\": address 'alice': write user@domain, or @domain"),
        (
            '"alice@localhost" = {}',
            "mailboxes.\"alice@localhost\": address 'alice@localhost': write user",
        ),
        ('"@" = {}', "mailboxes.\"@\": address '@': write user@domain, or @domain"),
        ('"*@*.example" = {}', "mailboxes.\"*@*.example\": address '*@*.example' is a pattern"),
        ('"*@a.example" = {}', "mailboxes.\"*@a.example\": address '*@a.example' is a pattern"),
        (
            '"a@b.example" = {}\n"A@B.example" = {}',
            'mailboxes."A@B.example" is the same address as "a@b.example": keep one of the two',
        ),
        (
            '"a@b.example" = { alias_for = "bob" }',
            "mailboxes.\"a@b.example\": alias_for 'bob': write user@domain",
        ),
        (
            '"a@b.example" = { moved_to = "A@B.example" }',
            "mailboxes.\"a@b.example\": moved_to 'A@B.example' is the address itself",
        ),
        (
            '"a@b.example" = { alias_for = "c@b.example" }',
            "mailboxes.\"a@b.example\": alias_for 'c@b.example' leads nowhere",
        ),
        (
            '"a@b.example" = { quota = 0 }',
            'mailboxes."a@b.example": quota 0 would refuse every mail: leave it out for no limit',
        ),
        (
            '"a@b.example" = { size_limit = "0 MB" }',
            'mailboxes."a@b.example": size_limit 0 would refuse every mail',
        ),
        (
            '"@b.example" = { quota = "1 GB" }',
            'mailboxes."@b.example": @b.example has quota and does not say catch_all',
        ),
        (
            '"a@b.example" = { alias_for = "c@d.example", quota = "1 GB" }',
            'mailboxes."a@b.example": quota of an alias limits nothing',
        ),
        (
            '"a@example.com" = { quota = -1 }',
            'mailboxes."a@example.com": -1 is not a size: it has to be from 0 to 8 EiB',
        ),
        (
            '"a@example.com" = { quota = "much" }',
            "mailboxes.\"a@example.com\": 'much' is not a size",
        ),
        (
            '"a@example.com" = { used = "5 XB" }',
            "mailboxes.\"a@example.com\": '5 XB' is not a size",
        ),
        ('"a@example.com" = { size_limit = "" }', "mailboxes.\"a@example.com\": '' is not a size"),
    ],
)
def test_a_mailbox_that_is_wrong_is_refused(entry: str, problem: str) -> None:
    (found,) = problems_of(policy_text(end=f"[mailboxes]\n{entry}"))
    assert found.startswith(problem)


# --- All of it -------------------------------------------------------------------------------


def test_every_mistake_is_said_at_once_and_each_only_once() -> None:
    text = policy_text(
        rule('action = "bounce"', "one")
        + rule('action = "drop"\nwhen.mailbox = "gone"', "two")
        + bounce_rule('explanation = "{oops}"', "three")
        + UNKNOWN_BOUNCES,
        'guards.off = ["null-sender"]',
        '[domains."example.org"]\n[mailboxes]\n"x" = {}',
    )
    problems = problems_of(text)
    assert sorted(problem.partition(": ")[0] for problem in problems) == [
        'domains."example.org".rules[0] "one"',
        'domains."example.org".rules[1] "two"',
        'domains."example.org".rules[2] "three"',
        "guards.off",
        'mailboxes."x"',
        'rules[0] "one"',
        'rules[1] "two"',
        'rules[2] "three"',
    ]
