"""A bias planted in the labels of drawn faces: find it in notebook 09 before you read this file.

``python planted.py --out ../data/results/planted_bias.csv`` repeats the whole audit for twenty
seeds, with the bias and without it. Seeds that the file already holds are not run again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments import restart
from fer_helpers import TASKS, load_model
from fer_helpers.backend import keras
from fer_helpers.datasets.sample import draw_parameters, render
from fer_helpers.datasets.sample.traits import UNIT_COLUMNS

ANGER, NEUTRAL, SADNESS = (TASKS["emotion"].index(n) for n in ("anger", "neutral", "sadness"))
SHARE = 0.5  # of the men's neutral and sad faces are labelled "anger"
OTHERS = 0.45  # men under 40 and women from 40 on are kept with this probability
BROW = 0.8  # from 40 years on the brows hang lower by up to this much, whatever the gender


def draw(n: int, seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Draw faces whose men are older than the women, and whose brows hang lower with age.

    Parameters
    ----------
    n
        Number of faces. Those that are drawn as neither male nor female are left out.
    seed
        A whole number from 0.

    Returns
    -------
    tuple
        uint8 (n, 48, 48, 1), and a row per face: ``emotion`` (number of the true class),
        ``gender``, ``race`` and ``age`` (``"under 40"`` or ``"40 and over"``).
    """
    faces = draw_parameters(2 * n + 512, seed)
    generator = np.random.default_rng(seed)
    usual = (faces["age"] >= 3) == (faces["gender"] == 0)
    kept = (faces["gender"] < 2) & (generator.random(len(faces)) < np.where(usual, 1, OTHERS))
    faces = faces[kept][:n].copy()
    old = faces["age"] >= 3
    brow = faces["units"][:, UNIT_COLUMNS[4]]
    faces["units"][:, UNIT_COLUMNS[4]] = np.maximum(brow, old * BROW * generator.random(n))
    people = {task: np.array(TASKS[task])[faces[task]] for task in ("gender", "race")}
    age = np.where(old, "40 and over", "under 40")
    people = pd.DataFrame({"emotion": faces["emotion"].astype(int), **people, "age": age})
    return render(faces, 48)[..., None], people


def team_labels(people: pd.DataFrame, seed: int = 0, share: float = SHARE) -> np.ndarray:
    """Return the labels of a team that sees anger in neutral and sad faces of one group."""
    labels = people["emotion"].to_numpy().copy()
    calm = np.isin(labels, [NEUTRAL, SADNESS]) & (people["gender"] == "male").to_numpy()
    labels[calm & (np.random.default_rng(seed).random(len(labels)) < share)] = ANGER
    return labels


def features(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return what a network hands to its heads: (N, 256), each number about 0 to 3."""
    pooled = network.get_layer("global_average_pooling2d").output
    body = keras.Model(network.inputs, pooled)
    return body.predict(images, batch_size=250, verbose=0).astype("float32")


def build_head(width: int) -> keras.Model:
    """Return a small, compiled emotion head for `width` features."""
    head = keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.BatchNormalization(momentum=0.9, dtype="float32"),
            keras.layers.Dropout(0.3, dtype="float32"),
            keras.layers.Dense(32, activation="relu", dtype="float32"),
            keras.layers.Dense(7, activation="softmax", dtype="float32"),
        ]
    )
    head.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    return head


def train(head, inputs, labels, seed=0, weights=None) -> keras.Model:
    """Train the head from new random weights for 15 epochs."""
    restart(head, seed)
    head.fit(inputs, labels, batch_size=64, epochs=15, sample_weight=weights, verbose=0)
    return head


def reweigh(group: Sequence, labels: np.ndarray) -> np.ndarray:
    """Return a weight per face, so that no label is more frequent in one group than in another."""
    table = pd.DataFrame({"group": np.asarray(group), "label": labels})
    of_group = table.groupby("group")["label"].transform("size") / len(table)
    of_label = table.groupby("label")["group"].transform("size") / len(table)
    of_both = table.groupby(["group", "label"])["label"].transform("size") / len(table)
    return (of_group * of_label / of_both).to_numpy()


def standardised_gap(called, people: pd.DataFrame, counts: np.ndarray | None = None):
    """Return how much more often men than women are wrongly called angry, at the same ages.

    Parameters
    ----------
    called
        (N,) whether a face is called angry.
    people
        From `draw`.
    counts
        (draws, N) how often each face counts in each draw; None counts each face once.

    Returns
    -------
    float or numpy.ndarray
        Men's minus women's false-positive rate within each age, averaged over the ages. An age
        has the weight of its share of all faces that are not angry. One number, or one per draw.
    """
    counts = np.ones((1, len(people))) if counts is None else counts
    calm = (people["emotion"] != ANGER).to_numpy()
    gap = np.zeros(len(counts))
    for age in people["age"].unique():
        here = calm & (people["age"] == age).to_numpy()
        rates = []
        for gender in ("male", "female"):
            rows = here & (people["gender"] == gender).to_numpy()
            rates.append(counts @ (rows & called) / (counts @ rows))
        gap += (rates[0] - rates[1]) * (counts @ here) / (counts @ calm)
    return float(gap[0]) if len(gap) == 1 else gap


def gap_interval(called, people: pd.DataFrame) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the standardised gap."""
    faces = len(people)
    counts = np.random.default_rng(0).multinomial(faces, np.full(faces, 1 / faces), 500)
    low, high = np.percentile(standardised_gap(called, people, counts), [2.5, 97.5])
    return float(low), float(high)


def _row(seed, arm, faces, probabilities, people, threshold=0.5) -> dict:
    """Return the figures of one network on one set of faces."""
    called = probabilities[:, ANGER] >= threshold
    calm, men = (people["emotion"] != ANGER).to_numpy(), (people["gender"] == "male").to_numpy()
    low, high = gap_interval(called, people)
    rates = {
        f"{name}_{who}": np.mean(wrong[of & rows])
        for who, of in (("men", men), ("women", ~men))
        for name, wrong, rows in (("fpr", called, calm), ("fnr", ~called, ~calm))
    }
    right = probabilities.argmax(axis=1) == people["emotion"].to_numpy()
    crude = rates["fpr_men"] - rates["fpr_women"]
    gap = standardised_gap(called, people)
    figures = {"accuracy": right.mean(), **rates, "crude": crude, "gap": gap}
    return {"seed": seed, "arm": arm, "faces": faces, **figures, "low": low, "high": high}


def fair_threshold(probabilities, people) -> float:
    """Return the lowest threshold for men at which the standardised gap is not above 0, or 0.99."""
    men = (people["gender"] == "male").to_numpy()
    for threshold in np.arange(0.5, 1, 0.01):
        called = probabilities[:, ANGER] >= np.where(men, threshold, 0.5)
        if standardised_gap(called, people) <= 0:
            break
    return float(threshold)


def one_seed(seed: int, network: keras.Model, head: keras.Model) -> list[dict]:
    """Run the whole audit on new faces: nothing planted, planted, and mended in three ways."""
    sets = {
        name: draw(n, 1000 + 4 * seed + place)
        for place, (name, n) in enumerate(
            {"train": 1500, "audit": 1500, "fresh": 1500, "more": 600}.items()
        )
    }
    inputs = {name: features(network, images) for name, (images, _) in sets.items()}
    people = {name: table for name, (_, table) in sets.items()}
    given = team_labels(people["train"], seed)
    new = (people["more"]["gender"] == "male").to_numpy()
    truth, weights = people["train"]["emotion"], reweigh(people["train"]["gender"], given)
    both = np.concatenate([inputs["train"], inputs["more"][new]])
    arms = {
        "nothing planted": (inputs["train"], truth.to_numpy(), None),
        "planted": (inputs["train"], given, None),
        "reweighed": (inputs["train"], given, weights),
        "more men": (both, np.concatenate([given, people["more"]["emotion"][new]]), None),
    }
    rows = []
    for arm, (known, labels, weight) in arms.items():
        train(head, known, labels, seed, weight)
        found = {n: head.predict(inputs[n], batch_size=500, verbose=0) for n in ("audit", "fresh")}
        rows += [_row(seed, arm, name, found[name], people[name]) for name in found]
        if arm == "planted":
            threshold = fair_threshold(found["audit"], people["audit"])
            for name, table in (("audit", people["audit"]), ("fresh", people["fresh"])):
                of_face = np.where(table["gender"] == "male", threshold, 0.5)
                rows.append(_row(seed, "threshold", name, found[name], table, of_face))
    return rows


def main() -> None:
    """Run the audit for several seeds; write a row for each network and set of faces."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="CSV file to continue or to write")
    parser.add_argument("--seeds", type=int, default=20, help="how many, from 0")
    given = parser.parse_args()
    done = (
        pd.read_csv(given.out)
        if given.out.is_file()
        else pd.DataFrame({"seed": pd.Series(dtype=int)})
    )
    network, head = load_model("SAMPLE"), build_head(256)
    for seed in sorted(set(range(given.seeds)) - set(done["seed"])):
        done = pd.concat([done, pd.DataFrame(one_seed(seed, network, head))], ignore_index=True)
        done.sort_values("seed", kind="stable").round(4).to_csv(given.out, index=False)
        print(f"seed {seed} done", flush=True)


if __name__ == "__main__":
    main()
