"""What the tests of several phantoms share."""

import numpy as np

from radprobe.imaging import reading, resize


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def separability(index, root, name, side=24):
    """Return the AUROC of class `name` by a ridge on thumbnails, fitted on half of the patients, on the other half."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import roc_auc_score

    table = index.table
    y = index.labels()[:, index.classes.index(name)]
    images = (reading.read_grey(root / image) for image in table["image"])
    x = np.stack([resize.resize_image(image, side).astype(float) for image in images]).reshape(len(table), -1)
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    people = sorted(set(table["patient_id"]))
    fitted = (table["patient_id"].isin(people[::2]) & np.isfinite(y)).to_numpy()
    held = (~table["patient_id"].isin(people[::2]) & np.isfinite(y)).to_numpy()
    model = RidgeClassifier(alpha=100).fit(x[fitted], y[fitted])
    return roc_auc_score(y[held], model.decision_function(x[held]))
