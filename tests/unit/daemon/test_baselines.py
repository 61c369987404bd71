"""Which hooks go on with their baseline, in this process and in the next one."""

from __future__ import annotations

import numpy as np
import pytest

from lab.keeping import DictKeeper
from netobs.base.keeper import NOTHING, Keeper
from netobs.daemon.baselines import Baselines
from netobs.daemon.comparison import KERNEL, OURS, Sample
from netobs.datapath.interface_counts import InterfaceCounts

MAP = 7


def counts(number: int = MAP) -> InterfaceCounts:
    made = InterfaceCounts(1)
    made.number = number
    return made


def sample(*packets: int) -> Sample:
    """Of as many hooks: all counters have this value."""
    ours, kernel = (np.repeat(np.array(packets, "<i8")[:, None], len(names), 1) for names in (OURS, KERNEL))
    return Sample(ours, ours, kernel)


def begun(keeper: Keeper = NOTHING, number: int = MAP) -> Baselines:
    made = Baselines(keeper)
    assert made.follow(counts(number))
    return made


def of(baselines: Baselines, **hooks: int) -> list[int]:
    """The kernel's packets in the baseline of each hook ``k1``, ``k2``, where they are now ``hooks``."""
    keys = np.array([int(name[1:]) for name in hooks], "<u8")
    baselines.take(baselines.held.after(keys, sample(*hooks.values())))
    return [int(value) for value in baselines.held.base.kernel[:, 0]]


def test_a_hook_begins_with_its_first_reading() -> None:
    baselines = begun()
    assert of(baselines, k2=10, k4=20) == [10, 20]
    assert of(baselines, k2=15, k3=1, k4=25) == [10, 1, 20]
    assert of(baselines, k3=5, k4=30) == [1, 20]
    assert of(baselines, k2=50, k3=5, k4=30) == [50, 1, 20]


def test_counters_that_went_back_are_of_another_interface() -> None:
    baselines = begun()
    assert of(baselines, k2=0) == [0]
    assert of(baselines, k2=100) == [0]
    assert of(baselines, k2=99) == [99]


def test_what_is_forgotten_begins_anew() -> None:
    baselines = begun()
    of(baselines, k2=10, k4=20)
    baselines.forget(baselines.keys == 2)
    assert of(baselines, k2=15, k4=25) == [15, 20]


def test_whoever_compares_meanwhile_sees_that_something_was_forgotten() -> None:
    baselines = begun()
    of(baselines, k2=10)
    held = baselines.held
    baselines.forget(baselines.keys == 4)
    assert baselines.held is not held
    held.after(np.array([2, 4], "<u8"), sample(11, 1))
    assert baselines.keys.tolist() == [2]


@pytest.mark.parametrize("number", [MAP, MAP + 1])
def test_the_next_process_goes_on_if_it_has_the_same_map(number: int) -> None:
    keeper = DictKeeper()
    baselines = begun(keeper)
    of(baselines, k2=10, k4=20)
    of(baselines, k2=100, k4=30)
    baselines.close(counts())
    keeper = keeper.succeed()
    after = begun(keeper, number)
    goes_on = number == MAP
    assert of(after, k2=99, k4=40) == ([99, 20] if goes_on else [99, 40]), "k2 went back"
    after.close(counts(number))
    keeper.close()


def test_what_was_in_rows_that_were_given_away_is_kept() -> None:
    keeper = DictKeeper()
    baselines, given = begun(keeper), counts()
    of(baselines, k2=10)
    baselines.keep_freed(given)
    assert given.freed is not None
    given.freed["merged"][3] = 5
    baselines.close(given)
    keeper = keeper.succeed()
    after, going_on = Baselines(keeper), counts()
    assert after.follow(going_on)
    assert going_on.freed is not None
    assert int(going_on.freed["merged"][3]) == 5
    after.close(going_on)
    keeper.close()


def test_other_maps_of_a_running_process_begin_anew() -> None:
    baselines = begun()
    of(baselines, k2=10)
    assert not baselines.follow(counts())
    assert baselines.follow(counts(MAP + 1))
    assert of(baselines, k2=15) == [15]


def test_a_process_that_has_read_nothing_leaves_nothing_to_go_on_with() -> None:
    """It was restarted at once."""
    keeper = DictKeeper()
    begun(keeper).close(counts())
    keeper = keeper.succeed()
    after = begun(keeper)
    assert of(after, k2=10) == [10]
    after.close(counts())
    keeper.close()
