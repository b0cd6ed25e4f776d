"""The function, with a directory that speaks for its domain."""

import pytest

from tests.integration.builders import SesServer, know_domain
from tests.integration.conftest import Printed, Services
from tests.integration.inbound.site import Site


@pytest.fixture
def site(
    monkeypatch: pytest.MonkeyPatch, services: Services, ses_server: SesServer, printed: Printed
) -> Site:
    know_domain(services.dynamodb)
    return Site(monkeypatch, services, ses_server, printed)
