"""Loss and metric that leave out faces without a label for the task.

A row of zeros in a one-hot block means: not labelled. Keras' own cross-entropy gives such a
row a loss of 0 but counts it in the mean, its accuracy counts it as class 0, and its label
smoothing turns it into a uniform target. Here a row weighs as much as its label mass: 1 if
labelled, 0 if not (and the share in between where two faces were mixed), and the mean is
taken over that mass.
"""

from fer_helpers.backend import keras
from fer_helpers.distributed import sum_over_replicas

ops = keras.ops

_PACKAGE = "fer_helpers"


def label_mass(y_true, sample_weight=None):
    """Weight (N,) of each row: the sum of its targets, times `sample_weight` if given."""
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

    Notes
    -----
    Called with one-hot `y_true` and probabilities `y_pred`, both (N, classes). A batch
    without any label gives 0, and no gradient.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "masked_crossentropy"):
        super().__init__(name=name)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing is a share from 0 to 1, not {label_smoothing}")
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        mass = label_mass(y_true)
        target = ops.where(mass[:, None] > 0, y_true / ops.maximum(mass, 1e-7)[:, None], 0.0)
        smooth = self.label_smoothing
        target = target * (1 - smooth) + smooth / y_true.shape[-1]
        # At Keras' epsilon of 1e-7 a face that the network is surely wrong about would have no
        # gradient, and much below 1e-30 float16's scaling of the loss would be too much for it.
        log_probability = ops.log(ops.clip(y_pred, 1e-30, 1.0))
        return -ops.sum(target * log_probability, axis=-1)

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_pred = ops.convert_to_tensor(y_pred, "float32")
        y_true = ops.convert_to_tensor(y_true, "float32")
        weight = label_mass(y_true, sample_weight)
        total = ops.sum(weight * self.call(y_true, y_pred))
        # Gradients of replicas are added up, so each divides by the labels of all: a mean of
        # their means would give the labels of some a greater weight.
        labelled = sum_over_replicas(ops.sum(weight))
        return total / ops.maximum(labelled, keras.config.epsilon())

    def get_config(self):
        return {"name": self.name, "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(_PACKAGE)
class MaskedAccuracy(keras.metrics.CategoricalAccuracy):
    """Share of the labelled rows whose most probable class is the labelled one."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = ops.convert_to_tensor(y_true, "float32")
        return super().update_state(y_true, y_pred, label_mass(y_true, sample_weight))


class TaskUncertainty(keras.layers.Layer):
    """Adds to a head's probabilities (N, classes) one column: its learned log variance."""

    def build(self, input_shape):
        self.log_variance = self.add_weight(shape=(), initializer="zeros", name="log_variance")

    def call(self, probabilities):
        column = ops.zeros_like(probabilities[:, :1]) + self.log_variance
        return ops.concatenate([probabilities, column], axis=-1)


class UncertaintyCrossentropy(MaskedCrossentropy):
    """`MaskedCrossentropy`, weighed by the log variance that `TaskUncertainty` learns.

    With s the log variance: ``exp(-s) * loss + s / 2`` (Kendall, Gal & Cipolla 2018). A task
    that stays hard gets a smaller weight; the second term keeps the weights from vanishing.
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        s = ops.mean(y_pred[:, -1])
        loss = super().__call__(y_true, y_pred[:, :-1], sample_weight)
        # Without labels there is no loss to weigh, and s would only run away.
        labelled = ops.cast(ops.sum(label_mass(y_true)) > 0, loss.dtype)
        return ops.exp(-s) * loss + labelled * s / 2


def weigh_by_uncertainty(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """A compiled model that trains `model` with loss weights that it learns.

    Shares all its layers with `model`, which is thereby trained and is what to predict with.
    The learned log variances are the weights of its layers ``<output>_uncertainty``.
    """
    outputs = {
        name: TaskUncertainty(name=f"{name}_uncertainty", dtype="float32")(output)
        for name, output in zip(model.output_names, model.outputs, strict=True)
    }
    wrapper = keras.Model(model.inputs, outputs)
    wrapper.compile(optimizer, loss={name: UncertaintyCrossentropy() for name in outputs})
    return wrapper
