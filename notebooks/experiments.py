"""What the experiments of several notebooks share: the same network, begun again."""

import keras

from fer_helpers.runs import seed_layers


def restart(model: keras.Model, seed: int) -> keras.Model:
    """Give a compiled network new random weights, and its optimizer an empty memory.

    A run with another seed then trains at once: building and compiling a network anew would
    take some seconds for each.

    Parameters
    ----------
    model
        A compiled network; its loss, metrics and learning rate stay as they are.
    seed
        Seed of the weights, and of all that is random in the training that follows.

    Returns
    -------
    keras.Model
        The same network.
    """
    keras.utils.set_random_seed(seed)
    seed_layers(model, seed)
    model.set_weights(keras.models.clone_model(model).get_weights())
    for variable in model.optimizer.variables:
        if variable is not model.optimizer._learning_rate:
            variable.assign(keras.ops.zeros_like(variable))
    return model
