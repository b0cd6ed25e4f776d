"""SES's end of SendBounce, as a process of its own: it notes when each call arrives.

It answers in AWS's error shape, and as told it fails: with a 5xx, by throttling, or by sending
the bounce and losing the answer.
"""

import asyncio
import json
import random
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs

_OK = """<SendBounceResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><SendBounceResult>\
<MessageId>{id}</MessageId></SendBounceResult><ResponseMetadata><RequestId>r</RequestId>\
</ResponseMetadata></SendBounceResponse>"""
_ERROR = """<ErrorResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><Error>\
<Type>{kind}</Type><Code>{code}</Code><Message>as told</Message></Error>\
<RequestId>r</RequestId></ErrorResponse>"""


class Receiver:
    def __init__(self, log: Path, *, failing: float, throttling: float, losing: float) -> None:
        self._log = log.open("a", buffering=1)
        self._failing = failing
        self._throttling = throttling
        self._losing = losing
        self._random = random.Random(1)
        self._count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                arrived = time.monotonic()
                length = _content_length(head)
                body = await reader.readexactly(length)
                if not head.startswith(b"POST"):
                    _answer(writer, 404, "")
                elif not self._call(writer, body, arrived):
                    writer.close()
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _call(self, writer: asyncio.StreamWriter, body: bytes, arrived: float) -> bool:
        """Answer a call; False closes the connection without a word."""
        form = parse_qs(body.decode())
        message_id = form["OriginalMessageId"][0]
        luck = self._random.random()
        outcome = "sent"
        if luck < self._failing:
            outcome = "failed"
        elif luck < self._failing + self._throttling:
            outcome = "throttled"
        elif luck < self._failing + self._throttling + self._losing:
            outcome = "answer-lost"
        self._count += 1
        print(json.dumps([arrived, message_id, outcome]), file=self._log)
        if outcome == "sent":
            _answer(writer, 200, _OK.format(id=f"b-{self._count}"))
        elif outcome == "failed":
            _answer(writer, 503, _ERROR.format(kind="Receiver", code="ServiceUnavailable"))
        elif outcome == "throttled":
            _answer(writer, 400, _ERROR.format(kind="Sender", code="Throttling"))
        return outcome != "answer-lost"


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _answer(writer: asyncio.StreamWriter, status: int, body: str) -> None:
    data = body.encode()
    writer.write(
        b"HTTP/1.1 %d X\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n"
        % (status, len(data))
        + data
    )


async def main(port: int, log: str, failing: float, throttling: float, losing: float) -> None:
    receiver = Receiver(Path(log), failing=failing, throttling=throttling, losing=losing)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", port)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    _, port, log, failing, throttling, losing = sys.argv
    asyncio.run(main(int(port), log, float(failing), float(throttling), float(losing)))
