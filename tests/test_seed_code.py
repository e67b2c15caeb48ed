"""The public description's code and the README's, run on SAMPLE.

The first is changed only where it must be: imports come from `fer_helpers`, `fit_generator` is
`fit`, and the names that it leaves to the reader have values.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.model_selection import train_test_split

from fer_helpers import generate_images, get_model, load_data, seperate_category

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.filterwarnings("error")
def test_seed_code_runs_and_weighs_by_output(small_sample, monkeypatch):
    monkeypatch.setenv("FER_DATA_DIR", str(small_sample))
    train_size, random_state, batch_size, epochs, callbacks = 0.8, 0, 32, 2, []
    optimizer = tf.keras.optimizers.Adam()

    dataset_name = "SAMPLE"
    X, y = load_data(dataset_name)

    X_train, X_test, y_train, y_test = train_test_split(
        X, y, train_size=train_size, shuffle=True, random_state=random_state
    )
    ages_train, emotions_train, genders_train, races_train = seperate_category(
        y_train, dataset_name
    )
    ages_test, emotions_test, genders_test, races_test = seperate_category(y_test, dataset_name)

    train_gen = generate_images(
        X_train, emotions_train, genders_train, races_train, ages_train, batch_size, True
    )
    valid_gen = generate_images(
        X_test, emotions_test, genders_test, races_test, ages_test, batch_size, True
    )

    model = get_model(pretrained=True, dataset_name=dataset_name)

    metrics = {
        "emotion_output": "accuracy",
        "age_output": "accuracy",
        "race_output": "accuracy",
        "gender_output": "accuracy",
    }
    model.compile(
        optimizer=optimizer,
        loss=[
            tf.keras.losses.CategoricalCrossentropy(from_logits=False),
            tf.keras.losses.CategoricalCrossentropy(from_logits=False),
            tf.keras.losses.CategoricalCrossentropy(from_logits=False),
            tf.keras.losses.CategoricalCrossentropy(from_logits=False),
        ],
        loss_weights=[2, 0.1, 1.5, 4],  # weights for [emotion, gender, race, age]
        metrics=metrics,
    )
    history = model.fit(
        train_gen,
        steps_per_epoch=len(y_train) // batch_size,
        epochs=epochs,
        callbacks=callbacks,
        validation_data=valid_gen,
        validation_steps=len(y_test) // batch_size,
        verbose=0,
    )

    losses = {name: values[-1] for name, values in history.history.items()}
    assert len(history.history["loss"]) == epochs
    weighted = (
        2 * losses["emotion_output_loss"]
        + 0.1 * losses["gender_output_loss"]
        + 1.5 * losses["race_output_loss"]
        + 4 * losses["age_output_loss"]
    )
    assert losses["loss"] == pytest.approx(weighted, rel=1e-4)
    assert np.isfinite(losses["val_loss"])
    assert losses["emotion_output_accuracy"] > 0.5


def test_code_of_the_readme_trains_a_network(small_sample, monkeypatch, tmp_path):
    monkeypatch.setenv("FER_DATA_DIR", str(small_sample))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert "epochs=8" in code
    exec(code.replace("epochs=8", "epochs=1"), {})
    assert (tmp_path / "results" / "mine" / "model.keras").is_file()


def test_readme_is_short():
    prose = re.sub(r"```.*?```|<[^>]+>", "", README.read_text(), flags=re.DOTALL)
    assert len(re.findall(r"\S*\w\S*", prose)) < 900
