"""The policy's file format: TOML, or JSON of the same shape. docs/policy.md explains it.

Here are its tables, typed, and the errors of reading them; what the values mean together is
checked in check.py, and decide.py decides by them.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec

from bouncer.delivery.bounce import (
    EXTENSION_VALUE_LIMIT,
    BounceType,
    DsnAction,
    ExtensionField,
    RecipientDsnFields,
)
from bouncer.guards import DEFAULT_MAX_RECEIVED, GuardName
from bouncer.policy.conditions import Conditions, PolicyError
from bouncer.policy.places import Steps, lines_of, reached, unclosed_string
from bouncer.text import fill, in_ascii


class Mode(StrEnum):
    ENFORCE = "enforce"
    OBSERVE = "observe"


class Action(StrEnum):
    ACCEPT = "accept"
    DROP = "drop"
    BOUNCE = "bounce"
    DEFER = "defer"


type Texts = dict[str, str]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file: an unknown name in it is an error, not a silent nothing."""


class MessageDsnSection(_Section, frozen=True):
    """SendBounce's MessageDsn."""

    reporting_mta: str | None = None
    arrival_date: bool | None = None
    extension_fields: Texts | None = None


class SendBounceSection(_Section, frozen=True):
    """SendBounce's own parameters, under their own names."""

    bounce_sender: str | None = None
    bounce_sender_arn: str | None = None
    explanation: str | None = None
    message_dsn: MessageDsnSection | None = None


class RecipientDsnSection(_Section, frozen=True):
    """SendBounce's RecipientDsnFields: the DSN written out, instead of a bounce type."""

    status: str
    action: DsnAction = DsnAction.FAILED
    final_recipient: str | None = None
    remote_mta: str | None = None
    diagnostic_code: str | None = None
    last_attempt_date: bool = False
    extension_fields: Texts = msgspec.field(default_factory=dict)

    def texts(self) -> dict[str, str]:
        """The fields that may hold variables, by their place."""
        places = {
            "final_recipient": self.final_recipient,
            "diagnostic_code": self.diagnostic_code,
            **{f"extension_fields.{name}": text for name, text in self.extension_fields.items()},
        }
        return {place: text for place, text in places.items() if text is not None}

    def filled(self, values: Mapping[str, str], now: datetime) -> RecipientDsnFields:
        # Only an extension field has a documented limit; the others are never near it.
        texts = {
            place: fill(in_ascii(text), values)[:EXTENSION_VALUE_LIMIT]
            for place, text in self.texts().items()
        }
        return RecipientDsnFields(
            action=self.action,
            status=self.status,
            final_recipient=texts.get("final_recipient"),
            remote_mta=self.remote_mta,
            diagnostic_code=texts.get("diagnostic_code"),
            last_attempt_date=now if self.last_attempt_date else None,
            extension_fields=tuple(
                ExtensionField(name, texts[f"extension_fields.{name}"])
                for name in self.extension_fields
            ),
        )


RuleName = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]{0,49}$")]


class RuleSection(_Section, frozen=True):
    """One rule; its name is the reason code of what it decides."""

    name: RuleName
    action: Action
    when: Conditions = Conditions()
    unless: Conditions = Conditions()
    bounce_type: BounceType | None = None
    recipient_dsn_fields: RecipientDsnSection | None = None
    recipient_arn: str | None = None
    explanation: str | None = None
    send_bounce: SendBounceSection = SendBounceSection()
    dry_run: bool = False
    keep: bool = False
    enabled: bool = True


class RuleOverride(_Section, frozen=True):
    """What one domain has otherwise in a shared rule; what is absent stays as it is."""

    action: Action | None = None
    when: Conditions | None = None
    unless: Conditions | None = None
    bounce_type: BounceType | None = None
    recipient_dsn_fields: RecipientDsnSection | None = None
    recipient_arn: str | None = None
    explanation: str | None = None
    send_bounce: SendBounceSection | None = None
    dry_run: bool | None = None
    keep: bool | None = None
    enabled: bool | None = None


class DomainSection(_Section, frozen=True):
    """One recipient domain's differences from the shared policy."""

    send_bounce: SendBounceSection = SendBounceSection()
    rules: dict[str, RuleOverride] = msgspec.field(default_factory=dict)


MAIL_HOSTS = (
    "126.com", "163.com", "aol.com", "comcast.net", "fastmail.com", "free.fr", "gmail.com",
    "gmx.at", "gmx.com", "gmx.de", "gmx.net", "googlemail.com", "hotmail.com", "hotmail.co.uk",
    "icloud.com", "libero.it", "live.com", "mac.com", "mail.ru", "me.com", "msn.com",
    "naver.com", "orange.fr", "outlook.com", "proton.me", "protonmail.com", "qq.com",
    "t-online.de", "web.de", "yahoo.co.jp", "yahoo.co.uk", "yahoo.com", "yahoo.de", "yandex.ru",
    "ymail.com", "zoho.com",
)  # fmt: skip
"""Hosts whose domain is no sign of who writes, by their registrable domains."""


class BudgetSection(_Section, frozen=True):
    """How many recipients others may be told of in any period of so many seconds."""

    period_seconds: Annotated[int, msgspec.Meta(ge=60, le=604_800)] = 86_400
    per_sender: Annotated[int, msgspec.Meta(ge=0)] = 100
    per_sender_domain: Annotated[int, msgspec.Meta(ge=0)] = 500
    per_client_network: Annotated[int, msgspec.Meta(ge=0)] = 1000
    per_mail_host: Annotated[int, msgspec.Meta(ge=0)] = 10_000
    mail_hosts: tuple[str, ...] = MAIL_HOSTS
    queue_places: Annotated[int, msgspec.Meta(ge=1)] = 3


class GuardsSection(_Section, frozen=True):
    off: list[GuardName] = msgspec.field(default_factory=list)
    own_domains: list[str] = msgspec.field(default_factory=list)
    max_received: Annotated[int, msgspec.Meta(ge=1)] = DEFAULT_MAX_RECEIVED
    budget: BudgetSection = BudgetSection()


class OneAnswerSection(_Section, frozen=True):
    """What every refused recipient's sender is told, whatever the mailbox's state is."""

    bounce_type: BounceType = BounceType.UNDEFINED
    explanation: str = "Your message to {recipient} was not delivered."


class MailboxSection(_Section, frozen=True):
    """A mailbox of the static list: the fields of docs/mailboxes.md, sizes with units."""

    status: Literal["active", "disabled"] = "active"
    quota: int | str | None = None
    used: int | str = 0
    size_limit: int | str | None = None
    alias_for: str | None = None
    moved_to: str | None = None
    tell_new_address: bool = False
    catch_all: bool = True
    separator: Literal["+", "-", ""] = "+"


class PolicyFile(_Section, frozen=True):
    """The whole file."""

    version: Literal[1]
    rules: list[RuleSection]
    mode: Mode = Mode.ENFORCE
    send_bounce: SendBounceSection = SendBounceSection()
    guards: GuardsSection = GuardsSection()
    one_answer: OneAnswerSection | None = None
    domains: dict[str, DomainSection] = msgspec.field(default_factory=dict)
    mailboxes: dict[str, MailboxSection] | None = None


# --- Reading ---------------------------------------------------------------------------------


def read(text: str, origin: str) -> tuple[PolicyFile, dict[str, Any]]:
    """The file, typed and as its plain tables.

    Args:
        text: TOML, or JSON when it begins with `{`.
        origin: the file's name, for the error.

    Raises:
        PolicyError: it cannot be parsed, or something in it is unknown or of the wrong type.
    """
    raw = _parse(text, origin)
    errors: list[str] = []
    places: Places | None = None
    rest: Any = raw
    mended: set[str] = set()
    # msgspec stops at the first error, so what is wrong is taken out until nothing is.
    for _ in range(_ERRORS_AT_MOST):
        try:
            file = msgspec.convert(rest, PolicyFile)
        except msgspec.ValidationError as error:
            said = _all_named(str(error), rest)
            found = _Wrong.of(said)
            # What is missing where something was taken out is no second mistake.
            if not (found.missing and found.table in mended):
                places = places or Places(text)
                place = places.of(reached(raw, found.steps))
                errors.append(f"{origin}{place}: {_with_mend(said)}")
            mended.add(found.table)
            rest = found.taken_out_of(rest)
        else:
            if not errors:
                return file, raw
            break
    raise PolicyError("\n".join(dict.fromkeys(errors)))


_ERRORS_AT_MOST = 50


# tomllib's time grows with the square of a key's parts: 200 kB of them take minutes.
_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_DEEP_KEY = re.compile(rf"(?<![A-Za-z0-9_.\"'-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{100}}")


def _parse(text: str, origin: str) -> dict[str, Any]:
    text = text.removeprefix("\ufeff")
    try:
        if text.lstrip().startswith("{"):
            decoded: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
            return decoded
        if (deep := _DEEP_KEY.search(text)) is not None:
            at = text.count("\n", 0, deep.start()) + 1
            raise PolicyError(f"{origin}:{at}: cannot be read: no key has so many dots")
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        unclosed = unclosed_string(text)
        found = re.search(r"\(at line ([0-9]+), column [0-9]+\)", str(error))
        if unclosed is not None and (found is None or int(found[1]) >= unclosed):
            raise PolicyError(
                f"{origin}:{unclosed}: cannot be read: a quote that is opened here is not closed"
            ) from error
        line = f":{found[1]}" if found else f":{text.count(chr(10)) + 1}"
        raise PolicyError(f"{origin}{line}: cannot be read: {error}") from error
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise PolicyError(f"{origin}: cannot be read: {error}") from error


_PATH = re.compile(r"at `\$\.?(?P<path>[^`]*)`")
_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`")


class Places:
    """Where the values of a policy's text stand."""

    def __init__(self, text: str) -> None:
        text = text.removeprefix("\ufeff")
        self._lines = {} if text.lstrip().startswith("{") else lines_of(text)

    def of(self, steps: Steps) -> str:
        """`:LINE` of a value; "" in JSON, and for the whole file."""
        line = self._lines.get(steps)
        return f":{line}" if line else ""


def _all_named(error: str, rest: Any) -> str:
    """msgspec's error with the keys that it leaves out of its path (a domain, a mailbox)."""
    named = error
    while "[...]" in named:
        steps = _Wrong.of(named.replace("[...]", "[?]", 1)).steps
        before = steps[: steps.index("[?]")]
        keys = list(_at(rest, before))
        key = next((each for each in keys if _fails_alike(error, rest, before, each)), None)
        if key is None:
            return error
        named = named.replace("[...]", f'."{key}"', 1)
        rest = _only(rest, before, key)
    return named


def _at(raw: Any, steps: Steps) -> Any:
    for step in steps:
        raw = raw[step]
    return raw


def _only(raw: Any, steps: Steps, key: str) -> Any:
    """The tables with one key alone in the table that the steps lead to."""
    if not steps:
        return {key: raw[key]}
    return {**raw, steps[0]: _only(raw[steps[0]], steps[1:], key)}


def _fails_alike(error: str, raw: Any, steps: Steps, key: str) -> bool:
    try:
        msgspec.convert(_only(raw, steps, key), PolicyFile)
    except msgspec.ValidationError as same:
        return str(same) == error
    return False


class _Wrong(msgspec.Struct, frozen=True):
    """What an error is about."""

    steps: Steps
    """The way to it; empty for the whole file."""
    missing: str | None
    """The name of a required field that is not there."""

    @classmethod
    def of(cls, error: str) -> "_Wrong":
        found = _PATH.search(error)
        steps: list[str | int] = [
            int(step[1:-1]) if re.fullmatch(r"\[[0-9]+\]", step) else step
            for step in (
                each.removeprefix('"').removesuffix('"')
                for each in re.findall(
                    r'"[^"]*"|\[[^]]*\]|[^."\[\]]+', found["path"] if found else ""
                )
            )
        ]
        if "[...]" in steps:
            return cls(tuple(steps[: steps.index("[...]")]), None)
        if unknown := _UNKNOWN_FIELD.search(error):
            steps.append(unknown[1])
        missing = re.search(r"missing required field `([^`]*)`", error)
        return cls(tuple(steps), missing[1] if missing else None)

    @property
    def table(self) -> str:
        """The table that it is in."""
        return str(self.steps if self.missing else self.steps[:-1])

    def taken_out_of(self, raw: Any) -> Any:
        """The tables without it.

        A rule that lacks something stays as one that cannot be wrong, so that those after it
        keep their places.
        """
        if self.missing and not self.steps:
            return {**raw, self.missing: {"version": 1, "rules": []}.get(self.missing)}
        return _pruned(raw, self.steps) if self.steps else raw


def _pruned(raw: Any, steps: Steps) -> Any:
    step, *rest = steps
    if isinstance(raw, list) and isinstance(step, int) and step < len(raw):
        if rest:
            inner = [_pruned(raw[step], tuple(rest))]
        else:
            inner = [_NOTHING_WRONG] if isinstance(raw[step], dict) else []
        return [*raw[:step], *inner, *raw[step + 1 :]]
    if not isinstance(raw, dict) or step not in raw:
        return raw
    if not rest:
        return {key: value for key, value in raw.items() if key != step}
    return {**raw, step: _pruned(raw[step], tuple(rest))}


_NOTHING_WRONG = {"name": "left-out", "action": "accept", "enabled": False}


def _with_mend(error: str) -> str:
    found = _PATH.search(error)
    if error.startswith("Invalid enum value") and found:
        path = re.sub(r'\[[^]]*\]|\."[^"]*"', "", found["path"])
        choices = next((kind for end, kind in _CHOICES if path.endswith(end)), ())
        return f"{error}; write one of {', '.join(choices)}" if choices else error
    unknown = _UNKNOWN_FIELD.search(error)
    if unknown is None:
        return error
    if unknown[1].lower() in _OTHER_NAMES:
        return f"{error}; it is called `{_OTHER_NAMES[unknown[1].lower()]}`"
    names = {name for section in _SECTIONS for name in section.__struct_fields__}
    close = difflib.get_close_matches(unknown[1], names, n=1, cutoff=_ALIKE)
    return f"{error}; did you mean `{close[0]}`?" if close else f"{error}; remove it"


_ALIKE = 0.7
"""By difflib's ratio: `mood` is like `mode`; `nonsense` is like no name that there is."""

_OTHER_NAMES = {
    "size": "larger_than",
    "max_size": "larger_than",
    "from": "sender",
    "mail_from": "sender",
    "to": "recipient",
    "rcpt_to": "recipient",
    "recipients": "recipient",
    "subject": "header.Subject",
    "headers": "header",
    "time": "time_of_day",
    "hours": "time_of_day",
    "state": "mailbox",
    "text": "explanation",
    "message": "explanation",
    "type": "bounce_type",
    "if": "when",
    "conditions": "when",
}
"""What a person may call it, and what it is called."""


_SECTIONS: tuple[type[msgspec.Struct], ...] = (
    PolicyFile,
    RuleSection,
    Conditions,
    SendBounceSection,
    MessageDsnSection,
    RecipientDsnSection,
    GuardsSection,
    BudgetSection,
    OneAnswerSection,
    DomainSection,
    MailboxSection,
)


# By the end of the path, the longest first.
_CHOICES: tuple[tuple[str, Iterable[str]], ...] = (
    ("recipient_dsn_fields.action", DsnAction),
    (".action", Action),
    ("bounce_type", BounceType),
    ("mode", Mode),
    ("guards.off", GuardName),
    ("mailboxes.status", ("active", "disabled")),
    ("mailboxes.separator", ('"+"', '"-"', '""')),
)


def json_schema() -> dict[str, Any]:
    """The file format as a JSON Schema, for editors and for AppConfig's validator."""
    return msgspec.json.schema(PolicyFile)


def validator_schema() -> dict[str, Any]:
    """The schema as AppConfig's validator takes it: JSON Schema draft 4, without prose."""
    compact = _without_prose(json_schema())
    return {"$schema": "http://json-schema.org/draft-04/schema#", **compact}


def _without_prose(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_prose(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    prose = {"title", "description", "default"}
    # Under `properties` and `$defs` the keys are names, which may be called like prose.
    return {
        name: {k: _without_prose(v) for k, v in value.items()}
        if name in {"properties", "$defs"}
        else _without_prose(value)
        for name, value in schema.items()
        if name not in prose
    }
