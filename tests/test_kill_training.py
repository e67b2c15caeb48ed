"""A killed run goes on: a short run of kill_training.py."""

import pytest
from kill_training import run


def test_a_run_killed_while_it_writes_ends_as_if_it_had_not_been(tmp_path):
    report = run(kills=1, epochs=5, folder=tmp_path)
    assert report["exit code"] == 0
    assert report["kills"] == {"writing": 1}
    assert 1 <= report["epochs at the kills"][0] < 5  # there was something to go on from
    assert report["epochs"] == [1, 2, 3, 4, 5]
    assert report["loss difference"] == pytest.approx(0, abs=1e-5)
    assert report["probability difference"] == pytest.approx(0, abs=1e-3)
    assert report["left behind"] == []
