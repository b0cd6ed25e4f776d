"""Questions that take longer than anybody looks at an empty page."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent import futures
from concurrent.futures import Future
from typing import Any

_KEPT = 32
_AT_ONCE = 4
_FRESH_SECONDS = 60.0


class Job[Answer]:
    """One question, asked in a thread of its own."""

    def __init__(self, work: "Callable[[Callable[[str], None]], Answer]") -> None:
        self.progress = ""
        self.started = time.monotonic()
        self.ended: float | None = None
        self._work = work
        self._outcome: Future[Answer] = Future()

    @property
    def done(self) -> bool:
        return self._outcome.done()

    @property
    def seconds(self) -> float:
        """How long it takes, or took."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def failed(self) -> bool:
        return self.done and self._outcome.exception() is not None

    def wait(self, seconds: float) -> None:
        futures.wait([self._outcome], seconds)

    def answer(self) -> Answer:
        """The answer of a job that is done; raises what the work raised."""
        return self._outcome.result(0)

    def run(self) -> None:
        try:
            answer = self._work(self._says)
        except Exception as error:  # noqa: BLE001  (raised again where the answer is asked for)
            self.ended = time.monotonic()
            self._outcome.set_exception(error)
        else:
            self.ended = time.monotonic()
            self._outcome.set_result(answer)

    def _says(self, progress: str) -> None:
        self.progress = progress


class Jobs:
    """The questions of this run; who asks the same again meets the same answer for a minute."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[tuple[Hashable, ...], Job[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._turn = threading.Semaphore(_AT_ONCE)

    def ask[Answer](
        self,
        key: tuple[Hashable, ...],
        work: "Callable[[Callable[[str], None]], Answer]",
        *,
        fresh: float = _FRESH_SECONDS,
        wait: float = 1.0,
    ) -> Job[Answer]:
        """The job of that key, started unless it is under way or its answer is fresh.

        Args:
            work: is given a function to say how far it is.
            fresh: seconds for which an answer holds; more than a page waits before it comes again.
            wait: seconds that may be waited for it here.
        """
        with self._lock:
            job = self._jobs.get(key)
            stale = job is not None and job.ended and time.monotonic() - job.ended > fresh
            if job is None or stale:
                job = Job(work)
                self._jobs[key] = job
                threading.Thread(target=self._in_turn, args=(job,), daemon=True).start()
            self._jobs.move_to_end(key)
            while len(self._jobs) > _KEPT:
                self._jobs.popitem(last=False)
        job.wait(wait)
        if job.failed:
            with self._lock:  # whoever asks again, tries again
                if self._jobs.get(key) is job:
                    del self._jobs[key]
        return job

    def forget(self, beginning: tuple[Hashable, ...]) -> None:
        """Ask anew the next time whatever has a key that begins so."""
        with self._lock:
            for key in [each for each in self._jobs if each[: len(beginning)] == beginning]:
                del self._jobs[key]

    def _in_turn(self, job: Job[Any]) -> None:
        with self._turn:
            job.run()
