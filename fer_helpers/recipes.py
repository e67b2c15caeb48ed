"""How the shipped weights were made: run again, a recipe makes them from the data sets."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from fer_helpers import plots
from fer_helpers.augment import RandomFace
from fer_helpers.backend import choose_precision, dtype_policy, keras, predictor
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
TEACHER, TEACHERS = "wide", ("teacher-1", "teacher-2")
WEIGHTS = "open-data.weights.h5"
ANSWERS = 0.8  # share of a label that the teachers' answer replaces


def train_open_data(
    out_dir: str | Path = "results/open-data",
    epochs: int = 78,
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

    1. Two teachers, large networks that differ by their seed, learn for half of the epochs,
       see `train_from_labels`.
    2. The network that is shipped learns from labels four fifths of which are the mean of
       what the teachers answer on the same face, turned, shifted and covered in the same way
       (Hinton, Vinyals & Dean 2015; Beyer et al. 2022): where annotators erred, or a face
       shows two expressions, that is the better target.
    3. It does so again from where it stands, at half the learning rate, for two fifths of
       the epochs.
    4. Its batch normalisation is settled on faces as they are, see `settle`.

    Interrupted, it goes on where it stopped. It wants a GPU: a teacher costs fourteen times
    the arithmetic of the network that it teaches.

    Parameters
    ----------
    out_dir
        Folder of the last round's run, see `fit`, with the others' in ``teacher-1``,
        ``teacher-2`` and ``round-1``. At the end it also holds ``open-data.weights.h5``,
        ``open-data.json`` and ``open-data.history.csv`` as the package ships them, and the
        reliability of the emotion head before and after the temperature as pictures.
    epochs
        Passes of the first round through FER2013.
    seed, data_dir
        See `train`.
    backbone
        Of the network that is taught.

    Returns
    -------
    pandas.DataFrame
        The history, a row an epoch, with a column ``run``.
    """
    out_dir = Path(out_dir)
    folders = {name: out_dir / name for name in (*TEACHERS, "round-1")} | {"round-2": out_dir}
    for number, name in enumerate(TEACHERS, 1):
        # Another seed each: networks that err in different places.
        train_from_labels(folders[name], epochs // 2 or 1, seed + 1000 * number, data_dir, TEACHER)
    teachers = [folders[name] for name in TEACHERS]
    asked = (backbone, epochs, seed, data_dir, teachers)
    _make(folders["round-1"], *asked)
    _make(out_dir, *asked, begin=folders["round-1"])
    history = pd.concat({name: read_history(f) for name, f in folders.items()}, names=["run"])
    history = history.reset_index("run")
    history.to_csv(out_dir / "open-data.history.csv", index=False, float_format="%.4f")
    return history


def train_from_labels(
    out_dir: str | Path = "results/from-labels",
    epochs: int = 36,
    seed: int = 0,
    data_dir: str | Path | None = None,
    backbone: str = "deep",
) -> pd.DataFrame:
    """Train one network on both data sets from their labels, smoothed by 0.1, without teachers.

    So the teachers of `train_open_data` learn. It compares backbones, and is what can be done
    without a GPU.

    Parameters
    ----------
    out_dir
        Folder of the run, see `fit`, and of the weights with their JSON and pictures, see
        `train_open_data`.
    epochs
        Passes through FER2013.
    seed, data_dir
        See `train`.
    backbone
        See `get_model`.

    Returns
    -------
    pandas.DataFrame
        The history, a row an epoch.
    """
    _make(out_dir, backbone, epochs, seed, data_dir)
    return read_history(out_dir)


def _make(
    out_dir: str | Path,
    backbone: str,
    epochs: int,
    seed: int,
    data_dir: str | Path | None,
    teachers: Sequence[Path] = (),
    begin: Path | None = None,
) -> None:
    """Train a network and write it, or go on with it, or do nothing if it is there.

    `teachers` and `begin` are folders of such networks. What begins from another is a second
    round: shorter, gentler, and settled in the end.
    """
    out_dir = Path(out_dir)
    asked = {"backbone": backbone, "epochs": epochs, "seed": seed}
    asked |= {"teachers": len(teachers), "round": 2 if begin else 1}
    if _is_written(out_dir, asked):
        return
    train, validation = _load_sources(data_dir)
    shares, rate = list(SOURCES.values()), 0.1
    plain = mixed_batches(train, shares, seed)
    if begin:
        epochs, seed, rate = -(-2 * epochs // 5), seed + 3000, 0.05
    with dtype_policy(choose_precision()):
        seen = [read_weights(folder / WEIGHTS) for folder in teachers]
        change = taught_by(seen) if teachers else None
        keras.utils.set_random_seed(seed)
        # Faces that teachers have seen are changed already.
        model = get_model(backbone=backbone, augment=not teachers)
    if begin:
        model.set_weights(load_model(begin / "model.keras").get_weights())
    batches = mixed_batches(train, shares, seed, change)
    optimizer = _optimizer(len(batches), epochs, rate)
    smoothing = 0.0 if teachers else 0.1
    compile_model(model, LOSS_WEIGHTS, optimizer=optimizer, label_smoothing=smoothing)
    fit(model, batches, batches_of(*validation, 256), epochs, out_dir, patience=None)
    # Who goes on training it on faces of their own wants them changed.
    best = build_model(backbone, augment=True)
    best.set_weights(load_model(out_dir / "model.keras").get_weights())
    if begin:
        settle(best, plain)
    _write(best, validation, out_dir, asked)


def _load_sources(data_dir):
    """The training parts, one by one, and the validation parts, joined and shuffled.

    Keras reports a mean of the batches' losses, which a batch without a label would pull down.
    """
    parts = [load_training_data(name, data_dir) for name in SOURCES]
    X, y = (np.concatenate(arrays) for arrays in zip(*[v for _, v in parts], strict=True))
    order = np.random.default_rng(0).permutation(len(X))
    return [train for train, _ in parts], (X[order], y[order])


def taught_by(teachers: Sequence[keras.Model]) -> Callable:
    """A change of `FaceBatches`: labels become in part what `teachers` answer.

    The teachers see each face as it is then learnt from: turned, shifted, covered. Their
    probabilities are averaged. What is not labelled stays so.

    Parameters
    ----------
    teachers
        Networks of `get_model`.

    Returns
    -------
    function
        Its images are float32, 0 to 255; on JAX they and the targets are JAX's arrays.
    """
    image = keras.Input(teachers[0].input_shape[1:])
    changed = _ChangedFace(dtype="float32")(image)
    # Named apart: Keras wants no two parts of a network called the same.
    asked = [
        keras.Model(teacher.inputs, teacher.outputs, name=f"teacher_{number}")(changed)
        for number, teacher in enumerate(teachers)
    ]
    means = [sum(answers) / len(teachers) for answers in zip(*asked, strict=True)]
    both = keras.Model(image, [changed, *means])
    ask = predictor(both)

    def change(images, targets, seed):
        seed_layers(both, *seed)
        changed, *answers = ask(images)
        taught = {}
        for output, answer in zip(OUTPUTS.values(), answers, strict=True):
            label = targets[output]
            mass = label.sum(axis=1, keepdims=True)
            taught[output] = (1 - ANSWERS) * label + ANSWERS * mass * answer
        return changed, taught

    return change


class _ChangedFace(RandomFace):
    """Changes faces outside of training too, where the teachers are only asked."""

    def call(self, images, training=None):
        return super().call(images, training=True)


def settle(model: keras.Model, batches: FaceBatches) -> None:
    """Take batch normalisation's means and variances anew, over an epoch of faces as they are.

    Those of training are of turned and covered faces, which nobody will ask about.
    """
    plain = build_model(model.name, augment=False)
    plain.set_weights(model.get_weights())
    norms = [layer for layer in plain.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for index in tqdm(range(len(batches)), desc="settling", delay=2, leave=False):
        for norm in norms:
            norm.momentum = index / (index + 1)  # a running mean: each batch weighs the same
        plain(batches[index][0], training=True)
    model.set_weights(plain.get_weights())


def _write(model: keras.Model, validation, out_dir: Path, asked: Mapping) -> None:
    """Calibrate a network and write it as the package ships weights."""
    X, y = validation
    before = predict(model, X)
    temperatures = calibrate(model, X, y)
    for moment, probabilities in {"before": before, "after": predict(model, X)}.items():
        true, _ = true_and_predicted(y, probabilities, "emotion")
        chances = probabilities["emotion"][labelled(y, "emotion")]
        figure = plots.reliability(chances, true, f"Emotion, {moment} temperature scaling")
        plots.save(figure, out_dir / f"open-data-{moment}.png", dpi=80)
    write_weights(
        model,
        "open-data",
        out_dir,
        recipe={**asked, "backend": keras.backend.backend()},
        temperatures=temperatures,
    )


def _is_written(out_dir: Path, asked: Mapping) -> bool:
    """Whether a network's weights are in the folder, and were made as is now asked for."""
    card = out_dir / "open-data.json"
    if not card.is_file():
        return False
    made = json.loads(card.read_text())["recipe"]
    if any(made.get(key) != value for key, value in asked.items()):
        raise ValueError(
            f"{card} was made with {made}, not {dict(asked)}: train into an empty folder"
        )
    return True


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


RECIPES = {"open-data": train_open_data, "from-labels": train_from_labels}
