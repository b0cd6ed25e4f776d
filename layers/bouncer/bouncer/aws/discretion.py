"""How addresses stand in what a function says: its log, and the error that leaves it.

An address that we print on purpose has the form that the setting asks for. What others have
written (an exception's words, a library's line) may name anybody, in any spelling: unless
everything may be told, it is not printed at all, and an error tells its type, AWS's code and where
it was raised.
"""

import json
import logging
import os
import re
import secrets
from collections.abc import Callable
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bouncer.pseudonym import pseudonym
from bouncer.settings import LogAddresses

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger
    from aws_lambda_powertools.utilities.typing import LambdaContext

type Handler[T] = Callable[[dict[str, Any], "LambdaContext"], T]

# Anything around an @ that could be an address: quoted, percent-encoded, or in another script too.
_ADDRESS = re.compile(
    r"""(?:"[^"@]{0,64}"|[^\s"'<>()\[\],;:@]{1,254})(?:@|%40)[^\s"'<>()\[\],;@]{1,254}"""
)
_CODE = re.compile(r"[A-Za-z0-9.]{1,80}")
_CAUSES = 4
_ADDRESS_LIMIT = 320
_TEXT_LIMIT = 20_000


class Discretion:
    """Says of addresses, errors and lines what may be printed."""

    def __init__(
        self,
        addresses: LogAddresses,
        key: Callable[[], bytes] = lambda: secrets.token_bytes(32),
    ) -> None:
        """
        Args:
            key: the stack's, which hashes are made with; asked for once, when it is needed. The
                default is good for this process only.
        """
        self.full = addresses is LogAddresses.FULL
        self._addresses = addresses
        self._key = cache(key)

    def address(self, address: str) -> str | None:
        """An address, a host or a Message-ID, as it may stand in a field of its own."""
        match self._addresses:
            case LogAddresses.FULL:
                return address[:_ADDRESS_LIMIT]
            case LogAddresses.NONE:
                return None
            case LogAddresses.HASH:
                try:
                    key = self._key()
                except (ClientError, BotoCoreError):
                    return None  # better no hash than one that anybody could undo
                return pseudonym(address, key)

    def words(self, said: str | BaseException) -> str | None:
        """What somebody else has written, as far as it may be printed."""
        if isinstance(said, str):
            return said if self.full else None
        return f"{type(said).__name__}: {said}" if self.full else _kind(said)

    def code(self, code: str) -> str:
        """AWS's code of an error, which nothing keeps from being a text."""
        return code if self.full or not code or _CODE.fullmatch(code) else "?"

    def line(self, line: Any) -> Any:
        """A log line, or a part of it: the last net under what should have gone through us."""
        if self.full or isinstance(line, bool | int | float | None):
            return line
        if isinstance(line, dict):
            return {self.line(name): self.line(each) for name, each in line.items()}
        if isinstance(line, list | tuple):
            return [self.line(each) for each in line]
        text = str(line)[:_TEXT_LIMIT]  # the pattern looks back 254 characters at each
        if "@" not in text and "%40" not in text:
            return text
        return _ADDRESS.sub(lambda found: self.address(found[0]) or "(address)", text)

    def hold(self, logger: "Logger") -> None:
        """Let nothing be logged past us, neither by this logger nor by what else runs here."""
        formatter: Any = logger.registered_formatter  # its type leaves the serializer out
        formatter.json_serializer = lambda line: json.dumps(
            self.line(line), default=str, ensure_ascii=False
        )
        logging.captureWarnings(capture=True)
        for handler in (logger.registered_handler, *logging.getLogger().handlers):
            for each in [each for each in handler.filters if isinstance(each, _Net)]:
                handler.removeFilter(each)
            handler.addFilter(_Net(self, logger.name))


class _Net(logging.Filter):
    """Takes the words out of what is logged with an exception, and out of others' lines."""

    def __init__(self, discretion: Discretion, ours: str) -> None:
        super().__init__()
        self._discretion, self._ours = discretion, ours

    def filter(self, record: logging.LogRecord) -> bool:
        if self._discretion.full:
            return True
        if record.exc_info and record.exc_info[1] is not None:
            error = _without_words(record.exc_info[1])
            record.exc_info, record.exc_text = (type(error), error, error.__traceback__), None
        if record.name != self._ours:
            # A library's own words, without those that it was given; warnings consist of such.
            of_python = record.name == "py.warnings"
            record.msg = "a warning" if of_python else self._discretion.line(str(record.msg))
            record.args = None
        return True


def _kind(error: BaseException) -> str:
    """An error's type, with AWS's code, and what it came from."""
    kinds: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(kinds) < _CAUSES:
        kind = type(cause).__name__
        if isinstance(cause, ClientError):
            code = str(cause.response.get("Error", {}).get("Code", ""))
            kind += f" {code if _CODE.fullmatch(code) else '?'} at {cause.operation_name}"
        kinds.append(kind)
        cause = cause.__cause__ or cause.__context__
    return ", by ".join(kinds)


def _without_words(error: BaseException) -> BaseException:
    """An error of the same name, raised in the same place, with no words but its kind's."""
    named: type[Exception] = type(type(error).__name__, (Exception,), {})
    return named(_kind(error)).with_traceback(error.__traceback__)


def entry[T](logger: "Logger") -> Callable[[Handler[T]], Handler[T]]:
    """The outermost frame of a function: Lambda prints the error that leaves it, keeps it with a
    dead letter, and puts it in the trace.
    """

    def decorate(handler: Handler[T]) -> Handler[T]:
        # An event is never logged, whatever POWERTOOLS_LOGGER_LOG_EVENT says.
        told = logger.inject_lambda_context(handler, log_event=False)

        @wraps(handler)
        def outermost(event: dict[str, Any], context: "LambdaContext") -> T:
            try:
                answer: T = told(event, context)
            except Exception as error:
                if os.environ.get("LOG_ADDRESSES", LogAddresses.FULL) == LogAddresses.FULL:
                    raise
                raise _without_words(error) from None
            return answer

        return outermost

    return decorate
