"""`make mutants`: break the code on purpose, and count how often its tests notice.

mutmut changes one operator, number, name or argument at a time (``[tool.mutmut]`` in
pyproject.toml) and runs the tests that reach the change. Then come faults with names, which
earlier tests let pass. RELIABILITY.md has the last full run, and a reason for each survivor.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOUND = ("killed", "timeout")
# Whole modules; of runs, whose tests train, what chooses the best epoch, the rate and the end.
MUTANTS = (
    *("fer_helpers.labels.*", "fer_helpers.images.*", "fer_helpers.datasets.cache.*"),
    *("fer_helpers.batches.*", "fer_helpers.augment.*", "fer_helpers.losses.*"),
    *("fer_helpers.training.*", "fer_helpers.evaluation.*", "fer_helpers.groups.*"),
    *("fer_helpers.runs.x_best_place*", "fer_helpers.runs.x_rate_falls*"),
    "fer_helpers.runs.x_stops_early*",
)


class Fault(NamedTuple):
    """A line of the package, what it becomes, and the tests that must fail then."""

    name: str
    module: str
    before: str
    after: str
    tests: str


FAULTS = (
    Fault(
        "masked loss divided by the number of labels, not by their weights",
        "losses.py",
        "sum_over_replicas(ops.sum(weight))",
        "sum_over_replicas(ops.sum(label_mass(y_true)))",
        "tests/test_losses.py",
    ),
    Fault(
        "MaskedAccuracy without sample_weight",
        "losses.py",
        "update_state(y_true, y_pred, label_mass(y_true, sample_weight))",
        "update_state(y_true, y_pred, label_mass(y_true))",
        "tests/test_losses.py",
    ),
    Fault(
        "UncertaintyCrossentropy without sample_weight",
        "losses.py",
        "super().__call__(y_true, y_pred[:, :-1], sample_weight)",
        "super().__call__(y_true, y_pred[:, :-1])",
        "tests/test_losses.py",
    ),
    Fault(
        "validation batches built as training ones",
        "training.py",
        "batches_of(X_val, y_val, 256)",
        "batches_of(X_val, y_val, 256, True)",
        "tests/test_training.py",
    ),
    Fault(
        "the monitor without y_val",
        "training.py",
        "if task in labelled_tasks(y_val)]",
        "]",
        "tests/test_training.py",
    ),
    Fault(
        "SAMPLE trained with augmentation",
        "training.py",
        'augment=dataset_name != "SAMPLE"',
        "augment=True",
        "tests/test_training.py",
    ),
    Fault(
        "brightness ten times too small",
        "augment.py",
        "* brightness * 255.0",
        "* brightness * 25.5",
        "tests/test_augment.py",
    ),
    Fault(
        "contrast off",
        "augment.py",
        "gain = 1.0 + _signed(draws[:, 0:1]) * contrast",
        "gain = 1.0 + 0.0 * draws[:, 0:1]",
        "tests/test_augment.py",
    ),
    Fault(
        "a temperature that never goes below 1",
        "evaluation.py",
        "bounds = (np.log(0.05),",
        "bounds = (np.log(1.0),",
        "tests/test_evaluation.py",
    ),
    Fault(
        "ECE with 3 bins",
        "evaluation.py",
        "    table = _bins(confidence, hit, bins)",
        "    table = _bins(confidence, hit, 3)",
        "tests/test_evaluation.py",
    ),
    Fault(
        "ECE with 10 bins",
        "evaluation.py",
        "    table = _bins(confidence, hit, bins)",
        "    table = _bins(confidence, hit, 10)",
        "tests/test_evaluation.py",
    ),
    Fault(
        "balanced accuracy counting absent classes",
        "evaluation.py",
        "labels=present,",
        "labels=range(len(TASKS[task])),",
        "tests/test_evaluation.py",
    ),
    Fault(
        "a cache key without the decoder's code",
        "datasets/load.py",
        "code_fingerprint(labels_module, images, source, splits, faces_module, *readers)",
        "code_fingerprint(labels_module, source, splits, faces_module, *readers)",
        "tests/test_load.py tests/test_cache.py",
    ),
    Fault(
        ">= for > in the best epoch",
        "runs.py",
        "if sign * value > (best + margin if found == 1 else best):",
        "if sign * value >= (best + margin if found == 1 else best):",
        "tests/test_runs.py",
    ),
    Fault(
        "one seed for all random layers",
        "runs.py",
        "SeedSequence([*seed, number])",
        "SeedSequence([*seed])",
        "tests/test_runs.py",
    ),
    Fault(
        "the mouth's place in the crop template",
        "photos.py",
        "[0.36, 0.77], [0.64, 0.77]",
        "[0.36, 0.70], [0.64, 0.70]",
        "tests/test_photos.py",
    ),
    Fault(
        "layer_seconds per batch, not per image",
        "studies/speed.py",
        "pd.Series(times) / BATCH",
        "pd.Series(times)",
        "tests/test_speed.py",
    ),
)


def mutate() -> None:
    """Run mutmut; print killed / all of each module, and the mutants that survived."""
    command = [sys.executable, "-m", "mutmut"]
    subprocess.run([*command, "run", *MUTANTS], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    results = [*command, "results", "--all", "true"]
    lines = subprocess.check_output(results, cwd=ROOT, text=True).splitlines()
    mutants = defaultdict(dict)
    for line in lines:
        name, _, state = line.strip().rpartition(": ")
        if state == "not checked":
            continue
        mutants[re.split(r"\.x", name)[0]][name] = state
    for module, states in mutants.items():
        killed = sum(state in FOUND for state in states.values())
        print(f"{module:<28} {killed:>4} / {len(states):<4} {killed / len(states):.1%}")
        for name, state in states.items():
            if state not in FOUND:
                print(f"    {name}: {state}")


def is_found(fault: Fault, folder: Path) -> bool:
    """Put a fault into a copy of the package; return whether its tests fail there."""
    path = folder / "fer_helpers" / fault.module
    text = path.read_text()
    if text.count(fault.before) != 1:
        raise SystemExit(f"{fault.name}: {fault.module} does not hold once {fault.before!r}")
    path.write_text(text.replace(fault.before, fault.after))
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", *fault.tests.split()]
        status = subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode
    finally:
        path.write_text(text)
    if status not in (0, 1):
        raise SystemExit(f"{fault.name}: {fault.tests} cannot be run (status {status})")
    return status == 1


def main() -> None:
    mutate()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("fer_helpers", "tests", "notebooks"):
            shutil.copytree(ROOT / name, copy / name)
        shutil.copy(ROOT / "pyproject.toml", copy)
        found = {fault.name: is_found(fault, copy) for fault in FAULTS}
    print(f"\nnamed faults found: {sum(found.values())} / {len(found)}")
    for name, is_dead in found.items():
        print(f"    {'found' if is_dead else 'MISSED'}: {name}")


if __name__ == "__main__":
    main()
