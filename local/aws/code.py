"""A function's code at an address that lets out only this, for ten minutes, as Lambda's does.

https://docs.aws.amazon.com/lambda/latest/api/API_FunctionCodeLocation.html; ministack's address is
one that anybody could make.
"""

import hashlib
import hmac
import time
from urllib.parse import parse_qs, urlencode

from ministack.core.responses import get_account_id, get_region
from ministack.services import lambda_svc

PATH = "/_local/code/"
_SECONDS = 600


class Code:
    """The code of this run's functions."""

    def __init__(self, *, port: int, key: str) -> None:
        """
        Args:
            key: this run's secret.
        """
        self._port = port
        self._key = key.encode()
        lambda_svc._presigned_code_url = self.address

    def address(self, function: str) -> str:
        """What GetFunction says."""
        path = f"{PATH}{get_account_id()}/{get_region()}/{function}"
        until = str(int(time.time()) + _SECONDS)
        query = urlencode({"Until": until, "X-Amz-Signature": self._signature(path, until)})
        return f"http://127.0.0.1:{self._port}{path}?{query}"

    def at(self, path: str, query: str) -> bytes | None:
        """The archive; None for whoever has no address, or an old one."""
        given = parse_qs(query)
        until, signature = (given.get(name, [""])[0] for name in ("Until", "X-Amz-Signature"))
        expected = self._signature(path, until)
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()):
            return None
        if int(until) < time.time():
            return None
        account, region, name = path.removeprefix(PATH).split("/", 2)
        status, _, body = lambda_svc.serve_function_code(name, account_id=account, region=region)
        return bytes(body) if status == 200 else None

    def _signature(self, path: str, until: str) -> str:
        return hmac.new(self._key, f"{path} {until}".encode(), hashlib.sha256).hexdigest()
