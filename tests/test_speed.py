"""Where the time goes: costs counted from shapes, and what each measured time is a time of."""

import time

import keras
import numpy as np
import pytest

from fer_helpers.model import build_model
from fer_helpers.studies import speed
from fer_helpers.studies.speed import (
    floor,
    layer_costs,
    layer_seconds,
    machine_limits,
    read_trace,
    record_trace,
    seconds,
    span,
)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless the test moves it."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_seconds_is_the_median_without_the_first_call(clock):
    steps = iter([100.0, 1.0, 2.0, 30.0, 3.0, 2.5])

    def call():
        clock[0] += next(steps)

    assert seconds(call, 5) == 2.5
    assert next(steps, None) is None


def test_each_layer_is_timed_alone_on_its_own_inputs_and_per_image(clock, monkeypatch):
    model = build_model(widths=(4, 4, 8), augment=False)
    names = [layer.name for layer in model.layers[1:]]
    costs = {name: 1.0 + number for number, name in enumerate(names)}
    calls = []

    def compiled(layer):
        def run(given):
            # What the layer computes, not only that it was called.
            outputs = np.asarray(layer(given))
            clock[0] += costs[layer.name]
            calls.append((layer.name, outputs.shape))
            return outputs

        return run

    monkeypatch.setattr(speed, "compiled", compiled)
    found = layer_seconds(model)
    assert found.index.tolist() == names
    np.testing.assert_allclose(found, [costs[name] / 64 for name in names])
    assert {shape for name, shape in calls if name == "stem"} == {(64, 24, 24, 4)}
    assert {shape for name, shape in calls if name.startswith("add")} == {
        (64, 24, 24, 4),
        (64, 12, 12, 4),
        (64, 6, 6, 8),
    }
    assert [name for name, _ in calls].count("stem") == 6  # once to compile, five times timed


def test_each_layer_is_measured_by_the_real_clock():
    image = keras.Input((8, 8, 1))
    maps = keras.layers.Conv2D(4, 3, name="convolution")(image)
    model = keras.Model(image, keras.layers.Add(name="sum")([maps, maps]))
    found = layer_seconds(model)
    assert found.index.tolist() == ["convolution", "sum"]
    assert found.between(1e-9, 1e-2).all()


def test_costs_are_those_of_the_shapes():
    model = build_model("paper", augment=False)
    table = layer_costs(model).set_index("layer")
    convolutions = table[table["kind"] == "Conv2D"]
    assert convolutions["multiply_adds"].iloc[1] == 48 * 48 * 5 * 5 * 64 * 64
    assert convolutions["bytes"].iloc[1] == 4 * 2 * 48 * 48 * 64
    # The first one has no gradient of its input to find, the others have.
    ratio = convolutions["train_multiply_adds"] / convolutions["multiply_adds"]
    assert ratio.tolist() == [2, 3, 3, 3, 3, 3]
    limits = {"multiply_adds": 1e9, "bytes": 1e6}
    least = floor(table, limits)
    assert least[convolutions.index[1]] == convolutions["bytes"].iloc[1] / 1e6
    assert (floor(table, limits, "train_") > least).all()


def test_machine_limits_are_rates():
    assert all(value > 1e6 for value in machine_limits(side=64).values())


@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("bfloat16", 2)])
def test_machine_limits_count_what_was_multiplied_and_moved(monkeypatch, dtype, itemsize):
    times = iter([0.5] * 7 + [0.25] + [2.0] * 7 + [1.0])
    monkeypatch.setattr(speed, "seconds", lambda once, repeats: once() is None or next(times))
    assert machine_limits(dtype, side=16) == {
        "multiply_adds": 16**3 / 0.25,
        "bytes": 2 * itemsize * 16 * 16**2 / 1.0,
    }


def write_trace(folder, threads):
    """A recording as the profilers write it; per thread its start in ns, and its events in ps."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    plane = space.planes.add(name="/host:CPU")
    for thread, (start, events) in threads.items():
        line = plane.lines.add(name=thread, timestamp_ns=start)
        for name, offset, duration in events:
            number = len(plane.event_metadata) + 1
            plane.event_metadata[number].name = name
            line.events.add(metadata_id=number, offset_ps=offset, duration_ps=duration)
    file = folder / "plugins" / "profile" / "today" / "here.xplane.pb"
    file.parent.mkdir(parents=True)
    file.write_bytes(space.SerializeToString())


def test_a_trace_is_read_in_milliseconds_from_its_first_event(tmp_path):
    convolution = "net/stem_1/convolution:_MklNativeConv2D"
    compute = [
        (convolution, 3_000_000_000, 2_000_000_000),
        ("ExecutorState::Process", 0, 9_000_000_000),
        ("Record", 1, 0),
    ]
    python = [("step", 0, 5_000_000_000), ("EagerExecute: __inference_f_1", 1_000_000, 500_000)]
    fused = [("add_maximum_fusion.3", 0, 1_000_000), ("ThunkExecutor::Execute", 0, 2_000_000)]
    write_trace(
        tmp_path,
        {
            "python": (1_000_000, python),
            "tf_Compute/-7": (2_000_000, compute),
            "tf_XLAEigen/8": (2_000_000, fused),
        },
    )
    trace = read_trace(tmp_path)
    assert set(trace["thread"]) == {"python 0", "tf_Compute 1", "tf_XLAEigen 2"}
    assert "Record" not in set(trace["name"])
    assert trace.loc[trace["name"] == "step", ["start", "duration"]].to_numpy().tolist() == [[0, 5]]
    operations = trace[trace["operation"] != ""].set_index("operation")
    assert operations.index.tolist() == ["Conv2D", "fusion"]
    np.testing.assert_allclose(operations["start"], [4, 1])
    np.testing.assert_allclose(operations["duration"], [2, 0.001])


@pytest.mark.parametrize(
    ("thread", "name", "kind"),
    [
        ("tf_Compute 1", "a/b/AddN:AddN", "AddN"),
        ("tf_Compute 1", "gradient_tape/c/Conv2DBackpropFilter:_MklConv2DX", "Conv2DX"),
        ("tf_Compute 1", "KernelAndDeviceFunc::Run", ""),
        ("python 0", "EagerLocalExecute: AssignVariableOp", ""),
        ("python 0", "fusion.1", ""),
        ("tf_XLAEigen 1", "copy.237", "copy"),
        ("tf_XLAEigen 1", "ThunkExecutor::Execute (wait for completion)", ""),
    ],
)
def test_operations_are_told_from_the_frames_around_them(thread, name, kind):
    assert speed._operation(thread, name) == kind


def test_a_recording_has_the_spans_and_the_operations_of_its_block_only(tmp_path):
    images = np.zeros((4, 8, 8, 1), np.float32)
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    model.predict_on_batch(images)
    for name in ("earlier", "later"):
        with record_trace(tmp_path), span(name):
            model.predict_on_batch(images)
    trace = read_trace(tmp_path).set_index("name")
    assert "later" in trace.index
    assert "earlier" not in trace.index
    operations = trace[trace["operation"] != ""]
    assert len(operations)
    begin, duration = trace.loc["later", ["start", "duration"]]
    assert (operations["start"] >= begin).all()
    assert (operations["start"] + operations["duration"] <= begin + duration).all()


def test_a_folder_without_a_recording(tmp_path):
    with pytest.raises(FileNotFoundError, match="record_trace"):
        read_trace(tmp_path)
