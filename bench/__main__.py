"""`python -m bench`: everything.

Ends with 0 if no two calls of ours were closer than the interval, outside of measured
suspensions, and no mail of the flood was lost.
"""

import sys

import typer

from bench import decide, flood, limiter
from bouncer_console.output import say
from local.stack import StackError


def main() -> None:
    """Measure everything and print it."""
    decide.bench()
    flood.bench()
    try:
        violations = limiter.bench()
    except StackError as error:
        say(str(error), style="red")
        sys.exit(2)
    if violations:
        say(f"{violations} violations of ours", style="red")
        sys.exit(1)
    say("No two calls of ours were closer than the interval.", style="green")


if __name__ == "__main__":
    typer.run(main)
