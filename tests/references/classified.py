"""A classifier's answers, made up."""

from __future__ import annotations

import numpy as np

from pellucid.statistics import Predictions, predictions


def made_up(n: int, k: int, seed: int, *, decimals: int = 2) -> Predictions:
    """Answers somewhat better than chance, with ties among the probabilities."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(k, size=n)
    table = generator.dirichlet(np.ones(k), size=n)
    table[np.arange(n), labels] += 0.4
    shares = table / table.sum(axis=1, keepdims=True)
    table = generator.multinomial(10**decimals, shares) / 10**decimals  # rounded, and still of sum 1
    return predictions(labels, table.argmax(axis=1), table, [f"class {c}" for c in range(k)])
