"""Questions that take long are asked once, and answered when they are done."""

import threading
from collections.abc import Callable

import pytest

from bouncer_console.web.jobs import Jobs

type Says = Callable[[str], None]


def test_who_asks_the_same_again_meets_the_same_question() -> None:
    jobs, go, asked = Jobs(), threading.Event(), []

    def work(says: Says) -> int:
        asked.append(1)
        says("half of it")
        go.wait(20)
        return 42

    first = jobs.ask(("key", 1), work, wait=0)
    assert not first.done
    again = jobs.ask(("key", 1), work, wait=0)
    assert again is first
    go.set()
    done = jobs.ask(("key", 1), work, wait=20)
    assert (done.answer(), done.progress, len(asked)) == (42, "half of it", 1)
    jobs.forget(("other",))
    assert jobs.ask(("key", 1), work, wait=20) is first
    jobs.forget(("key",))
    assert jobs.ask(("key", 1), work, wait=20) is not first


def test_an_answer_that_is_not_fresh_is_asked_for_again() -> None:
    jobs, asked = Jobs(), []
    for _ in range(2):
        assert jobs.ask(("key", 1), lambda _: asked.append(1), fresh=0, wait=20).done
    assert len(asked) == 2


def test_a_failure_is_told_and_tried_again() -> None:
    jobs, results = Jobs(), iter([ValueError("no"), None])

    def work(_: Says) -> str:
        if error := next(results):
            raise error
        return "yes"

    with pytest.raises(ValueError, match="no"):
        jobs.ask(("key", 1), work, wait=20).answer()
    assert jobs.ask(("key", 1), work, wait=20).answer() == "yes"


def test_what_is_asked_is_bounded() -> None:
    jobs = Jobs()
    running, most, lock, go = 0, 0, threading.Lock(), threading.Event()

    def work(_: Says) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait(20)
        with lock:
            running -= 1

    asked = [jobs.ask((number,), work, wait=0) for number in range(40)]
    go.set()
    for each in asked:
        each.wait(20)
    assert most <= 4
    assert all(each.done for each in asked)
