"""A process that is stopped and goes on, as Lambda's are: it does what each line of its input says.

`ask` makes one request with every client that the functions have; `thaw SECONDS` follows a stop
of so long, which its monotonic clock has not seen; `call` stops of itself between the last look at
the clock and the call.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable

_running = time.monotonic


class _Clock:
    stood_still = 0.0

    def __call__(self) -> float:
        return _running() - self.stood_still


_clock = _Clock()
time.monotonic = _clock  # before anybody keeps the real one

from bouncer.aws import clients
from bouncer.aws.send_bounce import SesSendBounce
from bouncer.delivery.send_bounce import TryAgainError
from tests.fakes.bounces import bounce


def _say(what: str) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _stops() -> None:
    """Until somebody lets it go on; its monotonic clock stands still meanwhile."""
    began = _running()
    os.kill(os.getpid(), signal.SIGSTOP)
    _clock.stood_still += _running() - began


def _call(sender: SesSendBounce, turn: Callable[[], None]) -> str:
    try:
        sender.warm()
        return sender.send(bounce(), turn)
    except TryAgainError as error:
        return f"answer lost: {error.answer_lost}"


def main() -> None:
    dynamodb, s3, sqs = clients.dynamodb(), clients.s3(), clients.sqs()
    appconfig = clients.appconfigdata()
    sender = SesSendBounce(clients.ses())
    for line in sys.stdin:
        verb, _, argument = line.strip().partition(" ")
        if verb == "thaw":
            _clock.stood_still += float(argument)
            _say("thawed")
            continue
        if verb == "call":
            _say(_call(sender, _stops))
            continue
        dynamodb.get_item(TableName="table", Key={"pk": {"S": "x"}})
        s3.head_object(Bucket="bucket", Key="key")
        sqs.get_queue_attributes(QueueUrl="http://queue/x", AttributeNames=["All"])
        appconfig.start_configuration_session(
            ApplicationIdentifier="a", EnvironmentIdentifier="e", ConfigurationProfileIdentifier="p"
        )
        _say(_call(sender, lambda: None))


main()
