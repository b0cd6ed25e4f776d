"""The pages, in the order of the menu."""

from bouncer_console.web.pages import directory
from bouncer_console.web.site import Page

PAGES: tuple[Page, ...] = (directory.PAGE,)
