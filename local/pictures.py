"""`make pictures`: the page of AWS on this machine after a day of mail, as docs/img/ has it.

Needs Chromium (`apt-get install chromium`).
"""

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import typer
from playwright.sync_api import Browser, sync_playwright

from bouncer_console.output import screen
from local import day, web
from local.demo import until
from local.deployment import deployed
from local.stack import ROOT, Aws, StackError, end_on_signals
from local.stories import STORIES

FOLDER = ROOT / "docs" / "img"
CHROMIUM = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


class Picture(NamedTuple):
    """One picture: what is shown, how large, and in which colours."""

    name: str
    path: str
    width: int = 1100
    height: int = 720
    scheme: Any = "light"


PICTURES = [
    Picture("web-now", "/now", height=980),
    Picture("web-mail", "/mail?id={bounced}", height=900),
    Picture("web-attack", "/attack?since=24h", 1280, 1000),
    Picture("web-directory", "/directory"),
    Picture("web-explain", "/mail?id={bounced}&explain=yes#again", height=900, scheme="dark"),
    Picture("web-phone", "/now", 390, 900, "dark"),
]
"""`{bounced}` is the id of a mail whose sender was told."""


def take(browser: Browser, address: str, picture: Picture, folder: Path, bounced: str) -> Path:
    """Write one picture."""
    context = browser.new_context(
        viewport={"width": picture.width, "height": picture.height}, color_scheme=picture.scheme
    )
    page = context.new_page()
    page.goto(address)
    page.goto(address.partition("/?")[0] + picture.path.format(bounced=bounced))
    page.wait_for_selector("main:not(:has(progress))", timeout=60_000)
    file = folder / f"{picture.name}.png"
    page.screenshot(path=file)
    context.close()
    return file


def mail_stories(aws: Aws) -> str:
    """Mail every story, and wait until the rules are through with all of them.

    Returns:
        The id of one whose sender was told.
    """
    mail = web.LocalMail(aws)
    ids = {each.name: mail.send(each.mail_from, each.recipients, each.mail) for each in STORIES}
    sent = set(ids.values())

    def through() -> bool | None:
        time.sleep(1)
        with suppress(TimeoutError):  # it has many mails at once in hand
            done = {each["message_id"] for each in aws.listing("mails") if each["done"]}
            return sent <= done or None
        return None

    until(through, "the receipt rules did not end", 300)
    return ids["unknown-recipient"]


def main() -> None:
    """Write docs/img/web-*.png."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        screen.print("Chromium is not here: install it (apt-get install chromium)")
        raise typer.Exit(1)
    end_on_signals()
    try:
        with deployed() as (aws, outputs):
            bounced = mail_stories(aws)
            day.fill(aws, outputs, mails=1500, waiting=120)
            with web.page(aws) as address, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM)
                for each in PICTURES:
                    file = take(browser, address, each, FOLDER, bounced)
                    screen.print(f"  {file.relative_to(ROOT)}: {file.stat().st_size // 1000} kB")
    except StackError as error:
        screen.print(str(error))
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
