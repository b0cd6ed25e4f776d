"""The simulator is able to fail: it finds each mistake that is made on purpose."""

import pytest

from sim.mutations import MUTATIONS, Mutation, mutated
from sim.run import run

ENOUGH = 1000


def test_there_are_enough_of_them() -> None:
    assert len({each.name for each in MUTATIONS}) >= 12


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)
def test_a_mistake_is_found_within_a_thousand_worlds(
    virtual_time: None, mutation: Mutation
) -> None:
    kept = [each.invariant for each in run(mutation.seed).violations]
    assert not mutation.finds.intersection(kept), "without the mistake the promise is kept"
    with mutated(mutation):
        for seed in (mutation.seed, *range(ENOUGH - 1)):
            found = {each.invariant for each in run(seed).violations}
            if found & mutation.finds:
                return
    pytest.fail(f"{ENOUGH} worlds do not see that {mutation.what}")
