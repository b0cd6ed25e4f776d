"""The directory that a command works on."""

import msgspec

from bouncer.aws.mailbox_table import MailboxTable
from bouncer.mailboxes import Answer, Mailbox, answer, candidates, target_problems
from bouncer.policy.file import Mode
from bouncer.settings import attribute_names
from bouncer_console.deployment import Deployment, client, say_bad_item
from bouncer_console.mailbox.files import MailboxFileError


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The directory that a command works on."""

    table: MailboxTable
    own: bool = False
    """Whether it is a table of the user's own, which the stack only reads."""
    domains: frozenset[str] = frozenset()
    """Domains that it speaks for without an `@domain` entry."""
    live: bool = False
    """Whether the stack bounces by it at this moment."""

    @classmethod
    def find(
        cls, table: str | None, stack: str, region: str | None, attributes: str | None = None
    ) -> "Target":
        """
        Raises:
            DeploymentError: no such stack here.
        """
        if table:
            names = attribute_names(attributes or "")
            found = MailboxTable(
                client("dynamodb", region), table, names=names, on_bad_item=say_bad_item
            )
            return cls(table=found, own=bool(names))
        return cls.of(Deployment.find(stack, region))

    @classmethod
    def of(cls, deployment: Deployment) -> "Target":
        """A stack's directory."""
        return cls(
            table=deployment.mailbox_table(),
            own=deployment.own_mailbox_table,
            domains=deployment.mailbox_domains,
            live=deployment.parameters.get("Mode") == Mode.ENFORCE,
        )

    def to_write(self, own_table: bool) -> "Target":
        """
        Raises:
            MailboxFileError: it is the user's own, and nobody said that it may be written.
        """
        if self.own and not own_table:
            raise MailboxFileError(
                "the table is your own, and the stack only reads it: "
                "say --own-table to write to it all the same"
            )
        return self

    def asks(self, address: str) -> Answer:
        """Who takes the mail of an address."""
        entries = self._entries([address])
        found = answer(address, entries, self.domains)
        if found.entry and entries[found.entry].alias_for:
            entries |= self._entries([str(entries[found.entry].alias_for)])
            found = answer(address, entries, self.domains)
        return found

    def check_targets(self, mailbox: Mailbox) -> None:
        """
        Raises:
            MailboxFileError: the entry leads nowhere in a domain of ours.
        """
        targets = [each for each in (mailbox.alias_for, mailbox.moved_to) if each]
        if targets:
            entries = self._entries(targets) | {mailbox.address: mailbox}
            for problem in target_problems(mailbox, entries, self.domains):
                raise MailboxFileError(problem)

    def speaks_for(self, key: str) -> bool:
        return key[1:] in self.domains or bool(self.table.get([key]))

    def knows_nobody_unknown(self, key: str, standing: Mailbox | None) -> bool:
        """Whether no address of a domain is unknown.

        Args:
            standing: the domain's `@domain` entry, if it has one.
        """
        return standing.catch_all if standing else key[1:] not in self.domains

    def _entries(self, addresses: list[str]) -> dict[str, Mailbox]:
        return self.table.get([key for each in addresses for key in candidates(each)])
