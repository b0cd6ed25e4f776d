"""The pages, in the order of the menu."""

from bouncer_console.web.pages import attack, dead_letters, directory, mail, now, policy, write
from bouncer_console.web.site import Page

PAGES: tuple[Page, ...] = (
    now.PAGE,
    mail.PAGE,
    attack.PAGE,
    directory.PAGE,
    policy.PAGE,
    dead_letters.PAGE,
    write.PAGE,
)
