"""Batches: shuffled images with one target a head, ready for ``model.fit``."""

import mmap
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fer_helpers import distributed
from fer_helpers.backend import keras
from fer_helpers.labels import OUTPUTS, TASKS, separate_category


class FaceBatches(keras.utils.PyDataset):
    """Batches of faces and their four targets; see `generate_images`.

    The order follows from (`seed`, `epoch`) alone, so a run that is resumed at an epoch
    sees the batches it would have seen. `sources` is for `mixed_batches`: how many faces
    there are of each source, one source after the other, and how many go into a batch.
    `change` is made to each batch: a function of images, targets and the seed of what it
    draws, that gives images and targets. Where several processes train
    together, each reads its own part of every batch.
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
        self.batch_size, self.is_training = batch_size, is_training
        self.seed, self.sources, self.change = seed, tuple(sources), change
        self.devices = 1  # that share a batch; `fit` knows how many
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
            # A source that is too small for the epoch is gone through again.
            rounds = -(-batches * share // faces)
            rows = np.concatenate([start + shuffle(faces) for _ in range(rounds)])
            columns.append(rows[: batches * share].reshape(batches, share))
            start += faces
        return np.concatenate(columns, axis=1).ravel()

    def on_epoch_end(self) -> None:
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
        rows = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        # A memory map is read from front to back.
        rows = np.sort(rows)
        rank, processes, devices = distributed.share()
        devices = max(devices, self.devices)
        part = -(-len(rows) // devices) * devices // processes
        rows = rows[rank * part : (rank + 1) * part]
        missing = part - len(rows)  # all parts are equally long: the rest is unlabelled
        images = _padded(self.images[rows], missing)
        _give_back(self.images)
        targets = {name: _padded(target[rows], missing) for name, target in self.targets.items()}
        if self.change is None:
            return images, targets
        return self.change(images, targets, (self.seed, self.epoch, index))


def _give_back(images: np.ndarray) -> None:
    """Let go of what was read of a memory map; it stays in the system's cache as long as it can.

    Else the pages count as this process's memory, in the end all of them: the system brings
    in up to a megabyte around each face.
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
) -> FaceBatches:
    """Cut a data set into batches for ``model.fit``, ``evaluate`` and ``predict``.

    Parameters
    ----------
    X
        uint8 (N, H, W, 1) images, an array or a memory map; they stay uint8, since the
        model scales them itself.
    emotions, genders, races, ages
        One-hot blocks (N, 7), (N, 3), (N, 3), (N, 5) as `separate_category` gives them;
        a row of zeros is not labelled and is masked by our losses and metrics.
    batch_size
        Images a batch.
    is_training
        Shuffle anew each epoch, and leave out the last batch if it is not full.
    seed
        Of the shuffling.

    Returns
    -------
    FaceBatches
        A `keras.utils.PyDataset`; batch ``i`` is ``(images, {"emotion_output": ...})``.

    Raises
    ------
    ValueError
        No images, images and labels of different length, pixel values or labels of another
        kind, or a batch size below one.
    """
    targets = {"emotion": emotions, "gender": genders, "race": races, "age": ages}
    lengths = {"images": len(X)} | {task: len(block) for task, block in targets.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"images and labels of different length: {lengths}")
    if len(X) == 0:
        raise ValueError("no images: nothing to make batches from")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if X.ndim != 4:
        raise ValueError(f"images must be (N, H, W, 1), not {X.shape}")
    check_values(X[:256])
    named = {OUTPUTS[task]: np.asarray(block, np.float32) for task, block in targets.items()}
    for task, classes in TASKS.items():
        block = named[OUTPUTS[task]]
        if block.shape != (len(X), len(classes)) or not np.isfinite(block).all():
            raise ValueError(
                f"labels of {task} must be one-hot, ({len(X)}, {len(classes)}), as "
                f"separate_category gives them, not {block.shape} up to {block.max()}"
            )
    return FaceBatches(X, named, batch_size, is_training, seed)


def check_values(images: np.ndarray) -> None:
    """Refuse pixel values that are no levels of grey from 0 to 255."""
    if images.dtype == np.uint8:
        return
    if not np.isfinite(images).all() or images.min() < 0 or images.max() > 255:
        raise ValueError(
            f"pixel values must be finite and from 0 to 255, found {images.min()} to {images.max()}"
        )
    if 0 < images.max() <= 1:
        raise ValueError("pixel values end at 1: multiply by 255, the network scales them itself")


def mixed_batches(
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    shares: Sequence[int],
    seed: int = 0,
    change: Callable | None = None,
) -> FaceBatches:
    """Training batches with a fixed number of faces from each of several data sets.

    Parameters
    ----------
    parts
        ``(X, y)`` of each data set, as `load_data` gives them.
    shares
        Faces of each in a batch. An epoch goes once through the first data set; the others
        are drawn from anew each epoch, and gone through again where they are too small.
    seed
        Of the shuffling.
    change
        See `FaceBatches`.

    Raises
    ------
    ValueError
        Not one share, of at least 1, for each data set, or a data set without images.
    """
    lengths = [len(X) for X, _ in parts]
    if len(shares) != len(parts) or min(shares, default=0) < 1 or min(lengths) < 1:
        raise ValueError(f"data sets of {lengths} images need a share of at least 1 each: {shares}")
    X, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    plain = batches_of(X, y, sum(shares), True, seed=seed)
    sources = tuple(zip(lengths, shares, strict=True))
    return FaceBatches(X, plain.targets, sum(shares), True, seed, sources, change)


def batches_of(X: np.ndarray, y: np.ndarray, *args, **kwargs) -> FaceBatches:
    """`generate_images` for label rows that are not yet separated."""
    ages, emotions, genders, races = separate_category(y)
    return generate_images(X, emotions, genders, races, ages, *args, **kwargs)
