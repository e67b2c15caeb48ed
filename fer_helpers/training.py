"""Training: compile with weighted losses, and the whole way from a data set to a network."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers.backend import choose_precision, dtype_policy, keras
from fer_helpers.batches import batches_of
from fer_helpers.datasets import load_training_data
from fer_helpers.distributed import on_all_gpus
from fer_helpers.labels import BLOCKS, OUTPUTS, TASKS, check_task
from fer_helpers.losses import MaskedAccuracy, MaskedCrossentropy
from fer_helpers.model import RAFDB_RUN, get_model, load_model
from fer_helpers.runs import fit

# The weights of arXiv 2110.15028.
PAPER_LOSS_WEIGHTS = {"emotion": 2.0, "gender": 0.1, "race": 1.5, "age": 4.0}

# For Adam, from random weights and from weights that should keep what they know.
LEARNING_RATE = 2e-3
FINE_TUNING_RATE = 5e-4


SHIPPED = {
    "SAMPLE": "the shipped weights for SAMPLE, trained on drawn faces; terms: MIT licence",
    **dict.fromkeys(
        ("FER", "UTKFACE"),
        "the shipped weights for FER and UTKFACE, trained on FER2013 and UTKFace; terms: "
        "non-commercial research and teaching",
    ),
}


def compile_model(
    model: keras.Model,
    loss_weights: Mapping[str, float] = PAPER_LOSS_WEIGHTS,
    tasks: Sequence[str] = tuple(TASKS),
    optimizer: keras.optimizers.Optimizer | None = None,
    label_smoothing: float = 0.0,
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

    Returns
    -------
    keras.Model
        The same model, compiled.

    Raises
    ------
    ValueError
        A task that does not exist, a weight below 0 or not finite, or none above 0.
    """
    for task in [*loss_weights, *tasks]:
        check_task(task)
    for task, weight in loss_weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(
                f"the loss weight of {task} is {weight}: it must be a finite number of at least 0"
            )
    if not any(loss_weights.values()):
        raise ValueError("all loss weights are 0: nothing would be trained")
    model.compile(
        optimizer=optimizer or keras.optimizers.Adam(LEARNING_RATE),
        # By name: a list would go by position, and would silently be wrong if the outputs were
        # ever ordered differently.
        loss={OUTPUTS[task]: MaskedCrossentropy(label_smoothing) for task in TASKS},
        loss_weights={OUTPUTS[task]: float(loss_weights.get(task, 0)) for task in TASKS},
        metrics={
            OUTPUTS[task]: [MaskedAccuracy(name="accuracy")] if task in tasks else []
            for task in TASKS
        },
    )
    return model


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
    dataset_name: str = "SAMPLE",
    epochs: int = 30,
    out_dir: str | Path | None = None,
    *,
    data_dir: str | Path | None = None,
    seed: int = 0,
    backbone: str | None = None,
    batch_size: int = 32,
    loss_weights: Mapping[str, float] = PAPER_LOSS_WEIGHTS,
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
        ``"SAMPLE"``, ``"FER"``, ``"RAFDB"`` or ``"UTKFACE"``.
    epochs
        Epochs in total, including those of an interrupted run.
    out_dir
        Folder for ``model.keras`` and ``history.csv``; ``results/<dataset_name>`` if None.
    data_dir
        Folder with the data sets, see `load_data`.
    seed
        Seed of the initial weights, the shuffling, the augmentation and the dropout, at least 0.
    backbone
        ``"compact"``, ``"deep"``, ``"wide"`` or ``"paper"``, see `get_model`. If None: that of
        the weights training starts from, otherwise ``"compact"``.
    batch_size
        Images per batch, at least 1.
    loss_weights
        Task -> weight of its loss, see `compile_model`.
    start
        Weights to start from, as `load_model` takes them. If None: random ones, but for
        ``"RAFDB"`` without a `backbone` the shipped ones for FER, which know all tasks that
        RAF-DB has labels for.

    Returns
    -------
    pandas.DataFrame
        The history, one row per epoch, see `read_history`.

    Raises
    ------
    ValueError
        The weights to start from have another backbone than the one asked for; no task has
        labels and a loss weight above 0, in training and in validation; or `out_dir` holds a
        run with other settings, see `fit`.
    FileNotFoundError
        The data set or the weights to start from are missing.
    OSError
        No room, or no permission to write.
    """
    out_dir = Path(out_dir or Path("results") / dataset_name)
    (X, y), (X_val, y_val) = load_training_data(dataset_name, data_dir=data_dir)
    if start is None and dataset_name == "RAFDB" and backbone is None:
        start = "FER"
    begin = load_model(start) if start is not None else None
    if begin and backbone not in (None, begin.name):
        raise ValueError(f"{start} holds a {begin.name!r} network, but {backbone!r} is asked for")
    tasks = labelled_tasks(y)
    keras.utils.set_random_seed(seed)
    with on_all_gpus():  # all that has numbers: the network, and the optimizer's own
        with dtype_policy(choose_precision()):
            # Drawn faces vary by themselves, in all that the augmentation would change.
            model = get_model(
                backbone=begin.name if begin else backbone or "compact",
                augment=dataset_name != "SAMPLE",
            )
        optimizer = None
        if begin:
            model.set_weights(begin.get_weights())
            for output in OUTPUTS.values():  # they fitted the faces it was calibrated on
                model.get_layer(output).temperature.assign(1.0)
            optimizer = keras.optimizers.Adam(FINE_TUNING_RATE)
        compile_model(model, loss_weights, tasks, optimizer)
        monitor = _choose_monitor(dataset_name, y, y_val, loss_weights)
        # Here, since what is built later, to go on with a run, would be on one device only.
        model.optimizer.build(model.trainable_variables)
    return fit(
        model,
        batches_of(X, y, batch_size, True, seed),
        batches_of(X_val, y_val, 256),
        epochs,
        out_dir,
        monitor,
    )


def origin(weights: str | Path) -> str:
    """Return what weights were trained on, what they started from, and under which terms.

    Parameters
    ----------
    weights
        As `load_model` takes them. Of a file, the ``settings.json`` beside it is read, which
        `train` wrote.

    Returns
    -------
    str
        ``"<weights>: not stated"`` without such a file.
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
        return f"{weights}: not stated"
    return f"{weights}: trained on {faces} faces (settings.json has their digest), from {start}"


def _choose_monitor(dataset_name: str, y, y_val, loss_weights: Mapping[str, float]) -> str:
    """Return the metric to choose by, or say which labels are missing."""
    tasks = labelled_tasks(y)
    if not tasks:
        raise ValueError(f"the training split of {dataset_name} has no labels")
    trained = [task for task in tasks if loss_weights.get(task, 0) > 0]
    if not trained:
        raise ValueError(
            f"{dataset_name} has labels for {', '.join(tasks)} only, whose loss weights are 0: "
            "nothing would be trained"
        )
    both = [task for task in trained if task in labelled_tasks(y_val)]
    if not both:
        raise ValueError(
            f"the validation split of {dataset_name} has no labels for {', '.join(trained)}, "
            "trained here: no epoch could be chosen as the best"
        )
    return monitored_metric(both, loss_weights)
