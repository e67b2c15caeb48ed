"""Run the notebooks without a screen: `make course`, and `make notebooks` to store outputs."""

import argparse
import base64
import io
import os
import shutil
import sys
import time
from pathlib import Path

import nbformat
import papermill
from PIL import Image

from fer_helpers.labels import DATASETS

HERE = Path(__file__).resolve().parent
# Both lie beside the notebooks' folder, so that paths such as ../data are right in the copies, too.
RESULTS = HERE.parent / "results"
SOLUTIONS = HERE.parent / "solutions"
MAIN_JOB = 7  # notebooks 00 to 06 are the main job; the later ones go further
# What notebooks import from their folder.
MODULES = ("exercises.py", "experiments.py", "explorer.py", "planted.py")


def run(notebook: Path, target: Path, parameters: dict) -> None:
    """Run one notebook, in its own folder as JupyterLab does, and write the executed copy."""
    os.environ["TQDM_DISABLE"] = "1"  # bars would be noise in the output
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # and so would a debugger's warning
    papermill.execute_notebook(
        notebook,
        target,
        parameters=parameters,
        cwd=HERE,
        kernel_name="python3",
        progress_bar=False,
        # A kernel that is stopped while busy logs an error; those of cells are raised anyway.
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
    )


def save_figures(executed: Path, folder: Path) -> int:
    """Write every figure of an executed notebook as a PNG; return how many."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for cell in nbformat.read(executed, as_version=4).cells:
        for output in cell.get("outputs", ()):
            picture = output.get("data", {}).get("image/png")
            if picture:
                count += 1
                (folder / f"{executed.stem}_{count:02}.png").write_bytes(base64.b64decode(picture))
    return count


def course(dataset: str, epochs: int | None) -> None:
    """Run notebooks 00 to 06 into `results/`."""
    if dataset not in DATASETS and Path(dataset).exists():  # the notebooks run in their folder
        dataset = str(Path(dataset).resolve())
    parameters = {"DATASET": dataset} | ({"EPOCHS": epochs} if epochs else {})
    copy_modules(RESULTS)
    start = time.monotonic()
    for notebook in sorted(HERE.glob("[0-9][0-9]_*.ipynb"))[:MAIN_JOB]:
        began = time.monotonic()
        print(f"{notebook.stem:<34}", end="", flush=True)
        target = RESULTS / notebook.name
        try:
            run(notebook, target, parameters)
        except papermill.PapermillExecutionError as error:
            sys.exit(f"failed: {error.ename}: {error.evalue}\nSee {target}")
        figures = save_figures(target, RESULTS / "figures")
        print(f"{time.monotonic() - began:6.0f} s  {figures:3} figures", flush=True)
    minutes = (time.monotonic() - start) / 60
    print(f"\nDone in {minutes:.1f} minutes. Executed notebooks, figures/ and samples: results/")
    print("Open them with: make lab")


def copy_modules(folder: Path) -> None:
    """Copy what notebooks import from their folder to a folder with copies of notebooks."""
    folder.mkdir(exist_ok=True)
    for module in MODULES:
        shutil.copy(HERE / module, folder)


def store(names: list[str]) -> None:
    """Run notebooks on SAMPLE in place, so that their stored outputs come from one run."""
    shutil.rmtree(RESULTS / "SAMPLE", ignore_errors=True)
    for notebook in sorted(HERE.glob("[0-9][0-9]_*.ipynb")):
        if names and not notebook.stem.startswith(tuple(names)):
            continue
        began = time.monotonic()
        print(f"{notebook.stem:<34}", end="", flush=True)
        content = nbformat.read(notebook, as_version=4)
        content.metadata.pop("widgets", None)  # those of an earlier version would stay
        nbformat.write(content, notebook)
        run(notebook, notebook, {})
        print(f"{time.monotonic() - began:6.0f} s", flush=True)
        content = nbformat.read(notebook, as_version=4)
        content.metadata.pop("papermill", None)
        for cell in content.cells:
            cell.metadata.pop("papermill", None)
            cell.metadata.pop("execution", None)
            for output in cell.get("outputs", ()):
                _shrink(output)
        nbformat.write(content, notebook)


def solve() -> None:
    """Write the notebooks with every exercise solved into `solutions/`."""
    copy_modules(SOLUTIONS)
    for notebook in sorted(HERE.glob("[0-9][0-9]_*.ipynb")):
        content = nbformat.read(notebook, as_version=4)
        for cell in content.cells:
            if "solution" in cell.metadata:
                cell.source = cell.metadata.pop("solution")
                cell.metadata["tags"] = ["solution"]
                cell.outputs, cell.execution_count = [], None
        nbformat.write(content, SOLUTIONS / notebook.name)
    print(f"solved notebooks: {SOLUTIONS}")
    print("Open them with: make lab")


def _shrink(output) -> None:
    """Give a figure a palette of 256 colours: a third of the bytes, the same to the eye."""
    data = output.get("data", {})
    if "image/png" in data:
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        buffer = io.BytesIO()
        picture.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        data["image/png"] = base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="SAMPLE")
    parser.add_argument("--epochs", type=int)
    parser.add_argument(
        "--store", nargs="*", metavar="NN", help="store outputs in the notebooks (all, or 04 05)"
    )
    parser.add_argument("--solutions", action="store_true", help="write the solved notebooks")
    args = parser.parse_args()
    if args.solutions:
        solve()
    elif args.store is not None:
        store(args.store)
    else:
        course(args.dataset, args.epochs)


if __name__ == "__main__":
    main()
