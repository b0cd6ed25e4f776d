"""`bouncer web`: the operator's page, on this machine only.

A page is one module in `pages/` with a `PAGE` and, in `templates/`, the templates that it shows;
`pages/__init__.py` lists them in the order of the menu. A page's view is an ordinary function
`(Ask) -> Response`, run in a thread: it may call AWS as it likes, and raises what goes wrong.

    def show(ask: Ask) -> Response:
        return ask.show("weather.html", now=forecast(ask.deployment))

    PAGE = Page(path="/weather", title="Weather", views=[get("", show), post("/clear", clear)])

What a view need not care for, since there is no way around it: who may ask (`safety`), the CSRF
token and the size of a POST (`site`), and that whatever a template prints is text of bounded
length (`text`). A form has to hold `{{ csrf }}`; addresses are made by `link(path, name=value)`.
There is no JavaScript: what takes long is asked with `Ask.job`, and the page comes again by
itself until the answer is there.
"""
