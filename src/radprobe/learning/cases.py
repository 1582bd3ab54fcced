"""What is classified: films, or volumes as the mean of their slices; and what heads say of them, as a table."""

import numpy as np
import pandas as pd
import torch

from radprobe.artifacts import Index, Split


class Cases:
    """The rows of an Index grouped by volume; a film is a case of its own."""

    def __init__(self, index: Index):
        self.of_row, names = pd.factorize(index.table["volume_id"])
        self.first = np.unique(self.of_row, return_index=True)[1]
        self.ids, self.patients = names, index.table["patient_id"].to_numpy()[self.first]

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the cases that some rows belong to, sorted."""
        return np.unique(self.of_row[rows])

    def rows(self, cases: np.ndarray) -> list[np.ndarray]:
        """Return the rows of each of some cases, in order."""
        order = np.argsort(self.of_row, kind="stable")
        starts = np.searchsorted(self.of_row[order], [cases, cases + 1])
        return [order[start:stop] for start, stop in starts.T]

    def mean(self, features: np.ndarray) -> torch.Tensor:
        """Return the mean of features [n, ...] over the rows of each case (arXiv 2312.02366, 3D classification).

        Raises ValueError where they are of other rows than the Index has.
        """
        if len(features) != len(self.of_row):
            raise ValueError(f"{len(features)} rows of features for {len(self.of_row)} rows of the index")
        if len(self.ids) == len(self.of_row):
            return torch.from_numpy(features)
        shape = (len(self.ids), *features.shape[1:])
        total = torch.zeros(shape).index_add_(0, torch.from_numpy(self.of_row), torch.from_numpy(features).float())
        return total / torch.from_numpy(np.bincount(self.of_row)).view(-1, *[1] * (features.ndim - 1))

    def labels(self, index: Index, split: Split, exclusive: bool) -> torch.Tensor:
        """Return the labels [cases, classes of the split] (1, 0, NaN); `exclusive`: one class is true of each case."""
        return torch.from_numpy(split.targets(index, exclusive)[self.first])

    def table(
        self,
        cases: np.ndarray,
        protocol: str,
        part: str,
        classes: list[str],
        scores: torch.Tensor,
        targets: torch.Tensor,
        softmax: bool,
    ) -> pd.DataFrame:
        """Return scores and targets [len(cases), classes] as rows of Predictions. Raises ValueError on other shapes."""
        if not scores.shape == targets.shape == (len(cases), len(classes)):
            found = f"{tuple(scores.shape)} scores and {tuple(targets.shape)} targets"
            raise ValueError(f"{found} for {len(cases)} cases of {len(classes)} classes")
        ranked = ranking(scores, softmax)
        table = pd.DataFrame({"protocol": protocol, "part": part, "sample_id": self.ids[cases]})
        table["patient_id"] = self.patients[cases]
        for column, name in enumerate(classes):
            table[f"score:{name}"] = ranked[:, column].double().numpy()
            table[f"target:{name}"] = targets[:, column].double().numpy()
            if softmax:
                table[f"logit:{name}"] = scores[:, column].double().numpy()
        return table


def ranking(scores: torch.Tensor, softmax: bool) -> torch.Tensor:
    """Return scores; of logits of which one class is true the log softmax: alone they do not rank samples (D09)."""
    return scores.double().log_softmax(1) if softmax else scores


def permuted(patients: np.ndarray, seed: int) -> np.ndarray:
    """Return positions [n] that give each case the labels of another one, for cases of `patients` [n].

    Patients are put in a random order and their cases laid one after the other over the cases of the patients as they
    are. So labels of one patient stay together: they resemble each other, and would be exchangeable case by case only
    if they did not. With one case a patient it is a permutation of the cases. No patient keeps its own labels but by
    chance, as would one whose number of cases nobody shares, if only equal numbers were exchanged.
    """
    names, of_patient = np.unique(patients, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    place = np.argsort(order)  # of each patient in the random order
    given = np.argsort(place[of_patient], kind="stable")
    source = np.empty(len(patients), int)
    source[np.argsort(of_patient, kind="stable")] = given
    return source
