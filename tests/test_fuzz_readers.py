"""Damaged data sets give faces or a clear error: a short run of fuzz_readers.py."""

import warnings

from fuzz_readers import run


def test_damaged_data_sets_give_faces_or_a_clear_error(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on broken files
        outcomes = run(300, tmp_path)
    assert sum(outcomes.values()) >= 300
    some = {"faces", "faces, some skipped", "ValueError", "photos", "photos, some skipped"}
    assert some <= set(outcomes)
