"""A policy file is read as TOML or JSON; what is wrong in it is named with place and mend."""

import json
import tomllib
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bouncer.guards import GuardName
from bouncer.policy.conditions import Conditions, PolicyError
from bouncer.policy.file import (
    BudgetSection,
    GuardsSection,
    MailboxSection,
    Mode,
    PolicyFile,
    RuleSection,
    json_schema,
    read,
    validator_schema,
)
from bouncer.policy.load import load
from bouncer.policy.places import Steps, lines_of, reached
from tests.unit.builders import SHIPPED_POLICY, policy_text, rule

SHIPPED = SHIPPED_POLICY.read_text("utf-8")

EVERYTHING = """
version = 1
mode = "observe"

[send_bounce]
bounce_sender = "bounce@example.com"
bounce_sender_arn = "arn:aws:ses:us-east-1:123456789012:identity/example.com"
explanation = "Your mail was not delivered."
message_dsn.reporting_mta = "dns; mx.example.com"
message_dsn.arrival_date = false
message_dsn.extension_fields.X-Site = "main"

[guards]
off = ["role-sender", "list-mail"]
own_domains = ["example.net"]
max_received = 150
budget = { period_seconds = 3600, per_sender = 10, per_sender_domain = 50 }

[[rules]]
name = "everything"
action = "bounce"
recipient_arn = "arn:aws:ses:us-east-1:123456789012:identity/example.com"
explanation = "No {recipient}."
dry_run = true
keep = true
enabled = true

[rules.when]
recipient = ["a@example.com", "@example.org"]
sender = "<>"
mailbox = ["unknown", "disabled"]
larger_than = ["25 MB", "mailbox"]
spam = "GRAY"
virus = ["GRAY", "PROCESSING_FAILED"]
spf = "PASS"
dkim = "PASS"
dmarc = "FAIL"
dmarc_policy = "reject"
more_recipients_than = 10
time_of_day = "22:00-06:00"
header.X-Loop = true
header.Subject = ["*invoice*", "*money*"]

[rules.unless]
sender = "@sender.example"

[rules.recipient_dsn_fields]
action = "delayed"
status = "4.2.2"
final_recipient = "{recipient}"
remote_mta = "dns; mx2.example.com"
diagnostic_code = "smtp; 452 4.2.2 full"
last_attempt_date = true
extension_fields.X-Quota = "{quota}"

[rules.send_bounce]
bounce_sender = "other@example.com"

[[rules]]
name = "accept"
action = "accept"

[domains."example.org"]
send_bounce.bounce_sender = "bounce@example.org"

[domains."example.org".rules.everything]
dry_run = false
when.mailbox = "full"

[mailboxes]
"a@example.com" = { status = "disabled", quota = "1 GB", used = 5, size_limit = "10 MB" }
"b@example.com" = { alias_for = "a@example.com" }
"c@example.com" = { moved_to = "c@example.net", tell_new_address = true }
"@example.org" = { catch_all = false, separator = "-" }
"""


def error_of(text: str, origin: str = "policy.toml") -> str:
    with pytest.raises(PolicyError) as caught:
        load(text, origin)
    return str(caught.value)


def as_json(toml: str) -> str:
    return json.dumps(tomllib.loads(toml))


# --- Reading ---------------------------------------------------------------------------------


def test_the_smallest_policy_accepts_everything_with_every_default() -> None:
    file, _ = read('version = 1\nrules = [{ name = "accept", action = "accept" }]', "p.toml")
    assert file.mode is Mode.ENFORCE
    assert file.guards == GuardsSection(off=[], own_domains=[], max_received=100)
    assert file.guards.budget == BudgetSection(
        period_seconds=86_400, per_sender=100, per_sender_domain=500
    )
    assert file.mailboxes is None


def test_every_word_of_the_format_is_read() -> None:
    file, _ = read(EVERYTHING, "p.toml")
    first = file.rules[0]
    unused = [name for name, value in _leaves(first) if value is None]
    assert unused == ["bounce_type"], "recipient_dsn_fields stands in its place"
    assert file.mailboxes is not None
    said = {name for box in file.mailboxes.values() for name, _ in _said(box)}
    assert said == set(MailboxSection.__struct_fields__)
    assert {name for name, _ in first.when.given()} == set(Conditions.__struct_fields__)


def _leaves(section: msgspec.Struct) -> list[tuple[str, Any]]:
    return [(name, getattr(section, name)) for name in section.__struct_fields__]


def _said(section: MailboxSection) -> list[tuple[str, Any]]:
    default = MailboxSection()
    return [each for each in _leaves(section) if each[1] != getattr(default, each[0])]


@pytest.mark.parametrize(
    "text", [SHIPPED, EVERYTHING, policy_text()], ids=["shipped", "all", "one"]
)
def test_json_of_the_same_shape_is_the_same_policy(text: str) -> None:
    assert load(as_json(text)).file == load(text).file
    assert load("\n  " + as_json(text)).file == load(text).file


@pytest.mark.parametrize("text", [policy_text(), as_json(policy_text())], ids=["TOML", "JSON"])
def test_the_mark_that_windows_editors_put_first_is_no_part_of_the_policy(text: str) -> None:
    assert load("\ufeff" + text).file == load(text).file


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("version = \n", ":1: cannot be read: Invalid value (at line 1, column 11)"),
        ("version = 1\nversion = 1", ":2: cannot be read: Cannot overwrite a value"),
        ("[[rules]\n", ":1: cannot be read: Expected ']]'"),
        ('version = 1\nmode = "observe\n# "\n', ":2: cannot be read: a quote that is opened"),
        ("version = 1\nmode = 'observe\n", ":2: cannot be read: a quote that is opened here"),
        ('mode = """observe\n\n\n', ":1: cannot be read: a quote that is opened here is not"),
        ('{"version": 1', ": cannot be read: Input data was truncated"),
        ('{"version": 1} x', ": cannot be read: JSON is malformed"),
        ("[1]", ":1: Object contains unknown field `1`; remove it"),
        ("", ": Object missing required field `version`"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_place(text: str, reason: str) -> None:
    assert error_of(text, "some/policy.toml").startswith(f"some/policy.toml{reason}")


ACCEPT = '\n[[rules]]\nname = "accept"\naction = "accept"\n'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param("version = 2" + ACCEPT, "Invalid enum value 2 - at `$.version`", id="version"),
        pytest.param(
            'version = 1\nmode = "dry"' + ACCEPT,
            "Invalid enum value 'dry' - at `$.mode`; write one of enforce, observe",
            id="mode",
        ),
        pytest.param("version = 1", "Object missing required field `rules`", id="no rules"),
        pytest.param(
            "version = 1\nmods = 1" + ACCEPT,
            "Object contains unknown field `mods`; did you mean `mode`?",
            id="misspelt at the top",
        ),
        pytest.param(
            "version = 1\nguards.of = []" + ACCEPT,
            "unknown field `of` - at `$.guards`; did you mean `off`?",
            id="misspelt in a table",
        ),
        pytest.param(
            "version = 1\nguards.xyzzy = []" + ACCEPT,
            "unknown field `xyzzy` - at `$.guards`; remove it",
            id="nothing like it",
        ),
        pytest.param(
            'version = 1\nguards.off = ["list-mails"]' + ACCEPT,
            "Invalid enum value 'list-mails' - at `$.guards.off[0]`; write one of "
            + ", ".join(GuardName),
            id="no such guard",
        ),
        pytest.param(
            "version = 1\nguards.max_received = 0" + ACCEPT,
            "`int` >= 1 - at `$.guards.max_received`",
            id="no hops",
        ),
        pytest.param(
            "version = 1\nguards.budget.period_seconds = 59" + ACCEPT,
            "`int` >= 60 - at `$.guards.budget.period_seconds`",
            id="period too short",
        ),
        pytest.param(
            "version = 1\nguards.budget.period_seconds = 604801" + ACCEPT,
            "`int` <= 604800 - at `$.guards.budget.period_seconds`",
            id="window too long",
        ),
        pytest.param(
            "version = 1\nguards.budget.per_sender = -1" + ACCEPT,
            "`int` >= 0 - at `$.guards.budget.per_sender`",
            id="negative budget",
        ),
        pytest.param(
            'version = 1\nmailboxes."a@example.com".separator = "="' + ACCEPT,
            "Invalid enum value '=' - at `$.mailboxes.\"a@example.com\".separator`; "
            'write one of "+", "-", ""',
            id="mailbox",
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_path(text: str, error: str) -> None:
    message = error_of(text)
    # What is missing in the whole file stands nowhere.
    line = "" if "missing" in error else ":1" if text.startswith("version = 2") else ":2"
    assert message.startswith(f"policy.toml{line}: ")
    assert message.endswith(error)


THREE_RULES = """\
version = 1

[[rules]]
name = "one"
action = "drop"
when.spam = "FAIL"

  [[rules]]
name = "two"
{line}

[[rules]]
name = "accept"
action = "accept"
"""


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            'action = "reject"',
            "Invalid enum value 'reject' - at `$.rules[1].action`; "
            "write one of accept, drop, bounce, defer",
        ),
        ("", "Object missing required field `action` - at `$.rules[1]`"),
        (
            'acton = "drop"',
            "Object contains unknown field `acton` - at `$.rules[1]`; did you mean `action`?",
        ),
        (
            'action = "drop"\nwhen.mailbx = "unknown"',
            "unknown field `mailbx` - at `$.rules[1].when`; did you mean `mailbox`?",
        ),
        (
            'action = "bounce"\nbounce_type = "NoSuchUser"',
            "Invalid enum value 'NoSuchUser' - at `$.rules[1].bounce_type`; write one of "
            "DoesNotExist, MessageTooLarge, ExceededQuota, ContentRejected, Undefined, "
            "TemporaryFailure",
        ),
        (
            'action = "bounce"\nrecipient_dsn_fields = { status = "5.0.0", action = "bounced" }',
            "Invalid enum value 'bounced' - at `$.rules[1].recipient_dsn_fields.action`; "
            "write one of failed, delayed, delivered, relayed, expanded",
        ),
        (
            'action = "bounce"\nrecipient_dsn_fields.status = 511',
            "Expected `str`, got `int` - at `$.rules[1].recipient_dsn_fields.status`",
        ),
        ('action = "drop"\ndry_run = "yes"', "got `str` - at `$.rules[1].dry_run`"),
        (
            'action = "drop"\nwhen.more_recipients_than = -1',
            "Expected `int` >= 0 - at `$.rules[1].when.more_recipients_than`",
        ),
    ],
)
def test_an_error_in_a_rule_names_the_line_where_it_stands(line: str, error: str) -> None:
    message = error_of(THREE_RULES.format(line=line))
    wrong = 9 + len(line.splitlines()) if line else 8  # what is missing, where the rule begins
    assert message.startswith(f"policy.toml:{wrong}: ")
    assert message.endswith(error)


@pytest.mark.parametrize(
    "header",
    [
        "[[rules]]",
        "[[rules]]  # comment",
        "[[ rules ]]",
        "\t[[rules]]\t",
        '[["rules"]]',
        "[['rules']] # [[rules]]",
    ],
)
@pytest.mark.parametrize(
    "above",
    [
        "",
        "# [[rules]]\n",
        'explanation = """\n[[rules]]\n"""\n',
        "explanation = '''\n[[rules]]\n'''\n",
        'explanation = "a # b"\n',
    ],
)
def test_the_line_is_found_whatever_stands_around_it(header: str, above: str) -> None:
    first = f'{header}\nname = "one"\naction = "drop"\nwhen.spam = "FAIL"\n'
    before = f"version = 1\n{first}{above}\n"
    text = before + f'{header}\nname = "two"\nwhen.virsu = "FAIL"\naction = "drop"\n{ACCEPT}'
    line = before.count("\n") + 3
    assert error_of(text).startswith(f"policy.toml:{line}: Object contains unknown field `virsu`")


def test_every_error_of_the_shape_is_said_with_its_line() -> None:
    text = (
        'version = 1\nmood = "enforce"\n'
        '[[rules]]\nname = "a"\naction = "dorp"\nwhen.size = "1 MB"\n'
        '[[rules]]\nname = "b"\n'
        '[[rules]]\nname = "c"\naction = "drop"\nwhen.spam = 1\ndry_run = "x"\n' + ACCEPT
    )
    lines = error_of(text).splitlines()
    assert sorted(line.partition(" - at ")[0] for line in lines) == [
        "policy.toml:12: Expected `str | array | null`, got `int`",
        "policy.toml:13: Expected `bool`, got `str`",
        "policy.toml:2: Object contains unknown field `mood`; did you mean `mode`?",
        "policy.toml:5: Invalid enum value 'dorp'",
        "policy.toml:6: Object contains unknown field `size`",
        "policy.toml:7: Object missing required field `action`",
    ]


def test_every_key_of_ones_own_is_named_and_each_with_its_line() -> None:
    text = (
        'version = 1\n[mailboxes]\n"a@example.com" = {}\n"b@example.com" = { quta = 1 }\n'
        '"c@example.com" = { status = "off" }\n'
        '[domains."example.org".rules.accept]\nkeep = "x"\n' + ACCEPT
    )
    assert sorted(each.partition("; ")[0] for each in error_of(text).splitlines()) == [
        'policy.toml:4: Object contains unknown field `quta` - at `$.mailboxes."b@example.com"`',
        "policy.toml:5: Invalid enum value 'off' - at `$.mailboxes.\"c@example.com\".status`",
        "policy.toml:7: Expected `bool | null`, got `str` - at "
        '`$.domains."example.org".rules."accept".keep`',
    ]


@given(st.lists(st.sampled_from(["", "# c", 'x = """\n[[rules]]\n"""', "[y.z]"]), max_size=5))
def test_a_statement_is_found_at_its_first_line_whatever_stands_above(above: list[str]) -> None:
    # A statement may stand once only; what is above it is never taken for it.
    before = "\n".join(dict.fromkeys(above)) + "\n"
    text = before + "[a]\nb = [\n  1,\n  { c = 2 },\n]\n"
    line = before.count("\n") + 2
    lines = lines_of(text)
    assert lines["a",] == line - 1
    assert lines["a", "b", 1, "c"] == line
    assert ("a", "nothing") not in lines


def _ways(value: Any, steps: Steps = ()) -> Iterator[Steps]:
    """The way to everything in a parsed text."""
    if steps:
        yield steps
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for step, each in inner:
            yield from _ways(each, (*steps, step))


_STATEMENTS = (
    "# [a.comment",
    "",
    "k1 = 'its [' # '",
    'k2 = """\n[no.table]\n\\"""" # x = 1\n"""',
    "k3 = [\n  1, # ]\n  [{ a = { b = '}' } }],\n]",
    "k4.deep.er = { x = [], 'y z' = 1 }",
    "k5 = '''\n[[rules]]\n'''",
    '"k6.with [dots]" = "\\" ["',
    "[t]",
    "[t.u.v]",
    "[[rules]]",
    "[[rules.inner]]",
    "[rules.table]",
    '[domains."a.example".rules.spam]',
)


@given(st.lists(st.sampled_from(_STATEMENTS), max_size=14), st.sampled_from(["\n", "\r\n"]))
def test_every_value_has_the_line_at_which_the_text_first_holds_it(
    statements: list[str], end: str
) -> None:
    text = "\n".join(statements).replace("\n", end) + end
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)
    lines = lines_of(text)
    assert set(lines) == set(_ways(raw))
    beginnings = ["\n".join(statements[:count]) for count in range(len(statements) + 1)]
    for steps, line in lines.items():
        count = next(n for n, each in enumerate(beginnings) if _holds(each, steps)) - 1
        assert line == beginnings[count].count("\n") + (2 if count else 1)


def _holds(text: str, steps: Steps) -> bool:
    return reached(tomllib.loads(text), steps) == steps


def test_hundreds_of_mistakes_are_placed_in_one_pass_over_the_text() -> None:
    """Counted, not timed: each statement is parsed once, however many mistakes there are."""
    wrong = "".join(
        rule('action = "drop"\nbounce_type = "DoesNotExist"', f"r{n}") for n in range(300)
    )
    parsed = 0

    def counting(text: str) -> Any:
        nonlocal parsed
        parsed += len(text)
        return plain(text)

    plain = tomllib.loads
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tomllib, "loads", counting)
        text = policy_text(wrong)
        assert len(error_of(text).splitlines()) >= 300
    assert parsed < 3 * len(text)


@pytest.mark.parametrize("word", ["nonsense", "password", "banana", "x", "rulebook"])
def test_a_word_that_is_like_no_name_is_to_be_removed(word: str) -> None:
    assert error_of(f"version = 1\n{word} = 1\n{ACCEPT}").endswith("; remove it")


@pytest.mark.parametrize(
    ("word", "name"),
    [("mood", "mode"), ("larger", "larger_than"), ("explanaton", "explanation"), ("rule", "rules")],
)
def test_a_slip_of_the_pen_gets_the_name_that_was_meant(word: str, name: str) -> None:
    assert error_of(f"version = 1\n{word} = 1\n{ACCEPT}").endswith(f"did you mean `{name}`?")


def test_what_other_systems_call_otherwise_is_named() -> None:
    text = 'version = 1\n[[rules]]\nname = "a"\naction = "drop"\nwhen.size = "1 MB"\n' + ACCEPT
    assert error_of(text).endswith("it is called `larger_than`")


def test_a_rule_below_the_one_for_everyone_is_to_be_moved_up() -> None:
    text = "version = 1" + ACCEPT + rule('action = "drop"\nwhen.spam = "FAIL"', "spam")
    assert error_of(text) == (
        'policy.toml:5: rules[1] "spam": never decides: "accept" above has no conditions; '
        "move this rule up, above it"
    )


def test_an_error_in_json_names_the_path_without_a_line() -> None:
    text = '{"version": 1, "rules": [{"name": "accept", "action": "acept"}]}'
    assert error_of(text, "p.json") == (
        "p.json: Invalid enum value 'acept' - at `$.rules[0].action`; "
        "write one of accept, drop, bounce, defer"
    )


@pytest.mark.parametrize(
    "name", ["", "Accept", "1st", "-x", "two words", "under_score", "a" * 51, "n\u00e4me", "a:b"]
)
def test_a_rules_name_is_a_reason_code(name: str) -> None:
    text = json.dumps({"version": 1, "rules": [{"name": name, "action": "accept"}]})
    assert "at `$.rules[0].name`" in error_of(text)


@pytest.mark.parametrize("name", ["a", "over-quota-2", "a" * 50])
def test_a_reason_code_has_up_to_fifty_letters_digits_and_hyphens(name: str) -> None:
    text = json.dumps({"version": 1, "rules": [{"name": name, "action": "accept"}]})
    assert load(text).file.rules[0].name == name


# --- JSON Schema -----------------------------------------------------------------------------

DRAFT_4 = jsonschema.Draft4Validator
DRAFT_2020 = jsonschema.Draft202012Validator
SCHEMAS = [
    pytest.param(DRAFT_2020(json_schema()), id="for editors"),
    pytest.param(DRAFT_4(validator_schema()), id="for AppConfig"),
]


def test_each_schema_is_one_of_its_draft() -> None:
    DRAFT_2020.check_schema(json_schema())
    DRAFT_4.check_schema(validator_schema())
    assert validator_schema()["$schema"] == "http://json-schema.org/draft-04/schema#"


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize(
    "text", [SHIPPED, EVERYTHING, policy_text()], ids=["shipped", "all", "one"]
)
def test_a_good_policy_is_good_by_the_schema(schema: Any, text: str) -> None:
    assert list(schema.iter_errors(tomllib.loads(text))) == []


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"version": 2}, id="version"),
        pytest.param({"mode": "dry"}, id="mode"),
        pytest.param({"rules": {}}, id="rules is no list"),
        pytest.param({"unknown": 1}, id="unknown key"),
        pytest.param({"rules": [{"name": "Accept", "action": "accept"}]}, id="rule name"),
        pytest.param({"rules": [{"name": "accept"}]}, id="no action"),
        pytest.param({"rules": [{"name": "a", "action": "reject"}]}, id="unknown action"),
        pytest.param({"rules": [{"name": "a", "action": "drop", "whn": {}}]}, id="unknown in rule"),
        pytest.param(
            {"rules": [{"name": "a", "action": "drop", "when": {"spm": "FAIL"}}]},
            id="unknown condition",
        ),
        pytest.param(
            {"rules": [{"name": "a", "action": "bounce", "bounce_type": "No"}]}, id="bounce type"
        ),
        pytest.param(
            {"rules": [{"name": "a", "action": "bounce", "recipient_dsn_fields": {}}]},
            id="dsn fields without status",
        ),
        pytest.param({"guards": {"off": ["no-guard"]}}, id="unknown guard"),
        pytest.param({"guards": {"max_received": 0}}, id="no hops"),
        pytest.param({"guards": {"budget": {"period_seconds": 1}}}, id="period too short"),
        pytest.param({"domains": {"example.com": {"rules": {"a": {"acton": 1}}}}}, id="domain"),
        pytest.param({"mailboxes": {"a@example.com": {"quta": 1}}}, id="mailbox"),
    ],
)
def test_what_reading_refuses_the_schema_refuses(schema: Any, change: dict[str, Any]) -> None:
    broken = tomllib.loads(policy_text()) | change
    assert list(schema.iter_errors(broken))
    with pytest.raises(PolicyError):
        read(json.dumps(broken), "p.json")


@pytest.mark.parametrize("section", [PolicyFile, RuleSection, Conditions, MailboxSection])
def test_the_schema_has_every_word_of_the_format(section: type[msgspec.Struct]) -> None:
    properties = json_schema()["$defs"][section.__name__]["properties"]
    assert properties.keys() == set(section.__struct_fields__)


def test_appconfigs_schema_is_without_prose_and_within_its_limit() -> None:
    text = json.dumps(validator_schema(), separators=(",", ":"))
    assert '"description":"' not in text
    # AppConfig: a JSON Schema validator has at most 32 KB.
    assert len(text) < 32_768


def test_toml_tables_and_dotted_keys_mean_the_same() -> None:
    dotted = dedent(
        """
        version = 1
        [[rules]]
        name = "spam"
        action = "drop"
        when.spam = "FAIL"
        [[rules]]
        name = "accept"
        action = "accept"
        """
    )
    table = dotted.replace('when.spam = "FAIL"', '[rules.when]\nspam = "FAIL"')
    assert load(dotted).file == load(table).file
