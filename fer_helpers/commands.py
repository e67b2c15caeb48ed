"""What each command of ``python -m fer_helpers`` does; `fer_helpers.cli` reads their arguments.

A command takes the parsed arguments and prints what it finds: results on stdout, notes on
stderr. What is slow to import is imported by the command that needs it, so that ``--help``
is instant.
"""

import contextlib
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from fer_helpers.labels import DATASETS, TASKS, visible

FORMULA = ("=", "+", "-", "@")  # a spreadsheet runs what begins with one of these


def show(rows, as_json: bool) -> None:
    """Print a DataFrame as a table, or as JSON with one object per row."""
    frame = rows.reset_index() if rows.index.name else rows
    if as_json:
        print(json.dumps(json.loads(frame.to_json(orient="records")), indent=1))
    else:
        print(visible(frame.to_string(index=False, float_format="{:.3f}".format, na_rep="-")))


def note(text: str) -> None:
    """Print a line beside the results, on stderr."""
    print(visible(text), file=sys.stderr)


def source_options(args) -> dict:
    """Return what `read_dataset` and its like take beside name and split."""
    return {"data_dir": args.data_dir, "labels": args.labels, "ignore": args.ignore}


def check_writable(*files: Path | None) -> None:
    """Make the folders of files, and raise an OSError now if they cannot be written later."""
    for file in filter(None, files):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            is_new = not file.exists()
            file.open("a").close()
            if is_new:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise OSError(
                f"{file} cannot be written ({error.strerror}): choose another place"
            ) from error


def write_csv(rows, path: Path) -> None:
    """Write a table to a file whose folder exists; see `_harmless` for its column ``path``."""
    if "path" in rows:
        rows = rows.assign(path=rows["path"].map(_harmless))
    rows.to_csv(path, index=False, errors="surrogateescape")  # file names may be any bytes


def _harmless(path: str) -> str:
    """Return a path that neither a spreadsheet nor a terminal takes for a command."""
    path = visible(path)
    return f"./{path}" if path.startswith(FORMULA) else path  # it is the same file


# ---------------------------------------------------------------------------- data


def data(args) -> None:
    """List the data sets, or count the faces of one."""
    from fer_helpers.datasets import find_datasets

    if not args.dataset and (args.labels or args.ignore):
        raise ValueError("--labels and --ignore need a --dataset to count")
    if args.dataset:
        show(_count_faces(args), args.json)
    elif args.json:
        show(find_datasets(args.data_dir), True)
    else:
        for row in find_datasets(args.data_dir).itertuples():
            print(f"{row.name:<8} {'found' if row.found else 'missing'}: {row.where}")
            print(f"{'':<8} {row.terms}")


def _count_faces(args):
    """Return the faces per split, task and class; note copies and skipped files."""
    import pandas as pd

    from fer_helpers.datasets import read_dataset
    from fer_helpers.images import find_copies
    from fer_helpers.labels import decode_labels

    faces = read_dataset(args.dataset, **source_options(args))
    note(
        f"{len(faces)} faces, {find_copies(faces.images).sum()} of them exact copies of others, "
        f"{len(faces.skipped)} files skipped, {len(faces.ignored)} ignored"
    )
    for path, reason in faces.skipped[:20]:
        note(f"  {path}: {reason}")
    names = decode_labels(faces.labels)
    return pd.DataFrame(
        [
            {"split": split, "task": task, "class": name, "faces": int(count)}
            for split in dict.fromkeys(faces.splits)
            for task in TASKS
            for name, count in names.loc[faces.splits == split, task]
            .value_counts(sort=False)
            .items()
        ]
    )


# ---------------------------------------------------------------------------- train


def train(args) -> None:
    """Train a network, on this machine or together with others."""
    if not args.distributed:
        for option in ("address", "processes", "rank"):
            if getattr(args, option) is not None:
                raise ValueError(f"--{option} is for several machines: add --distributed")
        _train(args)
        return
    if find_spec("jax"):  # `join_processes` says what to do without it
        os.environ.setdefault("KERAS_BACKEND", "jax")
    from fer_helpers.distributed import check_agreement, join_processes, read_settings

    settings = read_settings(args.address, args.processes, args.rank)
    # Paths and addresses may differ between machines; `fit` compares what the faces are.
    own = {"function", "address", "rank", "data_dir", "out", "json"}
    with join_processes(*settings):
        check_agreement(
            {name: value for name, value in vars(args).items() if name not in own}
            | {"processes": settings[1]}
        )
        _train(args)


def _train(args) -> None:
    from fer_helpers import backend, training

    if line := backend.unused_gpu():
        note(f"note: {line}")
    out = args.out or training.run_folder(args.dataset)
    check_writable(out / "model.keras")
    with lines_beside_json(args.json):
        history = training.train(
            args.dataset,
            args.epochs,
            out,
            **source_options(args),
            seed=args.seed,
            backbone=args.backbone,
            batch_size=args.batch_size,
            loss_weights=training.PAPER_LOSS_WEIGHTS | _loss_weights(args.loss_weights),
            class_weights=_class_weights(args.class_weights),
            start=args.start,
        )
    show_run(history, out, args.json)


def lines_beside_json(as_json: bool):
    """Send the line per epoch to stderr where JSON has stdout to itself."""
    return contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout)


def show_run(history, out: Path, as_json: bool) -> None:
    """Print the history of a run as JSON, or where its best model is."""
    if not (out / "model.keras").is_file():
        raise ValueError(
            f"{out} has no model.keras: no epoch was the best one, since the scores on the "
            "validation faces are NaN. Look for NaN in history.csv"
        )
    if as_json:
        show(history, True)
    else:
        epochs = int((history["epoch"] > 0).sum())  # 0 is the start, which is no epoch of training
        print(f"epochs: {epochs}; best model in {out / 'model.keras'}")


def _loss_weights(words: list[str]) -> dict[str, float]:
    """Return the weights in words such as ``age=4``; `compile_model` checks the tasks' names."""
    weights = {}
    for word in words:
        task, _, value = word.partition("=")
        try:
            weights[task] = float(value)
        except ValueError:
            raise ValueError(
                f"--loss-weights takes TASK=NUMBER, such as age=4, not {word!r}"
            ) from None
    return weights


def _class_weights(words: list[str]) -> dict[str, str | dict[str, float]]:
    """Return the weights in words such as ``emotion=balanced`` or ``emotion=fear:2,anger:1.5``."""
    weights = {}
    for word in words:
        task, _, given = word.partition("=")
        if given == "balanced":
            weights[task] = given
            continue
        pairs = [pair.rpartition(":") for pair in given.split(",")]
        try:
            weights[task] = {name.strip(): float(value) for name, _, value in pairs}
        except ValueError:
            raise ValueError(
                "--class-weights takes TASK=balanced or TASK=CLASS:NUMBER,..., such as "
                f"emotion=disgust:5,fear:2, not {word!r}"
            ) from None
    return weights


# ---------------------------------------------------------------------------- predict, visualize


def predict(args) -> None:
    """Predict photos and videos, or crops of faces, and draw the photos and videos named."""
    import pandas as pd

    from fer_helpers import model, photos, video

    files = photos.image_files(args.paths)
    # In a folder of photos an animated GIF is a photo, too.
    videos = [file for file in files if file in args.paths and video.is_video(file)]
    if args.no_detect and videos:
        raise ValueError(f"{videos[0]} is a video: leave out --no-detect")
    if args.fps is not None and not videos:
        raise ValueError("--fps is for videos, and none is named: leave it out")
    # A picture for each file that was named; for a folder of thousands there is the table.
    drawn = [] if args.no_detect else [file for file in files if file in args.paths]
    if args.figures and not drawn:
        raise ValueError(
            "--figures draws photos and videos that are named one by one, not folders, and no "
            "crops: name them, or leave it out"
        )
    figures = args.figures or Path("results", "predictions")
    check_writable(args.out, figures / "faces.png" if drawn else None)
    network = model.load_model(args.weights)
    run = photos.predict_crops if args.no_detect else photos.predict_photos
    fps = 2 if args.fps is None else args.fps
    tables = [video.predict_video(network, file, fps, args.attributes) for file in videos]
    if images := [file for file in files if file not in videos]:
        tables.append(run(network, images, args.attributes))
    table = pd.concat(tables, ignore_index=True)
    if args.out:
        write_csv(table, args.out)
        failed = int((table["error"] != "").sum())
        note(f"{len(table)} rows in {args.out}, {failed} with an error")
    if args.json or not args.out:
        show(table if args.json else _brief(table), args.json)
    _draw_photos(table, drawn, figures)


def _brief(table):
    """Return the most probable classes, and the probability of the emotion."""
    tasks = [task for task in TASKS if task in table]
    time = ["seconds"] if "seconds" in table else []
    brief = table[["path", *time, *tasks, "error"]]
    if "emotion" in tasks:  # without any face there is no prediction
        place = brief.columns.get_loc("emotion") + 1
        brief.insert(place, "probability", table.filter(like="emotion_").max(axis=1))
    return brief


def _draw_photos(table, files: list[Path], folder: Path) -> None:
    from fer_helpers import photos, plots, video

    for file in files:
        rows = table[(table["path"] == str(file))]
        if (rows["error"] != "").all():
            continue
        # a/portrait.jpg and b/portrait.jpg are two pictures.
        same = [other for other in files if other.stem.lower() == file.stem.lower()]
        number = f"-{same.index(file) + 1}" if len(same) > 1 else ""
        target = folder / f"{file.stem}-faces{number}.png"
        if video.is_video(file):
            figure = plots.emotions_over_time(rows, file.name)
        else:
            figure = plots.photo(photos.open_photo(file), rows)
        plots.save(figure, target)
        note(f"drawn in {target}")


def visualize(args) -> None:
    """Draw a typical prediction of each emotion."""
    from fer_helpers import evaluation, model, plots, prediction
    from fer_helpers.datasets import load_training_data
    from fer_helpers.training import run_folder

    check_writable(args.out / "angry.png")
    trained = run_folder(args.dataset) / "model.keras"
    if args.weights or trained.is_file():
        network = model.load_model(args.weights or trained)
    else:
        network = model.get_model(pretrained=True, dataset_name=args.dataset)
    _, (X, y) = load_training_data(args.dataset, **source_options(args))
    if not evaluation.labelled(y, "emotion").any():
        raise ValueError(
            f"{args.dataset} has no emotion labels to draw samples of: choose another --dataset"
        )
    paths = plots.save_prediction_samples(X, y, prediction.predict(network, X), args.out)
    if args.json:
        print(json.dumps([str(path) for path in paths]))
    else:
        print(*paths, sep="\n")


# ---------------------------------------------------------------------------- export


def export(args) -> None:
    """Write a network as one file that runs without Keras."""
    from fer_helpers.export import SUFFIXES, export
    from fer_helpers.model import load_model
    from fer_helpers.training import origin

    # Beside a network of your own: those of two runs are both called model.keras.
    name = Path("results", args.weights) if args.weights in DATASETS else Path(args.weights)
    out = args.out or name.with_name(f"{name.stem}{'-int8' * args.int8}{SUFFIXES[args.format]}")
    check_writable(out)
    network = load_model(args.weights)
    # The converters have no steps that a bar could count.
    print(f"converting {args.weights}: up to a minute", file=sys.stderr, flush=True)
    options = {"form": args.format, "int8": args.int8, "origin": origin(args.weights)}
    report = export(network, out, dataset_name=args.dataset, **options, **source_options(args))
    if args.json:
        print(json.dumps(report, indent=1))
        return
    print(f"{out}: {report['bytes']:,} bytes (weights in float32: {report['float32_bytes']:,})")
    print(f"greatest difference from Keras on {report['images']} {args.dataset} images: ", end="")
    print(f"{report['difference']:.2g}")
    for task, row in report["accuracy"].items():
        print(f"accuracy {task:<8}Keras {row['keras']:.3f}  exported {row['exported']:.3f}")
