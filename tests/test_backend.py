"""Keras' own settings, and GPUs that are there but not used."""

import json
import os
import subprocess
import sys

import pytest

from fer_helpers import backend
from fer_helpers.cli import main


def run(words, home, **environment):
    """Run Python where Keras' folder is `home`."""
    keep = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, *words],
        env=keep | {"KERAS_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


COMMANDS = [
    "train --epochs 1",
    "evaluate --weights SAMPLE --dataset SAMPLE",
    "audit --weights SAMPLE --dataset SAMPLE",
    "predict . --weights SAMPLE --no-detect",
    "visualize",
    "export --weights SAMPLE --format onnx",
]
FIRST = {"image_data_format": "channels_first"}


@pytest.mark.parametrize(
    ("command", "settings"),
    [(command, FIRST) for command in COMMANDS] + [("train", {"backend": "cntk"})],
)
def test_every_command_names_the_setting_in_one_line(command, settings, tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    result = run(["-m", "fer_helpers", *command.split()], tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    (value,) = settings.values()
    assert line.startswith(f"error: {tmp_path / 'keras.json'} ")
    assert f"{value!r}" in line
    assert "write " in line


def test_an_import_ends_with_that_line_and_nothing_else_of_keras(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps(FIRST))
    for code in ("from fer_helpers import get_model", "import keras, fer_helpers"):
        result = run(["-c", code], tmp_path)
        assert result.stderr.splitlines()[-1].startswith(f"ValueError: {tmp_path / 'keras.json'}")
        assert "During handling" not in result.stderr
    assert run(["-c", "import fer_helpers"], tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"backend": "torch"}', "keras.json asks for the backend 'torch', on which this package"),
        ('{"backend": "jax"}', "'jax', which is not installed: pip install jax, or write"),
        ('["jax"]', "keras.json is not a JSON object: correct it"),
    ],
)
def test_other_settings_are_named_with_the_way_out(text, message, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(backend, "find_spec", lambda name: None if name == "jax" else name)
    (tmp_path / "keras.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        backend.check_settings()


def test_the_environment_goes_before_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    backend.check_settings()
    monkeypatch.setenv("KERAS_BACKEND", "mxnet")
    with pytest.raises(ValueError, match="KERAS_BACKEND asks for the backend 'mxnet'"):
        backend.check_settings()
    for text in ("", "{}", "no JSON"):  # what Keras ignores, too
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        (tmp_path / "keras.json").write_text(text)
        backend.check_settings()


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Put a stand-in for nvidia-smi on the PATH, with a script of its own."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(backend, "gpu_capability", lambda: None)

    def write(script):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return write


def test_a_gpu_that_is_not_used_is_named_with_the_install_line(driver, capsys, monkeypatch):
    driver("echo Tesla T4; echo Tesla T4")
    line = 'Tesla T4 is there, but tensorflow does not use it: pip install "tensorflow[and-cuda]"'
    assert backend.unused_gpu() == line
    backend.check_environment()
    assert line in capsys.readouterr().out.splitlines()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # hidden on purpose
    assert backend.unused_gpu() == ""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(backend, "gpu_capability", lambda: 8.0)
    assert backend.unused_gpu() == ""


def test_a_driver_without_a_device_is_no_gpu(driver):
    driver("echo No devices were found; exit 6")
    assert backend.unused_gpu() == ""
    driver("exit 0")
    assert backend.unused_gpu() == ""


def test_train_says_so_before_it_begins(driver, monkeypatch, capsys):
    driver("echo Tesla T4")
    assert main(["train", "--dataset", "SAMPLE", "--loss-weights", "mood=1"]) == 2
    assert capsys.readouterr().err.startswith("note: Tesla T4 is there, but tensorflow does not")


def test_a_home_that_nobody_has_is_as_good_as_none(monkeypatch):
    monkeypatch.setenv("KERAS_HOME", "~nosuchuser")
    backend.check_settings()
