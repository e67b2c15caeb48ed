"""How the shipped weights were made.

A recipe run today makes other weights than the shipped ones: the residual blocks have changed
since, see ``pretrained/README.md``.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers import plots
from fer_helpers.augment import RandomFace
from fer_helpers.backend import choose_precision, dtype_policy, keras, predictor
from fer_helpers.batches import FaceBatches, batches_of, mixed_batches
from fer_helpers.datasets import load_training_data
from fer_helpers.evaluation import labelled, true_and_predicted
from fer_helpers.labels import OUTPUTS
from fer_helpers.model import (
    build_model,
    check_backbone,
    get_model,
    load_model,
    read_weights,
    write_weights,
)
from fer_helpers.prediction import calibrate, predict
from fer_helpers.progress import tqdm
from fer_helpers.runs import fit, read_history, seed_layers
from fer_helpers.training import compile_model

# Emotion is the hardest task and the reason for the network; the three others are nearly
# learnt after a few epochs, and help at a small weight.
LOSS_WEIGHTS = {"emotion": 1.0, "gender": 0.2, "race": 0.2, "age": 0.3}
SOURCES = {"FER": 144, "UTKFACE": 48}  # faces per batch
TEACHER, TEACHERS = "wide", ("teacher-1", "teacher-2")
TEACHERS_SHARE = 0.8  # of a label; the rest is the annotators'


def train_open_data(
    out_dir: str | Path = "results/open-data",
    epochs: int = 78,
    seed: int = 0,
    data_dir: str | Path | None = None,
    backbone: str = "deep",
) -> pd.DataFrame:
    """Train a network for FER and UTKFACE on both data sets together, taught by two others.

    Each batch holds faces of both, each labelled for what its source knows and masked for
    the rest. SGD with Nesterov momentum and decoupled weight decay; the learning rate rises
    for an epoch, then falls along a cosine to zero; what is kept is a moving average of the
    weights over some 100 steps. The best epoch is chosen by the emotion accuracy on FER2013's
    PublicTest. The emotion temperature is fitted there too, those of the attributes on
    UTKFace's validation split.

    1. Two teachers, large networks that differ by their seed, learn for half of the epochs,
       see `train_from_labels`.
    2. A smaller network learns from labels four fifths of which are the mean of the teachers'
       probabilities for the same face, turned, shifted and covered in the same way (Hinton,
       Vinyals & Dean 2015; Beyer et al. 2022). Where annotators erred, or a face shows two
       expressions, that is the better target.
    3. A second round trains this network further, from half the learning rate, for two fifths
       of the epochs.
    4. Its batch normalisation is computed again on unchanged faces, see
       `recompute_batch_norm`.

    Run again after an interruption, it goes on where it stopped. It takes a GPU: a teacher
    costs fourteen times the arithmetic of the network that it teaches.

    Parameters
    ----------
    out_dir
        Folder of the second round, see `fit`; the other runs are in its folders ``teacher-1``,
        ``teacher-2`` and ``round-1``. At the end it also holds ``open-data.weights.h5``,
        ``open-data.json`` and ``open-data.history.csv`` as the package ships them, and two
        pictures: the reliability of the emotion head before and after temperature scaling.
    epochs
        Passes of the first round through FER2013, at least 1.
    seed
        Of the first round; the other runs derive theirs from it.
    data_dir
        Folder that holds ``FER/`` and ``UTKFACE/``, see `load_data`.
    backbone
        Of the network that is taught, see `get_model`.

    Returns
    -------
    pandas.DataFrame
        The histories of the four runs, a row per epoch, with a column ``run``.

    Raises
    ------
    ValueError
        `out_dir` holds a network that was trained otherwise; an unknown backbone.
    FileNotFoundError
        A data set is not there.
    """
    check_backbone(backbone)  # before the teachers are trained
    out_dir = Path(out_dir)
    recipe = {"name": "open-data", "backbone": backbone, "epochs": epochs, "seed": seed}
    first, second = recipe | {"round": 1}, recipe | {"round": 2}
    _is_written(out_dir, second)  # an unfit folder is refused before the teachers are trained
    folders = {name: out_dir / name for name in (*TEACHERS, "round-1")} | {"round-2": out_dir}
    for number, name in enumerate(TEACHERS, 1):
        # Another seed each: networks that err in different places.
        train_from_labels(folders[name], epochs // 2 or 1, seed + 1000 * number, data_dir, TEACHER)
    teachers = [folders[name] / "from-labels.weights.h5" for name in TEACHERS]
    _make(folders["round-1"], first, data_dir, teachers)
    _make(out_dir, second, data_dir, teachers, folders["round-1"] / "model.keras")
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

    The teachers of `train_open_data` are trained like this. On its own it compares backbones,
    and works without a GPU.

    Parameters
    ----------
    out_dir
        Folder of the run, see `fit`. At the end it also holds ``from-labels.weights.h5``,
        ``from-labels.json`` and the two pictures, see `train_open_data`.
    epochs
        Passes through FER2013, at least 1.
    seed
        Of everything random.
    data_dir
        Folder that holds ``FER/`` and ``UTKFACE/``, see `load_data`.
    backbone
        See `get_model`.

    Returns
    -------
    pandas.DataFrame
        The history, a row per epoch.

    Raises
    ------
    ValueError, FileNotFoundError
        See `train_open_data`.
    """
    recipe = {"name": "from-labels", "backbone": backbone, "epochs": epochs, "seed": seed}
    _make(Path(out_dir), recipe, data_dir)
    return read_history(out_dir)


RECIPES = {"open-data": train_open_data, "from-labels": train_from_labels}


def _make(
    out_dir: Path,
    recipe: Mapping,
    data_dir: str | Path | None,
    teachers: Sequence[Path] = (),
    start: Path | None = None,
) -> None:
    """Train a network and write its weights; do nothing if they are there.

    `teachers` are files of `write_weights`. `start` is the network of the first round, with
    which the second one begins.
    """
    if _is_written(out_dir, recipe):
        print(f"{out_dir} has its weights already: nothing was trained", flush=True)
        return
    train, validation = _load_sources(data_dir)
    shares = list(SOURCES.values())
    epochs, seed, rate = recipe["epochs"], recipe["seed"], 0.1
    if start:
        epochs, seed, rate = -(-2 * epochs // 5), seed + 3000, 0.05
    with dtype_policy(choose_precision()):
        change = distil_from([read_weights(path) for path in teachers]) if teachers else None
        keras.utils.set_random_seed(seed)
        # Faces that teachers have seen are augmented already.
        model = get_model(backbone=recipe["backbone"], augment=not teachers)
    if start:
        model.set_weights(load_model(start).get_weights())
    batches = mixed_batches(train, shares, seed, change)
    optimizer = _optimizer(len(batches), epochs, rate)
    smoothing = 0.0 if teachers else 0.1
    compile_model(model, LOSS_WEIGHTS, optimizer=optimizer, label_smoothing=smoothing)
    fit(model, batches, batches_of(*validation, 256), epochs, out_dir, patience=None)
    # With augmentation, for those who train it further on faces of their own.
    best = build_model(recipe["backbone"], augment=True)
    best.set_weights(load_model(out_dir / "model.keras").get_weights())
    if start:
        recompute_batch_norm(best, mixed_batches(train, shares, recipe["seed"]))
    _write(best, validation, out_dir, recipe)


def _load_sources(data_dir: str | Path | None):
    """Return the training splits, one per source, and the validation splits, joined.

    The latter are shuffled: Keras reports a mean of the batches' losses, which a batch without
    a label would pull down.
    """
    splits = [load_training_data(name, data_dir) for name in SOURCES]
    X, y = (np.concatenate(arrays) for arrays in zip(*[v for _, v in splits], strict=True))
    order = np.random.default_rng(0).permutation(len(X))
    return [train for train, _ in splits], (X[order], y[order])


def distil_from(teachers: Sequence[keras.Model]) -> Callable:
    """Return a change for `FaceBatches` that mixes the teachers' probabilities into the labels.

    The teachers see each face augmented as the network that learns from them sees it. Their
    probabilities are averaged; `TEACHERS_SHARE` is their part of a label. A block without a
    label stays zeros.

    Parameters
    ----------
    teachers
        Networks of `get_model`, at least one.

    Returns
    -------
    function
        Takes images (N, 48, 48, 1), values 0 to 255, targets (output name -> float32
        (N, classes)) and the seed, a tuple of whole numbers. Gives the augmented images,
        float32 with values 0 to 255, and the mixed targets; on JAX both are JAX's arrays.
    """
    image = keras.Input(teachers[0].input_shape[1:])
    augmented = _AlwaysRandomFace(dtype="float32")(image)
    # Keras wants no two parts of a network with the same name.
    outputs = [
        keras.Model(teacher.inputs, teacher.outputs, name=f"teacher_{number}")(augmented)
        for number, teacher in enumerate(teachers)
    ]
    means = [sum(heads) / len(teachers) for heads in zip(*outputs, strict=True)]
    network = keras.Model(image, [augmented, *means])
    run = predictor(network)

    def change(images, targets, seed):
        seed_layers(network, *seed)
        augmented, *probabilities = run(images)
        mixed = {}
        for output, head in zip(OUTPUTS.values(), probabilities, strict=True):
            label = targets[output]
            has_label = label.sum(axis=1, keepdims=True)
            mixed[output] = (1 - TEACHERS_SHARE) * label + TEACHERS_SHARE * has_label * head
        return augmented, mixed

    return change


class _AlwaysRandomFace(RandomFace):
    """Augments outside of training, too: the teachers only predict."""

    def call(self, images, training=None):
        return super().call(images, training=True)


def recompute_batch_norm(model: keras.Model, batches: FaceBatches) -> None:
    """Replace the means and variances of batch normalisation by those of unchanged faces.

    Those of training come from turned and covered faces, which nobody asks the network about.

    Parameters
    ----------
    model
        A network of `build_model` without options; changed in place.
    batches
        The faces, without a change; one epoch of them is averaged, each batch with the same
        weight.
    """
    plain = build_model(model.name, augment=False)
    plain.set_weights(model.get_weights())
    norms = [layer for layer in plain.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for index in tqdm(range(len(batches)), desc="batch normalisation", delay=2, leave=False):
        for norm in norms:
            norm.momentum = index / (index + 1)  # makes the moving average a plain mean
        plain(batches[index][0], training=True)
    model.set_weights(plain.get_weights())


def _write(model: keras.Model, validation, out_dir: Path, recipe: Mapping) -> None:
    """Calibrate a network, and write weights and pictures as the package ships them."""
    X, y = validation
    before = predict(model, X)
    temperatures = calibrate(model, X, y)
    for moment, probabilities in {"before": before, "after": predict(model, X)}.items():
        true, _ = true_and_predicted(y, probabilities, "emotion")
        emotion = probabilities["emotion"][labelled(y, "emotion")]
        figure = plots.reliability(emotion, true, f"Emotion, {moment} temperature scaling")
        plots.save(figure, out_dir / f"{recipe['name']}-{moment}.png", dpi=80)
    write_weights(
        model,
        recipe["name"],
        out_dir,
        recipe={**recipe, "backend": keras.backend.backend()},
        temperatures=temperatures,
    )


def _is_written(out_dir: Path, recipe: Mapping) -> bool:
    """Return whether weights of this recipe are in the folder; refuse those of another."""
    for card in (out_dir / f"{name}.json" for name in RECIPES):
        if card.is_file():
            try:
                made = dict(json.loads(card.read_text())["recipe"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{card} is no card of weights ({error!r}): train into an empty folder"
                ) from error
            if any(made.get(key) != value for key, value in recipe.items()):
                raise ValueError(
                    f"{card} was made with {made}, not {dict(recipe)}: train into an empty folder"
                )
            return True
    return False


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
        # Not over more steps: batch normalisation keeps its averages for the latest weights,
        # which do not fit older ones (0.998: 0.13 on PublicTest after three epochs).
        ema_momentum=0.99,
    )
    # Decay is for what multiplies images; scales and offsets are few and free.
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer
