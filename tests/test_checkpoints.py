"""Files are whole, and a network that is kept runs on any machine."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import tiny
from fer_helpers.checkpoints import fill_table, in_float32, locked, replace_file


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.txt"

    def write_half(target):
        target.write_text("hal")
        raise RuntimeError("disk full")

    replace_file(path, lambda target: target.write_text("whole"))
    with pytest.raises(OSError, match=r"file\.txt cannot be written \(disk full\): make room"):
        replace_file(path, write_half)
    assert path.read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_keeps_another_process_out_until_it_is_killed(tmp_path):
    pytest.importorskip("fcntl")
    command = [sys.executable, "-c", HOLD, tmp_path / ".lock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(OSError, match=r"out is in use: .* Wait until it has ended"),
            locked(tmp_path / ".lock", "out"),
        ):
            pytest.fail("both are in")
        other.kill()
    with locked(tmp_path / ".lock", "out"):
        pass


def test_a_lock_is_free_again_after_an_error_and_no_obstacle_where_nothing_can_be_written(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), locked(tmp_path / ".lock", "out"):
            raise KeyboardInterrupt
    with locked(tmp_path / "missing" / ".lock", "out"):
        pass


def test_a_table_is_filled_with_the_runs_that_it_lacks(tmp_path):
    csv = tmp_path / "results" / "runs.csv"
    wanted = [{"arm": arm, "seed": seed} for seed in (0, 1) for arm in ("0", "0.1")]
    made = []

    def train(run):
        made.append((run["arm"], run["seed"]))
        if len(made) == 3:
            raise KeyboardInterrupt
        return {"accuracy": 1 / 3}

    with pytest.raises(KeyboardInterrupt):
        fill_table(csv, wanted, train)
    table = fill_table(csv, wanted, train)
    assert made == [("0", 0), ("0.1", 0), ("0", 1), ("0", 1), ("0.1", 1)]
    assert csv.read_text().splitlines()[:2] == ["arm,seed,accuracy", "0,0,0.33333"]
    assert table.values.tolist() == [[*run, 0.33333] for run in map(dict.values, wanted)]


def test_a_copy_in_float32_has_the_weights_it_is_given():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny.build()
    finally:
        keras.config.set_dtype_policy("float32")
    weights = [weight + 1 for weight in model.get_weights()]
    copy = in_float32(model, weights)
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    assert copy.name == model.name
    assert not copy.compiled
    for one, other in zip(copy.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
