"""Training: compile with weighted losses, and the whole way from a data set to a network."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers.backend import choose_precision, dtype_policy, keras
from fer_helpers.batches import batches_of
from fer_helpers.datasets import load_training_data
from fer_helpers.distributed import on_all_gpus, process_info
from fer_helpers.labels import BLOCKS, OUTPUTS, TASKS, check_task, short_name
from fer_helpers.losses import MaskedAccuracy, MaskedCrossentropy
from fer_helpers.model import RAFDB_RUN, get_model, load_model
from fer_helpers.runs import fit

# The weights of arXiv 2110.15028.
PAPER_LOSS_WEIGHTS = {"emotion": 2.0, "gender": 0.1, "race": 1.5, "age": 4.0}

# From random weights, and from weights that should keep what they know: the rate of Adam, and
# the epochs. The latter were chosen by `studies.fine_tuning`, see pretrained/README.md.
LEARNING_RATE, EPOCHS = 2e-3, 30
FINE_TUNING_RATE, FINE_TUNING_EPOCHS = 1e-4, 12

# "balanced", a number per class, or class name -> number.
ClassWeights = str | Sequence[float] | Mapping[str, float]

# Shipped weights: what they were trained on, and under which terms they may be used.
SHIPPED = {
    "SAMPLE": "drawn faces; terms: MIT licence",
    "FER": "FER2013 and UTKFace; terms: non-commercial research and teaching",
    "UTKFACE": "FER2013 and UTKFace; terms: non-commercial research and teaching",
}
# Training on other faces starts from the weights for FER, which know all four tasks.
FACES_START = "FER"


def compile_model(
    model: keras.Model,
    loss_weights: Mapping[str, float] = PAPER_LOSS_WEIGHTS,
    tasks: Sequence[str] = tuple(TASKS),
    optimizer: keras.optimizers.Optimizer | None = None,
    label_smoothing: float = 0.0,
    class_weights: Mapping[str, ClassWeights] | None = None,
    y: np.ndarray | None = None,
) -> keras.Model:
    """Compile a network with one masked, weighted loss per head.

    Parameters
    ----------
    model
        A network with the four outputs of `get_model`.
    loss_weights
        Task -> weight of its loss in the sum, finite and at least 0, at least one of them
        above 0. A task left out has weight 0.
    tasks
        Tasks whose accuracy is reported: those that the data have labels for.
    optimizer
        Adam with a learning rate of `LEARNING_RATE` if None.
    label_smoothing
        From 0 to 1, see `MaskedCrossentropy`.
    class_weights
        Task -> how much each of its classes counts in its loss, for classes that some have
        many faces of and others few: ``"balanced"``, numbers in the order of `TASKS`, or class
        name -> number, where a class left out has 1. Finite, at least 0. See `weights_of`.
    y
        Label rows (N, 18) of the training faces, for ``"balanced"`` only.

    Returns
    -------
    keras.Model
        The same model, compiled.

    Raises
    ------
    ValueError
        A task or class that does not exist, a weight below 0 or not finite, or none above 0;
        ``"balanced"`` without `y`.

    Notes
    -----
    Give weights here, not to Keras' ``model.fit``: its ``class_weight`` and ``sample_weight``
    fail with an IndexError or a KeyError where targets go by name (Keras issue 20992). For a
    weight per face, see ``sample_weight`` of `generate_images`.
    """
    class_weights = class_weights or {}
    for task in [*loss_weights, *tasks, *class_weights]:
        check_task(task)
    for task, weight in loss_weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(
                f"the loss weight of {task} is {weight}: it must be a finite number of at least 0"
            )
    if not any(loss_weights.values()):
        raise ValueError("all loss weights are 0: nothing would be trained")
    by_class = {task: weights_of(task, given, y) for task, given in class_weights.items()}
    model.compile(
        optimizer=optimizer or keras.optimizers.Adam(LEARNING_RATE),
        # By name: a list would go by position, and would silently be wrong if the outputs were
        # ever ordered differently.
        loss={
            OUTPUTS[task]: MaskedCrossentropy(label_smoothing, by_class.get(task)) for task in TASKS
        },
        loss_weights={OUTPUTS[task]: float(loss_weights.get(task, 0)) for task in TASKS},
        metrics={
            OUTPUTS[task]: [MaskedAccuracy(name="accuracy")] if task in tasks else []
            for task in TASKS
        },
    )
    return model


def weights_of(task: str, given: ClassWeights, y: np.ndarray | None = None) -> list[float]:
    """Return the weight of each class of a task, in the order of `TASKS`.

    Parameters
    ----------
    task
        One of the four tasks.
    given
        ``"balanced"``: all classes count alike, however many faces they have. A class with n of
        N labelled faces gets N / (K n), K being the number of classes that have faces; a class
        without faces gets 0. Or a number per class, in their order or by name; a class that is
        not named gets 1.
    y
        Label rows (N, 18) of the training faces, for ``"balanced"`` only.

    Returns
    -------
    list of float

    Raises
    ------
    ValueError
        A class that does not exist, another number of weights than classes, a weight that is
        not a number, or ``"balanced"`` without labels of the task to count.
    """
    classes = TASKS[task]
    if isinstance(given, str):
        if given != "balanced":
            raise ValueError(
                f"class weights of {task} must be 'balanced' or numbers, not {given!r}"
            )
        counts = np.zeros(len(classes)) if y is None else y[:, BLOCKS[task]].sum(axis=0)
        if not counts.any():
            raise ValueError(
                f"balanced class weights of {task} need faces that are labelled for it: give the "
                "label rows of the training faces, or numbers"
            )
        present = counts > 0
        share = counts.sum() / present.sum()
        return np.divide(share, counts, out=np.zeros(len(classes)), where=present).tolist()
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in classes]
        if unknown:
            raise ValueError(
                f"{task} has no class {unknown[0]!r} to weigh: choose from {', '.join(classes)}"
            )
        given = [given.get(name, 1) for name in classes]
    if len(given) != len(classes):
        raise ValueError(f"{task} has {len(classes)} classes, but {len(given)} class weights")
    try:
        return [float(weight) for weight in given]
    except (TypeError, ValueError):
        raise ValueError(f"class weights of {task} must be numbers, not {list(given)}") from None


def labelled_tasks(y: np.ndarray) -> tuple[str, ...]:
    """Return the tasks for which at least one row of the labels (N, 18) has a label."""
    return tuple(task for task, block in BLOCKS.items() if y[:, block].any())


def monitored_metric(
    tasks: Sequence[str], loss_weights: Mapping[str, float] = PAPER_LOSS_WEIGHTS
) -> str:
    """Return the name of the metric that the best epoch is chosen by.

    Parameters
    ----------
    tasks
        Tasks that both the training and the validation faces have labels for.
    loss_weights
        The weights the model is compiled with. A task without weight is not trained, so
        nothing is chosen by it.

    Returns
    -------
    str
        ``"val_emotion_output_accuracy"`` if emotion is among the tasks and has a weight above
        0, otherwise ``"val_loss"``.

    Raises
    ------
    ValueError
        None of the tasks has a weight above 0.
    """
    weighted = [task for task in tasks if loss_weights.get(task, 0) > 0]
    if not weighted:
        raise ValueError(
            "no task has labels in training and in validation and a loss weight above 0: no "
            "epoch could be chosen as the best. Change the loss weights, or validate on other faces"
        )
    return "val_emotion_output_accuracy" if "emotion" in weighted else "val_loss"


def train(
    dataset_name: str | Path = "SAMPLE",
    epochs: int | None = None,
    out_dir: str | Path | None = None,
    *,
    data_dir: str | Path | None = None,
    labels: str | Path | None = None,
    ignore: Sequence[str] = (),
    seed: int = 0,
    backbone: str | None = None,
    batch_size: int = 32,
    loss_weights: Mapping[str, float] = PAPER_LOSS_WEIGHTS,
    class_weights: Mapping[str, ClassWeights] | None = None,
    start: str | Path | None = None,
) -> pd.DataFrame:
    """Train on a data set's training split; choose the best epoch on its validation split.

    This is notebook 05 in one call: load, separate, batch, augment, compile, fit. Called again
    with the same `out_dir`, it goes on where it stopped. The best epoch is the one with the
    greatest emotion accuracy if emotion is trained, otherwise the one with the least loss, see
    `monitored_metric`; training stops early after 8 epochs without improvement, see `fit`.

    Parameters
    ----------
    dataset_name
        ``"SAMPLE"``, ``"FER"``, ``"RAFDB"`` or ``"UTKFACE"``, or the path of faces of your own,
        see `load_data`.
    epochs
        Epochs in total, including those of an interrupted run. If None: 12 from given weights,
        30 from random ones.
    out_dir
        Folder for ``model.keras`` and ``history.csv``; see `run_folder` if None.
    data_dir, labels, ignore
        See `load_data`.
    seed
        Seed of the initial weights, the shuffling, the augmentation and the dropout, at least 0.
    backbone
        ``"compact"``, ``"deep"``, ``"wide"`` or ``"paper"``, see `get_model`. If None: that of
        the weights training starts from, otherwise ``"compact"``.
    batch_size
        Images per batch, at least 1.
    loss_weights
        Task -> weight of its loss, see `compile_model`.
    class_weights
        Task -> how much each of its classes counts, for instance ``{"emotion": "balanced"}``,
        see `weights_of`.
    start
        Weights to start from, as `load_model` takes them, or ``"none"`` for random ones. They
        are a candidate for the best epoch, so that training does not end with a network that is
        worse on the validation split, see `fit`. If None: the shipped weights for FER, which
        know all four tasks, for RAFDB and for faces of your own; random ones for SAMPLE, FER
        and UTKFACE, and if a `backbone` is given.

    Returns
    -------
    pandas.DataFrame
        The history, see `read_history`.

    Raises
    ------
    ValueError
        The weights to start from have another backbone than the one asked for; no task has
        labels and a loss weight above 0, in training and in validation; class weights that
        `weights_of` refuses; or `out_dir` holds a run with other settings, see `fit`.
    FileNotFoundError
        The data set or the weights to start from are missing.
    OSError
        No room, or no permission to write.
    """
    learnt, chosen = load_training_data(dataset_name, data_dir, labels, ignore)
    start = _choose_start(dataset_name, start, backbone)
    return train_faces(
        learnt,
        chosen,
        epochs or (FINE_TUNING_EPOCHS if start else EPOCHS),
        Path(out_dir or run_folder(dataset_name)),
        start=start,
        seed=seed,
        backbone=backbone,
        batch_size=batch_size,
        loss_weights=loss_weights,
        class_weights=class_weights,
        # Drawn faces vary by themselves, in all that the augmentation would change.
        augment=dataset_name != "SAMPLE",
    )


def train_faces(
    learnt: tuple[np.ndarray, np.ndarray],
    chosen: tuple[np.ndarray, np.ndarray],
    epochs: int,
    out_dir: str | Path,
    *,
    start: str | Path | None = None,
    seed: int = 0,
    backbone: str | None = None,
    batch_size: int = 32,
    loss_weights: Mapping[str, float] = PAPER_LOSS_WEIGHTS,
    class_weights: Mapping[str, ClassWeights] | None = None,
    augment: bool = True,
) -> pd.DataFrame:
    """Train on faces that are loaded already, as `train` does.

    Parameters
    ----------
    learnt, chosen
        Faces to learn from, and others to choose the best epoch by: each ``(X, y)``, images
        (N, 48, 48, 1) with values 0 to 255, and label rows float32 (N, 18).
    epochs, out_dir, seed, backbone, batch_size, loss_weights, class_weights
        See `train`.
    start
        Weights to start from, as `load_model` takes them; random ones if None.
    augment
        Change the faces at random while training, see `RandomFace`.

    Returns
    -------
    pandas.DataFrame
        The history, see `read_history`.

    Raises
    ------
    ValueError, FileNotFoundError, OSError
        See `train`.
    """
    (X, y), (X_val, y_val) = learnt, chosen
    monitor = _choose_monitor(y, y_val, loss_weights)
    begin = load_model(start) if start else None
    if begin and backbone not in (None, begin.name):
        raise ValueError(f"{start} holds a {begin.name!r} network, but {backbone!r} is asked for")
    keras.utils.set_random_seed(seed)
    with on_all_gpus():  # all that has numbers: the network, and the optimizer's own
        with dtype_policy(choose_precision()):
            model = get_model(backbone=begin.name if begin else backbone, augment=augment)
        if begin:
            model.set_weights(begin.get_weights())
        optimizer = keras.optimizers.Adam(FINE_TUNING_RATE if begin else LEARNING_RATE)
        compile_model(
            model, loss_weights, labelled_tasks(y), optimizer, class_weights=class_weights, y=y
        )
        # Here, since what is built later, to go on with a run, would be on one device only.
        model.optimizer.build(model.trainable_variables)
    return fit(
        model,
        batches_of(X, y, batch_size, True, seed),
        batches_of(X_val, y_val, 256),
        epochs,
        out_dir,
        monitor,
        start=_name_start(start) if start else None,
    )


def run_folder(dataset_name: str | Path) -> Path:
    """Return ``results/NAME``, where `train` writes by default; a path gives its last name."""
    return Path("results") / short_name(dataset_name)


def _choose_start(
    dataset_name: str | Path, start: str | Path | None, backbone: str | None
) -> str | Path | None:
    """Return the weights to start from, None for random ones; say so if nobody chose them."""
    if start is not None:
        return None if str(start) == "none" else start
    if backbone is not None or dataset_name in SHIPPED:
        return None
    if process_info()[0] == 0:
        print(f"starting from {_name_start(FACES_START)}. For random weights: start 'none'")
    return FACES_START


def _name_start(start: str | Path) -> str:
    file = RAFDB_RUN if str(start) == "RAFDB" else Path(start)
    name = f"the shipped weights for {start}"
    if file.is_file():  # a run that goes on must find the same weights there
        name = f"weights {hashlib.sha256(file.read_bytes()).hexdigest()[:12]} in {start}"
    return f"{name}, trained on {origin(start)}"


def origin(weights: str | Path) -> str:
    """Return what weights were trained on, from which start, and under which terms.

    Parameters
    ----------
    weights
        As `load_model` takes them. For a file, the ``settings.json`` beside it is read, which
        `train` writes.

    Returns
    -------
    str
        ``"not stated"`` if the file has no readable ``settings.json`` beside it.
    """
    if str(weights) == "RAFDB":  # as `load_model` chooses
        weights = RAFDB_RUN if RAFDB_RUN.is_file() else "FER"
    if str(weights) in SHIPPED:
        return SHIPPED[str(weights)]
    try:
        settings = json.loads((Path(weights).parent / "settings.json").read_text())
        faces = settings["training"]["images"].partition("[")[2].partition(",")[0]
        start = settings["start"] or "random weights"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "not stated"
    return f"{faces} faces (settings.json has their digest), starting from {start}"


def _choose_monitor(y: np.ndarray, y_val: np.ndarray, loss_weights: Mapping[str, float]) -> str:
    """Return the metric to choose by, or say which labels are missing."""
    tasks = labelled_tasks(y)
    if not tasks:
        raise ValueError("the training faces have no labels")
    trained = [task for task in tasks if loss_weights.get(task, 0) > 0]
    if not trained:
        raise ValueError(
            f"the training faces have labels for {', '.join(tasks)} only, whose loss weights are "
            "0: nothing would be trained"
        )
    both = [task for task in trained if task in labelled_tasks(y_val)]
    if not both:
        raise ValueError(
            f"the validation faces have no labels for {', '.join(trained)}, trained here: no epoch "
            "could be chosen as the best"
        )
    return monitored_metric(both, loss_weights)
