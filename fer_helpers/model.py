"""One network with four heads: the backbones, the heads, and loading weights."""

import hashlib
import io
import json
import textwrap
import zipfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import h5py
import numpy as np

from fer_helpers.augment import RandomFace
from fer_helpers.backend import dtype_policy, keras
from fer_helpers.datasets.faces import note
from fer_helpers.labels import DATASETS, OUTPUTS, TASKS, check_dataset

layers, ops = keras.layers, keras.ops

IMAGE_SIZE = 48

MOST_BYTES = 512 << 20  # of an unpacked .keras file: ten times the largest network here

RAFDB_RUN = Path("results", "RAFDB", "model.keras")  # where `train` writes it
# What open-data learned from, and the splits of the same data sets that it did not.
TRAINED_ON = "FER2013's Training split and UTKFace's train split"
HELD_OUT = {"FER": ("PublicTest", "PrivateTest"), "UTKFACE": ("validation",)}


@keras.saving.register_keras_serializable("fer_helpers")
class CalibratedSoftmax(layers.Layer):
    """Softmax of logits (N, classes), divided by a temperature first (Guo et al. 2017).

    The temperature is a weight that is not trained. `calibrate` sets it afterwards, so that
    confidence matches accuracy; it is stored with the other weights and exported with them.
    """

    def build(self, input_shape):
        self.temperature = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="temperature", dtype="float32"
        )

    def call(self, logits):
        return ops.softmax(ops.cast(logits, "float32") / self.temperature)


def _paper(x):
    """Return the features of the CNN of arXiv 2110.15028.

    As in its public code: three pairs of convolutions, then a dense layer, with dropout of 0.6,
    0.5, 0.4 and 0.4. Adapted: 48 x 48 x 1 instead of 50 x 50 x 3, since all data sets here are
    grey and FER2013 is 48 x 48 (the three channels of the original were copies of one).
    """
    for filters, kernel, dropout in ((64, 5, 0.6), (128, 3, 0.5), (256, 3, 0.4)):
        for _ in range(2):
            x = layers.Conv2D(
                filters, kernel, padding="same", activation="elu", kernel_initializer="he_normal"
            )(x)
            x = layers.BatchNormalization()(x)
        x = layers.MaxPooling2D(name="cam" if filters == 256 else None)(x)
        x = layers.Dropout(dropout)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, activation="elu", kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization()(x)
    return layers.Dropout(0.4)(x)


def _convolution(x, filters: int, name: str, strides: int = 1, kernel: int = 3):
    x = layers.Conv2D(
        filters,
        kernel,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    # In short runs on small data the averages must follow quickly.
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)


def _residual_block(x, filters: int, strides: int, place: str, name: str | None):
    shortcut = x
    if strides > 1:
        shortcut = layers.AveragePooling2D(strides)(shortcut)
    if x.shape[-1] != filters:
        shortcut = _convolution(shortcut, filters, f"{place}_shortcut", kernel=1)
    x = layers.ReLU()(_convolution(x, filters, f"{place}_first", strides))
    # A last scale that begins at zero is slow to start: 0.457 instead of 0.525 on PublicTest
    # after four epochs of the compact network, see pretrained/README.md.
    x = _convolution(x, filters, f"{place}_second")
    return layers.ReLU(name=name)(layers.Add()([x, shortcut]))


def _residual(x, widths: Sequence[int], blocks: Sequence[int], halved: bool = True):
    """Return the features of a residual network (He et al. 2016), one stage per width.

    With `halved` the first convolution halves the image: at full size a network costs four
    times the arithmetic, too much for a laptop without a GPU.
    """
    strides, kernel = (2, 5) if halved else (1, 3)
    x = layers.ReLU()(_convolution(x, widths[0], "stem", strides, kernel))
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(count):
            # For Grad-CAM: the last stage has maps of only 3 x 3, the one before it of 6 x 6.
            is_cam = (stage, block) == (len(widths) - 2, count - 1)
            x = _residual_block(
                x,
                width,
                strides=2 if stage > 0 and block == 0 else 1,
                place=f"stage{stage}_block{block}",
                name="cam" if is_cam else None,
            )
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dropout(0.2)(x)


def _compact(x, widths: Sequence[int] = (32, 64, 128, 256)):
    """Return the features of the default network: small, one block per width."""
    return _residual(x, widths, [1] * len(widths))


def _deep(x):
    """Return the features of the network that is shipped for real faces."""
    return _residual(x, (40, 80, 160, 320), (1, 1, 2, 2))


def _wide(x):
    """Return the features of a network for GPUs, with 14 times the arithmetic of `_deep`."""
    return _residual(x, (64, 128, 256, 512), (2, 2, 2, 2), halved=False)


BACKBONES = {"compact": _compact, "deep": _deep, "wide": _wide, "paper": _paper}


def check_backbone(name: str) -> None:
    """Raise a ValueError that lists the backbones if `name` is none of them."""
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: choose one of {', '.join(BACKBONES)}")


def build_model(backbone: str = "compact", augment: bool = True, **options) -> keras.Model:
    """Build an untrained network, see `get_model`.

    Parameters
    ----------
    backbone
        One of `BACKBONES`.
    augment
        Begin with a `RandomFace` layer, which changes the images while training.
    options
        Passed to the backbone, for instance ``widths=(16, 32, 64, 128)`` to ``"compact"``.

    Returns
    -------
    keras.Model
        Takes (N, 48, 48, 1) grey images with values 0 to 255; gives four arrays of
        probabilities, float32, in the order of `TASKS`. Not compiled.

    Raises
    ------
    ValueError
        Unknown backbone.
    """
    check_backbone(backbone)
    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="image")
    # In float32 up to here: bfloat16 has too few digits for 256 levels once they are scaled.
    x = RandomFace(name="augmentation", dtype="float32")(image) if augment else image
    # 0..255 to -1..1 inside the network, so that nobody can forget to scale.
    features = BACKBONES[backbone](
        layers.Rescaling(1 / 127.5, offset=-1, dtype="float32")(x), **options
    )
    outputs = []
    for task, classes in TASKS.items():
        logits = layers.Dense(len(classes), name=f"{task}_logits")(features)
        outputs.append(CalibratedSoftmax(name=OUTPUTS[task], dtype="float32")(logits))
    return keras.Model(image, outputs, name=backbone)


def get_model(
    pretrained: bool = False,
    dataset_name: str | Path | None = None,
    backbone: str | None = None,
    augment: bool = True,
) -> keras.Model:
    """Return the network of the course: one image in, four heads out.

    Parameters
    ----------
    pretrained
        Load the weights that come with the package (no download).
    dataset_name
        With `pretrained`: which data set's weights. ``"FER"`` and ``"UTKFACE"`` are one
        network trained on both, ``"SAMPLE"`` knows drawn faces only. ``"RAFDB"`` is your own
        ``results/RAFDB/model.keras``, looked for in the current folder; without it, the network
        for FER and UTKFACE, which has not seen RAF-DB: a line on stderr says so. A path of faces
        of your own gets the network for FER and UTKFACE, too.
    backbone
        Of an untrained network: ``"compact"`` (the default), a small residual network;
        ``"deep"`` and ``"wide"``, larger ones, the last for a GPU; ``"paper"``, the CNN of
        arXiv 2110.15028. Shipped weights have their own, ``"deep"`` for FER and UTKFACE,
        ``"compact"`` for SAMPLE.
    augment
        Begin an untrained network with a `RandomFace` layer, which changes the images while
        training. Shipped weights have it for FER and UTKFACE, and not for SAMPLE.

    Returns
    -------
    keras.Model
        Takes (N, 48, 48, 1) grey images with values 0 to 255; gives four arrays of
        probabilities, ``emotion_output`` (N, 7), ``gender_output`` (N, 3), ``race_output``
        (N, 3), ``age_output`` (N, 5), in that order. Not compiled.

    Raises
    ------
    ValueError
        Unknown backbone or data set; `pretrained` without `dataset_name` or with a `backbone`; or
        ``results/RAFDB/model.keras`` is not a network of this package, see `load_model`.
    """
    if dataset_name is not None:
        check_dataset(dataset_name)
    if not pretrained:
        return build_model(backbone or "compact", augment)
    if dataset_name is None:
        raise ValueError("pretrained=True needs dataset_name=, one of " + ", ".join(DATASETS))
    if backbone is not None:
        raise ValueError(
            f"shipped weights have a backbone of their own, which cannot be {backbone!r}: "
            "leave backbone= out"
        )
    if dataset_name == "RAFDB":
        if RAFDB_RUN.is_file():
            return load_model(RAFDB_RUN)
        note(
            "These weights were trained on FER2013 and UTKFace and have not seen RAF-DB. To train "
            "on your copy: python -m fer_helpers train --dataset RAFDB, which writes "
            f"{RAFDB_RUN.as_posix()}; from then on that file is taken."
        )
    # Any other faces have the same classes: what has learned from most real ones.
    weights = "sample" if dataset_name == "SAMPLE" else "open-data"
    return read_weights(files("fer_helpers") / "pretrained" / f"{weights}.weights.h5")


def read_weights(weights: Path) -> keras.Model:
    """Load a network that `write_weights` wrote, and check it against its SHA-256.

    Parameters
    ----------
    weights
        Path of ``<name>.weights.h5``, with ``<name>.json`` beside it.

    Returns
    -------
    keras.Model
        See `build_model`.

    Raises
    ------
    ValueError
        The file is not the one that was written, or its JSON is damaged.
    """
    card = weights.with_name(f"{weights.name.split('.')[0]}.json")
    try:
        content = json.loads(card.read_text())
        digest, build = content["sha256"], content["model"]
        model = build_model(build["backbone"], build["augment"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{card} is not the file that was written ({error!r}): install the package again, or "
            "train again"
        ) from error
    if hashlib.sha256(weights.read_bytes()).hexdigest() != digest:
        raise ValueError(
            f"{weights} is not the file that was written: install the package again, or train again"
        )
    model.load_weights(weights)
    return model


def write_weights(model: keras.Model, name: str, folder: str | Path, **card) -> Path:
    """Write weights as the package ships them: in half precision, with a JSON beside them.

    Parameters
    ----------
    model
        A network of `build_model` without options.
    name
        The files are ``<name>.weights.h5`` and ``<name>.json``.
    card
        Further entries of the JSON, for instance ``recipe=...``.

    Returns
    -------
    pathlib.Path
        Of the weights.
    """
    weights = Path(folder) / f"{name}.weights.h5"
    augment = any(isinstance(layer, RandomFace) for layer in model.layers)
    build = {"backbone": model.name, "augment": augment}
    with dtype_policy("float16"):
        rounded = build_model(**build)
    rounded.set_weights(model.get_weights())
    rounded.save_weights(weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    content = {"model": build, "sha256": digest} | card
    weights.with_name(f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    return weights


def load_model(weights: str | Path) -> keras.Model:
    """Load a network from a file, or shipped weights by the name of their data set.

    Parameters
    ----------
    weights
        ``"SAMPLE"``, ``"FER"`` or ``"UTKFACE"`` for shipped weights, ``"RAFDB"`` for your own
        or the shipped ones, see `get_model`; or the path of a ``.keras`` file, such as the
        ``model.keras`` that training wrote.

    Returns
    -------
    keras.Model
        Takes (N, 48, 48, 1) grey images with values 0 to 255; gives the probabilities of the
        four heads in the order of `TASKS`. Not compiled.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        The file is not a Keras model, was saved by a version of Keras that this one cannot read,
        unpacks to more than `MOST_BYTES`, or holds weights that are NaN or infinite; or its heads
        are not the four of this package, in their order.
    """
    if str(weights) in DATASETS:
        return get_model(pretrained=True, dataset_name=str(weights))
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}: give a .keras file, or one of {', '.join(DATASETS)} "
            "for the weights that come with the package"
        )
    if path.suffix != ".keras":
        raise ValueError(f"{path} is not a .keras file: no other format is read")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a Keras model, although its name ends in .keras")
    saved_by = None
    try:
        saved_by = _check_archive(path)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        # On a damaged file Keras raises what its parsers raise (zip, JSON, HDF5).
        if saved_by not in (None, keras.__version__):
            raise ValueError(
                f"{path} was saved by Keras {saved_by!r} and cannot be read by Keras "
                f"{keras.__version__}: run pip install --upgrade keras, then start Python again"
            ) from error
        # Keras puts the whole network before the reason.
        reason = textwrap.shorten(str(error).rpartition("Exception encountered: ")[2], 300)
        raise ValueError(f"{path} cannot be read as a Keras model: {reason}") from error
    wanted = [(OUTPUTS[task], (None, len(classes))) for task, classes in TASKS.items()]
    if not isinstance(model, keras.Model) or not hasattr(model, "output_names"):
        raise ValueError(f"{path} is not a functional model with named inputs and outputs")
    found = [
        (name, tuple(output.shape))
        for name, output in zip(model.output_names, model.outputs, strict=True)
    ]
    if found != wanted:
        raise ValueError(f"{path} has the outputs {found}, but this package needs {wanted}")
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise ValueError(f"{path} holds weights that are NaN or infinite: train again")
    return model


def _check_archive(path: Path) -> str | None:
    """Check what a .keras file unpacks to, and return the version of Keras that saved it."""
    with zipfile.ZipFile(path) as archive:
        _check_bytes(sum(entry.file_size for entry in archive.infolist()))
        # Inside the archive, HDF5 compresses on its own.
        if "model.weights.h5" in archive.namelist():
            sizes = []
            with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
                weights.visititems(lambda _, item: sizes.append(getattr(item, "nbytes", 0)))
            _check_bytes(sum(sizes))
        return json.loads(archive.read("metadata.json")).get("keras_version")


def _check_bytes(size: int) -> None:
    if size > MOST_BYTES:
        raise ValueError(
            f"it unpacks to {size:,} bytes, more than the {MOST_BYTES:,} allowed. Take another file"
        )
