"""The commands of the studies: ``python -m fer_helpers.studies COMMAND``."""

import argparse
import sys
from pathlib import Path

from fer_helpers import commands
from fer_helpers.cli import add_command, add_data_dir, positive, run

EXAMPLES = """examples:
  python -m fer_helpers.studies recipe open-data --seed 0
  python -m fer_helpers.studies recipe from-labels --backbone compact --epochs 4
  python -m fer_helpers.studies attributes --arms alone 0 1 --seeds 0 1
  python -m fer_helpers.studies shipped
  python -m fer_helpers.studies fine_tuning --sets "drawn, 300" --seeds 0 1 2
"""


def recipe(args) -> None:
    """Train on FER2013 and UTKFace together."""
    from fer_helpers.studies.recipes import RECIPES

    out = args.out or Path("results", args.name)
    given = {"epochs": args.epochs, "backbone": args.backbone}
    given = {name: value for name, value in given.items() if value}
    with commands.lines_beside_json(args.json):
        history = RECIPES[args.name](out, seed=args.seed, data_dir=args.data_dir, **given)
    run = out / f"seed-{args.seed}" if args.name == "open-data" else out  # beside its teachers
    commands.show_run(history, run, args.json)


def attributes(args) -> None:
    """Train the runs of data/results/PROTOCOL.md that are missing, and compare the arms."""
    from fer_helpers.studies.attributes import ARMS, SIZES, compare, read_right, study

    commands.check_writable(args.out)
    size = {"fraction": args.fraction, "backbone": args.backbone, "epochs": args.epochs}
    study(args.out, args.arms or tuple(ARMS), args.seeds, **size, data_dir=args.data_dir)
    runs, right, _ = read_right(args.out)
    size["epochs"] = args.epochs or SIZES[args.backbone][1]
    same = (runs[list(size)] == list(size.values())).all(axis=1)
    table = compare(runs[same], right[same])
    # An arm that is alone in its table has nothing to be compared with.
    commands.show(runs[same] if table.empty else table.round(4), args.json)


def fine_tuning(args) -> None:
    """Train what is missing from the table on small sets of faces, and compare the arms."""
    from fer_helpers.studies.fine_tuning import ARMS, SETS, compare, study

    commands.check_writable(args.out)
    given = {"sets": args.sets or tuple(SETS), "arms": args.arms or ARMS[:3]}
    runs = study(args.out, **given, seeds=args.seeds, data_dir=args.data_dir)
    table = compare(runs)
    commands.show(runs if table.empty else table.round(4), args.json)


def shipped(args) -> None:
    """Write the figures of the shipped weights where they are told."""
    from fer_helpers.studies.shipped import write_figures

    write_figures(data_dir=args.data_dir)


def _add_recipe(subparsers) -> None:
    text = "Train on FER and UTKFACE together, from labels or taught by other networks."
    sub = add_command(subparsers, recipe, text)
    sub.add_argument(
        "name",
        choices=("open-data", "from-labels"),
        help="open-data: three teachers, then the network that they teach, which takes a GPU; "
        "from-labels: one network without teachers",
    )
    sub.add_argument(
        "--epochs",
        type=positive,
        help="epochs of from-labels (default 60) or of the network that is taught (200)",
    )
    sub.add_argument("--seed", type=int, default=0, help="seed of the network (default 0)")
    sub.add_argument("--backbone", help="deep (the default), compact, wide or paper")
    sub.add_argument("--out", type=Path, help="folder of the run (default results/NAME)")
    add_data_dir(sub)


def _add_attributes(subparsers) -> None:
    text = "Train emotion with attribute heads of several weights: data/results/PROTOCOL.md."
    sub = add_command(subparsers, attributes, text)
    sub.add_argument("--arms", nargs="+", metavar="ARM", help="only these arms, by name")
    sub.add_argument(
        "--seeds", nargs="+", type=int, default=range(5), help="these seeds (default 0 to 4)"
    )
    sub.add_argument(
        "--fraction", type=float, default=1.0, help="share of the emotion faces (default 1)"
    )
    sub.add_argument("--epochs", type=positive, help="epochs of each run (default: the protocol's)")
    sub.add_argument("--backbone", default="compact", help="compact (the default), deep or paper")
    _add_table(sub, "attribute_runs.csv")


def _add_fine_tuning(subparsers) -> None:
    text = "Train on small sets of faces from the shipped weights, from random ones, and compare."
    sub = add_command(subparsers, fine_tuning, text)
    sub.add_argument("--sets", nargs="+", metavar="SET", help="only these sets, by name")
    sub.add_argument("--arms", nargs="+", metavar="ARM", help="these arms, by name")
    sub.add_argument(
        "--seeds", nargs="+", type=int, default=range(5), help="these seeds (default 0 to 4)"
    )
    _add_table(sub, "fine_tuning.csv")


def _add_shipped(subparsers) -> None:
    text = "Score the shipped weights; write the tables of their card, the README and notebook 09."
    add_data_dir(add_command(subparsers, shipped, text))


def _add_table(sub: argparse.ArgumentParser, name: str) -> None:
    """Add where the data sets are, and the table of runs."""
    add_data_dir(sub)
    sub.add_argument(
        "--out",
        type=Path,
        metavar="CSV",
        default=Path("data/results", name),
        help=f"a row per run; runs in it are not repeated (default data/results/{name})",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fer_helpers.studies",
        description="The long runs behind the shipped weights and notebooks 05 and 08.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_recipe(subparsers)
    _add_attributes(subparsers)
    _add_fine_tuning(subparsers)
    _add_shipped(subparsers)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command of the studies, as `fer_helpers.cli.main` runs those of the course."""
    return run(_parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
