"""How the shipped weights were made: run again, a recipe makes them from the data sets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fer_helpers import plots
from fer_helpers.backend import choose_precision, dtype_policy, keras
from fer_helpers.batches import batches_of, mixed_batches
from fer_helpers.evaluation import labelled, true_and_predicted
from fer_helpers.labels import BLOCKS, OUTPUTS
from fer_helpers.model import get_model, load_model, read_weights, write_weights
from fer_helpers.prediction import calibrate, predict
from fer_helpers.training import compile_model, fit, load_training_data, read_history

# Emotion is the hardest task and the reason for the network; the three others are nearly
# learnt after a few epochs, and help at a small weight.
LOSS_WEIGHTS = {"emotion": 1.0, "gender": 0.2, "race": 0.2, "age": 0.3}
SOURCES = {"FER": 144, "UTKFACE": 48}  # faces in a batch


def train_open_data(
    out_dir: str | Path = "results/open-data",
    epochs: int = 36,
    seed: int = 0,
    data_dir: str | Path | None = None,
    backbone: str = "compact",
) -> pd.DataFrame:
    """Train the weights that are shipped for FER and UTKFACE, on both data sets together.

    Each batch holds faces of both, each labelled for what its source knows and masked for
    the rest. SGD with Nesterov momentum and decoupled weight decay; the learning rate rises
    for an epoch, then falls along a cosine to zero; what is kept is a moving average of the
    weights over some 100 steps. The best epoch is chosen by the emotion accuracy on FER2013's
    PublicTest, where the temperatures are fitted too (those of the attributes on UTKFace's
    validation part).

    There are three generations. The first learns from the labels, smoothed by 0.1. The second
    goes on from its weights, at half the learning rate and for two thirds of the epochs, and
    learns from labels half of which are what the first generation answers (Furlanello et al.
    2018): where annotators erred, or a face shows two expressions, that is the better target.
    The third does so with the answers of the second, and has more to learn with: the compact
    network is grown into the deep one, which begins as the same function (Chen et al. 2016).

    Interrupted, it goes on where it stopped.

    Parameters
    ----------
    out_dir
        Folder of the last generation's run, see `fit`, with the others' in ``generation-1``
        and ``generation-2``. At the end it also holds ``open-data.weights.h5``,
        ``open-data.json`` and ``open-data.history.csv`` as the package ships them, and the
        reliability of the emotion head before and after the temperature as pictures.
    epochs
        Passes of the first generation through FER2013.
    seed, data_dir
        See `train`.
    backbone
        Of the first two generations. Only ``"compact"`` grows in the third.

    Returns
    -------
    pandas.DataFrame
        The history, a row an epoch, with a column ``generation``.
    """
    out_dir = Path(out_dir)
    parts = [load_training_data(name, data_dir) for name in SOURCES]
    train = [part for part, _ in parts]
    validation = tuple(
        np.concatenate(arrays) for arrays in zip(*[v for _, v in parts], strict=True)
    )
    generations = _generations(backbone, epochs)
    runs = [out_dir / f"generation-{number}" for number in range(1, len(generations))] + [out_dir]
    teacher = None
    for number, (generation, run) in enumerate(zip(generations, runs, strict=True)):
        # Another seed each: the draws of a generation are what its network has seen already.
        made = {"epochs": generation.epochs, "seed": seed + 1000 * number}
        if not _is_written(run, made):
            with dtype_policy(choose_precision()):
                keras.utils.set_random_seed(seed)
                model = get_model(backbone=generation.backbone)
            targets = train
            if teacher is not None:
                grow(model, teacher)
                targets = [(X, soften(y, predict(teacher, X, views=2))) for X, y in train]
            _train_generation(model, targets, validation, generation, made, run)
        teacher = read_weights(run / "open-data.weights.h5")
    histories = {number: read_history(run) for number, run in enumerate(runs, 1)}
    history = pd.concat(histories, names=["generation"]).reset_index("generation")
    history.to_csv(out_dir / "open-data.history.csv", index=False)
    return history


class _Generation(NamedTuple):
    backbone: str
    epochs: int
    rate: float  # of learning, at its highest
    smoothing: float


def _generations(backbone: str, epochs: int) -> list[_Generation]:
    grown, rest = "deep" if backbone == "compact" else backbone, max(2 * epochs // 3, 1)
    return [
        _Generation(backbone, epochs, 0.1, 0.1),
        _Generation(backbone, rest, 0.05, 0.0),
        _Generation(grown, rest, 0.05, 0.0),
    ]


def _train_generation(model, train, validation, generation, made, out_dir) -> None:
    """Train a network and write it, calibrated, as the package ships weights."""
    X, y = validation
    batches = mixed_batches(train, list(SOURCES.values()), made["seed"])
    epochs = made["epochs"]
    optimizer = _optimizer(len(batches), epochs, generation.rate)
    compile_model(model, LOSS_WEIGHTS, optimizer=optimizer, label_smoothing=generation.smoothing)
    history = fit(model, batches, batches_of(X, y, 256), epochs, out_dir, patience=None)
    best = load_model(out_dir / "model.keras")
    before = predict(best, X)
    temperatures = calibrate(best, X, y)
    for moment, probabilities in {"before": before, "after": predict(best, X)}.items():
        true, _ = true_and_predicted(y, probabilities, "emotion")
        chances = probabilities["emotion"][labelled(y, "emotion")]
        figure = plots.reliability(chances, true, f"Emotion, {moment} temperature scaling")
        plots.save(figure, out_dir / f"open-data-{moment}.png", dpi=80)
    write_weights(
        best,
        "open-data",
        out_dir,
        recipe=made | {"backend": keras.backend.backend()},
        best_epoch=int(history["val_emotion_output_accuracy"].idxmax()) + 1,
        temperatures=temperatures,
    )


def _is_written(out_dir: Path, asked: Mapping[str, int]) -> bool:
    """Whether a generation's weights are in the folder, and were made as is now asked for."""
    card = out_dir / "open-data.json"
    if not card.is_file():
        return False
    made = json.loads(card.read_text())["recipe"]
    if any(made[key] != value for key, value in asked.items()):
        raise ValueError(
            f"{card} was made with {made}, not {dict(asked)}: train into an empty folder"
        )
    return True


def grow(model: keras.Model, small: keras.Model) -> None:
    """Give a network the weights of another, which may have fewer residual blocks.

    A new block begins as its shortcut, so that the network answers as the small one did
    (Chen, Goodfellow & Shlens 2016). Temperatures begin at 1 again.
    """
    if model.name == small.name:
        model.set_weights(small.get_weights())
    else:
        for layer in small.layers:
            if layer.weights:
                model.get_layer(layer.name).set_weights(layer.get_weights())
    for output in OUTPUTS.values():
        model.get_layer(output).temperature.assign(1.0)


def soften(
    y: np.ndarray, probabilities: Mapping[str, np.ndarray], share: float = 0.5
) -> np.ndarray:
    """Replace a share of each label by what a network answers (Hinton, Vinyals & Dean 2015).

    Parameters
    ----------
    y, probabilities
        Label rows (N, 18), and what `predict` gave for the same faces.
    share
        0 to 1: how much of the label is replaced.

    Returns
    -------
    numpy.ndarray
        float32 (N, 18). Blocks without a label stay zero.
    """
    soft = y.astype(np.float32)
    for task, block in BLOCKS.items():
        rows = labelled(y, task)
        soft[rows, block] = (1 - share) * soft[rows, block] + share * probabilities[task][rows]
    return soft


def _optimizer(steps: int, epochs: int, rate: float) -> keras.optimizers.Optimizer:
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 10,
        decay_steps=steps * max(epochs - 1, 1),
        warmup_target=rate,
        warmup_steps=steps,
    )
    optimizer = keras.optimizers.SGD(
        schedule,
        momentum=0.9,
        nesterov=True,
        # Decoupled: worth 5e-4 added to the loss, which momentum makes ten times as much.
        weight_decay=5e-3,
        use_ema=True,
        # No longer: batch normalisation keeps its averages for the latest weights, and an
        # average over 500 steps does not go with them (0.13 on PublicTest after three epochs).
        ema_momentum=0.99,
    )
    # Decay is for what multiplies images; scales and offsets are few and free.
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


RECIPES = {"open-data": train_open_data}
