"""AWS's endpoints for a cold start: loopback, in a process of their own, answering at once.

They know no state. What they answer is enough for a mail to be accepted or bounced; each notes
what it was asked for, so that two handlers can be held to the same calls.
"""

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar
from urllib.parse import parse_qs

from bench.runtime import Server

KNOWN = "alice@example.com"
NOBODY = "nobody@example.com"
_DOMAIN = "@example.com"
_ITEMS = {
    KNOWN: {"address": {"S": KNOWN}, "quota_bytes": {"N": "1000000000"}},
    _DOMAIN: {"address": {"S": _DOMAIN}, "catch_all": {"BOOL": False}},
}


class _Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer
    disable_nagle_algorithm = True
    calls: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        target = self.headers.get("X-Amz-Target", "")
        if target.startswith("DynamoDB"):
            name = target.partition(".")[2]
            self._answer(name, json.dumps(_dynamodb(name, json.loads(body))).encode())
        elif target.startswith("AmazonSQS"):
            self._answer(target.partition(".")[2], b'{"Attributes": {}, "MessageId": "1"}')
        else:
            name = parse_qs(body.decode())["Action"][0]
            self._answer(
                name,
                b"<SendBounceResponse xmlns='http://ses.amazonaws.com/doc/2010-12-01/'>"
                b"<SendBounceResult><MessageId>bounce-1</MessageId></SendBounceResult>"
                b"</SendBounceResponse>",
            )

    def do_HEAD(self) -> None:
        self.calls.append("HeadObject")
        self.send_response(200)
        self.send_header("Content-Length", "40960")
        self.end_headers()

    def do_GET(self) -> None:
        if self.path == "/calls":
            self._answer("", json.dumps(self.calls).encode())
            self.calls.clear()
        else:
            self._answer("", b"")  # a connection is opened

    def _answer(self, name: str, body: bytes) -> None:
        if name:
            self.calls.append(name)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _dynamodb(name: str, request: Any) -> dict[str, Any]:
    match name:
        case "BatchGetItem":
            found = {
                table: [
                    _ITEMS[key["address"]["S"]]
                    for key in asked["Keys"]
                    if key.get("address", {}).get("S") in _ITEMS
                ]
                for table, asked in request["RequestItems"].items()
            }
            return {"Responses": found, "UnprocessedKeys": {}}
        case "UpdateItem" if request.get("ReturnValues") == "ALL_NEW":
            key = b64encode(bytes(32)).decode()  # the stack's, for a mail that has to be queued
            return {"Attributes": {"secret": {"B": key}}}
        case _:
            return {}


def main() -> None:
    """Serve, and print the port."""
    server = Server(("127.0.0.1", 0), _Endpoint)
    print(server.server_address[1], flush=True)
    server.serve_forever()


@contextmanager
def serving() -> Iterator[str]:
    """The endpoints' URL."""
    command = [sys.executable, "-m", "bench.endpoints"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    main()
