"""Batches: shuffled images with one target per head, ready for ``model.fit``."""

import hashlib
import mmap
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fer_helpers import distributed
from fer_helpers.backend import keras
from fer_helpers.images import check_values
from fer_helpers.labels import LABEL_WIDTH, OUTPUTS, TASKS, separate_category


class FaceBatches(keras.utils.PyDataset):
    """Batches of faces and their four targets, made by `generate_images` or `mixed_batches`.

    Batch ``i`` is ``(images, targets)``: images (n, H, W, 1) with the values that were given,
    and one float32 array (n, classes) per output name. Negative ``i`` counts from the end.
    The order follows from (`seed`, `epoch`) alone, so a run that is resumed at an epoch
    sees the batches it would have seen. Where several processes train together, each reads
    its own share of every batch.

    Parameters
    ----------
    images
        (N, H, W, 1), an array or a memory map.
    targets
        Output name -> float32 (N, classes).
    batch_size, is_training, seed
        See `generate_images`.
    sources
        For `mixed_batches`: for each data set, one after the other in `images`, its number of
        faces and how many of them go into each batch.
    change
        Called with the images and targets of a batch and the seed ``(seed, epoch, i)``;
        returns the images and targets to use instead.
    """

    def __init__(
        self,
        images: np.ndarray,
        targets: Mapping[str, np.ndarray],
        batch_size: int,
        is_training: bool,
        seed: int,
        sources: Sequence[tuple[int, int]] = (),
        change: Callable | None = None,
    ):
        super().__init__()
        self.images, self.targets = images, dict(targets)
        self.batch_size, self.is_training = int(batch_size), is_training  # JSON has no NumPy
        self.seed, self.change = int(seed), change
        self.sources = tuple((int(faces), int(share)) for faces, share in sources)
        self.devices = 1  # that share a batch; `fit` sets it
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Go to the batches of `epoch` (counted from 0)."""
        self.epoch, n = epoch, len(self.images)
        shuffle = np.random.default_rng([self.seed, epoch]).permutation
        if self.sources:
            self._order = self._mixed_order(shuffle)
        else:
            self._order = shuffle(n) if self.is_training else np.arange(n)

    def _mixed_order(self, shuffle) -> np.ndarray:
        batches, start, columns = len(self), 0, []
        for faces, share in self.sources:
            # A data set that is too small for the epoch is gone through again.
            rounds = -(-batches * share // faces)
            rows = np.concatenate([start + shuffle(faces) for _ in range(rounds)])
            columns.append(rows[: batches * share].reshape(batches, share))
            start += faces
        return np.concatenate(columns, axis=1).ravel()

    def on_epoch_end(self) -> None:
        """Go to the batches of the next epoch; Keras calls it."""
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        if self.sources:
            faces, share = self.sources[0]
            return max(faces // share, 1)
        full, rest = divmod(len(self.images), self.batch_size)
        # A last, small batch makes a noisy training step, and would be a step too many for
        # steps_per_epoch=len(X) // batch_size.
        return max(full, 1) if self.is_training else full + bool(rest)

    def __getitem__(self, index: int):
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no batch {index}: an epoch has {len(self)} batches")
        index %= len(self)
        rows = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        # A memory map is read from front to back.
        rows = np.sort(rows)
        rank, processes, devices = distributed.process_info()
        devices = max(devices, self.devices)
        share = -(-len(rows) // devices) * devices // processes
        rows = rows[rank * share : (rank + 1) * share]
        missing = share - len(rows)  # all shares are equally long: the rest is unlabelled
        images = _padded(self.images[rows], missing)
        _release_pages(self.images)
        targets = {name: _padded(target[rows], missing) for name, target in self.targets.items()}
        if self.change is None:
            return images, targets
        return self.change(images, targets, (self.seed, self.epoch, index))

    def describe(self) -> dict:
        """Return all that the batches follow from; arrays as type, shape and digest."""
        return {
            "images": _digest(self.images),
            "labels": {name: _digest(target) for name, target in self.targets.items()},
            "batch_size": self.batch_size,
            "is_training": self.is_training,
            "seed": self.seed,
            "sources": self.sources,
            "changed": self.change is not None,
        }


def _digest(array: np.ndarray) -> str:
    """Return type, shape and a hash of the values, which do not depend on the memory layout."""
    values = hashlib.blake2b(digest_size=16)
    for start in range(0, len(array), 4096):
        values.update(np.ascontiguousarray(array[start : start + 4096]))
        _release_pages(array)
    return f"{array.dtype}{list(array.shape)} {values.hexdigest()}"


def _release_pages(images: np.ndarray) -> None:
    """Release what was read of a memory map; it stays in the system's cache while there is room.

    Otherwise the pages count as this process's memory, in the end all of them: the system reads
    up to a megabyte around each face.
    """
    # Other modes may hold changes, which would be lost. Windows has no such call.
    if getattr(images, "mode", None) == "r" and hasattr(mmap, "MADV_DONTNEED"):
        images._mmap.madvise(mmap.MADV_DONTNEED)


def _padded(array: np.ndarray, missing: int) -> np.ndarray:
    if not missing:
        return np.asarray(array)
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))


def generate_images(
    X: np.ndarray,
    emotions: np.ndarray,
    genders: np.ndarray,
    races: np.ndarray,
    ages: np.ndarray,
    batch_size: int = 32,
    is_training: bool = False,
    seed: int = 0,
    sample_weight: np.ndarray | None = None,
) -> FaceBatches:
    """Cut a data set into batches for ``model.fit``, ``evaluate`` and ``predict``.

    Parameters
    ----------
    X
        (N, H, W, 1) images, an array or a memory map, values 0 to 255. Best uint8: the model
        scales them itself.
    emotions, genders, races, ages
        Blocks (N, 7), (N, 3), (N, 3), (N, 5), as `separate_category` returns them. Each row is
        one-hot, or holds the share of each class (as of votes) and sums to 1. A row of zeros
        means: not labelled. Our losses and metrics mask it. Genders and races have the same
        shape, so pass them by name, or mind their order.
    batch_size
        Images per batch, at least 1.
    is_training
        Shuffle anew in each epoch, and leave out the last batch if it is not full, unless it is
        the only one. Otherwise the batches hold all images in their order.
    seed
        Seed of the shuffling, at least 0.
    sample_weight
        (N,) weight of each face in the losses and accuracies of this package, finite and at
        least 0; 1 each if None. The targets of a face are multiplied by it, and our losses
        average over the sum of all targets. It does not go into ``model.fit``, where Keras
        fails with targets by name (Keras issue 20992).

    Returns
    -------
    FaceBatches
        A `keras.utils.PyDataset`; batch ``i`` is ``(images, {"emotion_output": ...})``, the
        targets float32.

    Raises
    ------
    ValueError
        There are no images; images, labels and weights differ in length; images are not
        (N, H, W, 1) with values 0 to 255; labels do not have the shape of their task, or a row
        is neither a distribution nor zeros; a weight is below 0 or not finite; the batch size
        is below 1.
    """
    X = _check_images(X)
    blocks = {"emotion": emotions, "gender": genders, "race": races, "age": ages}
    targets = {OUTPUTS[task]: _check_block(task, block, len(X)) for task, block in blocks.items()}
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
    if sample_weight is not None:
        weight = _check_weights(sample_weight, len(X))[:, None]
        targets = {name: weight * target for name, target in targets.items()}
    return FaceBatches(X, targets, batch_size, is_training, seed)


def _check_images(X) -> np.ndarray:
    try:
        X = np.asanyarray(X)  # a memory map stays one
    except ValueError as error:
        raise ValueError(f"images must be an array of numbers: {error}") from None
    if X.ndim == 0 or len(X) == 0:
        raise ValueError("no images: nothing to make batches from")
    if X.ndim != 4 or X.shape[-1] != 1:
        raise ValueError(f"images must be grey, (N, H, W, 1), not {X.shape}")
    check_values(X)
    return X


def _check_block(task: str, block, count: int) -> np.ndarray:
    """Return the labels of a task as float32 (count, classes), or say what is wrong with them."""
    block = _numbers(f"labels of {task}", block)
    wanted = (count, len(TASKS[task]))
    if block.shape != wanted:
        raise ValueError(
            f"labels of {task} must be (N, classes) = {wanted}, not {block.shape}"
            f"{_hint(block.shape, count)}"
        )
    total = block.sum(axis=1)
    # NaN compares as False.
    good = ((block >= 0) & (block <= 1.001)).all(axis=1)
    good &= (np.abs(total - 1) <= 1e-3) | (total == 0)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"labels of {task} must be shares of the classes that sum to 1, or all 0 for a face "
            f"without a label; row {row} is {block[row].tolist()}"
        )
    return block


def _hint(shape: tuple[int, ...], count: int) -> str:
    """Return what labels of the wrong shape look like, as the end of an error message."""
    if len(shape) == 1:
        return ": encode_labels makes label rows from class indices, separate_category the blocks"
    if len(shape) != 2:
        return ""
    if shape[0] != count:
        return f": there are {count} images"
    if shape[1] == LABEL_WIDTH:
        return ": these look like whole label rows, which separate_category cuts into blocks"
    alike = [other for other, classes in TASKS.items() if len(classes) == shape[1]]
    return f": these look like the labels of {' or '.join(alike)}" if alike else ""


def _numbers(name: str, values) -> np.ndarray:
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from None


def _check_weights(sample_weight, count: int) -> np.ndarray:
    weight = _numbers("sample_weight", sample_weight)
    if weight.shape != (count,):
        raise ValueError(
            f"sample_weight must be a number per image, ({count},), not {weight.shape}"
        )
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError(
            "sample_weight must be finite and at least 0, but it reaches from "
            f"{weight.min()} to {weight.max()}"
        )
    return weight


def mixed_batches(
    datasets: Sequence[tuple[np.ndarray, np.ndarray]],
    shares: Sequence[int],
    seed: int = 0,
    change: Callable | None = None,
) -> FaceBatches:
    """Make training batches with a fixed number of faces from each of several data sets.

    An epoch goes once through the first data set. The others are drawn from anew in each
    epoch, and gone through again where they are too small.

    Parameters
    ----------
    datasets
        ``(X, y)`` of each: images (N, H, W, 1) and labels float32 (N, 18), as `load_data`
        returns them. They are copied into one array.
    shares
        How many faces of each data set go into a batch, each at least 1.
    seed
        Seed of the shuffling, at least 0.
    change
        A change to make to each batch, see `FaceBatches`.

    Returns
    -------
    FaceBatches
        See `generate_images`.

    Raises
    ------
    ValueError
        The number of shares is not that of the data sets, a share is below 1, a data set has
        no images, or see `generate_images`.
    """
    for X, y in datasets:
        if len(X) != len(y):
            raise ValueError(f"a data set of {len(X)} images has {len(y)} label rows")
    lengths = [len(X) for X, _ in datasets]
    if len(shares) != len(datasets) or min(shares, default=0) < 1 or min(lengths) < 1:
        raise ValueError(f"data sets of {lengths} images need a share of at least 1 each: {shares}")
    X, y = (np.concatenate(arrays) for arrays in zip(*datasets, strict=True))
    targets = batches_of(X, y).targets
    sources = tuple(zip(lengths, shares, strict=True))
    return FaceBatches(X, targets, sum(shares), True, seed, sources, change)


def batches_of(
    X: np.ndarray,
    y: np.ndarray,
    batch_size: int = 32,
    is_training: bool = False,
    seed: int = 0,
) -> FaceBatches:
    """Cut a data set with label rows that are not yet separated into batches.

    Parameters
    ----------
    X
        (N, H, W, 1) images, values 0 to 255.
    y
        Labels float32 (N, 18), as `load_data` returns them.
    batch_size, is_training, seed
        See `generate_images`.

    Returns
    -------
    FaceBatches
        See `generate_images`, also for the errors.
    """
    ages, emotions, genders, races = separate_category(y)
    return generate_images(X, emotions, genders, races, ages, batch_size, is_training, seed)
