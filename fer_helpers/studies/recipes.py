"""How weights for FER and UTKFACE are made.

The shipped weights come from an earlier form of this recipe, see ``pretrained/README.md``.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers import plots
from fer_helpers.augment import RandomFace
from fer_helpers.backend import choose_precision, dtype_policy, gpu_capability, keras, predictor
from fer_helpers.batches import FaceBatches, batches_of, mixed_batches
from fer_helpers.datasets import load_training_data
from fer_helpers.evaluation import labelled, true_and_predicted
from fer_helpers.images import find_copies, image_digests
from fer_helpers.labels import BLOCKS, OUTPUTS, TASKS
from fer_helpers.model import (
    IMAGE_SIZE,
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

ops = keras.ops

# Emotion is the hardest task and the reason for the network; the three others are nearly
# learnt after a few epochs, and help at a small weight.
LOSS_WEIGHTS = {"emotion": 1.0, "gender": 0.2, "race": 0.2, "age": 0.3}
FOLDS = 3
SOURCES = {"FER": 240, "UTKFACE": 80}  # faces per batch, out of each fold
RATE = 0.5 / 960  # learning rate per face of a batch
TEACHER = "wide"
TEACHERS_SHARE = 0.8  # of a label; the rest is the annotators'
# So strong that the network cannot learn the training faces by heart.
AUGMENTATION = {"shift": 0.2, "contrast": 0.5, "brightness": 0.25, "erase": 0.5}
ADJUSTMENT = 0.5  # share of the logarithm of a class's frequency that is taken off its logit
SAVE_EVERY = 10  # epochs on a GPU, where to write the files takes as long as an epoch


def train_open_data(
    out_dir: str | Path = "results/open-data",
    epochs: int = 200,
    seed: int = 0,
    data_dir: str | Path | None = None,
    backbone: str = "deep",
) -> pd.DataFrame:
    """Train a network for FER and UTKFACE, taught by networks that have not seen the face.

    Each batch holds faces of both data sets, each labelled for what its source knows and masked
    for the rest. SGD with Nesterov momentum and decoupled weight decay; the learning rate rises
    for five epochs at most, then falls along a cosine to zero; what is kept is a moving average
    of the weights over half an epoch. The best epoch is chosen by the emotion accuracy on the
    faces of FER2013's PublicTest that are no copies of training faces: copies would reward a
    network that knows them by heart. Temperatures are fitted on the same faces and on those of
    UTKFace's validation split.

    1. The faces are cut into three folds, see `fold_of`. Three large teachers learn from the
       labels, each from two folds, for three tenths of the epochs, see `train_from_labels`.
    2. A smaller network learns from labels four fifths of which are the answer of the teacher
       that has not seen the picture, on the same face, turned, shifted and covered in the same
       way (Hinton, Vinyals & Dean 2015; Beyer et al. 2022). A teacher that has seen a face
       repeats its label, errors of the annotators included; one that has not says what faces
       like it are called.
    3. Its batch normalisation is computed again on unchanged faces, see
       `recompute_batch_norm`, and its answers are moved towards the rare emotions, see
       `adjust_logits`.

    Run again after an interruption, it goes on from the last files, written every tenth epoch.
    It takes a GPU: a teacher costs fourteen times the arithmetic of the network that it teaches.
    On JAX, set ``JAX_COMPILATION_CACHE_DIR`` to a folder: the teachers are the same program.

    Parameters
    ----------
    out_dir
        The teachers are in its folders ``teacher-1`` to ``teacher-3``, the network in
        ``seed-0``, or whatever `seed` is: runs with other seeds share the teachers. See `fit`.
        At the end ``seed-0`` also holds ``open-data.weights.h5``, ``open-data.json`` and
        ``open-data.history.csv`` as the package ships them, and two pictures: the reliability
        of the emotion head before and after temperature scaling.
    epochs
        Passes through FER2013, at least 1.
    seed
        Of the network; the teachers have seeds of their own.
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
    taught = out_dir / f"seed-{seed}"
    _is_written(taught, recipe)  # an unfit folder is refused before the teachers are trained
    folders = {f"teacher-{fold + 1}": out_dir / f"teacher-{fold + 1}" for fold in range(FOLDS)}
    for fold, folder in enumerate(folders.values()):
        train_from_labels(folder, -(-3 * epochs // 10), 1000 + fold, data_dir, TEACHER, fold)
    teachers = [folder / "from-labels.weights.h5" for folder in folders.values()]
    _make(taught, recipe, data_dir, teachers)
    folders["taught"] = taught
    history = pd.concat({name: read_history(f) for name, f in folders.items()}, names=["run"])
    history = history.reset_index("run")
    history.to_csv(taught / "open-data.history.csv", index=False, float_format="%.4f")
    return history


def train_from_labels(
    out_dir: str | Path = "results/from-labels",
    epochs: int = 60,
    seed: int = 0,
    data_dir: str | Path | None = None,
    backbone: str = "deep",
    held_out_fold: int | None = None,
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
    held_out_fold
        A fold of the faces, 0 to 2, not to learn from, see `fold_of`; None for all faces.

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
    _make(Path(out_dir), recipe | {"held_out_fold": held_out_fold}, data_dir)
    return read_history(out_dir)


RECIPES = {"open-data": train_open_data, "from-labels": train_from_labels}


def _make(
    out_dir: Path, recipe: Mapping, data_dir: str | Path | None, teachers: Sequence[Path] = ()
) -> None:
    """Train a network and write its weights; do nothing if they are there.

    `teachers` are files of `write_weights`, one per fold of the faces.
    """
    train, validation = _load_sources(data_dir, recipe.get("held_out_fold"))
    # Another copy of the data has other folds: its teachers must not be mistaken for these.
    recipe = {**recipe, "faces": sum(len(X) for X, _ in train)}
    if _is_written(out_dir, recipe):
        print(f"{out_dir} has its weights already: nothing was trained", flush=True)
        return
    shares = list(SOURCES.values()) * (len(train) // len(SOURCES))
    epochs, seed = recipe["epochs"], recipe["seed"]
    with dtype_policy(choose_precision()):
        change = change_and_teach([read_weights(path) for path in teachers])
        keras.utils.set_random_seed(seed)
        model = get_model(backbone=recipe["backbone"], augment=False)
    batches = mixed_batches(train, shares, seed, change)
    optimizer = _optimizer(len(batches), epochs, RATE * batches.batch_size)
    smoothing = 0.0 if teachers else 0.1
    compile_model(model, LOSS_WEIGHTS, optimizer=optimizer, label_smoothing=smoothing)
    scored = batches_of(*validation, 256)
    save_every = SAVE_EVERY if gpu_capability() else 1
    fit(model, batches, scored, epochs, out_dir, patience=None, save_every=save_every)
    # With augmentation, for those who train it further on faces of their own.
    best = build_model(recipe["backbone"], augment=True)
    best.set_weights(load_model(out_dir / "model.keras").get_weights())
    if teachers:
        recompute_batch_norm(best, mixed_batches(train, shares, seed))
        adjust_logits(best, np.concatenate([y for _, y in train]))
    _write(best, validation, out_dir, recipe)


def _load_sources(data_dir: str | Path | None, held_out_fold: int | None):
    """Return the training faces per fold and source, and the validation faces, joined.

    The latter are no copies of training faces. They are shuffled: Keras reports a mean of the
    batches' losses, which a batch without a label would pull down.
    """
    splits = [load_training_data(name, data_dir) for name in SOURCES]
    unseen = []
    for (X_train, _), (X, y) in splits:
        kept = ~find_copies(X, X_train)
        unseen.append((X[kept], y[kept]))
    X, y = (np.concatenate(arrays) for arrays in zip(*unseen, strict=True))
    order = np.random.default_rng(0).permutation(len(X))
    learnt = [merge_copies(*train) for train, _ in splits]
    folds = [fold_of(X) for X, _ in learnt]
    train = [
        (X[fold == number], y[fold == number])
        for number in range(FOLDS)
        if number != held_out_fold
        for (X, y), fold in zip(learnt, folds, strict=True)
    ]
    return train, (X[order], y[order])


def merge_copies(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep one of equal pictures, with the mean of their labels.

    Parameters
    ----------
    X
        (N, H, W, 1) images.
    y
        float32 (N, 18) label rows.

    Returns
    -------
    X, y
        The pictures in the order in which they first occur. A block of `y` holds the shares of
        the labels that the copies have in it, and sums to 1, or to 0 if none is labelled.
    """
    _, first, picture = np.unique(image_digests(X), return_index=True, return_inverse=True)
    total = np.zeros((len(first), y.shape[1]), np.float32)
    np.add.at(total, picture, y)
    for block in BLOCKS.values():
        total[:, block] /= np.maximum(total[:, block].sum(axis=1, keepdims=True), 1)
    order = np.argsort(first)
    return X[first[order]], total[order]


def fold_of(X: np.ndarray) -> np.ndarray:
    """Return the fold of each of N different images (N, H, W, 1), 0 to 2.

    It follows from the pixels, not from the order. Folds differ in size by one image at most, so
    that all teachers take the same number of steps.
    """
    return np.argsort(np.argsort(image_digests(X))) % FOLDS


def change_and_teach(teachers: Sequence[keras.Model] = ()) -> Callable:
    """Return a change for `FaceBatches` that augments faces and mixes teachers into the labels.

    Parameters
    ----------
    teachers
        Networks of `get_model`. A batch has as many equal parts as there are teachers; each part
        is taught by its own, which sees the faces augmented as the network that learns from
        them sees them. `TEACHERS_SHARE` is its part of a label. A block without a label stays
        zeros. Without teachers the labels stay as they are.

    Returns
    -------
    function
        Takes images (N, 48, 48, 1), values 0 to 255, targets (output name -> float32
        (N, classes)) and the seed, a tuple of whole numbers. Gives the augmented images,
        float32 with values 0 to 255, and the mixed targets; on JAX both are JAX's arrays.
    """
    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="faces")
    labels = {
        OUTPUTS[task]: keras.Input((len(classes),), name=OUTPUTS[task])
        for task, classes in TASKS.items()
    }
    augmented = _AlwaysRandomFace(**AUGMENTATION, dtype="float32")(image)
    targets = labels
    if teachers:
        # Keras wants no two parts of a network with the same name.
        answers = [
            keras.Model(teacher.inputs, teacher.outputs, name=f"teacher_{number}")(part)
            for number, (teacher, part) in enumerate(
                zip(teachers, ops.split(augmented, len(teachers)), strict=True)
            )
        ]
        heads = [ops.concatenate(head) for head in zip(*answers, strict=True)]
        targets = {
            name: (1 - TEACHERS_SHARE) * label
            + TEACHERS_SHARE * ops.sum(label, axis=1, keepdims=True) * head
            for (name, label), head in zip(labels.items(), heads, strict=True)
        }
    network = keras.Model({"faces": image} | labels, {"faces": augmented} | targets)
    run = predictor(network)

    def change(images, targets, seed):
        seed_layers(network, *seed)
        changed = run({"faces": images} | targets)
        return changed.pop("faces"), changed

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


def adjust_logits(model: keras.Model, y: np.ndarray) -> None:
    """Move the emotion head's answers towards the classes that are rare in training.

    A class's logit loses `ADJUSTMENT` of the logarithm of its share of the faces (tau of Menon et
    al. 2021, arXiv 2007.07314). With the whole of it all classes would count alike; accuracy on
    faces that are as unequally distributed would fall.

    Parameters
    ----------
    model
        A network of `build_model`; the biases of its emotion head are changed in place.
    y
        Label rows (N, 18) of the training faces, each emotion at least once among them.
    """
    emotions = y[:, BLOCKS["emotion"]].sum(axis=0)
    bias = model.get_layer("emotion_logits").bias
    bias.assign_sub(ADJUSTMENT * np.log(emotions / emotions.sum()))


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
    rise = min(-(-epochs // 4), 5)  # epochs; large batches diverge at the full rate at once
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 10,
        decay_steps=steps * max(epochs - rise, 1),
        warmup_target=rate,
        warmup_steps=steps * rise,
    )
    optimizer = keras.optimizers.SGD(
        schedule,
        momentum=0.9,
        nesterov=True,
        # Decoupled: worth 5e-4 added to the loss, which momentum makes ten times as much.
        weight_decay=5e-3,
        use_ema=True,
        # Not over longer: batch normalisation keeps its averages for the latest weights, which do
        # not fit older ones. Over two and a half epochs: 0.13 on PublicTest after three epochs.
        ema_momentum=1 - 2 / max(steps, 4),
    )
    # Decay is for what multiplies images; scales and offsets are few and free.
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer
