"""Helpers of a notebook course on multi-task facial expression recognition.

One CNN with four heads (emotion, gender, race, age) trained with weighted losses, after
"Facial Emotion Recognition: A multi-task approach using deep learning" (arXiv 2110.15028).

What the notebooks use most can be imported from here. Keras is loaded by the first name
that needs it, so ``import fer_helpers`` itself is quick.
"""

from importlib import import_module

_HOME = {
    "labels": (
        "TASKS DATASETS OUTPUTS BLOCKS encode_labels decode_labels age_class "
        "separate_category seperate_category"
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
__version__ = "0.2.0"


def __getattr__(name: str):
    module = name if name in _HOME else _MODULE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{module}")
    return home if name in _HOME else getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
