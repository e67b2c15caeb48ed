"""A bad file never stops a folder: a small run of mixed_folder.py."""

from mixed_folder import GOOD, KINDS, run


def test_every_good_file_is_predicted_and_every_bad_one_listed(tmp_path):
    table, peak = run(len(KINDS), tmp_path)
    assert sorted(table["kind"]) == sorted(KINDS)
    good = table["kind"].isin(GOOD)
    assert (table.loc[good, "error"] == "").all()
    assert (table.loc[good, "emotion"] != "").all()
    reasons = table[~good].set_index("kind")["error"]
    assert "million pixels" in reasons["huge"]
    assert "cannot be read" in reasons["truncated"]
    assert "not an image" in reasons["text"]
    assert "an empty file" in reasons["empty"]
    assert peak < 2000
