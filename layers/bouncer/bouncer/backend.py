"""What every backend's failure has in common: nothing was decided, so a retry may decide it."""


class BackendUnavailableError(Exception):
    """A backend did not answer, or answered that it can't now. It never becomes a bounce.

    Each port has its own kind of it: LedgerUnavailableError, QueueUnavailableError, …
    """


class OutOfTimeError(BackendUnavailableError):
    """The backend was not asked (again): its answer could not be awaited before the deadline."""
