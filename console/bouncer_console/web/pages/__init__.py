"""The pages, in the order of the menu."""

from bouncer_console.web.pages import dead_letters, directory, now, policy, write
from bouncer_console.web.site import Page

PAGES: tuple[Page, ...] = (
    now.PAGE,
    directory.PAGE,
    policy.PAGE,
    dead_letters.PAGE,
    write.PAGE,
)
