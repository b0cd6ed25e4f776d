"""A process that is stopped and goes on, as Lambda's are: it does what each line of its input says.

`ask` makes one request with every client that the functions have; `thaw SECONDS` follows a stop
of so long, which its monotonic clock has not seen.
"""

import json
import sys
import time

_running = time.monotonic
_stood_still = 0.0


def _monotonic() -> float:
    return _running() - _stood_still


time.monotonic = _monotonic  # before anybody keeps the real one

from bouncer.aws import clients
from bouncer.aws.send_bounce import SesSendBounce
from bouncer.delivery.send_bounce import TryAgainError
from tests.fakes.bounces import bounce


def _say(what: str) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    global _stood_still  # noqa: PLW0603  (there is one clock a process)
    dynamodb, s3, sqs = clients.dynamodb(), clients.s3(), clients.sqs()
    appconfig = clients.appconfigdata()
    sender = SesSendBounce(clients.ses())
    for line in sys.stdin:
        verb, _, argument = line.strip().partition(" ")
        if verb == "thaw":
            _stood_still += float(argument)
            _say("thawed")
            continue
        dynamodb.get_item(TableName="table", Key={"pk": {"S": "x"}})
        s3.head_object(Bucket="bucket", Key="key")
        sqs.get_queue_attributes(QueueUrl="http://queue/x", AttributeNames=["All"])
        appconfig.start_configuration_session(
            ApplicationIdentifier="a", EnvironmentIdentifier="e", ConfigurationProfileIdentifier="p"
        )
        try:
            sender.warm()
            answer = sender.send(bounce(), lambda: None)
        except TryAgainError as error:
            answer = f"answer lost: {error.answer_lost}"
        _say(answer)


main()
