"""How the shipped weights were made: run again, a recipe makes them from the data sets."""

from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers import plots
from fer_helpers.backend import choose_precision, dtype_policy, keras
from fer_helpers.batches import batches_of, mixed_batches
from fer_helpers.evaluation import labelled, true_and_predicted
from fer_helpers.model import get_model, load_model, write_weights
from fer_helpers.prediction import calibrate, predict
from fer_helpers.training import compile_model, fit, load_training_data

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
    for an epoch, then falls along a cosine to zero; label smoothing of 0.1; what is kept is a
    moving average of the weights over some 100 steps. The best epoch is chosen by the emotion
    accuracy on FER2013's PublicTest, where the temperatures are fitted too (those of the
    attributes on UTKFace's validation part). Interrupted, it goes on where it stopped.

    Parameters
    ----------
    out_dir
        Folder of the run, see `fit`; at the end it also holds ``open-data.weights.h5`` and
        ``open-data.json`` as the package ships them, and the reliability of the emotion head
        before and after the temperature as pictures.
    epochs
        Passes through FER2013.
    seed, data_dir, backbone
        See `train`.

    Returns
    -------
    pandas.DataFrame
        The history, a row an epoch.
    """
    out_dir = Path(out_dir)
    parts = [load_training_data(name, data_dir) for name in SOURCES]
    train = mixed_batches([part for part, _ in parts], list(SOURCES.values()), seed)
    X, y = (np.concatenate(arrays) for arrays in zip(*[part for _, part in parts], strict=True))
    keras.utils.set_random_seed(seed)
    with dtype_policy(choose_precision()):
        model = get_model(backbone=backbone)
    compile_model(
        model, LOSS_WEIGHTS, optimizer=_optimizer(len(train), epochs), label_smoothing=0.1
    )
    history = fit(model, train, batches_of(X, y, 256), epochs, out_dir, patience=None)
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
        recipe={"epochs": epochs, "seed": seed, "backend": keras.backend.backend()},
        best_epoch=int(history["val_emotion_output_accuracy"].idxmax()) + 1,
        temperatures=temperatures,
    )
    return history


def _optimizer(steps: int, epochs: int) -> keras.optimizers.Optimizer:
    schedule = keras.optimizers.schedules.CosineDecay(
        0.01, decay_steps=steps * (epochs - 1), warmup_target=0.1, warmup_steps=steps
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
