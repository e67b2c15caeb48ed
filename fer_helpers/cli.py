"""The command line: ``python -m fer_helpers COMMAND``. The commands are in `commands`."""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from fer_helpers import commands, scores
from fer_helpers.labels import DATASETS, TASKS, visible

EXAMPLES = """examples:
  python -m fer_helpers data
  python -m fer_helpers train --dataset FER --epochs 20 --seed 0 --out results/FER
  python -m fer_helpers evaluate --weights results/FER/model.keras --dataset FER --split PublicTest
  python -m fer_helpers train --dataset my_faces/ --epochs 10
  python -m fer_helpers predict photo.jpg
  python -m fer_helpers predict clip.mp4 --fps 2 --out predictions.csv
  python -m fer_helpers predict faces/ --no-detect --out predictions.csv
  python -m fer_helpers visualize --dataset SAMPLE --out results/
  python -m fer_helpers export --weights FER --format onnx --out fer.onnx

Data sets are looked for in data/, in $FER_DATA_DIR, or in --data-dir: FER/, RAFDB/ and
UTKFACE/ hold the unpacked files or the zip as downloaded. SAMPLE needs none. Faces of your own
are given by their path: a folder per class, or a metadata.csv (data/README.md).
`python -m fer_helpers.studies` has the long runs behind the shipped weights and two notebooks.
"""
WEIGHTS_HELP = (
    "a .keras file; SAMPLE, FER or UTKFACE for the shipped weights; RAFDB for your own in "
    "results/RAFDB, else the shipped ones"
)
BACKBONE_HELP = (
    "compact (the default), deep, wide (for a GPU), or paper for the CNN of arXiv 2110.15028"
)

# Commands that save as they go, and go on when called again.
GOES_ON = ("train", "recipe", "attributes", "fine_tuning")
AGAIN = ". What was saved is whole: the same command goes on from it"


def positive(word: str) -> int:
    """Return a word as a whole number from 1 up, for argparse."""
    if (number := int(word)) < 1:
        raise argparse.ArgumentTypeError(f"{word} is below 1")
    return number


def add_command(subparsers, function: Callable, text: str) -> argparse.ArgumentParser:
    """Add a command that is called as `function` is, and runs it."""
    sub = subparsers.add_parser(function.__name__, help=text, description=text)
    sub.set_defaults(function=function)
    sub.add_argument("--json", action="store_true", help="print JSON, for programs")
    return sub


def add_data_dir(sub: argparse.ArgumentParser) -> None:
    """Add the folder of the data sets."""
    sub.add_argument("--data-dir", type=Path, help="folder that holds FER/, RAFDB/, UTKFACE/")


def _add_dataset(sub: argparse.ArgumentParser, text: str = "which data set", **options) -> None:
    sub.add_argument(
        "--dataset",
        metavar="NAME|PATH",
        help=f"{text}: {', '.join(DATASETS)}, or a folder, .zip or .csv of your own",
        **options,
    )
    sub.add_argument(
        "--labels", metavar="CSV", help="table of labels for a folder of your own; FER: ferplus"
    )
    sub.add_argument(
        "--ignore", nargs="+", default=[], metavar="CLASS", help="leave out, such as contempt"
    )
    add_data_dir(sub)


def _add_data(subparsers) -> None:
    text = "Show which data sets are there; with --dataset, count its faces."
    _add_dataset(add_command(subparsers, commands.data, text))


def _add_train(subparsers) -> None:
    text = "Train, or go on with a run that stopped, and keep the best epoch."
    sub = add_command(subparsers, commands.train, text)
    _add_dataset(sub, default="SAMPLE")
    sub.add_argument(
        "--epochs",
        type=positive,
        help="epochs in total (default 30 from random weights, 12 from given ones)",
    )
    sub.add_argument(
        "--start",
        metavar="WEIGHTS",
        help=f"begin from these: {WEIGHTS_HELP}, or none for random ones (default: those for FER "
        "with RAFDB and with faces of your own, none with SAMPLE, FER and UTKFACE)",
    )
    sub.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")
    sub.add_argument(
        "--out", type=Path, help="folder for model.keras and history.csv (default results/DATASET)"
    )
    sub.add_argument("--backbone", help=BACKBONE_HELP)
    sub.add_argument(
        "--batch-size", type=positive, default=32, help="images per batch (default 32)"
    )
    sub.add_argument(
        "--loss-weights",
        nargs="+",
        default=[],
        metavar="TASK=W",
        help="weights of the losses; those not named keep the paper's: emotion=2 gender=0.1 "
        "race=1.5 age=4",
    )
    sub.add_argument(
        "--class-weights",
        nargs="+",
        default=[],
        metavar="TASK=W",
        help="weights of the classes of a task: emotion=balanced makes rare classes count as much "
        "as frequent ones, emotion=disgust:5,fear:2 names them and leaves the others at 1",
    )
    _add_machines(sub)


def _add_machines(sub: argparse.ArgumentParser) -> None:
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


def _add_evaluate(subparsers) -> None:
    sub = add_command(subparsers, scores.evaluate, "Score weights on a split of a data set.")
    _add_dataset(sub, required=True)
    sub.add_argument("--weights", required=True, help=WEIGHTS_HELP)
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
        "--by", choices=tuple(TASKS), help="also score each class of this task on its own"
    )
    sub.add_argument(
        "--predictions",
        type=Path,
        metavar="CSV",
        help="also write a row per image: true and predicted class, probabilities",
    )
    sub.add_argument(
        "--figures",
        type=Path,
        metavar="FOLDER",
        help="also draw the confusion matrix of each task: confusion-emotion.png, ...",
    )


def _add_audit(subparsers) -> None:
    text = "Compare groups of faces: gender, race, age, and two of them crossed."
    sub = add_command(subparsers, scores.audit, text)
    _add_dataset(sub, required=True)
    sub.add_argument("--weights", required=True, help=WEIGHTS_HELP)
    sub.add_argument("--split", default="test", help="split of the data set (default test)")
    sub.add_argument(
        "--smallest", type=int, default=30, help="leave out groups with fewer faces (default 30)"
    )
    sub.add_argument("--out", type=Path, metavar="CSV", help="write the table to a file")
    sub.add_argument("--card", type=Path, metavar="FILE", help="write a model card (Markdown)")


def _add_predict(subparsers) -> None:
    text = "Predict photos and videos, or face crops with --no-detect."
    sub = add_command(subparsers, commands.predict, text)
    sub.add_argument("paths", nargs="+", type=Path, help="images, folders of them, videos")
    sub.add_argument("--weights", default="FER", help=WEIGHTS_HELP + " (default FER)")
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
        help="where the result of each photo or video named is drawn (default results/predictions)",
    )
    sub.add_argument("--fps", type=float, help="moments per second of a video (default 2)")
    sub.add_argument("--out", type=Path, metavar="CSV", help="write all columns to this file")


def _add_visualize(subparsers) -> None:
    text = "Draw a typical prediction of each emotion: angry.png, fear.png, ..."
    sub = add_command(subparsers, commands.visualize, text)
    _add_dataset(sub, default="SAMPLE")
    sub.add_argument(
        "--weights", help=WEIGHTS_HELP + " (default results/DATASET/model.keras, else the shipped)"
    )
    sub.add_argument("--out", type=Path, default=Path("results"), help="folder (default results/)")


def _add_export(subparsers) -> None:
    text = "Write a network as one file that runs without Keras."
    sub = add_command(subparsers, commands.export, text)
    sub.add_argument("--weights", required=True, help=WEIGHTS_HELP)
    sub.add_argument("--format", choices=("onnx", "litert"), required=True)
    sub.add_argument(
        "--int8", action="store_true", help="8-bit numbers: a quarter of the size, less accurate"
    )
    _add_dataset(sub, "whose faces it is compared on, and int8 is set by", default="SAMPLE")
    sub.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default beside the weights; results/NAME.onnx or .tflite for shipped ones",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fer_helpers",
        description="One CNN, four heads (emotion, gender, race, age), weighted losses.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        *(_add_data, _add_train, _add_evaluate, _add_audit),
        *(_add_predict, _add_visualize, _add_export),
    ):
        add(subparsers)
    return parser


def _successor(words: list[str]) -> str | None:
    """Return the new form of a command that is now among the studies, None for any other."""
    if words[:1] == ["multitask"]:
        return "attributes"
    if words[:1] == ["train"] and any(word.split("=")[0] == "--recipe" for word in words):
        return "recipe NAME, see its --help"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments
        Its words, such as ``["data", "--json"]``; those of the shell if None.

    Returns
    -------
    int
        Exit status: 0; 2 after an error, which is one line on stderr; 130 after Ctrl-C and 143
        after SIGTERM, which say whether the command can go on.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if command := _successor(arguments):
        print(f"error: this is now python -m fer_helpers.studies {command}", file=sys.stderr)
        return 2
    return run(_parser(), arguments)


def run(parser: argparse.ArgumentParser, arguments: list[str] | None) -> int:
    """Parse the arguments and run their command; see `main`."""
    if sys.stderr is None:  # closed, and what goes to None would go to stdout
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        print("error: stdout is closed: send it to a file or to /dev/null", file=sys.stderr)
        return 2
    args = parser.parse_args(arguments)
    again = AGAIN if args.command in GOES_ON else ""
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be any bytes
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files: no window is wanted
    try:
        with _stopped_by_signals():
            args.function(args)
            sys.stdout.flush()
    except BrokenPipeError:  # as in "... | head", which stops reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if again:
            print(f"error: the output is not read any more{again}", file=sys.stderr)
            return 2
    except (ValueError, OSError) as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"stopped{again}", file=sys.stderr)
        return 128 + (stop.args or (signal.SIGINT,))[0]
    return 0


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM stop a command as Ctrl-C does, and both until it has stopped."""
    over = threading.Event()
    stopped = []

    def stop(number, frame):
        stopped.append(number)
        # Again in a second: Python ignores what is raised while it frees memory, as in JAX.
        again = threading.Timer(1, lambda: over.is_set() or signal.raise_signal(number))
        again.daemon = True
        again.start()
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():  # signals are not its business
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as after nohup
            signal.signal(number, stop)
    try:
        yield
    except Exception as error:  # TensorFlow and parsers raise others in its place
        if stopped:
            raise KeyboardInterrupt(stopped[0]) from error
        raise
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)
