"""An event of several mails; what the environment says; parts that are made once."""

from typing import Any

import pytest

from bouncer.aws import clients
from bouncer.settings import SettingsError
from functions.inbound import app
from tests.fakes.bounces import NOBODY
from tests.integration.builders import ALICE, put_mail, put_mailbox, ses_event
from tests.integration.inbound.site import AppConfig, Site


def both(first: Any, second: Any) -> dict[str, Any]:
    return {"Records": [*first["Records"], *second["Records"]]}


def test_of_two_mails_the_one_that_must_go_on_decides(site: Site) -> None:
    put_mailbox(site.dynamodb)
    put_mail(site.s3, "msg2")
    refused = ses_event(NOBODY, message_id="msg1")
    accepted = ses_event(ALICE, message_id="msg2")
    assert site.handle(both(refused, accepted)) == "CONTINUE"
    assert site.state() == "sent"


def test_two_refused_mails_stop(site: Site) -> None:
    first, second = ses_event(message_id="msg1"), ses_event(message_id="msg2")
    assert site.handle(both(first, second)) == "STOP_RULE_SET"
    assert len(site.ses.calls) == 2


def test_without_its_environment_the_function_says_what_is_missing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOUNCE_SENDER")
    app.application.cache_clear()
    with pytest.raises(SettingsError, match="BOUNCE_SENDER"):
        site.mail(NOBODY)


def test_the_parts_are_put_together_once_a_container(site: Site) -> None:
    site.mail(NOBODY, message_id="msg1")
    first = app.application()
    site.mail(NOBODY, message_id="msg2")
    assert app.application() is first


def test_the_policy_may_come_from_appconfig(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "appconfigdata", AppConfig)
    site.configure(POLICY_APPLICATION="app", POLICY_ENVIRONMENT="live", POLICY_PROFILE="policy")
    assert site.mail(NOBODY) == "STOP_RULE_SET"
    assert site.printed.counts == {"RecipientDropped:nothing-today": 1}
