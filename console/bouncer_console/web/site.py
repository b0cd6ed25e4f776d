"""What every page works with: the stack, what was asked, and how an answer is made."""

import hashlib
import secrets
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NoReturn, Protocol

import anyio.to_thread
import msgspec
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from jinja2 import Environment
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from bouncer.backend import BackendUnavailableError
from bouncer.delivery.bounce import BounceError
from bouncer.message import MalformedEventError
from bouncer.policy.conditions import PolicyError
from bouncer_console import deployment as stacks
from bouncer_console.deployment import Deployment, DeploymentError
from bouncer_console.mailbox.files import MailboxFileError
from bouncer_console.output import printable
from bouncer_console.web.jobs import Job, Jobs
from bouncer_console.web.text import Url, environment

FORM_LIMIT = 256_000
"""Bytes of a POST, unless its view says otherwise."""
UPLOAD_LIMIT = 45_000_000
"""Bytes of a POST with a mail in it; SES takes 40 MB."""

_STACK_SECONDS = 60.0
"""How long the stack's outputs and parameters are taken to stay."""
_SAID = 32
_KEPT = 16

# A person looks at an empty page meanwhile: rather an error soon than an answer in a minute.
_QUICK = Config(
    connect_timeout=3,
    read_timeout=20,
    retries={"total_max_attempts": 3, "mode": "standard"},
    max_pool_connections=20,
)


class ProblemError(Exception):
    """What a person did or has to do; shown as it is."""

    def __init__(self, text: str, mend: str = "", status: int = 400) -> None:
        super().__init__(text)
        self.mend = mend
        self.status = status


class LocalBounce(msgspec.Struct, frozen=True, kw_only=True):
    """A SendBounce call that arrived at AWS on this machine."""

    at: datetime
    request: Mapping[str, Any]
    dsn: str
    """As its reader gets it; "" where the call was refused."""
    error: str
    """SES's code, or ""."""


class Local(Protocol):
    """AWS on this machine, which can be given mail."""

    def send(self, mail_from: str, recipients: Sequence[str], mail: bytes) -> str:
        """Give SES a mail.

        Returns:
            SES's id of it.

        Raises:
            ProblemError: it was not taken.
        """
        ...

    def steps(self, message_id: str) -> Mapping[str, Any] | None:
        """What the receipt rules did with a mail, as `/_local/mails` lists it."""
        ...

    def bounces(self, message_id: str) -> Sequence["LocalBounce"]:
        """What was sent because of a mail."""
        ...


class Standing(Deployment, frozen=True, kw_only=True):
    """A stack whose clients are made once, and give up soon."""

    clients: dict[str, Any] = msgspec.field(default_factory=dict)

    def client(self, service: str) -> Any:
        made = self.clients.get(service)
        if made is None:
            made = self.clients[service] = stacks.client(service, self.region, _QUICK)
        return made


class Site:
    """One run of the page."""

    def __init__(
        self, *, stack: str, region: str | None, pages: "Sequence[Page]", local: Local | None = None
    ) -> None:
        self.stack = stack
        self.region = region
        self.local = local
        self.pages = [each for each in pages if local is not None or not each.only_local]
        self.jobs = Jobs()
        self.csrf = secrets.token_urlsafe(32)
        self._templates: Environment = environment()
        self._said: OrderedDict[str, str] = OrderedDict()
        self._kept: OrderedDict[str, str] = OrderedDict()
        self._found: tuple[float, Standing] | None = None
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def deployment(self) -> Standing:
        """The stack, looked up again after a minute.

        Raises:
            DeploymentError: no such stack here.
        """
        with self._lock:
            if self._found is None or time.monotonic() - self._found[0] > _STACK_SECONDS:
                found = Deployment.find(self.stack, self.region, _QUICK)
                standing = Standing(**msgspec.structs.asdict(found), clients=self._clients)
                self._found = time.monotonic(), standing
            return self._found[1]

    def forget(self) -> None:
        """Look the stack up anew: its mode or parameters were changed."""
        self._found = None

    def say(self, text: str) -> str:
        """Keep a sentence for the page that is shown next."""
        key = secrets.token_urlsafe(8)
        self._said[key] = text
        while len(self._said) > _SAID:
            self._said.popitem(last=False)
        return key

    def heard(self, key: str) -> str:
        return self._said.pop(key, "")

    def keep(self, text: str) -> str:
        """Keep a text that is too long for an address, for the questions that follow about it."""
        key = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:24]
        self._kept[key] = text
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return key

    def kept(self, key: str) -> str | None:
        return self._kept.get(key)

    def render(self, template: str, **context: Any) -> str:
        return self._templates.get_template(template).render(site=self, csrf=self.csrf, **context)

    def routes(self) -> list[Route]:
        return [
            Route(
                page.path + view.path,
                _endpoint(self, page, view),
                methods=[view.method],
                name=f"{page.path}{view.path} {view.method}",
            )
            for page in self.pages
            for view in page.views
        ]


class Ask:
    """What was asked of a page, and the ways to answer."""

    def __init__(
        self,
        site: Site,
        page: "Page | None",
        request: Request,
        form: Mapping[str, str],
        files: Mapping[str, bytes],
    ) -> None:
        self.site = site
        self.query: Mapping[str, str] = request.query_params
        self.path: Mapping[str, str] = request.path_params
        self.form = form
        """A POST's fields; a field that occurs several times has its last value."""
        self.files = files
        """Its uploads that are not empty."""
        self.url = Url(request.url.path + (f"?{request.url.query}" if request.url.query else ""))
        self._page = page

    @property
    def deployment(self) -> Standing:
        return self.site.deployment

    def job[Answer](
        self,
        key: tuple[Hashable, ...],
        work: Callable[[Callable[[str], None]], Answer],
        *,
        fresh: float = 60.0,
        wait: float = 1.0,
    ) -> Job[Answer]:
        """What takes long; as `Jobs.ask` has it. While it is not done, answer `self.wait(job)`, or
        show what is there with `asking=job` and the page comes again by itself."""
        return self.site.jobs.ask(key, work, fresh=fresh, wait=wait)

    def show(self, template: str, *, status: int = 200, **context: Any) -> Response:
        """A page.

        Args:
            context: `asking`, a Job that is not done, has the page come again in two seconds;
                `refresh`, seconds, in any case.
        """
        values = {
            "page": self._page,
            "ask": self,
            "said": self.site.heard(self.query.get("said", "")),
            "asking": None,
            "refresh": None,
        }
        return HTMLResponse(self.site.render(template, **(values | context)), status)

    def wait(self, job: Job[Any]) -> Response:
        return self.show("wait.html", asking=job)

    def question(
        self,
        text: str,
        *,
        yes: str,
        post: str,
        fields: Mapping[str, str],
        no: str,
        detail: str = "",
    ) -> Response:
        """Ask before something is done: a page with a button that posts the fields, and `sure`.

        Args:
            yes: what the button says: what is done, not "OK".
            post: where to, with the fields.
            no: where to go back to.
            detail: a command or a text shown under the question.
        """
        return self.show(
            "question.html",
            text=text,
            yes=yes,
            post=Url(post),
            fields=fields,
            no=Url(no),
            detail=detail,
        )

    @property
    def sure(self) -> bool:
        """Whether the question was answered with yes."""
        return self.form.get("sure") == "yes"

    def go(self, to: str) -> Response:
        """Go on to a page of ours."""
        return RedirectResponse(to, 303)

    def done(self, text: str, to: str) -> Response:
        """Go on to a page of ours, which says first what was done."""
        joined = "&" if "?" in to else "?"
        return RedirectResponse(f"{to}{joined}said={self.site.say(text)}", 303)

    def fail(self, text: str, mend: str = "", status: int = 400) -> NoReturn:
        raise ProblemError(text, mend, status)


type Answering = Callable[[Ask], Response]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a page answers."""

    method: Literal["GET", "POST"]
    path: str
    answer: Answering
    limit: int = FORM_LIMIT


def get(path: str, answer: Answering) -> View:
    """Shows something; changes nothing, whatever is asked."""
    return View(method="GET", path=path, answer=answer)


def post(path: str, answer: Answering, *, limit: int = FORM_LIMIT) -> View:
    return View(method="POST", path=path, answer=answer, limit=limit)


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the menu, with all that is below it."""

    path: str
    title: str
    views: Sequence[View]
    only_local: bool = False
    """Whether it is there only with AWS on this machine."""


def _endpoint(site: Site, page: Page, view: View) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        form: Mapping[str, str] = {}
        files: Mapping[str, bytes] = {}
        if view.method == "POST":
            try:
                form, files = await _posted(request, view.limit)
            except ProblemError as error:
                return problem(site, page, request, error)
            given = form.get("csrf", "").encode("utf-8", "replace")
            if not secrets.compare_digest(given, site.csrf.encode()):
                return Response(status_code=403)
        ask = Ask(site, page, request, form, files)
        try:
            return await anyio.to_thread.run_sync(view.answer, ask)
        except Exception as error:  # noqa: BLE001  (told in one clear message)
            return await anyio.to_thread.run_sync(problem, site, page, request, error)

    return endpoint


async def _posted(request: Request, limit: int) -> tuple[dict[str, str], dict[str, bytes]]:
    """
    Raises:
        ProblemError: too much, or no form.
    """
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        raise ProblemError("A form comes with its length.", status=411)
    if int(length) > limit:
        raise ProblemError(f"That is too much: at most {limit:,} bytes are taken here.", status=413)
    form: dict[str, str] = {}
    files: dict[str, bytes] = {}
    try:
        async with request.form(max_files=4, max_fields=200, max_part_size=limit) as fields:
            for name, value in fields.multi_items():
                if isinstance(value, UploadFile):
                    if data := await value.read():
                        files[name] = data
                else:
                    form[name] = value
    except HTTPException as error:
        raise ProblemError("This is no form that could be read.", str(error.detail)) from error
    return form, files


_EXPECTED = (
    ProblemError,
    DeploymentError,
    MailboxFileError,
    PolicyError,
    MalformedEventError,
    BounceError,
    BackendUnavailableError,
    ClientError,
    BotoCoreError,
    OSError,
)


def problem(site: Site, page: Page | None, request: Request, error: Exception) -> Response:
    """What went wrong, with its mend; a fault of ours is told on stderr, without values."""
    text, mend, status = explained(error)
    if not isinstance(error, _EXPECTED):
        trace = "".join(traceback.format_exception(error))
        sys.stderr.write(printable(trace))
    ask = Ask(site, page, request, {}, {})
    again = page.path if page is not None and request.method == "POST" else ask.url
    return ask.show("problem.html", status=status, text=text, mend=mend, again=Url(again))


def explained(error: Exception) -> tuple[str, str, int]:
    """An error in words, its mend, and the HTTP status."""
    if isinstance(error, ProblemError):
        return str(error), error.mend, error.status
    if not isinstance(error, _EXPECTED):
        return (
            "Something in this page is broken.",
            "The terminal that runs `bouncer web` says where. "
            "The same facts are in the other commands: `bouncer --help`.",
            500,
        )
    if isinstance(error, DeploymentError):
        mend = _mend_of(error.__cause__) or "End this page, and start it for another stack."
        return str(error), mend, 502
    if isinstance(error, (ClientError, BotoCoreError, BackendUnavailableError, OSError)):
        return _of_aws(error)
    return str(error), "", 400


_LOG_IN = "Log in (`aws sso login`, `aws configure`) in the terminal, and start this page again."
_ALLOW = "Your credentials may not do that: give them the permission that is named."
_DEPLOY = "What the stack names is gone: deploy the stack again."
_MENDS: Mapping[str, str] = {
    "AccessDenied": _ALLOW,
    "AccessDeniedException": _ALLOW,
    "UnauthorizedOperation": _ALLOW,
    "ExpiredToken": _LOG_IN,
    "ExpiredTokenException": _LOG_IN,
    "InvalidClientTokenId": _LOG_IN,
    "UnrecognizedClientException": _LOG_IN,
    "SignatureDoesNotMatch": _LOG_IN,
    "ResourceNotFoundException": _DEPLOY,
    "AWS.SimpleQueueService.NonExistentQueue": _DEPLOY,
}
_SOON = "AWS may be busy, or has a bad moment: load this page again."


def _mend_of(error: BaseException | None) -> str:
    code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
    return _MENDS.get(str(code), "")


def _of_aws(error: Exception) -> tuple[str, str, int]:
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        text = f"AWS refused {error.operation_name}: {said.get('Message') or said.get('Code')}"
        return text, _mend_of(error) or _SOON, 502
    if isinstance(error, NoRegionError):
        mend = "Name it: `bouncer web --region …`, or set AWS_REGION."
        return "No AWS Region is known here.", mend, 502
    if isinstance(error, NoCredentialsError | PartialCredentialsError | TokenRetrievalError):
        return f"There are no AWS credentials to use: {error}", _LOG_IN, 502
    if isinstance(error, EndpointConnectionError | HTTPClientError):
        return (
            f"AWS cannot be reached: {error}",
            "Look at the network, then load this page again.",
            502,
        )
    return str(error), _SOON, 502


def not_found(site: Site, request: Request) -> Response:
    return problem(site, None, request, ProblemError("There is no such page.", status=404))
