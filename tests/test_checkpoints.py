"""Files are whole, and a network that is kept runs on any machine."""

import keras
import numpy as np
import pytest

import tiny
from fer_helpers.checkpoints import in_float32, replace_file


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
