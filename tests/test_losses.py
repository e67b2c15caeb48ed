"""Masked loss and metric against their definitions, computed by hand in NumPy."""

import json

import keras
import numpy as np
import pytest

from fer_helpers.backend import gradient
from fer_helpers.losses import (
    MaskedAccuracy,
    MaskedCrossentropy,
    UncertaintyCrossentropy,
    weigh_by_uncertainty,
)


@pytest.fixture
def batch():
    """Six rows of three classes, of which rows 1 and 4 are not labelled."""
    generator = np.random.default_rng(0)
    y_pred = generator.dirichlet(np.ones(3), size=6).astype("float32")
    y_true = np.eye(3, dtype="float32")[[0, 1, 2, 1, 0, 2]]
    y_true[[1, 4]] = 0
    return y_true, y_pred


KEPT = [0, 2, 3, 5]


def number(value):
    return float(keras.ops.convert_to_numpy(value))


def test_loss_is_the_mean_over_the_labelled_rows(batch):
    y_true, y_pred = batch
    by_hand = -np.mean(np.log((y_true * y_pred).sum(axis=1)[KEPT]))
    assert number(MaskedCrossentropy()(y_true, y_pred)) == pytest.approx(by_hand, rel=1e-5)
    plain = number(keras.losses.CategoricalCrossentropy()(y_true, y_pred))
    assert plain == pytest.approx(by_hand * 4 / 6, rel=1e-4)


def test_smoothing_leaves_unlabelled_rows_alone(batch):
    y_true, y_pred = batch
    smooth = y_true[KEPT] * 0.9 + 0.1 / 3
    by_hand = -np.mean((smooth * np.log(y_pred[KEPT])).sum(axis=1))
    assert number(MaskedCrossentropy(0.1)(y_true, y_pred)) == pytest.approx(by_hand, rel=1e-5)


def test_what_is_predicted_for_an_unlabelled_row_does_not_matter(batch):
    y_true, y_pred = batch
    other = y_pred.copy()
    other[[1, 4]] = [0.98, 0.01, 0.01]
    for loss in (MaskedCrossentropy(), MaskedCrossentropy(0.1)):
        assert number(loss(y_true, y_pred)) == number(loss(y_true, other))


def test_a_batch_without_labels_gives_zero(batch):
    y_true, y_pred = batch
    assert number(MaskedCrossentropy(0.1)(np.zeros_like(y_true), y_pred)) == 0


def test_mixed_rows_weigh_as_much_as_their_labels():
    y_true = np.array([[0.3, 0, 0], [1, 0, 0]], "float32")  # 0.3 of a labelled face
    y_pred = np.array([[0.5, 0.25, 0.25], [0.2, 0.4, 0.4]], "float32")
    by_hand = -(0.3 * np.log(0.5) + np.log(0.2)) / 1.3
    assert number(MaskedCrossentropy()(y_true, y_pred)) == pytest.approx(by_hand, rel=1e-5)


def test_a_face_that_the_network_is_surely_wrong_about_is_learnt():
    label = np.array([[1, 0, 0]], "float32")

    def loss(logits):
        return MaskedCrossentropy()(label, keras.ops.softmax(logits))

    for gap in (5, 17, 60):
        logits = keras.ops.convert_to_tensor(np.array([[-gap, 0, -gap]], "float32"))
        assert number(loss(logits)) == pytest.approx(gap, abs=0.02)
        slope = keras.ops.convert_to_numpy(gradient(loss, logits))
        np.testing.assert_allclose(slope, [[-1, 1, 0]], atol=0.02)
    # As float16's scaling of the loss makes it.
    for gap in range(50, 101, 5):
        logits = keras.ops.convert_to_tensor(np.array([[-gap, 0, -gap]], "float32"))
        slope = gradient(lambda given: 2.0**17 * loss(given), logits)
        assert np.isfinite(keras.ops.convert_to_numpy(slope)).all()


WEIGHT = np.array([2, 5, 0.5, 1, 5, 4], "float32")  # of the labelled rows: 7.5, not 4


def test_sample_weights_count(batch):
    y_true, y_pred = batch
    rows = -np.log((y_true * y_pred).sum(axis=1)[KEPT])
    by_hand = np.average(rows, weights=WEIGHT[KEPT])
    for weight in (WEIGHT, WEIGHT[:, None], WEIGHT.astype("float64")):
        loss = number(MaskedCrossentropy()(y_true, y_pred, weight))
        assert loss == pytest.approx(by_hand, rel=1e-5)


def test_any_kind_of_numbers_will_do(batch):
    y_true, y_pred = batch
    wanted = number(MaskedCrossentropy()(y_true, y_pred))
    given = y_true.astype("int32"), y_pred.astype("float64"), np.ones(6, "int32")
    assert number(MaskedCrossentropy()(*given)) == pytest.approx(wanted, rel=1e-5)
    metric = MaskedAccuracy()
    metric.update_state(*given)
    assert 0 <= number(metric.result()) <= 1
    half = keras.ops.cast(y_pred, "bfloat16")
    assert MaskedCrossentropy()(y_true, half).dtype == "float32"


CLASS = [3, 0.5, 1]  # of rows 0 and 4; of 1 and 3; of 2 and 5


def test_a_row_weighs_as_much_as_its_class(batch):
    y_true, y_pred = batch
    rows = -np.log((y_true * y_pred).sum(axis=1)[KEPT])
    loss = MaskedCrossentropy(class_weights=CLASS)
    by_hand = (3 * rows[0] + rows[1] + 0.5 * rows[2] + rows[3]) / 5.5
    assert number(loss(y_true, y_pred)) == pytest.approx(by_hand, rel=1e-5)
    weights = WEIGHT[KEPT] * [3, 1, 0.5, 1]
    by_hand = np.average(rows, weights=weights)
    assert number(loss(y_true, y_pred, WEIGHT)) == pytest.approx(by_hand, rel=1e-5)
    assert number(loss(y_true.astype("int32"), y_pred)) == number(loss(y_true, y_pred))
    assert number(loss(np.zeros_like(y_true), y_pred)) == 0


def test_a_class_without_weight_is_not_learnt(batch):
    y_true, y_pred = batch
    rows = -np.log((y_true * y_pred).sum(axis=1)[KEPT])
    loss = MaskedCrossentropy(class_weights=(0, 2, 2))
    assert number(loss(y_true, y_pred)) == pytest.approx(rows[1:].mean(), rel=1e-5)
    assert number(loss(y_true[:1], y_pred[:1])) == 0


def test_a_target_spread_over_classes_weighs_their_mean():
    y_true = np.array([[0.6, 0.4, 0], [0, 0, 0.5], [0, 0, 0]], "float32")  # the second one half
    y_pred = np.array([[0.5, 0.25, 0.25], [0.2, 0.4, 0.4], [0.8, 0.1, 0.1]], "float32")
    first = -(0.6 * np.log(0.5) + 0.4 * np.log(0.25))
    by_hand = (2 * first - 0.5 * np.log(0.4)) / 2.5  # 0.6 * 3 + 0.4 * 0.5 = 2
    loss = MaskedCrossentropy(class_weights=CLASS)
    assert number(loss(y_true, y_pred)) == pytest.approx(by_hand, rel=1e-5)
    smoothed = MaskedCrossentropy(0.3, CLASS)
    first = -np.log(y_pred[0]) @ (0.7 * y_true[0] + 0.1)
    second = -np.log(y_pred[1]) @ [0.1, 0.1, 0.8]
    by_hand = (2 * first + 0.5 * second) / 2.5
    assert number(smoothed(y_true, y_pred)) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("wrong", [[1, -1, 1], [1, np.nan, 1], [1, np.inf, 1], [0, 0, 0]])
def test_class_weights_must_be_finite_and_not_negative(wrong):
    with pytest.raises(ValueError, match="class weights must be finite and at least 0, and one of"):
        MaskedCrossentropy(class_weights=wrong)


def test_accuracy_counts_sample_weights(batch):
    y_true, _ = batch
    y_pred = np.eye(3, dtype="float32")[[0, 0, 2, 0, 0, 0]]  # rows 0 and 2 are right
    metric = MaskedAccuracy()
    for labels in (y_true, y_true.astype("int32")):
        metric.reset_state()
        metric.update_state(labels, y_pred, WEIGHT)
        assert number(metric.result()) == pytest.approx(2.5 / 7.5)
    metric.reset_state()
    metric.update_state(y_true[[1, 4]], y_pred[[1, 4]], WEIGHT[[1, 4]])
    assert number(metric.result()) == 0


def test_learned_weights_count_sample_weights(batch):
    y_true, y_pred = batch
    s = 0.7
    with_s = np.concatenate([y_pred, np.full((6, 1), s, np.float32)], axis=1)
    plain = number(MaskedCrossentropy()(y_true, y_pred, WEIGHT))
    loss = UncertaintyCrossentropy()
    assert number(loss(y_true, with_s, WEIGHT)) == pytest.approx(np.exp(-s) * plain + s / 2)
    weighted = number(MaskedCrossentropy(0, CLASS)(y_true, y_pred, WEIGHT))
    by_class = UncertaintyCrossentropy(0, CLASS)
    wanted = np.exp(-s) * weighted + s / 2
    assert number(by_class(y_true, with_s, WEIGHT)) == pytest.approx(wanted)
    assert number(UncertaintyCrossentropy(0, [0, 1, 1])(y_true[:1], with_s[:1])) == 0
    # Only rows without a label have a weight: nothing to learn from.
    assert number(loss(y_true, with_s, np.array([0, 1, 0, 0, 1, 0], "float32"))) == 0


def test_accuracy_counts_labelled_rows_only(batch):
    y_true, y_pred = batch
    y_pred = np.eye(3, dtype="float32")[[0, 0, 2, 0, 0, 0]]
    metric = MaskedAccuracy()
    metric.update_state(y_true, y_pred)
    assert number(metric.result()) == pytest.approx(2 / 4)
    # Keras' own takes the two rows of zeros for class 0, and hits.
    plain = keras.metrics.CategoricalAccuracy()
    plain.update_state(y_true, y_pred)
    assert number(plain.result()) == pytest.approx(4 / 6)


def test_smoothing_is_a_share():
    for wrong in (2, 1.01, -0.01):
        with pytest.raises(ValueError, match=f"label_smoothing must be from 0 to 1, not {wrong}"):
            MaskedCrossentropy(wrong)


def test_full_smoothing_is_a_uniform_target(batch):
    y_true, y_pred = batch
    by_hand = -np.mean(np.log(y_pred[KEPT]))
    assert number(MaskedCrossentropy(1)(y_true, y_pred)) == pytest.approx(by_hand, rel=1e-5)


def test_loss_survives_saving():
    loss = MaskedCrossentropy(0.2, np.array(CLASS))
    config = json.loads(json.dumps(keras.losses.serialize(loss)))
    copy = keras.losses.deserialize(config)
    assert isinstance(copy, MaskedCrossentropy)
    assert copy.label_smoothing == 0.2
    assert copy.class_weights == CLASS
    plain = keras.losses.deserialize(keras.losses.serialize(MaskedCrossentropy()))
    assert plain.class_weights is None
    assert copy.name == "masked_crossentropy"
    metric = keras.metrics.deserialize(keras.metrics.serialize(MaskedAccuracy(name="accuracy")))
    assert isinstance(metric, MaskedAccuracy)


def test_learned_weights_follow_the_formula_and_leave_a_batch_without_labels_alone():
    loss = UncertaintyCrossentropy()
    plain = MaskedCrossentropy()
    y = np.array([[1, 0], [0, 0]], np.float32)
    p = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    s = 0.7
    with_s = np.concatenate([p, np.full((2, 1), s, np.float32)], axis=1)
    expected = np.exp(-s) * float(plain(y, p)) + s / 2
    assert float(loss(y, with_s)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(np.zeros_like(y), with_s)) == 0


def test_learned_weights_are_float32_in_any_precision():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Softmax(name="a_output")(inputs))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        wrapper = weigh_by_uncertainty(model, keras.optimizers.SGD(0.1))
    finally:
        keras.config.set_dtype_policy("float32")
    assert wrapper.get_layer("a_output_uncertainty").compute_dtype == "float32"


def test_a_task_that_stays_hard_gets_a_smaller_learned_weight():
    """At the best log variance of a loss L, exp(-s) = 1 / (2 L)."""
    inputs = keras.Input((2,))
    outputs = {
        f"{name}_output": keras.layers.Softmax(name=f"{name}_output")(inputs) for name in "ab"
    }
    model = keras.Model(inputs, list(outputs.values()))
    wrapper = weigh_by_uncertainty(model, keras.optimizers.SGD(0.1))
    for name in "ab":
        layer = wrapper.get_layer(f"{name}_output_uncertainty")
        assert (float(layer.log_variance), layer.log_variance.name) == (0, "log_variance")
    x = np.array([[2.0, 0.0]] * 8, np.float32)
    one, other = np.eye(2, dtype=np.float32)[[0] * 8], np.eye(2, dtype=np.float32)[[0, 1] * 4]
    # One long epoch: Keras takes as long to begin an epoch as for a hundred steps.
    x, one, other = (np.tile(array, (400, 1)) for array in (x, one, other))
    wrapper.fit(x, {"a_output": one, "b_output": other}, batch_size=8, shuffle=False, verbose=0)
    learned = {
        name: float(wrapper.get_layer(f"{name}_output_uncertainty").log_variance) for name in "ab"
    }
    probability = np.exp(2) / (np.exp(2) + 1)
    hard = -(np.log(probability) + np.log(1 - probability)) / 2
    easy = -np.log(probability)
    assert learned["b"] == pytest.approx(np.log(2 * hard), abs=0.02)
    assert learned["a"] == pytest.approx(np.log(2 * easy), abs=0.05)
