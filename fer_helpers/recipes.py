"""How the shipped weights were made: run again, a recipe makes them from the data sets."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers import plots
from fer_helpers.augment import RandomFace
from fer_helpers.backend import choose_precision, dtype_policy, keras
from fer_helpers.batches import FaceBatches, batches_of, mixed_batches
from fer_helpers.evaluation import labelled, true_and_predicted
from fer_helpers.labels import OUTPUTS
from fer_helpers.model import build_model, get_model, load_model, read_weights, write_weights
from fer_helpers.prediction import calibrate, predict
from fer_helpers.training import compile_model, fit, load_training_data, read_history, seed_layers

# Emotion is the hardest task and the reason for the network; the three others are nearly
# learnt after a few epochs, and help at a small weight.
LOSS_WEIGHTS = {"emotion": 1.0, "gender": 0.2, "race": 0.2, "age": 0.3}
SOURCES = {"FER": 144, "UTKFACE": 48}  # faces in a batch
TEACHERS = 2
TEACHER = "wide"
ANSWERS = 0.8  # share of a label that the teachers' answer replaces


def train_open_data(
    out_dir: str | Path = "results/open-data",
    epochs: int = 100,
    seed: int = 0,
    data_dir: str | Path | None = None,
    backbone: str = "deep",
) -> pd.DataFrame:
    """Train the weights that are shipped for FER and UTKFACE, on both data sets together.

    Each batch holds faces of both, each labelled for what its source knows and masked for
    the rest. SGD with Nesterov momentum and decoupled weight decay; the learning rate rises
    for an epoch, then falls along a cosine to zero; what is kept is a moving average of the
    weights over some 100 steps. The best epoch is chosen by the emotion accuracy on FER2013's
    PublicTest, where the temperatures are fitted too (those of the attributes on UTKFace's
    validation part).

    First come the teachers, large networks that differ by their seed. They learn from the
    labels, smoothed by 0.1, for half of the epochs. Then the network that is shipped learns
    from labels four fifths of which are the mean of what the teachers answer on the same
    face, turned, shifted and covered in the same way (Hinton, Vinyals & Dean 2015; Beyer et
    al. 2022): where annotators erred, or a face shows two expressions, that is the better
    target.

    Interrupted, it goes on where it stopped. It wants a GPU: a teacher costs fourteen times
    the arithmetic of the small network.

    Parameters
    ----------
    out_dir
        Folder of the run, see `fit`, with those of the teachers in ``teacher-1`` and so on.
        At the end it also holds ``open-data.weights.h5``, ``open-data.json`` and
        ``open-data.history.csv`` as the package ships them, and the reliability of the
        emotion head before and after the temperature as pictures.
    epochs
        Passes of the small network through FER2013.
    seed, data_dir
        See `train`.
    backbone
        Of the network that is taught.

    Returns
    -------
    pandas.DataFrame
        The history, a row an epoch, with a column ``network``.
    """
    out_dir = Path(out_dir)
    parts = [load_training_data(name, data_dir) for name in SOURCES]
    train = [part for part, _ in parts]
    validation = tuple(
        np.concatenate(arrays) for arrays in zip(*[v for _, v in parts], strict=True)
    )
    runs = {f"teacher-{n}": out_dir / f"teacher-{n}" for n in range(1, TEACHERS + 1)}
    for number, run in enumerate(runs.values(), 1):
        # Another seed each: networks that err in different places.
        made = {"epochs": max(epochs // 2, 1), "seed": seed + 1000 * number}
        batches = mixed_batches(train, list(SOURCES.values()), made["seed"])
        _train(TEACHER, batches, validation, made, run, label_smoothing=0.1)
    with dtype_policy(choose_precision()):
        teachers = [read_weights(run / "open-data.weights.h5") for run in runs.values()]
    batches = mixed_batches(train, list(SOURCES.values()), seed)
    made = {"epochs": epochs, "seed": seed}
    _train(backbone, TaughtBatches(batches, teachers, ANSWERS), validation, made, out_dir)
    histories = {name: read_history(run) for name, run in (runs | {backbone: out_dir}).items()}
    history = pd.concat(histories, names=["network"]).reset_index("network")
    history.to_csv(out_dir / "open-data.history.csv", index=False)
    return history


class TaughtBatches(FaceBatches):
    """Batches of faces that are changed already, with labels that are in part teachers' answers.

    The teachers see each face as it is learnt from: turned, shifted, covered. Blocks
    without a label stay so.

    Parameters
    ----------
    batches
        Of faces as they are, from `mixed_batches`.
    teachers
        Networks of `get_model`, whose probabilities are averaged.
    share
        0 to 1: how much of a label their answer replaces.
    """

    def __init__(self, batches: FaceBatches, teachers: Sequence[keras.Model], share: float):
        super().__init__(
            batches.images,
            batches.targets,
            batches.batch_size,
            batches.is_training,
            batches.seed,
            batches.sources,
        )
        self.share = share
        image = keras.Input(teachers[0].input_shape[1:])
        changed = _ChangedFace(dtype="float32")(image)
        # Named apart: Keras wants no two parts of a network called the same.
        asked = [
            keras.Model(teacher.inputs, teacher.outputs, name=f"teacher_{number}")(changed)
            for number, teacher in enumerate(teachers)
        ]
        means = [sum(answers) / len(teachers) for answers in zip(*asked, strict=True)]
        self._teachers = keras.Model(image, [changed, *means])

    def __getitem__(self, index: int):
        images, targets = super().__getitem__(index)
        seed_layers(self._teachers, self.seed, self.epoch, index)
        changed, *answers = self._teachers.predict_on_batch(images)
        for output, answer in zip(OUTPUTS.values(), answers, strict=True):
            label = targets[output]
            mass = label.sum(axis=1, keepdims=True)
            targets[output] = (1 - self.share) * label + self.share * mass * answer
        return np.rint(changed).astype(np.uint8), targets


class _ChangedFace(RandomFace):
    """Changes faces outside of training too, where the teachers are only asked."""

    def call(self, images, training=None):
        return super().call(images, training=True)


def _train(backbone, batches, validation, made, out_dir, label_smoothing=0.0) -> None:
    """Train a network and write it, calibrated, as the package ships weights."""
    if _is_written(out_dir, made):
        return
    X, y = validation
    keras.utils.set_random_seed(made["seed"])
    augment = not isinstance(batches, TaughtBatches)
    with dtype_policy(choose_precision()):
        model = get_model(backbone=backbone, augment=augment)
    optimizer = _optimizer(len(batches), made["epochs"])
    compile_model(model, LOSS_WEIGHTS, optimizer=optimizer, label_smoothing=label_smoothing)
    history = fit(model, batches, batches_of(X, y, 256), made["epochs"], out_dir, patience=None)
    # Who goes on training it on faces of their own wants them changed.
    best = build_model(backbone, augment=True)
    best.set_weights(load_model(out_dir / "model.keras").get_weights())
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
    """Whether a network's weights are in the folder, and were made as is now asked for."""
    card = out_dir / "open-data.json"
    if not card.is_file():
        return False
    made = json.loads(card.read_text())["recipe"]
    if any(made[key] != value for key, value in asked.items()):
        raise ValueError(
            f"{card} was made with {made}, not {dict(asked)}: train into an empty folder"
        )
    return True


def _optimizer(steps: int, epochs: int) -> keras.optimizers.Optimizer:
    schedule = keras.optimizers.schedules.CosineDecay(
        0.01, decay_steps=steps * max(epochs - 1, 1), warmup_target=0.1, warmup_steps=steps
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
