"""What CloudWatch counts by itself on AWS: metrics in log lines (EMF), and the queues' ages.

ministack counts invocations itself, and reads no metric out of a log line.
"""

import threading
import time
from typing import Any

from ministack.services import cloudwatch, lambda_svc, sqs

from local.aws import emf

_QUEUES_EVERY_SECONDS = 10.0
"""SQS tells CloudWatch once a minute; whoever looks at this machine is less patient."""


def install(ended: threading.Event) -> None:
    """Lay it over ministack, once, before the server starts.

    Args:
        ended: set when the server ends.
    """
    plain = lambda_svc._emit_lambda_logs

    def emit(func: dict[str, Any], request_id: str, log: str, *rest: Any, **more: Any) -> None:
        plain(func, request_id, log, *rest, **more)
        for datum in emf.read(log):
            cloudwatch._store_datum(
                datum.namespace,
                datum.name,
                datum.dimensions,
                datum.at,
                datum.unit,
                datum.value,
                None,
                None,
                None,
            )

    lambda_svc._emit_lambda_logs = emit
    threading.Thread(target=_watch_queues, args=(ended,), name="queues", daemon=True).start()


def _watch_queues(ended: threading.Event) -> None:
    while not ended.wait(_QUEUES_EVERY_SECONDS):
        now = time.time()
        for url, queue in list(sqs._queues.items()):
            messages = list(queue.get("messages", ()))
            dimensions = {"QueueName": url.rpartition("/")[2]}
            if not messages:
                continue  # AWS tells of a queue that nobody uses nothing either
            oldest = now - min(each.get("sent_at", now) for each in messages)
            visible = sum(each.get("visible_at", 0) <= now for each in messages)
            for name, value, unit in (
                ("ApproximateAgeOfOldestMessage", oldest, "Seconds"),
                ("ApproximateNumberOfMessagesVisible", visible, "Count"),
            ):
                cloudwatch.record_metric("AWS/SQS", name, value, unit, dimensions)
