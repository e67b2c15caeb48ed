"""What a run keeps on disk: whole files, networks in float32, and the settings it depends on."""

import contextlib
import functools
import json
import os
import textwrap
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers.progress import tqdm

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

from fer_helpers.backend import keras
from fer_helpers.batches import FaceBatches


@contextlib.contextmanager
def locked(file: Path, place: Path) -> Iterator[None]:
    """Keep a second process out of `place` until this block, or this process, ends.

    Without effect where `file` cannot be written, and on systems or drives without locks.

    Parameters
    ----------
    file
        The lock, made if missing; it stays. It can be held again even after a crash.
    place
        What the lock is for, named in the error.

    Raises
    ------
    OSError
        The lock is held already.
    """
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(file.open("a"))
            if fcntl:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"{place} is in use: another process, or another notebook, is writing to it. "
                "Wait until it has ended, stop it, or write to another place"
            ) from None
        except OSError:
            pass
        yield


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside `path`, then move it there, so that `path` is always a whole file.

    Parameters
    ----------
    path
        File to write or to replace; its folder exists.
    write
        Writes the file whose path it is given.

    Raises
    ------
    OSError
        `write` failed with an OSError or a RuntimeError: no room, or no permission.
    """
    # The suffix stays: Keras chooses the file format by it.
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # HDF5 raises RuntimeError when the disk is full
        raise OSError(
            f"{path} cannot be written ({error}): make room there, or write to another folder. "
            "What was saved before is whole, and the same command goes on from there"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_runs(csv: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return a study's table of runs, without rows if there is no such file.

    Parameters
    ----------
    csv
        File that the study writes a row per run to.
    columns
        Those that identify a run.

    Raises
    ------
    ValueError
        The file is not a table, or lacks one of the columns.
    """
    if not csv.is_file():
        return pd.DataFrame()
    try:
        table = pd.read_csv(csv, dtype={"arm": str})  # an arm may be named by a number
    except ValueError as error:  # from pandas, which does not name the file
        raise ValueError(f"{csv} is not a table: {error}. Choose another file") from error
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"{csv} has no column {missing[0]!r}: choose another file")
    return table


def fill_table(
    csv: Path, wanted: Sequence[Mapping], train: Callable[[Mapping], Mapping]
) -> pd.DataFrame:
    """Make the runs of a study that its table lacks, and write the table after each.

    Parameters
    ----------
    csv
        The table, a row per run; its folder is made.
    wanted
        What identifies each run: column -> value, the same columns for all, at least one run.
    train
        Makes a run, given what identifies it, and returns its other columns.

    Returns
    -------
    pandas.DataFrame
        The whole table, floats rounded to five digits.

    Raises
    ------
    ValueError
        The file is another table, see `read_runs`.
    OSError
        Another process is writing to it, or there is no room.
    """
    columns = list(wanted[0])
    csv.parent.mkdir(parents=True, exist_ok=True)
    with locked(csv.with_name(f".{csv.name}.lock"), csv):
        table = read_runs(csv, columns)
        done = set(table[columns].itertuples(index=False, name=None)) if len(table) else set()
        missing = [run for run in wanted if tuple(run.values()) not in done]
        for run in tqdm(missing, desc="runs", unit="run"):
            row = pd.DataFrame([{**run, **train(run)}])
            table = pd.concat([table, row], ignore_index=True).round(5)
            replace_file(csv, functools.partial(table.to_csv, index=False))
    return table


def in_float32(model: keras.Model, weights: list[np.ndarray]) -> keras.Model:
    """Return a copy of a network in float32, which runs on any machine, not compiled.

    Parameters
    ----------
    model
        In any precision; it stays as it is.
    weights
        As `model.get_weights` gives them.
    """

    def rebuild(layer):
        return layer.__class__.from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=rebuild)
    copy.set_weights(weights)
    # The clone is compiled, and its optimizer would make the file three times as large.
    return keras.Model(copy.inputs, copy.outputs, name=copy.name)


def check_best(out_dir: Path) -> None:
    """Raise a ValueError if ``model.keras``, the best epoch so far, is missing or damaged."""
    path = out_dir / "model.keras"
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        if archive.testzip() is None:
            return
    raise ValueError(
        f"{path}, the best epoch so far, is missing or damaged: put it back, or train into an "
        "empty folder"
    )


def inner_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the optimizer asked for: in float16 Keras wraps it, to scale the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def run_settings(
    model: keras.Model,
    train: FaceBatches,
    validation: FaceBatches,
    monitor: str,
    start: str | None = None,
) -> dict:
    """Return all that the epochs of a run follow from, as JSON would give it back."""
    optimizer = inner_optimizer(model.optimizer)
    loss = model.get_compile_config()
    settings = {
        "layers": {
            f"{number} {type(layer).__name__}": keras.saving.serialize_keras_object(layer)["config"]
            for number, layer in enumerate(model.layers)
        },
        "optimizer": {"class": type(optimizer).__name__, **optimizer.get_config()},
        # What scales the loss has numbers of its own to go on with.
        "float16": optimizer is not model.optimizer,
        "loss": loss["loss"],
        "loss_weights": loss["loss_weights"],
        "training": train.describe(),
        "validation": validation.describe(),
        "monitor": monitor,
        "start": start,
    }
    return _without_automatic(json.loads(json.dumps(settings)))


def _without_automatic(config):
    """Return a configuration without names, which Keras counts up, and without precisions."""
    if isinstance(config, dict):
        kept = config.keys() - {"name", "dtype"}
        return {key: _without_automatic(config[key]) for key in config if key in kept}
    if isinstance(config, list):
        return [_without_automatic(value) for value in config]
    return config


def _differences(begun, asked, name: str = "") -> Iterator[str]:
    """Yield a line for each value that differs between two configurations."""
    if isinstance(begun, dict) and isinstance(asked, dict):
        for key in begun | asked:
            inner = f"{name}.{key}" if name else key
            yield from _differences(begun.get(key), asked.get(key), inner)
    elif begun != asked:
        old, new = (textwrap.shorten(str(value), 60) for value in (begun, asked))
        yield f"{name} was {old}, is now {new}"


def write_settings(out_dir: Path, settings: dict) -> None:
    """Write what a run depends on to ``settings.json``."""
    text = json.dumps(settings, indent=1)
    replace_file(out_dir / "settings.json", lambda path: path.write_text(text))


def check_settings(out_dir: Path, settings: dict) -> None:
    """Compare settings with those that a run was begun with.

    Parameters
    ----------
    out_dir
        Folder of the run, with its ``settings.json``.
    settings
        From `run_settings`.

    Raises
    ------
    ValueError
        They differ, and which ones; the file is damaged, or from another version.
    FileNotFoundError
        There is no such file.
    """
    path = out_dir / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{out_dir} has a history, but no settings.json to compare with: train into another "
            "folder"
        )
    try:
        begun = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): train into another folder") from error
    if not isinstance(begun, dict) or begun.keys() != settings.keys():
        raise ValueError(
            f"{path} was written by another version of fer_helpers, which cannot be compared "
            "with: train into another folder"
        )
    changed = list(_differences(begun, settings))
    if changed:
        more = f"; and {len(changed) - 3} more" * (len(changed) > 3)
        raise ValueError(
            f"{out_dir} holds a run that was begun with other settings: "
            f"{'; '.join(changed[:3])}{more}. Train into another folder, or delete this one"
        )
