"""From images to probabilities, and what the network looked at."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from fer_helpers.backend import gradient, keras
from fer_helpers.evaluation import fit_temperature, labelled, true_and_predicted
from fer_helpers.images import check_values
from fer_helpers.labels import OUTPUTS, TASKS, check_task
from fer_helpers.progress import tqdm

ops = keras.ops

VIEWS = (1, 2, 10)


def predict(
    model: keras.Model,
    images: np.ndarray | Sequence[np.ndarray],
    batch_size: int = 256,
    views: int = 1,
) -> dict[str, np.ndarray]:
    """Predict the probability of every class of every task.

    Parameters
    ----------
    model
        From `get_model` or `load_model`.
    images
        (N, 48, 48, 1) or (N, 48, 48), grey, of any numeric dtype, values 0 to 255; may be a
        memory map, or a list of such images. `predict_crops` also takes files and colours.
    batch_size
        Images per batch.
    views
        How many views of each image are averaged: 1, the image; 2, also its mirror image;
        10, windows of 44/48 of the side in the four corners and the centre, and their
        mirror images.

    Returns
    -------
    dict
        Task -> float32 (N, classes); each row sums to 1.

    Raises
    ------
    ValueError
        Images of another shape or type, with values that `check_values` refuses, or a number of
        views other than 1, 2 and 10; or the weights of `model` are NaN, or so large that its
        probabilities are.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be one of {VIEWS}, not {views!r}")
    images, shape = _stack(images), model.input_shape[1:]
    if tuple(images.shape[1:]) not in (shape, shape[:2]):
        raise ValueError(
            f"images must be grey, (N, {shape[0]}, {shape[1]}, 1), not {tuple(images.shape)}: "
            "put a single one into a list; predict_crops takes files, any size, and colours"
        )
    places = {task: model.output_names.index(output) for task, output in OUTPUTS.items()}
    batches = {task: [] for task in TASKS}
    for start in tqdm(range(0, len(images), batch_size), desc="predicting", delay=2, leave=False):
        batch = np.asarray(images[start : start + batch_size]).reshape(-1, *shape)
        check_values(batch)
        count = len(batch)
        if start:
            # A last batch of another size would make the backend compile again.
            batch = np.resize(batch, (batch_size, *batch.shape[1:]))
        outputs = [model.predict_on_batch(view) for view in _views(batch, views)]
        for task, place in places.items():
            batches[task].append(np.mean([view[place] for view in outputs], axis=0)[:count])
            if np.isnan(batches[task][-1]).any():
                raise ValueError(
                    f"the probabilities of {task} are NaN, and so are the weights of the network, "
                    "or they are too large: train again with a lower learning rate"
                )
    empty = {task: np.zeros((0, len(classes)), np.float32) for task, classes in TASKS.items()}
    return {task: np.concatenate([empty[task], *batches[task]]) for task in TASKS}


def _stack(images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Return images as one array; what is an array already, such as a memory map, as it is."""
    if hasattr(images, "shape"):
        return images
    try:
        return np.asarray(images)
    except ValueError:
        raise ValueError("images differ in size or kind: predict_crops takes such a list") from None


def _views(batch: np.ndarray, views: int) -> Iterator[np.ndarray]:
    plain = [batch]
    if views == 10:
        side = batch.shape[1]
        margin = side // 12
        corners = [(0, 0), (0, margin), (margin, 0), (margin, margin), (margin // 2, margin // 2)]
        inner = side - margin
        plain = [
            ops.convert_to_numpy(
                ops.image.resize(
                    ops.cast(batch[:, top : top + inner, left : left + inner], "float32"),
                    (side, side),
                )
            )
            for top, left in corners
        ]
    for view in plain:
        yield view
        if views > 1:
            yield view[:, :, ::-1]


def calibrate(model: keras.Model, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Set each head's temperature so that its confidence matches its accuracy on (X, y).

    Use validation faces: on training faces the network is too confident, and test faces are
    for scoring. Which class is the most probable one does not change.

    Parameters
    ----------
    model
        From `get_model` or `load_model`; changed in place. A head without labels in `y` is
        left alone.
    X
        (N, 48, 48, 1) grey images, values 0 to 255.
    y
        (N, 18) label rows.

    Returns
    -------
    dict
        Task -> temperature, 0.05 to 20, of the tasks that have labels.

    Raises
    ------
    ValueError
        Images that `predict` refuses, or different lengths.
    """
    temperatures = {task: model.get_layer(OUTPUTS[task]).temperature for task in TASKS}
    rows = {task: labelled(y, task) for task in TASKS}
    fitted = {}
    tasks = [task for task in TASKS if rows[task].any()]
    for task in tasks:
        temperatures[task].assign(1.0)
    probabilities = predict(model, X)
    for task in tasks:
        true, _ = true_and_predicted(y, probabilities, task)
        fitted[task] = fit_temperature(probabilities[task][rows[task]], true)
        temperatures[task].assign(fitted[task])
    return fitted


def prediction_table(
    paths: Sequence[str], probabilities: Mapping[str, np.ndarray], attributes: bool = False
) -> pd.DataFrame:
    """Return one row per image: the most probable class, and the probability of each class.

    Parameters
    ----------
    paths
        (N,) what goes into the column ``path``.
    probabilities
        Task -> float (N, classes), see `predict`.
    attributes
        Also gender, race and age. They are coarse labels given by annotators, for the audit
        of labelled data sets; on photos of people they stay off unless asked for.

    Returns
    -------
    pandas.DataFrame
        Columns ``path``, ``emotion``, ``emotion_surprise`` ... ``emotion_neutral``, and
        the same for each attribute.
    """
    columns = {"path": list(paths)}
    for task in TASKS if attributes else ("emotion",):
        names = np.array(TASKS[task])
        columns[task] = names[probabilities[task].argmax(axis=1)]
        for index, name in enumerate(names):
            columns[f"{task}_{name}"] = probabilities[task][:, index]
    return pd.DataFrame(columns)


def grad_cam(
    model: keras.Model, image: np.ndarray, task: str = "emotion", class_name: str | None = None
) -> np.ndarray:
    """Show where in an image the evidence for a class lies (Grad-CAM; Selvaraju et al. 2017).

    Parameters
    ----------
    model
        From `get_model` or `load_model`.
    image
        (48, 48, 1), grey, values 0 to 255.
    task
        One of the four tasks.
    class_name
        The class to explain; the most probable one if None.

    Returns
    -------
    numpy.ndarray
        float32 (48, 48), 0 to 1, where 1 is the strongest evidence; all 0 if there is none.

    Raises
    ------
    ValueError
        A task or a class that does not exist.
    """
    if class_name not in (None, *TASKS[check_task(task)]):
        raise ValueError(
            f"{task} has no class {class_name!r}: choose from {', '.join(TASKS[task])}"
        )
    maps = model.get_layer("cam").output
    logits = model.get_layer(f"{task}_logits").output
    bottom, top = keras.Model(model.input, maps), keras.Model(maps, logits)
    activation = ops.cast(bottom(ops.convert_to_tensor(image[None]), training=False), "float32")
    scores = ops.convert_to_numpy(top(activation, training=False))[0]
    chosen = TASKS[task].index(class_name) if class_name else int(scores.argmax())
    slope = gradient(lambda value: ops.sum(top(value, training=False)[:, chosen]), activation)
    weights = ops.mean(slope, axis=(1, 2), keepdims=True)
    heat = ops.relu(ops.sum(weights * activation, axis=-1, keepdims=True))
    heat = ops.image.resize(heat, image.shape[:2], interpolation="bicubic")
    heat = np.clip(ops.convert_to_numpy(heat)[0, :, :, 0], 0, None)
    return heat / heat.max() if heat.max() > 0 else heat
