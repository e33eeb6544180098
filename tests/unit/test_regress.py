import numpy as np
from liner_server.evaluation.regress import Floats, Model, classify


def test_a_row_that_stands_for_three_counts_as_three() -> None:
    """Evening out lengths and sets of pieces rests on it."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((40, 3))
    classes = (rows[:, 0] + rng.standard_normal(40) > 0).astype(int)
    weights = np.where(np.arange(40) < 10, 3.0, 1.0)
    repeated = np.repeat(np.arange(40), weights.astype(int))

    weighted = classify(rows, classes, penalty=1e-6, weights=weights)
    plain = classify(rows[repeated], classes[repeated], penalty=1e-6)

    # The two standardise by different means, so what is compared is what they say.
    def scores(model: Model) -> Floats:
        return ((rows - model.mean) / model.scale) @ model.linear + model.bias

    assert np.allclose(scores(weighted), scores(plain), atol=0.02)
