"""Two hundred images of a hundred made-up patients with attributes: some labels uncertain, some attributes unknown."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NAMES = ["Edema", "Mass", "Nodule"]
CUTS = {"Edema": 0.5, "Mass": 0.4, "Nodule": 0.7}


class Cohort(NamedTuple):
    scores: NDArray[Any]  # [N, 3]
    labels: NDArray[Any]  # [N, 3]
    patients: list[str]
    columns: dict[str, list[Any]]

    def rows(self, rows: Any) -> "Cohort":
        picked = np.arange(len(self.patients))[rows]
        columns = {name: [values[row] for row in picked] for name, values in self.columns.items()}
        return Cohort(self.scores[picked], self.labels[picked], [self.patients[row] for row in picked], columns)


def cohort(seed: int = 0, patients: int = 100, uncertain: bool = True) -> Cohort:
    generator = np.random.default_rng(seed)
    count = 2 * patients
    labels = generator.choice([0.0, 1.0, 2.0] if uncertain else [0.0, 1.0], (count, 3))
    sex = np.repeat(generator.choice(["F", "M"], patients), 2)
    # The network knows less of women, and calls them positive more often.
    skill = np.where(sex == "F", 0.7, 1.6)[:, None]
    shift = np.where(sex == "F", 0.4, 0.0)[:, None]
    scores = 1 / (1 + np.exp(-skill * (labels == 1) - shift - generator.normal(size=(count, 3))))
    columns = {
        "sex": sex.tolist(),
        "age": np.repeat(generator.uniform(0, 100, patients).round(1), 2).tolist(),
        "view": generator.choice(["PA", "AP", ""], count, p=[0.5, 0.4, 0.1]).tolist(),
    }
    return Cohort(scores, labels, [f"patient {number // 2}" for number in range(count)], columns)
