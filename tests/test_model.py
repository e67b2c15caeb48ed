"""The backbones, their heads, and loading weights from elsewhere."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import fer_helpers
import tiny
from fer_helpers.batches import batches_of
from fer_helpers.labels import OUTPUTS, encode_labels
from fer_helpers.model import (
    BACKBONES,
    CalibratedSoftmax,
    build_model,
    get_model,
    load_model,
    read_weights,
    write_weights,
)
from fer_helpers.training import compile_model

SMALL = (4, 4, 8, 8)


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(0)  # a fixture of a module comes before that of a test
    return build_model(widths=SMALL)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_heads_come_in_order_and_give_probabilities(backbone):
    model = get_model(backbone=backbone)
    assert model.output_names == list(OUTPUTS.values())
    assert len(model.get_layer("cam").output.shape) == 4  # the maps that Grad-CAM looks at
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1), dtype=np.uint8)
    outputs = model.predict_on_batch(images)
    assert [output.shape for output in outputs] == [(3, 7), (3, 3), (3, 3), (3, 5)]
    for output in outputs:
        assert output.dtype == np.float32
        np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-5)


def test_the_papers_cnn_has_its_layers():
    model = get_model(backbone="paper", augment=False)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [64, 64, 128, 128, 256, 256]
    assert [layer.kernel_size[0] for layer in convolutions] == [5, 5, 3, 3, 3, 3]
    drops = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert drops == [0.6, 0.5, 0.4, 0.4]
    last = next(layer for layer in model.layers[::-1] if isinstance(layer, keras.layers.Dropout))
    assert isinstance(last.input._keras_history.operation, keras.layers.BatchNormalization)
    # The public code has 2,400,210 weights: three channels in its first kernels of 5 x 5 where
    # there is one here, and no temperatures.
    temperatures, channels = len(OUTPUTS), 2 * 5 * 5 * 64
    assert model.count_params() - temperatures + channels == 2_400_210


def test_compact_is_the_smaller_one():
    compact, paper = get_model(), get_model(backbone="paper")
    assert compact.name == "compact"
    assert compact.count_params() < paper.count_params() / 1.8
    assert compact.count_params() * 4 < 12e6


@pytest.mark.parametrize(
    ("backbone", "blocks", "weights", "pixels"),
    [("compact", 4, 1.2e6, 24), ("deep", 6, 4.2e6, 24), ("wide", 8, 11.2e6, 48)],
)
def test_residual_networks_have_their_blocks(backbone, blocks, weights, pixels):
    model = build_model(backbone)
    assert sum(isinstance(layer, keras.layers.Add) for layer in model.layers) == blocks
    assert model.count_params() == pytest.approx(weights, rel=0.05)
    assert model.get_layer("stem").output.shape[1] == pixels


def test_every_kernel_learns_from_the_first_step():
    """A block whose last scale begins at zero passes no gradient to what stands before it."""
    model = build_model(widths=(4, 8), augment=False)
    kernels = [variable for variable in model.trainable_variables if variable.name == "kernel"]
    before = [keras.ops.convert_to_numpy(kernel) for kernel in kernels]
    compile_model(model, optimizer=keras.optimizers.SGD(0.1))
    X = np.random.default_rng(0).integers(0, 256, (16, 48, 48, 1), dtype=np.uint8)
    y = encode_labels({task: np.arange(16) % 3 for task in OUTPUTS})
    model.train_on_batch(*batches_of(X, y, 16)[0])
    for kernel, old in zip(kernels, before, strict=True):
        assert np.abs(keras.ops.convert_to_numpy(kernel) - old).max() > 0, kernel.path


def test_compact_may_have_fewer_stages():
    model = build_model(widths=(4, 4, 8))
    assert model.get_layer("cam").output.shape[1:] == (12, 12, 4)


def test_temperature_flattens_the_probabilities():
    logits = np.array([[0.0, 1.0, 3.0]], "float32")
    layer = CalibratedSoftmax()
    layer.build(logits.shape)
    sharp = keras.ops.convert_to_numpy(layer(logits))
    layer.temperature.assign(2.0)
    flat = keras.ops.convert_to_numpy(layer(logits))
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum()
    np.testing.assert_allclose(flat, expected, rtol=1e-5)
    assert flat.max() < sharp.max()
    assert layer.trainable_weights == []


def test_a_saved_model_loads_and_agrees(small, tmp_path):
    small.save(tmp_path / "model.keras")
    images = np.random.default_rng(1).integers(0, 256, (2, 48, 48, 1), dtype=np.uint8)
    loaded = load_model(tmp_path / "model.keras")
    for one, other in zip(
        small.predict_on_batch(images), loaded.predict_on_batch(images), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_shipped_sample_weights_know_drawn_faces(sample_test):
    X, y = sample_test
    model = get_model(pretrained=True, dataset_name="SAMPLE")
    emotion = model.predict_on_batch(X[:256])[0]
    assert (emotion.argmax(axis=1) == y[:256, :7].argmax(axis=1)).mean() > 0.75


def wrong_heads(path):
    image = keras.Input((48, 48, 1))
    keras.Model(image, keras.layers.Flatten()(image)).save(path)


def in_a_row(path):
    keras.Sequential([keras.Input((48, 48, 1)), keras.layers.Flatten()]).save(path)


def other_order(path):
    model = build_model(widths=SMALL)
    keras.Model(model.inputs, [model.outputs[i] for i in (0, 2, 1, 3)]).save(path)


def with_lambda(path):
    image = keras.Input((48, 48, 1))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image)).save(path)


def cut_off(path):
    wrong_heads(path)
    path.write_bytes(path.read_bytes()[:500])


def rewrite(path, changes, compression=zipfile.ZIP_STORED):
    """Write a network whose archive has other contents: name -> bytes."""
    tiny.build().save(path)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in (contents | changes).items():
            archive.writestr(name, content)


def zipped_zeros(path):
    rewrite(path, {"assets/zeros": bytes(6 << 20)}, zipfile.ZIP_DEFLATED)


def compressed_zeros(path):
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        # Never written: HDF5 makes the zeros when they are read.
        file.create_dataset("zeros", (6, 2**20), "uint8", chunks=(1, 2**20), compression="gzip")
    rewrite(path, {"model.weights.h5": weights.getvalue()})


def with_nan(path):
    network = tiny.build()
    network.set_weights([np.full_like(weights, np.nan) for weights in network.get_weights()])
    network.save(path)


def saved_by_another_keras(path):
    """As Keras 3.15's initializers are to Keras 3.13: with an argument that is unknown there."""
    tiny.build().save(path)
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").replace(b'"seed": null', b'"axes": 0, "seed": null')
    rewrite(path, {"config.json": config, "metadata.json": b'{"keras_version": "99.1"}'})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (zipped_zeros, "it unpacks to 6,.* bytes, more than the .* allowed"),
        (compressed_zeros, "it unpacks to 6,.* bytes, more than the .* allowed"),
        (with_nan, "holds weights that are NaN"),
        (saved_by_another_keras, "saved by Keras '99.1' and cannot be read by .* --upgrade keras"),
        (wrong_heads, "has the outputs .* but this package needs .*emotion_output"),
        (in_a_row, "is not a functional model"),
        (other_order, "has the outputs .*race_output.*gender_output.* but this package needs"),
        (with_lambda, "cannot be read as a Keras model"),
        (cut_off, "is not a Keras model, although its name"),
        (lambda path: path.write_text("hello"), "is not a Keras model, although its name"),
    ],
)
def test_files_that_are_no_such_model_are_refused(tmp_path, monkeypatch, make, message):
    monkeypatch.setattr("fer_helpers.model.MOST_BYTES", 5 << 20)
    path = tmp_path / "model.keras"
    make(path)
    with pytest.raises(ValueError, match=message) as refused:
        load_model(path)
    assert len(str(refused.value)) < 1000  # not the whole network, as Keras says it


def temperatures(model):
    return [float(model.get_layer(name).temperature) for name in OUTPUTS.values()]


def test_temperatures_travel_with_the_weights_and_other_bytes_are_refused(tmp_path):
    network = build_model()
    for number, name in enumerate(OUTPUTS.values()):
        network.get_layer(name).temperature.assign(0.5 + number)
    network.save(tmp_path / "a.keras")
    file = write_weights(network, "b", tmp_path)
    for loaded in (load_model(tmp_path / "a.keras"), read_weights(file)):
        assert temperatures(loaded) == [0.5, 1.5, 2.5, 3.5]
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ValueError, match="not the file that was written"):
        read_weights(file)


@pytest.mark.parametrize("card", ["[]", "{}", "no JSON", '{"sha256": "0", "model": {"width": 1}}'])
def test_a_damaged_card_is_named(card, tmp_path):
    file = write_weights(build_model(), "a", tmp_path)
    file.with_name("a.json").write_text(card)
    with pytest.raises(ValueError, match=r"a\.json is not the file that was written"):
        read_weights(file)


def test_shipped_weights_have_the_temperatures_of_their_card():
    folder = Path(fer_helpers.__file__).parent / "pretrained"
    said = json.loads((folder / "open-data.json").read_text())["temperatures"]
    network = load_model("FER")
    assert network.name == "deep"
    assert temperatures(network) == pytest.approx([said[task] for task in OUTPUTS], rel=1e-6)


@pytest.fixture
def offline(monkeypatch):
    """No connection may be opened."""

    def refuse(*_):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.parametrize("dataset_name", ["SAMPLE", "FER", "UTKFACE", "RAFDB"])
@pytest.mark.usefixtures("offline")
def test_shipped_weights_are_small_and_need_no_network(dataset_name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without results of one's own
    model = get_model(pretrained=True, dataset_name=dataset_name)
    faces = np.zeros((1, 48, 48, 1), np.float32)
    assert all(np.isfinite(output).all() for output in model.predict_on_batch(faces))
    files = (Path(fer_helpers.__file__).parent / "pretrained").glob("*.h5")
    assert all(file.stat().st_size < 12e6 for file in files)


@pytest.mark.usefixtures("offline")
def test_rafdb_is_the_owners_network_or_the_shipped_one_with_a_word(
    small, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shipped = [load_model("RAFDB"), get_model(pretrained=True, dataset_name="RAFDB")]
    wanted = load_model("FER").get_weights()
    for model in shipped:
        for found, weights in zip(model.get_weights(), wanted, strict=True):
            np.testing.assert_array_equal(found, weights)
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()  # once, however often it is loaded
    assert "have not seen RAF-DB" in line
    assert "python -m fer_helpers train --dataset RAFDB" in line
    own = tmp_path / "results" / "RAFDB" / "model.keras"
    own.parent.mkdir(parents=True)
    small.save(own)
    for model in (load_model("RAFDB"), get_model(pretrained=True, dataset_name="RAFDB")):
        assert model.count_params() == small.count_params()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "imports",
    [
        "import fer_helpers; import keras",
        "import keras; import fer_helpers",
        "from fer_helpers import predict; import keras",
    ],
)
def test_keras_itself_loads_our_files_in_any_order_of_imports(imports, small, tmp_path):
    compile_model(small).save(tmp_path / "model.keras")
    code = f"{imports}; keras.saving.load_model('model.keras').loss['age_output'].get_config()"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_other_faces_get_the_network_that_knows_real_ones(tmp_path):
    model = get_model(pretrained=True, dataset_name=str(tmp_path))
    for ours, shipped in zip(model.get_weights(), load_model("FER").get_weights(), strict=True):
        np.testing.assert_array_equal(ours, shipped)


def test_wrong_names_and_missing_weights_say_the_way_out(tmp_path):
    with pytest.raises(
        ValueError, match="unknown backbone 'vgg': choose one of compact, deep, wide, paper"
    ):
        get_model(backbone="vgg")
    with pytest.raises(ValueError, match="unknown dataset 'CK'"):
        get_model(dataset_name="CK")
    with pytest.raises(ValueError, match="needs dataset_name"):
        get_model(pretrained=True)
    with pytest.raises(ValueError, match="backbone of their own, which cannot be 'paper'"):
        get_model(pretrained=True, dataset_name="SAMPLE", backbone="paper")
    with pytest.raises(ValueError, match="which cannot be 'compact'"):
        get_model(pretrained=True, dataset_name="FER", backbone="compact")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_model(tmp_path / "none.keras")
    (tmp_path / "weights.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"not a \.keras file"):
        load_model(tmp_path / "weights.pkl")
