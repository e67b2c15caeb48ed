"""Compile and fit: weighted losses, the usual callbacks, and resuming where a run stopped."""

import contextlib
import json
import math
import os
import platform
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from fer_helpers.backend import choose_precision, dtype_policy, gpu_capability, keras
from fer_helpers.batches import FaceBatches, batches_of
from fer_helpers.datasets import read_dataset
from fer_helpers.datasets.load import own_parts
from fer_helpers.distributed import alone, check_agreement, on_all_gpus, share
from fer_helpers.labels import BLOCKS, OUTPUTS, TASKS, check_task
from fer_helpers.losses import MaskedAccuracy, MaskedCrossentropy
from fer_helpers.model import get_model, load_model

# Of arXiv 2110.15028.
PAPER_LOSS_WEIGHTS = {"emotion": 2.0, "gender": 0.1, "race": 1.5, "age": 4.0}

# Of Adam, from random weights and from weights that should keep what they know.
LEARNING_RATE = 2e-3
FINE_TUNING_RATE = 5e-4


def check_environment() -> None:
    """Print the versions, the device and the precision in use, and how to get a GPU."""
    gpu = gpu_capability() is not None
    print(f"Python {platform.python_version()}, Keras {keras.__version__}", end=" ")
    print(f"on {keras.backend.backend()}, precision {choose_precision()}")
    print("GPU found." if gpu else "No GPU: everything works, real data sets train slowly.")
    if not gpu and "COLAB_RELEASE_TAG" in os.environ:
        print("Runtime > Change runtime type > T4 GPU > Save, then run this cell again.")


def compile_model(
    model: keras.Model,
    loss_weights: Mapping[str, float] = PAPER_LOSS_WEIGHTS,
    tasks: tuple[str, ...] = tuple(TASKS),
    optimizer: keras.optimizers.Optimizer | None = None,
    label_smoothing: float = 0.0,
) -> keras.Model:
    """Compile with one masked, weighted loss a head.

    Parameters
    ----------
    model
        As `get_model` gives it.
    loss_weights
        Task -> weight of its loss in the sum, each at least 0. A task left out weighs 0.
    tasks
        Those whose accuracy is reported: the ones that the data have labels for.
    optimizer
        Adam with a learning rate of `LEARNING_RATE` if None.
    label_smoothing
        See `MaskedCrossentropy`.

    Returns
    -------
    keras.Model
        The same model.

    Raises
    ------
    ValueError
        A task that does not exist, a weight below zero or not finite, or none above zero.
    """
    for task in [*loss_weights, *tasks]:
        check_task(task)
    for task, weight in loss_weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"loss weight of {task} is {weight}: it must be a number from 0 up")
    if not any(loss_weights.values()):
        raise ValueError("all loss weights are 0: nothing would be trained")
    model.compile(
        optimizer=optimizer or keras.optimizers.Adam(LEARNING_RATE),
        # By name: a list would go by position, and would be wrong without a word if the
        # outputs were ever ordered differently.
        loss={OUTPUTS[task]: MaskedCrossentropy(label_smoothing) for task in TASKS},
        loss_weights={OUTPUTS[task]: float(loss_weights.get(task, 0)) for task in TASKS},
        metrics={
            OUTPUTS[task]: [MaskedAccuracy(name="accuracy")] if task in tasks else []
            for task in TASKS
        },
    )
    return model


def load_training_data(
    dataset_name: str, data_dir: str | Path | None = None
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The data to learn from, and those to choose the best epoch by: never a test part.

    A data set without a validation part of its own, such as RAF-DB or a copy of FER2013 in
    folders, gives up a tenth of its training part, always the same faces.

    Returns
    -------
    tuple
        ``(X, y), (X_validation, y_validation)``, as `load_data` gives them.
    """
    train = read_dataset(dataset_name, "train", data_dir=data_dir)
    word = own_parts(dataset_name).get("validation")
    if word in read_dataset(dataset_name, data_dir=data_dir).parts:
        validation = read_dataset(dataset_name, "validation", data_dir=data_dir)
        return (train.images, train.labels), (validation.images, validation.labels)
    kept, chosen = train_test_split(np.arange(len(train)), test_size=0.1, random_state=0)
    return (
        (train.images[kept], train.labels[kept]),
        (train.images[chosen], train.labels[chosen]),
    )


def labelled_tasks(y: np.ndarray) -> tuple[str, ...]:
    """The tasks that at least one of the label rows is labelled for."""
    return tuple(task for task, block in BLOCKS.items() if y[:, block].any())


def monitored_metric(tasks: tuple[str, ...]) -> str:
    """What the best epoch is chosen by: emotion accuracy where there is one, else the loss."""
    return "val_emotion_output_accuracy" if "emotion" in tasks else "val_loss"


def read_history(out_dir: str | Path) -> pd.DataFrame:
    """`history.csv` of a run: a row for each finished epoch, empty before the first."""
    path = Path(out_dir) / "history.csv"
    if not path.is_file():
        return pd.DataFrame({"epoch": []})
    try:
        history = pd.read_csv(path)
    except ValueError as error:  # of pandas, which does not name the file
        raise ValueError(f"{path} is no table: {error}") from error
    if "epoch" not in history:
        raise ValueError(f"{path} has no column 'epoch': was it saved by another program?")
    return history


def fit(
    model: keras.Model,
    train: FaceBatches,
    validation: FaceBatches,
    epochs: int,
    out_dir: str | Path,
    monitor: str = "val_emotion_output_accuracy",
    patience: int | None = 8,
    callbacks: tuple[keras.callbacks.Callback, ...] = (),
) -> pd.DataFrame:
    """Train a compiled model, or go on with a run that was interrupted.

    Cuts the learning rate to three tenths when `monitor` has not improved for a quarter of
    `patience` epochs, and stops after `patience`. Writes to `out_dir`:

    - ``model.keras``: the best epoch by `monitor`, in float32, without the optimizer; the
      averaged weights if the optimizer averages them;
    - ``history.csv``: a row an epoch;
    - ``logs/``: for TensorBoard;
    - ``resume-N.weights.h5``: all that is needed to go on after epoch N.

    Called again with the same `out_dir`, it goes on after the last finished epoch with the
    same batches, learning rate and dropout that it would have had. What the run was begun
    with stands in ``settings.json``.

    Parameters
    ----------
    model
        Compiled, for instance by `compile_model`.
    train, validation
        As `generate_images` makes them.
    epochs
        Epochs in total, those of an interrupted run included.
    out_dir
        Folder of this run; made if missing.
    monitor
        A name from the history; the greatest value is best if it is an accuracy, else the
        least.
    patience
        Epochs without improvement before training stops. None: neither stop nor touch the
        learning rate, for an optimizer that has a schedule of its own.
    callbacks
        Further Keras callbacks.

    Returns
    -------
    pandas.DataFrame
        The history, epochs counted from 1.

    Raises
    ------
    ValueError
        `out_dir` holds a run of another network, or with another optimizer, loss weights,
        images, labels, batch size or seed, or one in float16 that is to go on in another
        precision; the devices cannot share the batches evenly; the first epoch gave no `monitor`.
    FileNotFoundError
        `out_dir` has a history, but not what is needed to go on from it.
    OSError
        No room, or no permission to write.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    rank, _, devices = share()
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow's, see `on_all_gpus`
    devices = max(devices, strategy.num_replicas_in_sync if strategy else 1)
    train.devices = validation.devices = devices
    if train.batch_size % devices:
        raise ValueError(f"batch_size {train.batch_size} cannot be shared by {devices} devices")
    if rank == 0:
        for left in out_dir.glob(".writing-*"):
            left.unlink(missing_ok=True)  # by a run that was killed
    settings = {
        "network": model.name,
        "optimizer": _optimizer_settings(model.optimizer),
        "loss_weights": model.get_compile_config()["loss_weights"],
        "images": len(train.images),
        # Whoever corrects labels would get the run with the old ones.
        "labels": joblib.hash(train.targets),
        "batch_size": train.batch_size,
        "seed": train.seed,
    }
    if _inner(model.optimizer) is not model.optimizer:
        settings["float16"] = True  # what scales the loss has numbers of its own to go on with
    _check_settings(out_dir, settings)
    mode = "max" if "accuracy" in monitor else "min"
    history = read_history(out_dir)
    done = len(history)
    model.stop_training = False  # another run of this network may have stopped early
    check_agreement(done, "histories of epochs")
    check_agreement(len(train.images), "images")
    watchers = []
    if patience is not None:
        plateau = max(patience // 4, 1)
        watchers = [
            keras.callbacks.ReduceLROnPlateau(monitor, factor=0.3, patience=plateau, mode=mode),
            keras.callbacks.EarlyStopping(monitor, patience=patience, mode=mode),
        ]
    averaging = [keras.callbacks.SwapEMAWeights()] if _inner(model.optimizer).use_ema else []
    run = _Run(out_dir, history, monitor, mode, train, watchers)
    if done:
        run.restore(model)
        _replay(watchers, model, history)  # has it stopped early? Keras would not ask
    if done < epochs and not model.stop_training:
        model.fit(
            train,
            validation_data=validation,
            initial_epoch=done,
            epochs=epochs,
            verbose=0,
            # The batches are shuffled already; Keras would shuffle their order by Python's
            # global random state, which an interrupted run does not get back.
            shuffle=False,
            callbacks=[
                # What is validated is what is kept: averaged weights are in the network then.
                keras.callbacks.LambdaCallback(on_test_end=run.keep_validated),
                *callbacks,
                *watchers,
                *averaging,
                run,
                *([_TensorBoard(out_dir / "logs"), _Progress(epochs)] * (rank == 0)),
            ],
        )
    # Rank 0 may still be writing the file.
    return read_history(out_dir) if rank == 0 else pd.DataFrame(run.rows)


def _replay(watchers: list[keras.callbacks.Callback], model: keras.Model, history: pd.DataFrame):
    """Bring fresh callbacks to the state they were in after the epochs of `history`."""
    if not watchers:
        return
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    for watcher in watchers:
        watcher.set_model(model)
        watcher.on_train_begin()
        for epoch, row in enumerate(history.to_dict("records")):
            watcher.on_epoch_end(epoch, row)
    # The saved rate already holds the reductions that the replay has just made again.
    model.optimizer.learning_rate = rate


class _Run(keras.callbacks.Callback):
    """Keeps the files of a run. An epoch counts once its row stands in history.csv."""

    def __init__(self, out_dir, history, monitor, mode, train, watchers):
        super().__init__()
        self.watchers = watchers
        self.out_dir, self.monitor, self.train_batches = out_dir, monitor, train
        self.rows = history.to_dict("records")
        self.sign = 1 if mode == "max" else -1
        self.best = None

    def _resume_file(self, epoch: int) -> Path:
        return self.out_dir / f"resume-{epoch}.weights.h5"

    def restore(self, model: keras.Model) -> None:
        if not model.optimizer.built:  # float16's loss scaling would add its numbers twice
            model.optimizer.build(model.trainable_variables)
        path = self._resume_file(len(self.rows))
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.out_dir} has a history of {len(self.rows)} epochs but no {path.name} to "
                "go on from: train into an empty folder"
            )
        try:
            with warnings.catch_warnings():
                # Keras only warns of some parts that it cannot place.
                warnings.simplefilter("error", UserWarning)
                model.load_weights(path)
        except (ValueError, KeyError, OSError, UserWarning) as error:
            raise ValueError(
                f"{path} does not fit this model: go on with the backbone and settings the run "
                f"was begun with, or train into an empty folder ({error})"
            ) from error

    def on_train_begin(self, logs=None):
        # Keras has just made the watchers, which stand before this one, forget everything.
        _replay(self.watchers, self.model, pd.DataFrame(self.rows))

    def on_epoch_begin(self, epoch, logs=None):
        # Keras also ends an epoch of the batches when it only begins to fit.
        self.train_batches.set_epoch(epoch)
        seed_layers(self.model, self.train_batches.seed, epoch)

    def keep_validated(self, logs=None):
        self.validated = self.model.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1} | {name: float(value) for name, value in (logs or {}).items()}
        if self.monitor not in row:
            raise ValueError(f"no {self.monitor!r} in the history: choose from {sorted(row)}")
        if not all(np.isfinite(weights).all() for weights in self.validated):
            raise ValueError(
                f"the weights are no numbers any more in epoch {epoch + 1} (loss {row['loss']}): "
                "take a lower learning rate or smaller loss weights, and look for NaN in the data"
            )
        self.rows.append(row)
        if share()[0] == 0:
            with alone():
                self.write(epoch, row)

    def write(self, epoch: int, row: dict) -> None:
        # An epoch that gave no number (NaN) is not the best one.
        previous = [self.sign * old[self.monitor] for old in self.rows[:-1]]
        if self.sign * row[self.monitor] > np.nanmax([-np.inf, *previous]):
            if self.best is None:  # once a run: it takes as long as a short epoch
                self.best = in_float32(self.model, self.validated)
            self.best.set_weights(self.validated)
            replace_file(self.out_dir / "model.keras", self.best.save)
        replace_file(self._resume_file(epoch + 1), self.model.save_weights)
        table = pd.DataFrame(self.rows)
        replace_file(self.out_dir / "history.csv", lambda path: table.to_csv(path, index=False))
        for old in self.out_dir.glob("resume-*.weights.h5"):
            if old != self._resume_file(epoch + 1):
                old.unlink()


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside `path`, then move it there: `path` is always a whole file."""
    # Keras looks at the ending of the name.
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # HDF5 has errors of its own for a full disk
        raise OSError(
            f"{path} cannot be written ({error}): make room there, or write to another folder. "
            "What was saved before is whole, and the same command goes on from it"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def in_float32(model: keras.Model, weights: list[np.ndarray]) -> keras.Model:
    """The network with `weights`, in float32 for any machine, whatever it was trained in."""

    def rebuild(layer):
        return layer.__class__.from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=rebuild)
    copy.set_weights(weights)
    # The clone is compiled, and its optimizer would make the file three times as large.
    return keras.Model(copy.inputs, copy.outputs, name=copy.name)


def seed_layers(model: keras.Model, *seed: int) -> None:
    """Make what the layers draw next depend on nothing but `seed`, such as (seed, epoch)."""
    for number, layer in enumerate(model._flatten_layers()):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            state = np.random.SeedSequence([*seed, number]).generate_state(2)
            generator.state.assign(state.astype(generator.state.dtype))


class _TensorBoard(keras.callbacks.TensorBoard):
    """Writes once an epoch, nothing after a batch.

    On JAX even to look at the network there, from the thread of `_Progress`, would undo a step.
    """

    async_safe = True

    def on_train_batch_end(self, batch, logs=None):
        pass


class _Progress(keras.callbacks.Callback):
    """A bar within each epoch, and a line after it."""

    # Else Keras waits for the numbers of each step before it begins the next one.
    async_safe = True

    def __init__(self, epochs: int):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        self.bar = tqdm(
            total=self.params["steps"], desc=f"epoch {epoch + 1}/{self.epochs}", leave=False
        )

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        self.bar.close()
        parts = [f"epoch {epoch + 1:>3}/{self.epochs}", f"loss {logs['loss']:.3f}"]
        for task, output in OUTPUTS.items():
            accuracy = logs.get(f"val_{output}_accuracy")
            if accuracy is not None:
                parts.append(f"{task} {accuracy:.3f}")
        print("  ".join(parts), flush=True)


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
    """Train on a data set's training part, choosing the best epoch on its validation part.

    The whole of notebook 05 in one call: load, separate, batch, augment, compile, fit.
    Running it again with the same `out_dir` goes on where it stopped.

    Parameters
    ----------
    dataset_name
        One of `fer_helpers.DATASETS`.
    epochs
        In total.
    out_dir
        Folder for ``model.keras`` and ``history.csv``; ``results/<dataset_name>`` if None.
    data_dir
        See `load_data`.
    seed
        Of the initial weights, the shuffling, the augmentation and the dropout.
    backbone
        See `get_model`. If None: that of the weights it starts from, else ``"compact"``.
    batch_size, loss_weights
        See `generate_images`, `compile_model`.
    start
        Weights to begin from, as `load_model` takes them. If None: for ``"RAFDB"``, if no
        backbone is asked for, the shipped ones for FER, which know all that RAF-DB labels;
        else random.

    Returns
    -------
    pandas.DataFrame
        The history, a row an epoch.

    Raises
    ------
    ValueError
        The weights to start from have another backbone than the one asked for, or every
        task that the data have labels for has a loss of weight 0.
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
            for output in OUTPUTS.values():  # they fitted the faces that it has learnt from
                model.get_layer(output).temperature.assign(1.0)
            optimizer = keras.optimizers.Adam(FINE_TUNING_RATE)
        compile_model(model, loss_weights, tasks, optimizer)
        if not tasks:
            raise ValueError(f"the training part of {dataset_name} has no labels at all")
        if not any(loss_weights.get(task, 0) for task in tasks):
            raise ValueError(
                f"{dataset_name} has labels for {', '.join(tasks)} only, whose losses weigh 0: "
                "nothing would be trained"
            )
        # Here, since what is built later, to go on with a run, would be on one device alone.
        model.optimizer.build(model.trainable_variables)
    return fit(
        model,
        batches_of(X, y, batch_size, True, seed=seed),
        batches_of(X_val, y_val, 256),
        epochs,
        out_dir,
        monitored_metric(tuple(task for task in labelled_tasks(y_val) if task in tasks)),
    )


def _inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The one that was asked for: in float16 Keras puts another around it, to scale the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _optimizer_settings(optimizer: keras.optimizers.Optimizer) -> dict:
    optimizer = _inner(optimizer)
    settings = {"class": type(optimizer).__name__} | optimizer.get_config()
    del settings["name"]  # numbered anew for each optimizer
    if isinstance(settings["learning_rate"], float):
        del settings["learning_rate"]  # falls while training; the run has its own
    return settings


def _check_settings(out_dir: Path, settings: dict) -> None:
    """Refuse to go on with a run that was begun with other settings."""
    path = out_dir / "settings.json"
    (settings,) = pd.json_normalize(settings).to_dict("records")
    if path.is_file():
        begun = json.loads(path.read_text())
        keys = begun.keys() | settings.keys()
        changed = {key: begun.get(key) for key in keys if begun.get(key) != settings.get(key)}
        if changed:
            raise ValueError(
                f"{out_dir} holds a run begun with {changed}, now asked for with "
                f"{ {key: settings.get(key) for key in changed} }: use another folder, "
                "or delete this one"
            )
    if share()[0] == 0:
        replace_file(path, lambda part: part.write_text(json.dumps(settings, indent=1)))
