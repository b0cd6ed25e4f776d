"""Where the policy comes from: the file deployed with the function, or AppConfig."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bouncer.policy.conditions import PolicyError
from bouncer.policy.decide import Policy
from bouncer.policy.load import load, load_file

if TYPE_CHECKING:
    from mypy_boto3_appconfigdata import AppConfigDataClient

REFRESH_SECONDS = 60
RETRY_SECONDS = 15
"""So long the last good policy serves after a refresh that failed: mails do not wait in turn."""


class FilePolicy:
    """The deployed file, read once: at init, or when it is asked for, which tells what is wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._policy: Policy | None = None
        with contextlib.suppress(PolicyError, OSError):
            self()

    def __call__(self) -> Policy:
        if self._policy is None:
            self._policy = load_file(self._path)
        return self._policy


class AppConfigPolicy:
    """The policy in AppConfig, asked for again every minute while the function is warm."""

    def __init__(
        self,
        client: "AppConfigDataClient",
        *,
        application: str,
        environment: str,
        profile: str,
        on_failure: Callable[[Exception], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            on_failure: told why the last good policy stays.
            clock: epoch seconds; it goes on while a function is frozen.
        """
        from aws_lambda_powertools.utilities.parameters import AppConfigProvider  # noqa: PLC0415  (most stacks need none)

        # With a session of its own: a poll token is good for one call.
        def new_session() -> AppConfigProvider:
            return AppConfigProvider(
                environment=environment, application=application, boto3_client=client
            )

        self._new_session = new_session
        self._provider = self._new_session()
        self._profile = profile
        self._on_failure = on_failure
        self._clock = clock
        self._failed_at = float("-inf")
        self._content: object = None
        self._policy: Policy | None = None

    def __call__(self) -> Policy:
        """
        Raises:
            Exception: there is no good policy yet; the event is kept and tried again.
        """
        since = self._clock() - self._failed_at
        if self._policy is not None and 0 <= since < RETRY_SECONDS:
            return self._policy
        try:
            content = self._read()
            if content != self._content or self._policy is None:
                text = content.decode("utf-8") if isinstance(content, bytes) else str(content)
                self._policy = load(text, f"AppConfig profile {self._profile}")
                self._content = content
        except Exception as error:
            if self._policy is None:
                raise
            self._failed_at = self._clock()
            self._on_failure(error)
        return self._policy

    def _read(self) -> object:
        try:
            return self._provider.get(self._profile, max_age=REFRESH_SECONDS)
        except Exception:
            # The call may have been answered, and its token used up with it, though the answer
            # was lost: every later call with that token would be refused.
            self._provider = self._new_session()
            raise
