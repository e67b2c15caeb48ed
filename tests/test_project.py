"""The project's own files agree with each other."""

import ast
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image

from fer_helpers import backend
from fer_helpers.datasets.source import Source

ROOT = Path(__file__).parent.parent
PACKAGE = "fer_helpers"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pinned(path):
    """Name -> versions, of lines such as ``keras==3.13.2``."""
    versions = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text(), re.M):
        versions.setdefault(name, []).append(version)
    return versions


def requirements():
    extras = PYPROJECT["optional-dependencies"]
    lists = [
        PYPROJECT["dependencies"],
        extras["lab"],
        extras["test"],
        extras["jax"],
        extras["export"],
    ]
    return [Requirement(line) for lines in lists for line in lines]


def test_lock_file_holds_every_requirement_within_its_range():
    pins = pinned(ROOT / "requirements.lock")
    for requirement in requirements():
        for version in pins[requirement.name]:
            assert version in requirement.specifier, f"{requirement} but {version} is locked"


def test_course_has_the_same_versions_and_all_that_it_needs():
    everything, course = (pinned(ROOT / f"requirements{name}.lock") for name in ("", "-course"))
    assert course.items() <= everything.items()
    extras = PYPROJECT["optional-dependencies"]
    needed = [*PYPROJECT["dependencies"], *extras["lab"], *extras["export"]]
    assert {Requirement(line).name for line in needed} <= set(course)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-course.lock"])
def test_every_locked_file_has_a_hash(name):
    text = (ROOT / name).read_text()
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]
    assert len(entries) > 50
    assert all("--hash=sha256:" in entry for entry in entries)


def test_conda_environment_is_the_lock_file():
    text = (ROOT / "environment.yml").read_text()
    assert "- -r requirements-course.lock" in text
    python = re.search(r"python=([\d.]+)", text)[1]
    assert Version(python) >= Version(PYPROJECT["requires-python"].removeprefix(">="))


def test_setup_says_what_it_fetches():
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    words = ["make", "-n", "-B", "setup-all"]
    lines = subprocess.check_output(words, cwd=ROOT, env=env, text=True).splitlines()
    filters = [line.partition(" | ")[2] for line in lines if "--require-hashes" in line]
    assert len(filters) == 2
    pip = """Collecting keras==3.15.1 (from -r requirements.lock (line 9))
  Downloading keras-3.15.1-py3-none-any.whl (1.6 MB)
  Downloading tensorflow-2.21.0-cp312-cp312-manylinux_2_27_x86_64.whl (572.4 MB)
Installing collected packages: keras, tensorflow
"""
    for line in filters:
        shown = subprocess.check_output(["bash", "-c", line], input=pip, text=True).splitlines()
        assert shown[0] == "  tensorflow-2.21.0, 572.4 MB"
        assert shown[1].startswith("Installing the packages")
        assert len(shown) == 2


def test_github_and_binder_use_what_the_makefile_uses():
    assert "run: make test\n" in (ROOT / ".github" / "workflows" / "test.yml").read_text()
    binder = ROOT / "binder"
    lock = (binder / "requirements.txt").read_text().strip().removeprefix("-r ")
    assert (binder / lock).resolve() == ROOT / "requirements-course.lock"
    python = (binder / "runtime.txt").read_text().strip().removeprefix("python-")
    assert Version(python) in Requirement(f"python{PYPROJECT['requires-python']}").specifier
    assert os.access(binder / "postBuild", os.X_OK)
    for path in re.findall(r"^cp (\S+)", (binder / "postBuild").read_text(), re.M):
        assert (ROOT / path).is_file()


def test_colabs_versions_are_allowed():
    """It must install there as it is; `make test-lowest` runs everything on these versions."""
    colab = pinned(Path(__file__).with_name("colab-constraints.txt"))
    needed = [requirement for requirement in requirements() if requirement.name in colab]
    assert len(needed) > 12
    for requirement in needed:
        (version,) = colab[requirement.name]
        assert version in requirement.specifier, f"Colab has {version}, wanted is {requirement}"


def test_importing_the_package_does_not_load_keras():
    code = (
        "import sys, fer_helpers, fer_helpers.datasets; "
        "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_exists():
    import fer_helpers

    for name in fer_helpers.__all__:
        assert getattr(fer_helpers, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fer_helpers.nothing


def test_network_and_loss_run_on_jax(tmp_path):
    code = """
import threading
import numpy as np
import fer_helpers
from fer_helpers.backend import predictor
from fer_helpers.batches import batches_of
from fer_helpers.model import build_model, load_model
from fer_helpers.prediction import grad_cam
from fer_helpers.runs import fit
from fer_helpers.training import compile_model
import keras
assert keras.backend.backend() == "jax"
X = np.random.default_rng(0).integers(0, 256, (640, 48, 48, 1), dtype=np.uint8)
y = fer_helpers.encode_labels({"emotion": np.arange(640) % 7, "age": [-1] * 640})
# From another thread it would bring back what the step under way has given away.
sync, is_main = keras.Model.jax_state_sync, set()
def watched(model):
    is_main.add(threading.current_thread() is threading.main_thread())
    sync(model)
keras.Model.jax_state_sync = watched
model = compile_model(build_model(widths=(4, 4, 8, 8)), tasks=("emotion",))
history = fit(model, batches_of(X, y, 16, True), batches_of(X, y, 16), 2, "run")
assert np.isfinite(history["loss"]).all()
assert (history["age_output_loss"] == 0).all()
again = fit(model, batches_of(X, y, 16, True), batches_of(X, y, 16), 3, "run")
assert len(again) == 3
assert is_main == {True}
for now, later in zip(predictor(model)(X[:4]), model.predict_on_batch(X[:4]), strict=True):
    np.testing.assert_allclose(now, later, atol=1e-5)
assert grad_cam(load_model("run/model.keras"), X[0]).shape == (48, 48)
"""
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles more quickly
    }
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]


def test_backends_are_known_in_few_places():
    pattern = re.compile(r"^\s*(?:import|from) (?:jax|tensorflow)\b", re.M)
    modules = (ROOT / "fer_helpers").rglob("*.py")
    found = {module.name for module in modules if pattern.search(module.read_text())}
    assert found == {"backend.py", "detection.py", "distributed.py", "export.py", "speed.py"}


@pytest.mark.parametrize("name", ["README.md", "USING.md", "CONTRIBUTING.md", "data/README.md"])
def test_links_within_the_project_lead_somewhere(name):
    page = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text())
    links = [link or picture for link, picture in links]
    for link in (link for link in links if "://" not in link):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{name}: {link}"
        words = re.findall(r"^#+ (.+)$", target.read_text(), re.M) if heading else []
        assert not heading or heading in [word.lower().replace(" ", "-") for word in words], link


def test_contributing_knows_every_module():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in (ROOT / "fer_helpers").glob("[a-z]*.py"):
        assert f"`{path.name}`" in text, f"CONTRIBUTING.md: the house lacks {path.name}"


def test_modules_import_only_what_stands_above_them_in_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (\**`[^|]+) \|", text, re.M)
    floor = {
        name.removesuffix("/").removesuffix(".py"): number
        for number, row in enumerate(rows)
        for name in re.findall(r"`([\w/.]+)`", row)
    }
    modules = {path.stem for path in (ROOT / "fer_helpers").glob("[a-z]*.py")}
    assert modules | {"datasets", "studies"} == set(floor)
    for path in (ROOT / "fer_helpers").rglob("[a-z]*.py"):
        own, *_ = path.relative_to(ROOT / "fer_helpers").with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(PACKAGE):
                continue
            names = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            for name in set(names) & set(floor) - {own}:
                assert floor[name] < floor[own], f"{path.name} imports {name}"


def test_the_reader_in_contributing_reads(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    code = textwrap.dedent(re.search(r"```python\n(   \"\"\"My faces.*?)```", text, re.DOTALL)[1])
    names = {}
    exec(code, names)
    for word in ("anger", "Happy"):
        Image.new("L", (60, 60)).save(tmp_path / f"{word}_0001.jpg")
    (tmp_path / "sad_0002.jpg").write_bytes(b"no image")
    with Source(tmp_path) as source:
        faces = names["read"](source, 48)
    assert faces.images.shape == (2, 48, 48, 1)
    emotions = {
        path.split("_")[0]: row.argmax()
        for path, row in zip(faces.paths, faces.labels, strict=True)
    }
    assert emotions == {"anger": 5, "Happy": 3}
    assert faces.skipped == [("sad_0002.jpg", "not an image")]


@pytest.mark.parametrize(
    ("capability", "policy"),
    [(6.1, "float32"), (7.5, "mixed_float16"), (8.0, "mixed_bfloat16")],
)
def test_precision_follows_the_gpu(monkeypatch, capability, policy):
    monkeypatch.setattr(backend, "gpu_capability", lambda: capability)
    assert backend.choose_precision() == policy


def test_card_readme_and_stored_audit_are_about_the_same_weights():
    card = (ROOT / "fer_helpers" / "pretrained" / "README.md").read_text()
    stored = pd.read_csv(ROOT / "data" / "results" / "utkface_groups.csv")
    rows = re.findall(r"^\| ([\w-]+\+?) \| ([\d,]+) \|(.*)\|(.*)\|(.*)\|$", card, re.M)
    figures = {group: cells for group, _, *cells in rows if any("(" in cell for cell in cells)}
    single = stored[stored["group"].isin(figures) & (stored["task"] != stored["by"])]
    assert len(single) == 2 * 2 + 3 * 2 + 5 * 2
    for row in single.itertuples():
        said = figures[row.group][["gender", "race", "age"].index(row.task)]
        numbers = [float(number) for number in re.findall(r"[\d.]+", said)]
        # Rounded twice: to five places in the table, to three in the card.
        assert numbers == pytest.approx([row.accuracy, row.low, row.high], abs=6e-4), row

    paragraph = card[card.index("The widest gaps") : card.index("All groups: `data/results")]
    at = stored.set_index(["task", "group"])
    one = ["gender 0-3", "gender 20-39", "age 70+", "age 20-39", "age African-American, 40-69"]
    one += ["age Caucasian, 40-69", "age Asian-Caucasian", "age African-American, 20-39"]
    one += ["age Asian, 20-39", "age Caucasian, 20-39"]
    wanted = []
    for name in one:
        task, _, group = name.partition(" ")
        if group == "Asian-Caucasian":
            wanted.append(at.loc[task, "Asian"]["accuracy"] - at.loc[task, "Caucasian"]["accuracy"])
            continue
        row = at.loc[(task, group)]
        interval = ["low", "high"] if group.endswith("40-69") else []
        wanted += row[["accuracy", *interval]].tolist()
    told = [float(figure) for figure in re.findall(r"\b0\.\d\d\b", paragraph)]
    assert told == [round(figure, 2) for figure in wanted]

    readme = (ROOT / "README.md").read_text()
    interval = r"([\d.]+ \([\d.]+–[\d.]+\))"
    pattern = rf"^\| (\w+) \| .*? \| {interval} \| ([\d.]+) \| {interval} \|$"
    heads = re.findall(pattern, readme, re.M)
    assert [head for head, *_ in heads] == ["emotion", "gender", "race", "age"]
    for head, accuracy, majority, unseen in heads:
        scored = rf"^\| {head} \| [\d,]+ \| {interval} \| {interval} \| ([\d.]+) \|"
        (row,) = re.findall(scored, card, re.M)
        assert row == (accuracy, unseen, majority)
