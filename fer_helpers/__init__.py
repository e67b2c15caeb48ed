"""Helpers of a notebook course on multi-task facial expression recognition.

One CNN with four heads (emotion, gender, race, age) trained with weighted losses, after
"Facial Emotion Recognition: A multi-task approach using deep learning" (arXiv 2110.15028).

What the notebooks use most can be imported from here. Keras is loaded by the first name
that needs it, so ``import fer_helpers`` itself is quick.
"""

import sys
from importlib import import_module
from importlib.machinery import PathFinder

_HOME = {
    "labels": (
        "TASKS DATASETS OUTPUTS BLOCKS encode_labels decode_labels age_class "
        "separate_category seperate_category class_index short_name"
    ),
    "datasets": "Faces load_data load_training_data read_dataset find_datasets",
    "images": "find_copies",
    "batches": "generate_images",
    "backend": "check_environment choose_precision",
    "augment": "RandomFace",
    "model": "build_model get_model load_model",
    "losses": "MaskedCrossentropy MaskedAccuracy",
    "runs": "fit read_history",
    "training": "PAPER_LOSS_WEIGHTS compile_model train",
    "evaluation": (
        "accuracy_table class_table confusion wilson_interval expected_calibration_error labelled"
    ),
    "groups": "audit group_table",
    "prediction": "predict prediction_table calibrate grad_cam",
    "photos": "find_faces open_photo predict_crops predict_photo predict_photos",
    "video": "predict_video",
    "card": "model_card",
    "plots": "",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted(_MODULE)
__version__ = "0.3.0"


def __getattr__(name: str):
    module = name if name in _HOME else _MODULE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{module}")
    if "keras" in sys.modules:
        _register()
    return home if name in _HOME else getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register() -> None:
    """Register the package's layers, losses and metrics with Keras, for its own `load_model`."""
    for module in ("model", "losses"):
        import_module(f"{__name__}.{module}")


class _AfterKeras:
    """Finder of modules that registers as soon as Keras has been imported by someone else."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "keras" or f"{__name__}.backend" in sys.modules:
            return None
        if spec := PathFinder.find_spec(name, path):
            run = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (run(module), _register())
        return spec


if "keras" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _AfterKeras)
