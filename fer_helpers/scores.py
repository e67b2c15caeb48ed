"""What ``evaluate`` and ``audit`` of the command line do: score weights on labelled faces."""

import json
from collections.abc import Mapping
from pathlib import Path

from fer_helpers.commands import check_writable, note, show, source_options, write_csv

TRAINING_SPLITS = ("train", "Training")


def evaluate(args) -> None:
    """Score weights on a split of a data set."""
    check_writable(args.predictions, args.figures and args.figures / "confusion-emotion.png")
    scores = _score(args)
    if args.figures:
        _draw_confusion(scores["confusion"], args.figures)
    if args.json:
        print(json.dumps(_as_json(args, scores), indent=1))
    else:
        _print_scores(scores, args.by)


def _score(args) -> dict:
    """Return the tables of `evaluate`: by task, without copies, by class, confusion, by group."""
    from fer_helpers import evaluation, groups

    faces, probabilities = _predict_dataset(args, args.views)
    tasks = evaluation.accuracy_table(faces.labels, probabilities)
    if tasks.empty:
        raise ValueError(
            f"{args.dataset}, split {args.split}, has no labels to score by: choose another split"
        )
    if args.predictions:
        write_csv(_predictions(faces, probabilities), args.predictions)
    copies, unseen = _copies_of_training(args, faces), None
    if copies is not None:
        rest = {task: rows[~copies] for task, rows in probabilities.items()}
        unseen = evaluation.accuracy_table(faces.labels[~copies], rest)
    return {
        "images": len(faces),
        "tasks": tasks,
        "copies": None if copies is None else int(copies.sum()),
        "unseen": unseen,
        "classes": {
            task: evaluation.class_table(faces.labels, probabilities, task) for task in tasks.index
        },
        "confusion": {
            task: evaluation.confusion(faces.labels, probabilities, task) for task in tasks.index
        },
        "groups": {
            task: groups.group_table(faces.labels, probabilities, task, args.by)
            for task in tasks.index
            if args.by not in (None, task)
        },
    }


def _predictions(faces, probabilities: Mapping):
    """Return one row per face: each task's prediction, with the true class beside it."""
    from fer_helpers.labels import decode_labels
    from fer_helpers.prediction import prediction_table

    rows = prediction_table(faces.paths, probabilities, attributes=True)
    for task, names in decode_labels(faces.labels).items():
        rows.insert(rows.columns.get_loc(task) + 1, f"true_{task}", names)
    return rows.assign(error="")


def _draw_confusion(tables: Mapping, folder: Path) -> None:
    """Draw the confusion matrix of each task: confusion-emotion.png, ..."""
    from fer_helpers import plots

    for task, counts in tables.items():
        target = folder / f"confusion-{task}.png"
        plots.save(plots.confusion_matrix(counts, task), target)
        note(f"drawn in {target}")


def _as_json(args, scores: Mapping) -> dict:
    unseen = scores["unseen"]
    by_class = {
        task: {
            "recall": scores["classes"][task]["recall"].dropna().to_dict(),
            "confusion": counts.to_dict("index"),  # labelled class -> predicted class -> faces
        }
        for task, counts in scores["confusion"].items()
    }
    tasks = scores["tasks"].to_dict("index")
    return {
        "weights": str(args.weights),
        "dataset": args.dataset,
        "split": args.split,
        "images": scores["images"],
        "views": args.views,
        "copies_of_training_images": scores["copies"],
        "without_copies": None if unseen is None else unseen.to_dict("index"),
        "tasks": {task: row | by_class[task] for task, row in tasks.items()},
        "groups": {task: rows.to_dict("index") for task, rows in scores["groups"].items()},
    }


def _print_scores(scores: Mapping, by: str | None) -> None:
    show(scores["tasks"], False)
    if scores["copies"] is None:
        print("\nNot searched for copies of training images, see the note.")
    elif scores["copies"]:
        print(f"\nWithout {scores['copies']} exact copies of training images:")
        show(scores["unseen"], False)
    for rows in scores["classes"].values():
        print()
        show(rows, False)
    for task, rows in scores["groups"].items():
        print(f"\naccuracy of {task} by {by}")
        if rows.empty:
            print("no group has 30 faces; audit --smallest takes fewer")
        else:
            show(rows, False)


def audit(args) -> None:
    """Compare groups of faces, and write the table or a model card."""
    from fer_helpers import groups

    check_writable(args.out, args.card)
    faces, probabilities = _predict_dataset(args)
    table = groups.audit(faces.labels, probabilities, args.smallest)
    copies = _copies_of_training(args, faces)
    if copies is not None and copies.any():
        note(f"note: {copies.sum()} of the faces are also in the training split")
    if table.empty and not args.card:  # the card says more than the groups
        raise ValueError(_why_no_groups(args, faces))
    if args.out:
        write_csv(table.round(5), args.out)
        note(f"{len(table)} rows in {args.out}")
    if args.card:
        _write_card(args, faces, probabilities)
    if args.json or not (args.out or args.card):
        show(table if args.json else table.round(3), args.json)


def _why_no_groups(args, faces) -> str:
    from fer_helpers.evaluation import labelled

    if any(labelled(faces.labels, task).any() for task in ("gender", "race", "age")):
        return f"no group of {args.dataset} has {args.smallest} faces: lower --smallest"
    return (
        f"{args.dataset} has no labels for gender, race or age, so it has no groups to compare: "
        "choose another --dataset"
    )


def _write_card(args, faces, probabilities: Mapping) -> None:
    from fer_helpers.card import model_card
    from fer_helpers.training import origin

    names = str(args.weights), args.dataset, args.split, origin(args.weights)
    card = model_card(faces.labels, probabilities, *names, smallest=args.smallest)
    args.card.write_text(card, encoding="utf-8")
    note(f"card in {args.card}")


def _predict_dataset(args, views: int = 1):
    """Return the faces of the split asked for, and the network's probabilities for them."""
    from fer_helpers import model, prediction
    from fer_helpers.datasets import read_dataset

    network = model.load_model(args.weights)
    faces = read_dataset(args.dataset, args.split, **source_options(args))
    return faces, prediction.predict(network, faces.images, views=views)


def _copies_of_training(args, faces):
    """Return which faces are exact copies of training ones, bool (N,); None if not searched."""
    import numpy as np

    from fer_helpers.datasets import read_dataset
    from fer_helpers.images import find_copies

    if np.isin(faces.splits, TRAINING_SPLITS).any():
        note("note: training faces are scored, too: this is no test")
        return None
    _note_seen_faces(args, faces)
    whole = read_dataset(args.dataset, **source_options(args))
    training = np.isin(whole.splits, TRAINING_SPLITS)
    if not training.any():
        note("note: no training split here to search for copies in")
        return None
    return find_copies(faces.images, whole.images[training])


def _note_seen_faces(args, faces) -> None:
    """Note that shipped weights may be scored on the very faces that they were trained on."""
    import numpy as np

    from fer_helpers.model import HELD_OUT, TRAINED_ON

    if args.weights not in ("FER", "UTKFACE", "RAFDB") or args.dataset in ("SAMPLE", "RAFDB"):
        return
    official = not any("may not be the official splits" in text for text in faces.notes)
    if not (official and np.isin(faces.splits, HELD_OUT.get(args.dataset, ())).all()):
        note(
            f"note: the shipped weights were trained on {TRAINED_ON}, which may hold "
            "these faces: this score is no test"
        )
