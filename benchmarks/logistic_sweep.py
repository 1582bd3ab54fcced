"""The logistic sweep against a loop of scikit-learn's LogisticRegression, cold and with its defaults.

    python benchmarks/logistic_sweep.py [values] [classes]

C is of features of length 1, as in params: scikit-learn gets the same standardised features, divided by the square root
of their number.

Features: 1,000 NIH films embedded by tf_efficientnet_lite0 (RADPROBE_REAL_DATA, RADPROBE_REAL_WEIGHTS), else generated
ones of 384 columns; labels: the findings of those films with at least 20 positives, else noisy directions. Both fit the
same classes on the same 700 standardised rows, with one thread, in turns in one process. The rest of the rows is for
the AUROC. scikit-learn's defaults (100 iterations, tol 1e-4) do not converge at weak regularisation, so the AUROC of
both is also held against scikit-learn converged (newton-cholesky, tol 1e-10) on every fourth value of C.
"""

import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from radprobe.learning import logistic
from radprobe.learning.device import threads

FILMS, TRAIN, LOW, HIGH, TURNS, EVERY = 1000, 700, 1e-2, 1e4, 3, 4


def real() -> tuple[np.ndarray, np.ndarray] | None:
    """Return features [n, D] and labels [n, classes] of real films, None where they are not at hand."""
    raw, weights = (os.environ.get(name) for name in ("RADPROBE_REAL_DATA", "RADPROBE_REAL_WEIGHTS"))
    if not raw or not weights:
        return None
    from PIL import Image

    from radprobe import catalog, datasets
    from radprobe.artifacts import Weights
    from radprobe.models import backbones

    entry = catalog.datasets()["nih_chestxray14"]
    layout = datasets.locate(entry, Path(raw) / "nih_chestxray14")
    index = datasets.loader(entry).samples(layout, entry, allow_missing=True)
    films = [layout.root / image for image in index.table["image"][:FILMS]]
    images = np.stack([np.asarray(Image.open(film).convert("L").resize((224, 224))) for film in films])
    file = Path(weights) / "tf_efficientnet_lite0.in1k.safetensors"
    encoder = backbones.build(catalog.backbones()["tf_efficientnet_lite0"], Weights(file, None, "local"), 224)
    with torch.inference_mode():
        found = [encoder(torch.from_numpy(batch)).cls[:, 0] for batch in np.array_split(images, 40)]
    return torch.cat(found).numpy(), index.labels()[: len(films)]


def generated() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(FILMS, 384)) * np.arange(1, 385) ** -0.7
    x = (x @ np.linalg.qr(generator.normal(size=(384, 384)))[0]).astype(np.float32)
    logits = StandardScaler().fit_transform(x) @ generator.normal(size=(384, 8)) / 20
    return x, (logits + generator.logistic(size=logits.shape) > 1).astype(float)


def ours(x: np.ndarray, y: np.ndarray, query: np.ndarray, values: np.ndarray) -> np.ndarray:
    sweep = logistic.fit(torch.from_numpy(x), torch.from_numpy(y), values.tolist(), False)
    return sweep.logits(torch.from_numpy(query)).numpy()


def scaled(x: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardise both by x, and make samples of length 1 on average."""
    scaler, length = StandardScaler().fit(x), np.sqrt(x.shape[1])
    return scaler.transform(x) / length, scaler.transform(query) / length


def theirs(x: np.ndarray, y: np.ndarray, query: np.ndarray, values: np.ndarray) -> np.ndarray:
    x, query = scaled(x, query)
    heads = [[LogisticRegression(C=c).fit(x, target).decision_function(query) for target in y.T] for c in values]
    return np.array(heads).transpose(0, 2, 1)


def converged(x: np.ndarray, y: np.ndarray, query: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Scikit-learn's exact answer, found in the span of the samples, where the optimum lies."""
    x, query = scaled(x.astype(float), query.astype(float))
    axes = np.linalg.svd(x, full_matrices=False)[2].T
    how = {"solver": "newton-cholesky", "tol": 1e-10, "max_iter": 300}
    fits = [[LogisticRegression(C=c, **how).fit(x @ axes, target) for target in y.T] for c in values]
    return np.array([[fit.decision_function(query @ axes) for fit in row] for row in fits]).transpose(0, 2, 1)


def aurocs(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array(
        [[roc_auc_score(target, each) for target, each in zip(y.T, rows.T, strict=True)] for rows in scores]
    )


def main(values: str = "9", classes: str = "14") -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    found = real()
    order = np.random.default_rng(0).permutation(FILMS)
    x, y = (each[order] for each in found or generated())
    enough = ((y[:TRAIN] == 1).sum(0) >= 20) & ((y[TRAIN:] == 1).sum(0) >= 5)
    y, cs = y[:, enough][:, : int(classes)], np.geomspace(LOW, HIGH, int(values))
    fits, scores, seconds = {"ours": ours, "scikit-learn": theirs}, {}, np.empty((TURNS, 2))
    with threads(1):
        for turn in range(TURNS):
            for place, (name, fit) in enumerate(fits.items()):
                begun = time.perf_counter()
                scores[name] = fit(x[:TRAIN], y[:TRAIN], x[TRAIN:], cs)
                seconds[turn, place] = time.perf_counter() - begun
            print("ours {:.2f} s, scikit-learn {:.2f} s".format(*seconds[turn]))
        exact = aurocs(converged(x[:TRAIN], y[:TRAIN], x[TRAIN:], cs[::EVERY]), y[TRAIN:])
    found_, default = (aurocs(each, y[TRAIN:]) for each in scores.values())
    kind = "real" if found else "generated"
    print(f"{kind} features {x[:TRAIN].shape}, {y.shape[1]} classes, {len(cs)} values of C, defaults of scikit-learn")
    gaps = {"from its defaults": np.abs(found_ - default), "from it converged": np.abs(found_[::EVERY] - exact)}
    gaps["of its defaults from it converged"] = np.abs(default[::EVERY] - exact)
    for what, gap in gaps.items():
        print(f"AUROC, largest difference {what}: {gap.max():.4f}")
    best = np.abs(found_.mean(1).max() - default.mean(1).max())
    print(f"AUROC, best mean: ours {found_.mean(1).max():.4f}, difference {best:.4f}")
    print(f"ratio logistic_sweep {np.median(seconds[:, 1] / seconds[:, 0]):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
