"""The policy's two sources: the deployed file, and AppConfig with its last good one."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from aws_lambda_powertools.utilities.parameters import base
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.response import StreamingBody
from botocore.stub import Stubber
from mypy_boto3_appconfigdata import AppConfigDataClient

from bouncer.aws import clients
from bouncer.aws.policy_source import (
    REFRESH_SECONDS,
    RETRY_SECONDS,
    AppConfigPolicy,
    FilePolicy,
)
from bouncer.policy.conditions import PolicyError
from bouncer.policy.decide import Policy

GOOD = """
version = 1
[[rules]]
name = "accept"
action = "accept"
"""
OTHER = GOOD.replace('"accept"\naction', '"all-accepted"\naction')
BAD = GOOD.replace("version = 1", "version = 7")


def name_of(policy: Policy) -> str:
    return policy.shared[0].section.name


# --- The file --------------------------------------------------------------------------------


def test_the_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(GOOD)
    source = FilePolicy(path)
    first = source()
    path.unlink()
    assert source() is first


def test_a_bad_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(BAD)
    with pytest.raises(PolicyError, match=r"policy\.toml"):
        FilePolicy(path)()


def test_a_file_that_is_not_utf_8_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(GOOD.encode() + b"# caf\xe9\n")
    with pytest.raises(PolicyError, match=r"policy\.toml is not UTF-8: save it as UTF-8"):
        FilePolicy(path)()


# --- AppConfig -------------------------------------------------------------------------------


class AppConfig:
    """A policy in AppConfig: what it is asked, what it answers, and the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures: list[Exception] = []
        client: AppConfigDataClient = clients.appconfigdata()
        self.stubber = Stubber(client)
        self.policy = AppConfigPolicy(
            client,
            application="app",
            environment="live",
            profile="policy",
            on_failure=self.failures.append,
            clock=lambda: float(self._seconds),
        )
        self._seconds = 0
        monkeypatch.setattr(base, "datetime", _Clock(self))
        self._answers = 0
        self.begins_session()

    def begins_session(self) -> None:
        """The next request begins one; its token is good for one call."""
        self.stubber.add_response(
            "start_configuration_session",
            {"InitialConfigurationToken": f"token-{self._answers}"},
            {
                "ApplicationIdentifier": "app",
                "EnvironmentIdentifier": "live",
                "ConfigurationProfileIdentifier": "policy",
            },
        )

    def answers(self, content: str) -> None:
        """To the next poll; an empty text says that nothing has changed."""
        data = content.encode()
        self.stubber.add_response(
            "get_latest_configuration",
            {
                "NextPollConfigurationToken": f"token-{self._answers + 1}",
                "Configuration": StreamingBody(BytesIO(data), len(data)),
            },
            {"ConfigurationToken": f"token-{self._answers}"},
        )
        self._answers += 1

    def fails(self) -> None:
        self.stubber.add_client_error(
            "get_latest_configuration", "InternalServerException", http_status_code=500
        )

    def pass_time(self, seconds: int) -> None:
        self._seconds += seconds


class _Clock:
    """Powertools' own, which ages what it keeps."""

    def __init__(self, owner: AppConfig) -> None:
        self._owner = owner

    def now(self) -> datetime:
        return datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=self._owner._seconds)


@pytest.fixture
def appconfig(monkeypatch: pytest.MonkeyPatch) -> Iterator[AppConfig]:
    site = AppConfig(monkeypatch)
    with site.stubber:
        yield site
    site.stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    "content",
    [GOOD, json.dumps({"version": 1, "rules": [{"name": "accept", "action": "accept"}]})],
    ids=["TOML", "JSON"],
)
def test_the_policy_comes_from_appconfig(appconfig: AppConfig, content: str) -> None:
    appconfig.answers(content)
    assert name_of(appconfig.policy()) == "accept"


def test_within_a_minute_nobody_is_asked_again(appconfig: AppConfig) -> None:
    appconfig.answers(GOOD)
    first = appconfig.policy()
    appconfig.pass_time(REFRESH_SECONDS - 1)
    assert appconfig.policy() is first


def test_after_a_minute_a_new_policy_holds(appconfig: AppConfig) -> None:
    appconfig.answers(GOOD)
    appconfig.answers(OTHER)
    assert name_of(appconfig.policy()) == "accept"
    appconfig.pass_time(REFRESH_SECONDS + 1)
    assert name_of(appconfig.policy()) == "all-accepted"
    assert appconfig.failures == []


def test_an_unchanged_policy_is_not_read_again(appconfig: AppConfig) -> None:
    appconfig.answers(GOOD)
    appconfig.answers("")
    first = appconfig.policy()
    appconfig.pass_time(REFRESH_SECONDS + 1)
    assert appconfig.policy() is first


def test_an_invalid_policy_keeps_the_last_good_one_and_is_reported(appconfig: AppConfig) -> None:
    appconfig.answers(GOOD)
    appconfig.answers(BAD)
    first = appconfig.policy()
    appconfig.pass_time(REFRESH_SECONDS + 1)
    assert appconfig.policy() is first
    (why,) = appconfig.failures
    assert isinstance(why, PolicyError)
    assert str(why).startswith("AppConfig profile policy")


def test_a_good_policy_after_an_invalid_one_holds(appconfig: AppConfig) -> None:
    for content in (GOOD, BAD, OTHER):
        appconfig.answers(content)
        policy = appconfig.policy()
        appconfig.pass_time(REFRESH_SECONDS + 1)
    assert name_of(policy) == "all-accepted"


def test_an_appconfig_that_fails_keeps_the_last_good_one_and_is_reported(
    appconfig: AppConfig,
) -> None:
    appconfig.answers(GOOD)
    first = appconfig.policy()
    appconfig.fails()
    appconfig.pass_time(REFRESH_SECONDS + 1)
    assert appconfig.policy() is first
    (why,) = appconfig.failures
    assert type(why).__name__ == "GetParameterError"


def test_without_any_good_policy_an_invalid_one_is_an_error(appconfig: AppConfig) -> None:
    appconfig.answers(BAD)
    with pytest.raises(PolicyError):
        appconfig.policy()
    assert appconfig.failures == []


def test_without_any_good_policy_an_appconfig_that_fails_is_an_error(
    appconfig: AppConfig,
) -> None:
    appconfig.fails()
    with pytest.raises(GetParameterError):
        appconfig.policy()


def test_after_an_error_the_first_good_policy_holds(appconfig: AppConfig) -> None:
    appconfig.fails()
    with pytest.raises(GetParameterError):
        appconfig.policy()
    appconfig.begins_session()
    appconfig.answers(GOOD)
    assert name_of(appconfig.policy()) == "accept"


def test_after_a_lost_answer_the_used_up_token_is_not_tried_again(appconfig: AppConfig) -> None:
    appconfig.answers(GOOD)
    appconfig.policy()
    appconfig.fails()
    appconfig.pass_time(REFRESH_SECONDS + 1)
    assert name_of(appconfig.policy()) == "accept"
    appconfig.begins_session()
    appconfig.answers(OTHER)
    appconfig.pass_time(RETRY_SECONDS)
    assert name_of(appconfig.policy()) == "all-accepted"


def test_a_refresh_that_failed_is_not_tried_by_every_mail(appconfig: AppConfig) -> None:
    appconfig.answers(GOOD)
    first = appconfig.policy()
    appconfig.fails()
    appconfig.pass_time(REFRESH_SECONDS + 1)
    for _ in range(RETRY_SECONDS):
        assert appconfig.policy() is first
        appconfig.pass_time(1)
    assert len(appconfig.failures) == 1
    appconfig.begins_session()
    appconfig.answers(OTHER)
    assert name_of(appconfig.policy()) == "all-accepted"
