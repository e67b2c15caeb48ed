"""The command line: ``python -m fer_helpers COMMAND``."""

import argparse
import contextlib
import functools
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from fer_helpers.labels import DATASETS, TASKS

EXAMPLES = """examples:
  python -m fer_helpers data
  python -m fer_helpers train --dataset FER --epochs 20 --seed 0 --out results/FER
  python -m fer_helpers evaluate --weights results/FER/model.keras --dataset FER --split PublicTest
  python -m fer_helpers predict photo.jpg
  python -m fer_helpers predict faces/ --no-detect --out predictions.csv
  python -m fer_helpers visualize --dataset SAMPLE --out results/
  python -m fer_helpers export --weights FER --format onnx --out fer.onnx

Data sets are looked for in data/, in $FER_DATA_DIR, or in --data-dir: FER/, RAFDB/ and
UTKFACE/ hold the unpacked files or the zip as downloaded. SAMPLE needs none.
"""


TRAINING_PARTS = ("train", "Training")


def _show(rows, as_json: bool) -> None:
    """Print a DataFrame as a table, or as JSON with one object a row."""
    frame = rows.reset_index() if rows.index.name else rows
    if as_json:
        print(json.dumps(json.loads(frame.to_json(orient="records")), indent=1))
    else:
        print(frame.to_string(index=False, float_format="{:.3f}".format, na_rep="-"))


def _write_csv(rows, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(path, index=False, errors="surrogateescape")  # names of files may be any bytes


def _positive(word: str) -> int:
    """A whole number from 1, for argparse."""
    if (number := int(word)) < 1:
        raise argparse.ArgumentTypeError(f"{word} is below 1")
    return number


def data(args) -> None:
    from fer_helpers.datasets import find_datasets, read_dataset

    table = find_datasets(args.data_dir)
    if not (args.dataset or args.json):
        for row in table.itertuples():
            print(f"{row.name:<8} {'found' if row.found else 'missing'}: {row.where}")
            print(f"{'':<8} {row.terms}")
        return
    if args.dataset:
        faces = read_dataset(args.dataset, data_dir=args.data_dir)
        import pandas as pd

        from fer_helpers.evaluation import find_copies
        from fer_helpers.labels import decode_labels

        names = decode_labels(faces.labels)
        table = pd.DataFrame(
            [
                {"part": part, "task": task, "class": name, "faces": int(count)}
                for part in dict.fromkeys(faces.parts)
                for task in TASKS
                for name, count in names.loc[faces.parts == part, task]
                .value_counts(sort=False)
                .items()
            ]
        )
        copies = find_copies(faces.images).sum()
        print(
            f"{len(faces)} faces, {copies} of them exact copies of others, "
            f"{len(faces.skipped)} files skipped",
            file=sys.stderr,
        )
        for path, reason in faces.skipped[:20]:
            print(f"  {path}: {reason}", file=sys.stderr)
    _show(table, args.json)


def train(args) -> None:
    if args.distributed:
        if find_spec("jax"):  # `joined` says what to do without it
            os.environ.setdefault("KERAS_BACKEND", "jax")
        from fer_helpers.distributed import joined, read_settings

        with joined(*read_settings(args.address, args.processes, args.rank)):
            _train(args)
    else:
        _train(args)


def _train(args) -> None:
    from fer_helpers import training

    weights = dict(training.PAPER_LOSS_WEIGHTS)
    for word in args.loss_weights or []:
        task, _, value = word.partition("=")
        try:
            weights[task] = float(value)
        except ValueError:
            raise ValueError(
                f"--loss-weights wants TASK=NUMBER, as in age=4, not {word!r}"
            ) from None
    out = args.out or Path("results") / (args.recipe or args.dataset)
    if args.recipe:
        for option in ("start", "batch_size", "loss_weights", "distributed"):
            if getattr(args, option):
                raise ValueError(
                    f"--{option.replace('_', '-')} does not go with --recipe: leave one of them out"
                )
        from fer_helpers.recipes import RECIPES

        given = {"epochs": args.epochs, "backbone": args.backbone}
        given = {name: value for name, value in given.items() if value}
        learn = functools.partial(RECIPES[args.recipe], out, **given)
    else:
        learn = functools.partial(
            training.train,
            args.dataset,
            args.epochs or 30,
            out,
            backbone=args.backbone,
            batch_size=args.batch_size or 32,
            loss_weights=weights,
            start=args.start,
        )
    done = len(training.read_history(out))
    # A line for each epoch; the JSON has the output to itself.
    with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
        history = learn(seed=args.seed, data_dir=args.data_dir)
    if len(history) == done:
        print(f"note: {out} has all its epochs already, nothing was trained", file=sys.stderr)
    if args.json:
        _show(history, True)
    else:
        print(f"epochs: {len(history)}; best model in {out / 'model.keras'}")


def evaluate(args) -> None:
    from fer_helpers import evaluation, model, prediction
    from fer_helpers.datasets import read_dataset

    network = model.load_model(args.weights)
    faces = read_dataset(args.dataset, args.split, data_dir=args.data_dir)
    probabilities = prediction.predict(network, faces.images, views=args.views)
    table = evaluation.accuracy_table(faces.labels, probabilities)
    if table.empty:
        raise ValueError(f"no face of {args.dataset}, {args.split}, has a label to be scored by")
    if args.predictions:
        rows = prediction.prediction_table(faces.paths, probabilities, attributes=True)
        rows["error"] = ""
        _write_csv(rows, args.predictions)
    copies = _copies_of_training(args, faces)
    unseen = None
    if copies is not None:
        unseen = evaluation.accuracy_table(
            faces.labels[~copies], {task: p[~copies] for task, p in probabilities.items()}
        )
    recalls = {
        task: evaluation.class_table(faces.labels, probabilities, task) for task in table.index
    }
    groups = {}
    if args.by:
        groups = {
            task: evaluation.group_table(faces.labels, probabilities, task, args.by)
            for task in table.index
            if task != args.by
        }
    if args.json:
        report = {
            "weights": str(args.weights),
            "dataset": args.dataset,
            "split": args.split,
            "images": len(faces),
            "views": args.views,
            "copies_of_training_images": None if copies is None else int(copies.sum()),
            "without_copies": None if copies is None else unseen.to_dict("index"),
            "tasks": {
                task: row | {"recall": recalls[task]["recall"].dropna().to_dict()}
                for task, row in table.to_dict("index").items()
            },
            "groups": {task: rows.to_dict("index") for task, rows in groups.items()},
        }
        print(json.dumps(report, indent=1))
        return
    _show(table, False)
    if copies is None:
        print("\nCopies of training images: not looked for, see the note.")
    elif copies.any():
        print(f"\nWithout {copies.sum()} exact copies of training images:")
        _show(unseen, False)
    for recall in recalls.values():
        print()
        _show(recall, False)
    for task, rows in groups.items():
        print(f"\naccuracy of {task} by {args.by}")
        if rows.empty:
            print("no group has 30 faces; audit --smallest takes fewer")
        else:
            _show(rows, False)


def audit(args) -> None:
    from fer_helpers import evaluation, model, prediction
    from fer_helpers.card import model_card
    from fer_helpers.datasets import read_dataset

    network = model.load_model(args.weights)
    faces = read_dataset(args.dataset, args.split, data_dir=args.data_dir)
    probabilities = prediction.predict(network, faces.images)
    table = evaluation.audit(faces.labels, probabilities, args.smallest)
    copies = _copies_of_training(args, faces)
    if copies is not None and copies.any():
        print(f"note: {copies.sum()} of the faces also stand in training", file=sys.stderr)
    attributes = ("gender", "race", "age")
    if table.empty and not args.card:  # the card has more to say than groups
        if any(evaluation.labelled(faces.labels, name).any() for name in attributes):
            raise ValueError(
                f"no group of {args.dataset} has {args.smallest} faces: lower --smallest"
            )
        raise ValueError(
            f"{args.dataset} has no labels for gender, race or age, so it has no groups to compare"
        )
    if args.out:
        _write_csv(table.round(5), args.out)
        print(f"{len(table)} rows in {args.out}", file=sys.stderr)
    if args.card:
        args.card.parent.mkdir(parents=True, exist_ok=True)
        card = model_card(
            faces.labels,
            probabilities,
            str(args.weights),
            args.dataset,
            args.split,
            smallest=args.smallest,
        )
        args.card.write_text(card, encoding="utf-8")
        print(f"card in {args.card}", file=sys.stderr)
    if args.json or not (args.out or args.card):
        _show(table if args.json else table.round(3), args.json)


def _copies_of_training(args, faces):
    """Which of the faces also stand, pixel by pixel, in training; None where not looked for."""
    import numpy as np

    from fer_helpers.datasets import read_dataset
    from fer_helpers.evaluation import find_copies

    whole = read_dataset(args.dataset, data_dir=args.data_dir)
    training = np.isin(whole.parts, TRAINING_PARTS)
    if np.isin(faces.parts, TRAINING_PARTS).any():
        print("note: training faces are scored, too: that is no test", file=sys.stderr)
        return None
    if not training.any():
        print("note: no training part here to look for copies in", file=sys.stderr)
        return None
    return find_copies(faces.images, whole.images[training])


def predict(args) -> None:
    from fer_helpers import model, prediction

    files = prediction.image_files(args.paths)
    network = model.load_model(args.weights)
    if args.no_detect:
        table = prediction.predict_crops(network, files, args.attributes)
    else:
        table = prediction.predict_photos(network, files, args.attributes)
    if args.out:
        _write_csv(table, args.out)
        failed = int((table["error"] != "").sum())
        print(f"{len(table)} rows in {args.out}, {failed} with an error", file=sys.stderr)
    if args.json or not args.out:
        _show(table if args.json else _brief(table), args.json)
    if not args.no_detect:
        # A picture for each photo that was named; a folder of thousands is for the table.
        _draw_photos(table, [file for file in files if file in args.paths], args.figures)


def _brief(table):
    """The answers, and how probable the emotion is: not the detector's confidence in a face."""
    asked = [task for task in TASKS if task in table]
    brief = table[["path", *asked, "error"]]
    if "emotion" in asked:  # no photo with a face: no answer at all
        brief.insert(2, "probability", table.filter(like="emotion_").max(axis=1))
    return brief


def multitask(args) -> None:
    from fer_helpers.multitask import ALONE, ARMS, EPOCHS, FACES, compare, study

    runs = study(
        args.out,
        args.arms or tuple(ARMS),
        range(args.seeds),
        args.epochs or EPOCHS,
        args.faces or FACES,
        args.backbone,
        args.data_dir,
    )
    # One arm run anew has nothing to be compared with where its table holds no other.
    _show(compare(runs).round(4) if ALONE in set(runs["arm"]) else runs, args.json)


def _draw_photos(table, files: list[Path], folder: Path) -> None:
    from fer_helpers import plots, prediction

    for file in files:
        rows = table[(table["path"] == str(file)) & (table["error"] == "")]
        if rows.empty:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        # a/portrait.jpg and b/portrait.jpg are two pictures.
        same = [other for other in files if other.stem.lower() == file.stem.lower()]
        number = f"-{same.index(file) + 1}" if len(same) > 1 else ""
        target = folder / f"{file.stem}-faces{number}.png"
        plots.save(plots.photo(prediction.open_photo(file), rows), target)
        print(f"drawn in {target}", file=sys.stderr)


def visualize(args) -> None:
    from fer_helpers import evaluation, model, plots, prediction
    from fer_helpers.training import load_training_data

    trained = Path("results") / args.dataset / "model.keras"
    weights = args.weights or (trained if trained.is_file() else args.dataset)
    network = model.load_model(weights)
    _, (X, y) = load_training_data(args.dataset, args.data_dir)
    if not evaluation.labelled(y, "emotion").any():
        raise ValueError(f"{args.dataset} has no emotion labels to draw samples of")
    paths = plots.save_prediction_samples(X, y, prediction.predict(network, X), args.out)
    if args.json:
        print(json.dumps([str(path) for path in paths]))
    else:
        print(*paths, sep="\n")


def export(args) -> None:
    from fer_helpers.export import SUFFIXES, export
    from fer_helpers.model import load_model

    # Beside a network of one's own: those of two runs are both called model.keras.
    name = Path("results", args.weights) if args.weights in DATASETS else Path(args.weights)
    ending = "-int8" * args.int8 + SUFFIXES[args.format]
    out = args.out or name.with_name(name.stem + ending)
    network = load_model(args.weights)
    # The converters have no steps that a bar could count.
    print(f"converting {args.weights}: up to a minute", file=sys.stderr, flush=True)
    report = export(network, out, args.format, args.int8, args.dataset, args.data_dir)
    if args.json:
        print(json.dumps(report, indent=1))
        return
    print(f"{out}: {report['bytes']:,} bytes (weights in float32: {report['float32_bytes']:,})")
    print(f"greatest difference from Keras on {report['images']} {args.dataset} images: ", end="")
    print(f"{report['difference']:.2g}")
    for task, row in report["accuracy"].items():
        print(f"accuracy {task:<8}Keras {row['keras']:.3f}  exported {row['exported']:.3f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fer_helpers",
        description="One CNN, four heads (emotion, gender, race, age), weighted losses.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(function.__name__, help=text, description=text)
        sub.set_defaults(function=function)
        sub.add_argument("--json", action="store_true", help="print JSON, for programs")
        return sub

    def reads_data(sub: argparse.ArgumentParser, **dataset) -> None:
        dataset = {"help": "which data set"} | dataset
        sub.add_argument("--dataset", choices=DATASETS, **dataset)
        sub.add_argument("--data-dir", type=Path, help="folder that holds FER/, RAFDB/, UTKFACE/")

    backbone_help = (
        "compact (the default), deep, wide (for a GPU), or paper for the CNN of arXiv 2110.15028"
    )
    weights_help = "a .keras file, or SAMPLE, FER or UTKFACE for the shipped weights"

    sub = command(data, "Show which data sets are there; with --dataset, count its faces.")
    reads_data(sub)

    sub = command(train, "Train, or go on with a run that stopped, and keep the best epoch.")
    reads_data(sub, default="SAMPLE")
    sub.add_argument(
        "--recipe",
        choices=("open-data", "from-labels"),
        help="train on FER and UTKFACE together: open-data makes the shipped weights again and "
        "wants a GPU; from-labels does without its teachers. A recipe sets its own batches and "
        "losses, and trains on one device",
    )
    sub.add_argument(
        "--epochs",
        type=_positive,
        help="epochs in total (default 30; from-labels 36), or of open-data's first round (78)",
    )
    sub.add_argument("--start", metavar="WEIGHTS", help="begin from these: " + weights_help)
    sub.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")
    sub.add_argument(
        "--out",
        type=Path,
        help="folder for model.keras and history.csv (default results/DATASET, results/RECIPE)",
    )
    sub.add_argument("--backbone", help=backbone_help)
    sub.add_argument("--batch-size", type=_positive, help="images a batch (default 32)")
    sub.add_argument(
        "--loss-weights",
        nargs="+",
        metavar="TASK=W",
        help="weights of the losses; those not named keep the paper's: emotion=2 gender=0.1 "
        "race=1.5 age=4",
    )

    several = sub.add_argument_group(
        "several machines",
        "The same command on each, with its own --rank, and an --out that all of them see. "
        "Runs on JAX; --batch-size is that of all together. On TensorFlow, several GPUs of one "
        "machine are used without it.",
    )
    several.add_argument("--distributed", action="store_true", help="train together")
    several.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="where rank 0 is reached (default $KERAS_DISTRIBUTION_JOB_ADDRESSES)",
    )
    several.add_argument(
        "--processes", type=int, help="how many (default $KERAS_DISTRIBUTION_NUM_PROCESSES)"
    )
    several.add_argument(
        "--rank", type=int, help="which one, from 0 (default $KERAS_DISTRIBUTION_PROCESS_ID)"
    )

    sub = command(multitask, "Train with one head and with four, seed by seed: notebook 08's runs.")
    sub.add_argument("--arms", nargs="+", metavar="ARM", help="only these arms, by name")
    sub.add_argument("--seeds", type=_positive, default=5, help="seeds 0 to N-1 (default 5)")
    sub.add_argument("--epochs", type=_positive, help="epochs of each run (default 6)")
    sub.add_argument("--faces", type=_positive, help="of FER2013 to train on (default 14000)")
    sub.add_argument("--backbone", default="compact", help=backbone_help)
    sub.add_argument("--data-dir", type=Path, help="folder that holds FER/ and UTKFACE/")
    sub.add_argument(
        "--out",
        type=Path,
        metavar="CSV",
        default=Path("data/results/multitask_runs.csv"),
        help="a row a run; runs that stand there are left out (default data/results/...)",
    )

    sub = command(evaluate, "Score weights on a part of a data set.")
    reads_data(sub, required=True)
    sub.add_argument("--weights", required=True, help=weights_help)
    sub.add_argument(
        "--split",
        default="all",
        help="train, validation, test, all, or the data set's own word such as PublicTest",
    )
    sub.add_argument(
        "--views",
        type=int,
        choices=(1, 2, 10),
        default=1,
        help="views of each image that are averaged: 1, 2 with its mirror image, 10 crops",
    )
    sub.add_argument(
        "--by", choices=tuple(TASKS), help="also score each class of this task for itself"
    )
    sub.add_argument("--predictions", type=Path, metavar="CSV", help="also write a row an image")

    sub = command(audit, "Compare groups of faces: gender, race, age, and two of them crossed.")
    reads_data(sub, required=True)
    sub.add_argument("--weights", required=True, help=weights_help)
    sub.add_argument("--split", default="test", help="part of the data set (default test)")
    sub.add_argument(
        "--smallest", type=int, default=30, help="leave out groups with fewer faces (default 30)"
    )
    sub.add_argument("--out", type=Path, metavar="CSV", help="write the table to a file")
    sub.add_argument("--card", type=Path, metavar="FILE", help="write a model card (Markdown)")

    sub = command(predict, "Predict photos, or face crops with --no-detect.")
    sub.add_argument("paths", nargs="+", type=Path, help="image files or folders of them")
    sub.add_argument("--weights", default="FER", help=weights_help + " (default FER)")
    sub.add_argument(
        "--no-detect", action="store_true", help="each image is one face already cut out"
    )
    sub.add_argument(
        "--attributes",
        action="store_true",
        help="also gender, race and age, for the audit of labelled data; off by default",
    )
    sub.add_argument(
        "--figures",
        type=Path,
        metavar="FOLDER",
        default=Path("results/predictions"),
        help="where the result of each photo named is drawn (default results/predictions)",
    )
    sub.add_argument("--out", type=Path, metavar="CSV", help="write all columns to this file")

    sub = command(visualize, "Draw a typical prediction of each emotion: angry.png, fear.png, ...")
    reads_data(sub, default="SAMPLE")
    sub.add_argument(
        "--weights", help=weights_help + " (default results/DATASET/model.keras, else the shipped)"
    )
    sub.add_argument("--out", type=Path, default=Path("results"), help="folder (default results/)")

    sub = command(export, "Write a network as one file that runs without Keras.")
    sub.add_argument("--weights", required=True, help=weights_help)
    sub.add_argument("--format", choices=("onnx", "litert"), required=True)
    sub.add_argument(
        "--int8", action="store_true", help="8-bit numbers: a quarter of the size, less accurate"
    )
    reads_data(sub, default="SAMPLE", help="whose faces it is compared on, and int8 is set by")
    sub.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default beside the weights; results/NAME.onnx or .tflite for shipped ones",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; bad input ends with one line on stderr and exit status 2."""
    args = _parser().parse_args(arguments)
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be any bytes
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files: no window is wanted
    try:
        args.function(args)
        sys.stdout.flush()
    except BrokenPipeError:  # as in "... | head": whoever reads has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0
