"""A run: train epoch by epoch, keep the best epoch, and go on where the run stopped."""

import contextlib
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers.backend import keras
from fer_helpers.batches import FaceBatches
from fer_helpers.checkpoints import (
    check_best,
    check_settings,
    in_float32,
    inner_optimizer,
    locked,
    replace_file,
    run_settings,
    write_settings,
)
from fer_helpers.datasets.source import READ_ERRORS
from fer_helpers.distributed import check_agreement, process_info, undistributed
from fer_helpers.labels import OUTPUTS
from fer_helpers.progress import tqdm

# A learning rate that falls is multiplied by this.
RATE_FACTOR = 0.3


def read_history(out_dir: str | Path) -> pd.DataFrame:
    """Return the history of a run: one row per finished epoch.

    Parameters
    ----------
    out_dir
        Folder that `fit` or `train` wrote to.

    Returns
    -------
    pandas.DataFrame
        Column ``epoch``, counted from 1, the losses and metrics of training and, with the
        prefix ``val_``, of validation, and ``learning_rate``. A run that began with given
        weights also has a row of epoch 0: what these weights score on the validation faces,
        with NaN in the columns of training. Without rows if there is no run in the folder, or
        none that has finished an epoch.

    Raises
    ------
    ValueError
        ``history.csv`` is not a table, has no column ``epoch``, or text in a column.
    """
    path = Path(out_dir) / "history.csv"
    if not path.is_file():
        return pd.DataFrame({"epoch": []})
    try:
        history = pd.read_csv(path)
    except ValueError as error:  # from pandas, which does not name the file
        raise ValueError(f"{path} is not a table: {error}") from error
    if "epoch" not in history:
        raise ValueError(f"{path} has no column 'epoch': was it saved by another program?")
    for name in history:
        if not pd.api.types.is_numeric_dtype(history[name]):
            raise ValueError(f"{path} has text in the column {name!r}: train into an empty folder")
    return history


def fit(
    model: keras.Model,
    train: FaceBatches,
    validation: FaceBatches,
    epochs: int,
    out_dir: str | Path,
    monitor: str = "val_emotion_output_accuracy",
    patience: int | None = 8,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    start: str | None = None,
    save_every: int = 1,
) -> pd.DataFrame:
    """Train a compiled model, or go on with a run that was interrupted.

    The learning rate falls to three tenths whenever `monitor` has not improved for a quarter
    of `patience` epochs. After `patience` epochs without improvement training stops early, and
    a line says so. Writes to `out_dir`:

    - ``model.keras``: the best epoch by `monitor`, the first one if several are equal, in
      float32, without the optimizer; the averaged weights if the optimizer averages them;
    - ``history.csv``: one row per epoch, see `read_history`;
    - ``settings.json``: what the run depends on, images and labels as digests;
    - ``resume-N.keras``: all that is needed to go on after epoch N.

    Called again with the same `out_dir`, it goes on after the last epoch that was written, with the
    same batches, learning rate and dropout as if the run had not been interrupted.

    Parameters
    ----------
    model
        Compiled, for instance by `compile_model`. Afterwards it has the weights of the last
        epoch, and the learning rate that it came with.
    train, validation
        Made by `generate_images`, or `mixed_batches` for training.
    epochs
        Epochs in total, including those of an interrupted run.
    out_dir
        Folder of this run; made if missing.
    monitor
        A column of the history. The greatest value is best if its name contains "accuracy",
        otherwise the least.
    patience
        Epochs without improvement, at least 1, before training stops. It may change between
        two calls. None: never stop early and leave the learning rate alone, for an optimizer
        with a schedule.
    callbacks
        More Keras callbacks, for instance ``keras.callbacks.TensorBoard(folder)``.
    start
        For a model that has learned something already: where its weights come from, and under
        which terms they may be used. The text goes into ``settings.json``. The weights are
        scored on the validation faces before the first epoch. They are epoch 0, and the best
        epoch until another one is better; an accuracy must be better by more than its standard
        error, see `start_margin`, since a few faces are easily guessed right by chance. None for
        random weights, which are not scored.
    save_every
        Epochs, at least 1, after which the files are written, and an interruption costs no more
        than that many. More than 1 pays where writing takes as long as an epoch.

    Returns
    -------
    pandas.DataFrame
        The history, see `read_history`.

    Raises
    ------
    ValueError
        `out_dir` holds a run with another network, optimizer, loss, loss weights, monitor,
        images, labels, batch size, seed or start; a file there is damaged or was written by another
        version, or ``model.keras`` is missing; `patience` is given with a learning rate schedule;
        `save_every` is below 1; the devices cannot share the batches evenly; the history has no
        `monitor`; the weights contain NaN.
    FileNotFoundError
        `out_dir` has a history, but not the files that are needed to go on from it.
    OSError
        No room, or no permission to write; or another process is training into `out_dir`.
    """
    if save_every < 1:
        raise ValueError(f"save_every must be at least 1 epoch, not {save_every}")
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    # Processes that train together share the folder, and rank 0 writes for all of them.
    writes = process_info()[0] == 0
    with locked(out_dir / ".lock", out_dir) if writes else contextlib.nullcontext():
        return _fit(
            *(model, train, validation, epochs, out_dir, monitor, patience, callbacks, start),
            save_every,
        )


def _fit(
    model, train, validation, epochs, out_dir, monitor, patience, callbacks, start, save_every
) -> pd.DataFrame:
    """Train in a folder that no other process writes to; see `fit`."""
    rank, processes, _ = process_info()
    settings = run_settings(model, train, validation, monitor, start)
    rate = settings["optimizer"]["learning_rate"]
    if rank == 0:
        for left in out_dir.glob(".writing-*"):
            left.unlink(missing_ok=True)  # from a run that was killed
    history = read_history(out_dir)
    done = int(history["epoch"].max()) if len(history) else 0
    asked = {"finished epochs": done, "epochs": epochs, "patience": patience}
    check_agreement(asked | settings)
    _share_batches(model, train, validation)
    _check_patience(patience, rate)
    # Without a finished epoch nothing is resumed: the start is scored again.
    rows = history.to_dict("records") if done else []
    run = _Run(out_dir, rows, monitor, patience, train, validation, save_every)
    try:
        if done:
            check_settings(out_dir, settings)
            run.restore(model)
        elif rank == 0:
            write_settings(out_dir, settings)
        if start is not None and done == 0:
            run.score_start(model, epochs)
        # Another run of this network may have stopped early.
        model.stop_training = run.is_over()
        if done < epochs and not model.stop_training:
            averages = inner_optimizer(model.optimizer).use_ema
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
                    # What is validated is kept: the network then holds the averaged weights.
                    keras.callbacks.LambdaCallback(on_test_end=run.keep_validated),
                    *callbacks,
                    *([keras.callbacks.SwapEMAWeights()] * averages),
                    run,
                    *([_Progress(epochs)] * (rank == 0)),
                ],
            )
    finally:
        # It fell in this run, and the next one starts with it. After an error of one of several
        # processes there is none, and this would wait for the others.
        whole = processes == 1 or sys.exc_info()[0] is None
        if isinstance(rate, float) and whole:
            model.optimizer.learning_rate = rate
    if rank != 0:  # rank 0 may still be writing the file
        return pd.DataFrame(run.rows)
    run.report(done, epochs)
    return read_history(out_dir)


def _share_batches(model: keras.Model, train: FaceBatches, validation: FaceBatches) -> None:
    """Tell the batches how many devices share each of them."""
    _, _, devices = process_info()
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow's, see `on_all_gpus`
    devices = max(devices, strategy.num_replicas_in_sync if strategy else 1)
    train.devices = validation.devices = devices
    if train.batch_size % devices:
        raise ValueError(f"batch_size {train.batch_size} cannot be shared by {devices} devices")


def _check_patience(patience: int | None, rate) -> None:
    if patience is not None and patience < 1:
        raise ValueError(f"patience must be at least 1 epoch, or None, not {patience}")
    if patience is not None and not isinstance(rate, float):
        raise ValueError(
            "the optimizer has a learning rate schedule, which patience would interfere with: "
            "give fit patience=None, or the optimizer a number"
        )


def best_place(values: Sequence[float], monitor: str, margin: float = 0.0) -> int:
    """Return which value is the best, counted from 1; 0 if there is none.

    Parameters
    ----------
    values
        What `monitor` was in each row of a history. The first of equal values is best, and NaN
        never is.
    monitor
        The greatest value is best if this name contains "accuracy", otherwise the least.
    margin
        By how much another value must be better than the first one to replace it, at least 0.
    """
    sign = 1 if "accuracy" in monitor else -1
    best, found = -np.inf, 0
    for place, value in enumerate(values, 1):
        if sign * value > (best + margin if found == 1 else best):
            best, found = sign * value, place
    return found


def start_margin(accuracy: float, faces: int) -> float:
    """Return by how much an epoch's accuracy must exceed that of the start to replace it.

    It is the standard error of an accuracy that was measured on so many faces. On 30 validation
    faces one of twelve epochs is likely to be two faces better by chance.
    """
    return math.sqrt(accuracy * (1 - accuracy) / max(faces, 1))


def rate_falls(waited: int, patience: int | None) -> bool:
    """Return whether the learning rate falls after `waited` epochs without improvement."""
    return patience is not None and waited > 0 and waited % max(patience // 4, 1) == 0


def stops_early(waited: int, patience: int | None) -> bool:
    """Return whether training stops after `waited` epochs without improvement."""
    return patience is not None and waited >= patience


class _Run(keras.callbacks.Callback):
    """Chooses the best epoch and writes the files of a run.

    An epoch counts once it has a row in history.csv, and all choices follow from these rows,
    so an interrupted run chooses as a whole one does.
    """

    def __init__(self, out_dir, rows, monitor, patience, train, validation, save_every):
        super().__init__()
        self.out_dir, self.monitor, self.patience = out_dir, monitor, patience
        self.train_batches, self.validation = train, validation
        self.rows, self.save_every = rows, save_every
        self.best = self.unwritten = None

    def waited(self) -> int:
        """Return the number of epochs since the best one."""
        values = [row[self.monitor] for row in self.rows]
        return len(self.rows) - best_place(values, self.monitor, self._margin())

    def _margin(self) -> float:
        """Return how much better than the start an epoch must be; 0 for a loss."""
        metric = self.monitor.removeprefix("val_").removesuffix("_accuracy")
        labels = self.validation.targets.get(metric)
        if not self.rows or self.rows[0]["epoch"] > 0 or labels is None:
            return 0.0
        return start_margin(self.rows[0][self.monitor], int(labels.any(axis=1).sum()))

    def done(self) -> int:
        """Return the number of epochs that are finished."""
        return self.rows[-1]["epoch"] if self.rows else 0

    def is_over(self) -> bool:
        """Return whether the run stops, or has stopped, early."""
        return stops_early(self.waited(), self.patience)

    def report(self, done: int, epochs: int) -> None:
        """Print why a call that began after `done` epochs did not train all that was asked for."""
        if self.is_over() and self.done() < epochs:
            print(
                f"stopped early after {self.done()} of {epochs} epochs: {self.monitor} has not "
                f"improved for {self.waited()} epochs. A longer patience would train on",
                flush=True,
            )
        elif self.done() == done:
            print(f"{self.out_dir} has {done} epochs already: nothing was trained", flush=True)
        if self.rows and self.rows[0]["epoch"] == 0 and self.waited() == self.done():
            print(
                f"no epoch was clearly better than the start by {self.monitor}: "
                f"{self.out_dir / 'model.keras'} holds the weights that training started from",
                flush=True,
            )

    def _resume_file(self, epoch: int) -> Path:
        return self.out_dir / f"resume-{epoch}.keras"

    def restore(self, model: keras.Model) -> None:
        if self.monitor not in self.rows[0]:
            raise ValueError(
                f"{self.out_dir / 'history.csv'} has no column {self.monitor!r}, which the best "
                "epoch is chosen by: train into an empty folder"
            )
        if self.waited() < len(self.rows):  # else no epoch was the best one so far
            check_best(self.out_dir)
        if not model.optimizer.built:  # float16's loss scaling would add its numbers twice
            model.optimizer.build(model.trainable_variables)
        path = self._resume_file(self.done())
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.out_dir} has a history of {self.done()} epochs but no {path.name} to "
                "go on from: train into an empty folder"
            )
        try:
            with warnings.catch_warnings():
                # Keras only warns about some weights that it has no place for.
                warnings.simplefilter("error", UserWarning)
                model.load_weights(path)
        except (*READ_ERRORS, KeyError, UserWarning) as error:
            raise ValueError(
                f"{path} cannot be loaded into this model ({error}): train into an empty folder"
            ) from error

    def on_epoch_begin(self, epoch, logs=None):
        # Keras also ends an epoch of the batches when it only begins to fit.
        self.train_batches.set_epoch(epoch)
        seed_layers(self.model, self.train_batches.seed, epoch)

    def keep_validated(self, logs=None):
        self.validated = self.model.get_weights()

    def score_start(self, model: keras.Model, epochs: int) -> None:
        """Make the weights that `model` has now the first candidate for the best epoch."""
        self.set_model(model)
        self.keep_validated()
        scores = model.evaluate(self.validation, verbose=0, return_dict=True)
        scored = {f"val_{name}": float(value) for name, value in scores.items()}
        row = {"epoch": 0} | dict.fromkeys(scores, np.nan) | scored | {"learning_rate": np.nan}
        self._add(row)
        self._write()
        if process_info()[0] == 0:
            print(_line(0, epochs, scored), flush=True)

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        row = {name: float(value) for name, value in (logs or {}).items()}
        self._add({"epoch": epoch + 1} | row | {"learning_rate": rate})
        if rate_falls(self.waited(), self.patience):
            optimizer.learning_rate = rate * RATE_FACTOR
        self.model.stop_training |= self.is_over()
        last = self.model.stop_training or epoch + 1 == self.params["epochs"]
        if last or (epoch + 1) % self.save_every == 0:
            self._write()

    def _add(self, row: dict) -> None:
        if self.monitor not in row:
            raise ValueError(f"no {self.monitor!r} in the history: choose from {sorted(row)}")
        if not all(np.isfinite(weights).all() for weights in self.validated):
            raise ValueError(
                f"the weights contain NaN or infinity in epoch {row['epoch']} "
                f"(loss {row['loss']}): take a lower learning rate or smaller loss weights, and "
                "look for NaN in the data"
            )
        self.rows.append(row)
        if self.waited() == 0:
            self.unwritten = self.validated

    def _write(self) -> None:
        if process_info()[0] == 0:
            with undistributed():
                self._write_files()

    def _write_files(self) -> None:
        if self.unwritten is not None:
            if self.best is None:  # once per run: it takes as long as a short epoch
                self.best = in_float32(self.model, self.unwritten)
            self.best.set_weights(self.unwritten)
            self.unwritten = None
            replace_file(self.out_dir / "model.keras", self.best.save)
        resume_file = self._resume_file(self.done())
        if self.done():  # from epoch 0 the run begins again
            # Not save_weights: on a full disk HDF5 crashes, while this file is built in memory.
            replace_file(resume_file, self.model.save)
        table = pd.DataFrame(self.rows)
        replace_file(self.out_dir / "history.csv", lambda path: table.to_csv(path, index=False))
        for old in self.out_dir.glob("resume-*.keras"):
            if old != resume_file:
                old.unlink()


def seed_layers(model: keras.Model, *seed: int) -> None:
    """Make everything the layers draw next depend on `seed` alone, such as (seed, epoch).

    Parameters
    ----------
    model
        Each of its random layers, Keras' own and those inside other layers included, gets a
        sequence of its own.
    seed
        Whole numbers of at least 0.
    """
    states = [state for state in model.variables if state.name == "seed_generator_state"]
    for number, state in enumerate(states):
        drawn = np.random.SeedSequence([*seed, number]).generate_state(2)
        state.assign(drawn.astype(state.dtype))


class _Progress(keras.callbacks.Callback):
    """Shows a bar within each epoch, and prints a line after it."""

    # Otherwise Keras waits for the numbers of each step before it begins the next one.
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
        print(_line(epoch + 1, self.epochs, logs), flush=True)


def _line(epoch: int, epochs: int, logs: Mapping[str, float]) -> str:
    """Return the loss of an epoch and its validation accuracies in one line."""
    words = [f"epoch {epoch:>3}/{epochs}"]
    if "loss" in logs:
        words.append(f"loss {logs['loss']:.3f}")
    for task, output in OUTPUTS.items():
        accuracy = logs.get(f"val_{output}_accuracy")
        if accuracy is not None:
            words.append(f"{task} {accuracy:.3f}")
    return "  ".join(words)
