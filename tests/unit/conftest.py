"""The same examples every time, so that a red build is red again on the next machine."""

from hypothesis import HealthCheck, settings

from tests.soak import many

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=many(25, soak=1000),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")
