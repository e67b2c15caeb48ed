"""Label rows: encoding, decoding, separating."""

from pathlib import Path

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
    class_index,
    decode_labels,
    encode_labels,
    separate_category,
    short_name,
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


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("FER", "FER"), ("/data/my.faces", "my.faces"), ("a/faces.zip", "faces"),
        ("a/b/", "b"), ("people.CSV", "people"), (Path("a") / ".." / "c", "c"),
    ],
)  # fmt: skip
def test_names_for_files(dataset, name):
    assert short_name(dataset) == name


@pytest.mark.parametrize("task", TASKS)
def test_each_class_is_known_by_its_own_name(task):
    for index, name in enumerate(TASKS[task]):
        for word in (name, name.upper(), f" {name} "):
            assert class_index(task, word) == index


@pytest.mark.parametrize(
    ("task", "words", "index"),
    [
        ("emotion", ["surprised", "Astonished", "0_Surprise"], 0),
        ("emotion", ["afraid", "scared", "FEARFUL", "2-fear"], 1),
        ("emotion", ["disgusted", "1 disgust"], 2),
        ("emotion", ["happy", "Joy", "3_happy", "smiling"], 3),
        ("emotion", ["sad", "Sad_"], 4),
        ("emotion", ["angry", "0angry", "Angry2"], 5),
        ("emotion", ["calm", "6_neutral"], 6),
        ("gender", ["man", "M", "boy"], 0),
        ("gender", ["woman", "F", "female"], 1),
        ("race", ["white"], 0),
        ("race", ["Black", "African American", "african_american"], 1),
        ("race", ["East Asian"], 2),
        ("age", ["0", "3", "3.9", "0-2"], 0),
        ("age", ["4", "19.99", "10-19", "4 – 19"], 1),
        ("age", ["20", "20-29", "30 to 39", "25_32"], 2),
        ("age", ["40", "69", "60-69"], 3),
        ("age", ["70", "116", "70 +", "75-79"], 4),
        ("emotion", ["", " ", "NaN", "None"], -1),
    ],
)
def test_words_that_people_use(task, words, index):
    assert [class_index(task, word) for word in words] == [index] * len(words)


@pytest.mark.parametrize(
    ("task", "word", "said"),
    [
        (
            "emotion",
            "contempt",
            "unknown emotion 'contempt': the known words are surprise, surpris",
        ),
        ("emotion", "3", "unknown emotion '3': a number does not say which class it is; the known"),
        ("gender", "0", "unknown gender '0': a number does not say"),
        ("race", "Indian", "unknown race 'Indian': the known words are caucasian, white"),
        ("age", "10-29", "unknown age '10-29': the known words are 0-3, 4-19, .*, or years"),
        ("age", "60+", r"unknown age '60\+'"),  # from 40 to 69, or above
        ("age", "-5", "unknown age '-5'"),
        ("age", "old", "unknown age 'old'"),
    ],
)
def test_words_that_say_no_class(task, word, said):
    with pytest.raises(ValueError, match=said):
        class_index(task, word)


def test_words_are_encoded_as_indices_are():
    words = {"emotion": ["Happy", "", "afraid", None], "age": np.array(["25", "", "70+", "3"])}
    indices = {"emotion": [3, -1, 1, -1], "age": [2, -1, 4, 0]}
    np.testing.assert_array_equal(encode_labels(words), encode_labels(indices))
