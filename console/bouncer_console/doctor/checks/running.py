"""What runs: mode, queues, pace, clock, alarms."""

from bouncer.policy.file import Mode
from bouncer_console.doctor.account import (
    Account,
    Queue,
    Unread,
)
from bouncer_console.doctor.finding import (
    Checks,
    Result,
    deployed,
    read,
    right,
    some,
    warning,
    wrong,
)

CHECKS = Checks()


@CHECKS.named("mode")
def _mode(account: Account) -> Result:
    mode = deployed(account).parameters.get("Mode", Mode.OBSERVE)
    if mode == Mode.ENFORCE:
        return right("enforce: bounces are sent, refused mail stops")
    refused = account.would_refuse
    seen = "" if isinstance(refused, Unread) else f"; {refused:.0f} recipients refused in 24 hours"
    return warning(
        f"observe: everything is decided and logged, nothing is sent or stopped{seen}",
        "is one of them a mailbox of yours? bouncer report names them; when nobody is: "
        "bouncer mode enforce",
    )


@CHECKS.named("queue")
def _queue(account: Account) -> Result:
    waiting = read(account.queues).get("BounceQueue", Queue(messages=0))
    hours = (waiting.oldest_seconds or 0) / 3600
    text = f"{waiting.messages} bounces wait, the oldest for {hours:.1f} hours"
    if hours > 6 or waiting.messages > 20_000:
        return warning(text, "see what is attacked: docs/operations.md, In a flood")
    return right(text)


@CHECKS.named("dead-letters")
def _dead_letters(account: Account) -> Result:
    dead = {
        name: each.messages
        for name, each in read(account.queues).items()
        if name.endswith("DeadLetterQueue") and each.messages
    }
    if not dead:
        return right("no dead letters")
    counts = [f"{name} {count}" for name, count in dead.items()]
    return warning(f"dead letters: {some(counts)}", "bouncer redrive shows them")


@CHECKS.named("limiter")
def _limiter(account: Account) -> Result:
    slot = read(account.next_slot)
    if slot is None:
        return right("no bounce was sent yet")
    ahead = slot - account.now.timestamp()
    if ahead > 600:
        return warning(
            f"the next slot is {ahead:.0f} s ahead: somebody's clock was wrong",
            "it repairs itself with the next bounce; look for SlotRepaired in the log",
        )
    return right(f"the next slot is {'free' if ahead <= 0 else f'in {ahead:.0f} s'}")


@CHECKS.named("pace")
def _pace(account: Account) -> Result:
    deployment = deployed(account)
    table = deployment.output("PaceTable")
    if isinstance(account.next_slot, Unread) and "ResourceNotFound" in account.next_slot.why:
        return wrong(
            f"the limiter's table {table} does not exist",
            "every bounce waits in the queue; name an existing table of this account and Region "
            "with PaceTable, or none",
        )
    interval = float(deployment.parameters.get("SendIntervalSeconds", "1"))
    neighbours = read(account.neighbours)
    apart = [each.stack for each in neighbours if each.pace_table != table]
    if apart:
        return warning(
            f"{some(apart)} here has a pace of its own: together they call SES too often",
            f"deploy all of them with PaceTable={table}",
        )
    other = [f"{n.stack} {n.interval:g} s" for n in neighbours if n.interval != interval]
    if other:
        return warning(
            f"SendIntervalSeconds is {interval:g} here, and differs in {some(other)}",
            "deploy all that share a pace with the same SendIntervalSeconds",
        )
    shared = [each.stack for each in neighbours]
    return right(f"shared with {some(shared)}" if shared else "no other stack calls SES here")


@CHECKS.named("clock")
def _clock(account: Account) -> Result:
    ahead = read(account.clock_ahead)
    if abs(ahead) <= 3:
        return right("this machine's clock agrees with AWS's")
    return warning(
        f"this machine's clock is {ahead:+.0f} s off AWS's",
        "set it: `bouncer send-bounce` would be refused a slot",
    )


@CHECKS.named("alarms")
def _alarms(account: Account) -> Result:
    deployed(account)
    alarms, silent = read(account.alarms), read(account.silent_alarms)
    ringing = [name for name, state in alarms.items() if state == "ALARM"]
    if ringing:
        return warning(f"ringing: {some(ringing)}", "docs/operations.md has a line for each")
    if not alarms:
        return warning("the stack has no alarms", "deploy again")
    if silent:
        return warning(
            f"{len(silent)} of {len(alarms)} alarms tell nobody", "deploy with AlarmTopicArn"
        )
    return right(f"{len(alarms)} alarms, none ringing")
