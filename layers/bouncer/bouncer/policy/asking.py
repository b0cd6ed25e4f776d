"""All recipients of a mail asked at once: what a rule asks costs one answer, not one a recipient.

A set of recipients is an int with a bit for each. What they have in common (an address, a domain,
a mailbox's state, a limit) is found out once a mail, for all rules; a rule then compares sets.
The tests of `conditions` answer the same for one recipient alone, with names to tell of: a
property test holds that both agree.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from bouncer.address import normalise, split
from bouncer.mailboxes import MailboxState
from bouncer.message import InboundMessage
from bouncer.policy import conditions as when
from bouncer.policy.conditions import AddressPattern, Conditions, Facts, SizeNeeded


class Answers(NamedTuple):
    """What a condition is for each recipient; who is in none of the three, nobody knows."""

    yes: int
    no: int
    needs: int = 0
    """It depends on the size, which nobody has looked up."""


class Recipients:
    """The recipients of one mail, and what is known of them."""

    def __init__(self, facts: Sequence[Facts]) -> None:
        self.facts = facts
        self.everybody = (1 << len(facts)) - 1
        self._states: dict[MailboxState, Answers] = {}

    def only(self, some: int) -> list[Facts]:
        return [fact for at, fact in enumerate(self.facts) if some >> at & 1]

    @cached_property
    def by_address(self) -> dict[str, int]:
        """By normalised address: the set of those who have it."""
        found: dict[str, int] = {}
        for at, fact in enumerate(self.facts):
            address = normalise(fact.recipient)
            found[address] = found.get(address, 0) | 1 << at
        return found

    @cached_property
    def by_domain(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for address, its in self.by_address.items():
            domain = split(address)[1]
            found[domain] = found.get(domain, 0) | its
        return found

    @cached_property
    def by_sizes(self) -> dict[tuple[int | None, bool, int | None], int]:
        """By the mail's size, whether it was asked for, and the mailbox's own limit."""
        found: dict[tuple[int | None, bool, int | None], int] = {}
        for at, fact in enumerate(self.facts):
            own = fact.mailbox.size_limit_bytes if fact.mailbox is not None else None
            key = (fact.size, fact.size_asked, own)
            found[key] = found.get(key, 0) | 1 << at
        return found

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(filter(str.isascii, self.by_address))

    @cached_property
    def _beyond_ascii(self) -> list[str]:
        """Without regard to case, a letter of theirs may be an ASCII one, as the Kelvin sign is."""
        return [each for each in self.by_address if not each.isascii()]

    def matching(self, pattern: AddressPattern) -> int:
        if pattern.address is not None:
            return self.by_address.get(pattern.address, 0)
        if pattern.domain is not None:
            return self.by_domain.get(pattern.domain, 0)
        begin = bisect_left(self._sorted, pattern.prefix)
        found = 0
        for address in self._sorted[begin:]:
            if not address.startswith(pattern.prefix):
                break
            if pattern.matches(address):
                found |= self.by_address[address]
        for address in self._beyond_ascii:
            if pattern.matches(address):
                found |= self.by_address[address]
        return found

    def in_state(self, state: MailboxState) -> Answers:
        if state not in self._states:
            self._states[state] = self.each(lambda fact: fact.has_state(state))
        return self._states[state]

    def each(self, test: Callable[[Facts], bool | None]) -> Answers:
        """What a test says of each; what it raises over one of them is unknown of that one only."""
        yes = no = needs = 0
        for at, fact in enumerate(self.facts):
            answer = None
            try:
                answer = test(fact)
            except SizeNeeded:
                needs |= 1 << at
            except Exception:  # noqa: BLE001, S110  (whatever a mail makes it raise, nobody knows)
                pass
            if answer:
                yes |= 1 << at
            elif answer is not None:
                no |= 1 << at
        return Answers(yes, no, needs)


type Question = Callable[[Recipients], Answers]


class Asked(NamedTuple):
    """A condition about recipients, for all of them."""

    question: Question
    wanted: bool
    """The answer by which it holds."""
    test: when.RecipientTest
    """The same for one recipient."""

    def holds(self, mail: InboundMessage, recipients: Recipients) -> tuple[int, int]:
        """For whom it holds or may hold, and for whom of them the size says which."""
        try:
            answers = self.question(recipients)
        except Exception:  # noqa: BLE001  (one recipient must not be another's answer)
            answers = recipients.each(lambda fact: self.test(mail, fact))
        return (answers.yes if self.wanted else answers.no) | answers.needs, answers.needs


def compile_recipients(when_: Conditions, unless: Conditions) -> tuple[Asked, ...]:
    """A rule's conditions about recipients; the one that costs most is last."""
    makers: dict[str, Callable[[Any], Question]] = {
        "recipient": _recipient,
        "mailbox": _mailbox,
        "larger_than": _larger_than,
    }
    return tuple(
        Asked(makers[name](getattr(given, name)), wanted, test)
        for given, wanted in ((when_, True), (unless, False))
        for name, test in when.compile_recipient_tests(given).items()
    )


def _recipient(value: Any) -> Question:
    patterns = [when.address_pattern(each) for each in when.listed(value, "recipient")]

    def question(recipients: Recipients) -> Answers:
        yes = 0
        for pattern in patterns:
            yes |= recipients.matching(pattern)
        return Answers(yes, recipients.everybody & ~yes)

    return question


def _mailbox(value: Any) -> Question:
    states = [MailboxState(each) for each in when.listed(value, "mailbox")]

    def question(recipients: Recipients) -> Answers:
        yes, no, needs = 0, recipients.everybody, 0
        for state in states:
            answers = recipients.in_state(state)
            yes, no, needs = yes | answers.yes, no & answers.no, needs | answers.needs
        return Answers(yes, no, needs & ~yes)

    return question


def _larger_than(value: Any) -> Question:
    own, fixed = when.size_limits(value)

    def question(recipients: Recipients) -> Answers:
        yes = no = needs = 0
        for (size, asked, mailboxes), its in recipients.by_sizes.items():
            limit = when.smaller(fixed, mailboxes if own else None)
            if limit is None:
                no |= its
            elif not asked:
                needs |= its
            elif size is not None:
                if size > limit:
                    yes |= its
                else:
                    no |= its
        return Answers(yes, no, needs)

    return question
