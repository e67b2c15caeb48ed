"""Imported by the kernel of `test_every_set` first: Keras refuses faces of a single class.

Whatever is trained or scored must hold two classes of each task that it has labels for.
"""

import functools

import numpy as np

from fer_helpers.backend import keras
from fer_helpers.datasets import load

if keras.backend.backend() == "tensorflow":
    import tensorflow

    # To trace a graph takes longer than the few steps on a hundred faces.
    tensorflow.config.run_functions_eagerly(True)

    def update_step(self, gradient, variable, learning_rate):
        """Take Adam's step in one operation per variable; Keras takes some twenty."""
        place = self._get_variable_index(variable)
        step = tensorflow.cast(self.iterations.value + 1, variable.dtype)
        numbers = {
            "beta1_power": tensorflow.pow(self.beta_1, step),
            "beta2_power": tensorflow.pow(self.beta_2, step),
            "lr": learning_rate,
            "beta1": self.beta_1,
            "beta2": self.beta_2,
            "epsilon": self.epsilon,
            "grad": gradient,
        }
        tensorflow.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].value.handle,
            v=self._velocities[place].value.handle,
            **{name: tensorflow.cast(each, variable.dtype) for name, each in numbers.items()},
        )

    keras.optimizers.Adam.update_step = update_step

    def in_a_graph(method):
        @functools.wraps(method)
        def call(*args, **options):
            tensorflow.config.run_functions_eagerly(False)
            try:
                return method(*args, **options)
            finally:
                tensorflow.config.run_functions_eagerly(True)

        return call

    # But not longer than the hundred steps that are taken one by one.
    keras.Model.train_on_batch = in_a_graph(keras.Model.train_on_batch)

load.SAMPLE_SIZE = 800  # some cells show SAMPLE, whatever DATASET says


def targets(x, y):
    """Return name -> all targets, of arrays or of a data set that can be counted."""
    if y is None and isinstance(x, keras.utils.PyDataset):
        batches = [x[place][1] for place in range(len(x))]
    elif y is None and hasattr(x, "take"):  # tf.data
        batches = [batch[1] for batch in x.take(100)]
    else:
        batches = [] if y is None else [y]
    batches = [batch if isinstance(batch, dict) else {"target": batch} for batch in batches]
    names = batches[0] if batches else ()
    return {name: np.concatenate([np.asarray(b[name]) for b in batches]) for name in names}


def watched(method):
    @functools.wraps(method)
    def watch(self, x=None, y=None, *args, **options):
        for name, rows in targets(x, y).items():
            if rows.ndim == 2 and rows.shape[1] > 1:
                rows = rows[rows.any(axis=1)].argmax(axis=1)
            classes = np.unique(rows)
            if len(classes) == 1:
                raise AssertionError(f"{name}: all {len(rows)} faces are of class {classes[0]}")
        return method(self, x, y, *args, **options)

    return watch


keras.Model.fit, keras.Model.evaluate = map(watched, (keras.Model.fit, keras.Model.evaluate))
