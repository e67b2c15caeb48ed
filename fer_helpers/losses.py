"""Loss and metric that leave out faces without a label for the task.

A row of zeros in a one-hot block means: not labelled. Keras' own cross-entropy gives such a
row a loss of 0 but counts it in the mean, its accuracy counts it as class 0, and its label
smoothing turns it into a uniform target. Here a row's weight is its label mass: 1 if it is
labelled, 0 if not, and in between if two faces were mixed. The mean is taken over that mass.
"""

import math
from collections.abc import Sequence

from fer_helpers.backend import keras
from fer_helpers.distributed import sum_over_replicas

ops = keras.ops

_PACKAGE = "fer_helpers"


def label_mass(y_true, sample_weight=None):
    """Return the weight (N,) of each row: the sum of its targets (N, classes).

    `sample_weight` (N,) or (N, 1), if given, multiplies it.
    """
    mass = ops.sum(y_true, axis=-1)
    if sample_weight is None:
        return mass
    return mass * ops.reshape(ops.cast(sample_weight, mass.dtype), ops.shape(mass))


@keras.saving.register_keras_serializable(_PACKAGE)
class MaskedCrossentropy(keras.losses.Loss):
    """Categorical cross-entropy, averaged over the labelled rows of the batch.

    Parameters
    ----------
    label_smoothing
        Share (0 to 1) of a labelled row's target that is spread over all classes
        (Szegedy et al. 2016).
    class_weights
        The weight of each class, finite and at least 0, at least one of them above 0. A row
        weighs as much as its class, or as the mean of the classes by their share if its target
        is spread over several. None: all weigh the same.

    Raises
    ------
    ValueError
        `label_smoothing` is not from 0 to 1, or `class_weights` holds a number below 0, one
        that is not finite, or only zeros.

    Notes
    -----
    Called with `y_true` and probabilities `y_pred`, both (N, classes), and optionally
    `sample_weight` (N,), it returns a float32 scalar: the sum over the rows of weight times
    loss, divided by the sum of the weights. A batch without labels gives 0, and no gradient.
    Under a TensorFlow strategy each replica returns its share of the mean.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None):
        super().__init__(name="masked_crossentropy")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be from 0 to 1, not {label_smoothing}")
        if class_weights is not None:
            class_weights = [float(weight) for weight in class_weights]
            possible = all(math.isfinite(weight) and weight >= 0 for weight in class_weights)
            if not possible or not any(class_weights):
                raise ValueError(
                    "class weights must be finite and at least 0, and one of them above 0, not "
                    f"{class_weights}"
                )
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    def row_weights(self, y_true, sample_weight=None):
        """Return the weight (N,) of each row: its label mass, times the weight of its class."""
        if self.class_weights is not None:
            y_true = y_true * ops.convert_to_tensor(self.class_weights, y_true.dtype)
        return label_mass(y_true, sample_weight)

    def call(self, y_true, y_pred):
        mass = label_mass(y_true)
        target = y_true / ops.maximum(mass, 1e-7)[:, None]
        smooth = self.label_smoothing
        target = target * (1 - smooth) + smooth / y_true.shape[-1]
        # Clipped at Keras' epsilon of 1e-7, a confident mistake would have no gradient; clipped
        # far below 1e-30, its gradient would overflow when float16 training scales the loss.
        log_probability = ops.log(ops.maximum(y_pred, 1e-30))
        return -ops.sum(target * log_probability, axis=-1)

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_pred = ops.convert_to_tensor(y_pred, "float32")
        y_true = ops.convert_to_tensor(y_true, "float32")
        weight = self.row_weights(y_true, sample_weight)
        total = ops.sum(weight * self.call(y_true, y_pred))
        # Gradients of replicas are summed, so each divides by the labels of all: a mean of
        # their means would give some labels a greater weight.
        labelled = sum_over_replicas(ops.sum(weight))
        return total / ops.maximum(labelled, keras.config.epsilon())

    def get_config(self):
        return {"label_smoothing": self.label_smoothing, "class_weights": self.class_weights}


@keras.saving.register_keras_serializable(_PACKAGE)
class MaskedAccuracy(keras.metrics.CategoricalAccuracy):
    """Share of the labelled rows whose most probable class is the labelled one.

    Updated with `y_true` and `y_pred` (N, classes), and optionally `sample_weight` (N,); each
    row counts with its label mass, whatever the weights of the classes in the loss. Without
    labelled rows the result is 0.
    """

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = ops.convert_to_tensor(y_true, "float32")
        return super().update_state(y_true, y_pred, label_mass(y_true, sample_weight))


class TaskUncertainty(keras.layers.Layer):
    """Appends one column to a head's probabilities (N, classes): its learned log variance."""

    def build(self, input_shape):
        self.log_variance = self.add_weight(initializer="zeros", name="log_variance")

    def call(self, probabilities):
        column = ops.zeros_like(probabilities[:, :1]) + self.log_variance
        return ops.concatenate([probabilities, column], axis=-1)


class UncertaintyCrossentropy(MaskedCrossentropy):
    """`MaskedCrossentropy`, weighted by the log variance that `TaskUncertainty` learns.

    With s the log variance: ``exp(-s) * loss + s / 2`` (Kendall, Gal & Cipolla 2017). A task
    that stays hard gets a smaller weight; the second term keeps the weights from vanishing.
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        s = ops.mean(y_pred[:, -1])
        loss = super().__call__(y_true, y_pred[:, :-1], sample_weight)
        # Without labels there is no loss to weight, and s would fall without end.
        labelled = ops.cast(ops.sum(self.row_weights(y_true, sample_weight)) > 0, loss.dtype)
        return ops.exp(-s) * loss + labelled * s / 2


def weigh_by_uncertainty(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """Return a compiled model that trains `model` with learned loss weights.

    Parameters
    ----------
    model
        A network of `get_model`. The returned model shares its layers and so trains it;
        predict with `model`.
    optimizer
        For the weights of both.

    Returns
    -------
    keras.Model
        Its layers ``<output>_uncertainty`` hold the learned log variances.
    """
    outputs = {
        name: TaskUncertainty(name=f"{name}_uncertainty", dtype="float32")(output)
        for name, output in zip(model.output_names, model.outputs, strict=True)
    }
    wrapper = keras.Model(model.inputs, outputs)
    wrapper.compile(optimizer, loss={name: UncertaintyCrossentropy() for name in outputs})
    return wrapper
