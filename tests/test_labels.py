"""Label rows: encoding, decoding, separating."""

import numpy as np
import pytest

import fer_helpers
from fer_helpers.labels import (
    BLOCKS,
    DATASETS,
    LABEL_WIDTH,
    OUTPUTS,
    TASKS,
    age_class,
    check_dataset,
    check_task,
    decode_labels,
    encode_labels,
    separate_category,
)

CLASSES = {"emotion": [3, -1, 0], "gender": [0, 1, 2], "race": [-1, -1, 2], "age": [4, 0, -1]}


def test_label_rows_hold_each_class_in_its_block():
    y = encode_labels(CLASSES)
    assert y.shape == (3, 18)
    assert y.dtype == np.float32
    expected = np.zeros(18)
    expected[[3, 7, 10 + 3 + 4 - 1 + 1]] = 1  # happiness, male, 70+ is the last of all
    np.testing.assert_array_equal(y[0], expected)
    assert y[1, BLOCKS["emotion"]].sum() == 0


def test_decoding_gives_back_the_names_and_leaves_unlabelled_missing():
    names = decode_labels(encode_labels(CLASSES))
    assert names["emotion"].tolist()[0] == "happiness"
    assert names["emotion"].isna().tolist() == [False, True, False]
    assert names["gender"].tolist() == ["male", "female", "unsure"]
    assert names["race"].tolist()[2] == "Asian"
    assert names["age"].tolist()[:2] == ["70+", "0-3"]


def test_separate_category_has_the_papers_order_and_spelling():
    y = np.arange(36, dtype=np.float32).reshape(2, 18)
    ages, emotions, genders, races = separate_category(y, "RAFDB")
    assert [block.shape[1] for block in (ages, emotions, genders, races)] == [5, 7, 3, 3]
    assert (ages[0, 0], emotions[0, 0], genders[0, 0], races[0, 0]) == (13, 0, 7, 10)
    assert fer_helpers.seperate_category is fer_helpers.separate_category


def test_age_groups_begin_where_rafdb_begins_them():
    assert age_class([0, 3, 4, 19, 20, 39, 40, 69, 70, 116, -1]).tolist() == [
        *(0, 0, 1, 1, 2, 2, 3, 3, 4, 4),
        -1,
    ]


def test_classes_are_rafdbs():
    assert TASKS == {
        "emotion": ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
        "gender": ("male", "female", "unsure"),
        "race": ("Caucasian", "African-American", "Asian"),
        "age": ("0-3", "4-19", "20-39", "40-69", "70+"),
    }
    assert list(OUTPUTS) == list(TASKS)
    assert OUTPUTS["race"] == "race_output"
    assert DATASETS == {
        "SAMPLE": "sample",
        "FER": "fer2013",
        "RAFDB": "rafdb",
        "UTKFACE": "utkface",
    }


def test_blocks_stand_side_by_side():
    assert list(BLOCKS) == list(TASKS)
    assert list(BLOCKS.values()) == [slice(0, 7), slice(7, 10), slice(10, 13), slice(13, 18)]
    assert LABEL_WIDTH == 18


@pytest.mark.parametrize("task", TASKS)
def test_every_class_is_encoded_and_decoded(task):
    count = len(TASKS[task])
    y = encode_labels({task: np.arange(-1, count)})
    assert y.sum() == count
    assert not y[0].any()
    np.testing.assert_array_equal(y[1:, BLOCKS[task]], np.eye(count))
    named = decode_labels(y)
    assert list(named) == list(TASKS)
    assert named[task].tolist()[1:] == list(TASKS[task])
    assert named[task].cat.categories.tolist() == list(TASKS[task])
    assert named[task].isna().tolist() == [True] + [False] * count
    others = [other for other in TASKS if other != task]
    assert named[others].isna().all(axis=None)


def test_labels_of_other_dtypes_and_no_faces():
    for dtype in (np.int8, np.uint8, np.uint64, bool):
        y = encode_labels({"gender": np.array([1, 0], dtype)})
        assert y[:, BLOCKS["gender"]].tolist() == [[0, 1, 0], [1, 0, 0]]
        assert y.dtype == np.float32
    assert encode_labels({"age": []}).shape == (0, 18)
    assert len(decode_labels(np.zeros((0, 18)))) == 0


def test_probabilities_are_decoded_to_the_most_probable_class():
    y = np.zeros((1, 18))
    y[0, BLOCKS["emotion"]] = (0.1, 0.2, 0.15, 0.4, 0.05, 0.05, 0.05)
    assert decode_labels(y)["emotion"].tolist() == ["happiness"]


def test_separated_blocks_are_views():
    y = np.zeros((2, 18), np.float32)
    for block in separate_category(y):
        block[:] = 1
    assert y.all()
    assert [len(block) for block in separate_category(y.tolist())] == [2] * 4


def test_known_names_are_returned():
    assert [check_task(name) for name in TASKS] == list(TASKS)
    assert [check_dataset(name) for name in DATASETS] == list(DATASETS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: encode_labels({"emotion": [7]}), "emotion label 7 is out of range: 0 to 6"),
        (lambda: encode_labels({"gender": [-2]}), "gender label -2"),
        (lambda: encode_labels({"emotion": [0], "age": [1, 2]}), "different length"),
        (
            lambda: encode_labels({"emotion": [0], "age": [1, 2]}),
            "^labels of different length: {'emotion': 1, 'age': 2}$",
        ),
        (
            lambda: encode_labels({"mood": [0]}),
            "^unknown task 'mood': choose from emotion, gender, race, age$",
        ),
        (
            lambda: encode_labels({"race": [0, 3, 4]}),
            "^race label 3 is out of range: 0 to 2, or -1 for not labelled$",
        ),
        (lambda: encode_labels({"emotion": ["2"]}), "unknown emotion '2': a number does not say"),
        (lambda: decode_labels(np.zeros((4, 17))), r"\(N, 18\), not \(4, 17\)"),
        (lambda: decode_labels(np.zeros(18)), r"\(N, 18\), not \(18,\)"),
        (lambda: separate_category(np.zeros((2, 18, 1))), r"\(N, 18\), not \(2, 18, 1\)"),
        (lambda: encode_labels({}), "^no labels: give at least one of emotion, gender, race, age$"),
        (lambda: encode_labels({"age": [1.7]}), "age labels must be whole numbers, not float64"),
        (lambda: separate_category(np.zeros((4, 17))), r"\(N, 18\), not \(4, 17\)"),
        (lambda: separate_category(np.zeros((4, 18)), "FER2014"), "unknown dataset 'FER2014'"),
        (
            lambda: check_dataset("fer"),
            "^unknown dataset 'fer': .* the names are SAMPLE, FER, RAFDB, UTKFACE$",
        ),
    ],
)
def test_bad_labels_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_missing_age_is_no_class():
    assert age_class(np.array([30, np.nan, -1, 0, 70])).tolist() == [2, -1, -1, 0, 4]
    assert age_class([-0.5, 0.5, 3.9, 4]).tolist() == [-1, 0, 0, 1]
