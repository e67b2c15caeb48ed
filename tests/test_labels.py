"""Label rows: encoding, decoding, separating."""

import numpy as np
import pytest

import fer_helpers
from fer_helpers.labels import (
    BLOCKS,
    TASKS,
    age_class,
    check_dataset,
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
    assert TASKS["emotion"][0] == "surprise"
    assert TASKS["emotion"][6] == "neutral"
    assert [len(names) for names in TASKS.values()] == [7, 3, 3, 5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: encode_labels({"emotion": [7]}), "emotion label 7 is out of range: 0 to 6"),
        (lambda: encode_labels({"gender": [-2]}), "gender label -2"),
        (lambda: encode_labels({"emotion": [0], "age": [1, 2]}), "different length"),
        (lambda: encode_labels({"mood": [0]}), "unknown task"),
        (lambda: encode_labels({}), "no labels at all"),
        (lambda: encode_labels({"age": [1.7]}), "age labels must be whole numbers, not float64"),
        (lambda: separate_category(np.zeros((4, 17))), r"\(N, 18\), not \(4, 17\)"),
        (lambda: separate_category(np.zeros((4, 18)), "FER2014"), "unknown dataset 'FER2014'"),
        (lambda: check_dataset("fer"), "choose one of SAMPLE, FER, RAFDB, UTKFACE"),
    ],
)
def test_bad_labels_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_missing_age_is_no_class():
    assert age_class(np.array([30, np.nan, -1, 0, 70])).tolist() == [2, -1, -1, 0, 4]
