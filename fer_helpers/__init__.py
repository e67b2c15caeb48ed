"""Helpers of a notebook course on multi-task facial expression recognition.

One CNN with four heads (emotion, gender, race, age) trained with weighted losses, after
"Facial Emotion Recognition: A multi-task approach using deep learning" (arXiv 2110.15028).

Everything public can be imported from here. Keras is loaded by the first name that needs
it, so ``import fer_helpers`` itself is quick.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

# TensorFlow reports the CPU it found in native log lines, at every start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# oneDNN's convolutions are much faster; TensorFlow turns them on by itself only on some CPUs.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_HOME = {
    "labels": (
        "TASKS DATASETS OUTPUTS BLOCKS encode_labels decode_labels age_class "
        "separate_category seperate_category"
    ),
    "datasets": "Faces load_data read_dataset find_datasets",
    "batches": "generate_images",
    "augment": "RandomFace",
    "model": "get_model load_model",
    "losses": "MaskedCrossentropy MaskedAccuracy",
    "training": "PAPER_LOSS_WEIGHTS check_environment choose_precision compile_model fit train",
    "evaluation": (
        "accuracy_table class_table confusion wilson_interval expected_calibration_error "
        "find_copies labelled"
    ),
    "prediction": "predict prediction_table find_faces grad_cam",
    "plots": "",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted(_MODULE)
__version__ = "0.1.0"


# These can be had without Keras, which takes seconds to load.
_LIGHT = ("labels", "datasets")


def __getattr__(name: str):
    module = name if name in _HOME else _MODULE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if module not in _LIGHT and "keras" not in sys.modules:
        with _no_native_log():
            import_module("keras")
        # Keras builds a new function for each model, which TensorFlow takes for a mistake.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    home = import_module(f"{__name__}.{module}")
    return home if name in _HOME else getattr(home, name)


@contextmanager
def _no_native_log() -> Iterator[None]:
    """Keep what compiled code writes to stderr from showing; Python's errors are raised."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
