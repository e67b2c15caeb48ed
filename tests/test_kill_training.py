"""A killed run goes on: a short run of kill_training.py."""

from pathlib import Path

import pytest

import tiny
from fer_helpers import model
from kill_training import run

WORKER = Path(__file__).parent / "distributed_worker.py"


def test_a_run_killed_while_it_writes_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setitem(model.BACKBONES, "compact", tiny.backbone)
    report = run(kills=1, epochs=8, folder=tmp_path, program=[WORKER])
    assert report["exit code"] == 0
    assert report["kills"] == {"writing": 1}
    assert 1 <= report["epochs at the kills"][0] < 8  # there was something to go on from
    assert report["epochs"] == list(range(1, 9))
    assert report["loss difference"] == pytest.approx(0, abs=1e-5)
    assert report["probability difference"] == pytest.approx(0, abs=1e-3)
    assert report["left behind"] == []
