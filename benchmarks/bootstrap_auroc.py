"""The patient-clustered bootstrap of AUROC against a loop over scikit-learn's roc_auc_score, in one process.

2,000 resamples of NIH's test part in size: 25,596 images of about 2,800 patients, 14 labels. The loop is timed on a few
resamples and its time is extrapolated, since all of them take minutes; values of these few must be equal to 1e-9.
"""

import argparse
import resource
import time

import numpy as np
import threadpoolctl
from sklearn.metrics import roc_auc_score

from radprobe.metrics.classification import Classifier
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import counts, resampled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=25_596)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--of-the-loop", type=int, default=8, help="resamples that scikit-learn computes")
    wanted = parser.parse_args()
    generator, classes = np.random.default_rng(0), 14
    patients = np.sort(generator.integers(0, wanted.images // 9, wanted.images)).astype(str)
    targets = (generator.random((wanted.images, classes)) < 0.06).astype(float)
    scores = generator.normal(size=targets.shape).astype(np.float32) + targets
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with threadpoolctl.threadpool_limits(1):
        begun = time.perf_counter()
        made = Classifier(scores, targets, patients)
        found = resampled(made.areas, made.patients, Bootstrap(wanted.resamples, 0, 10)).drawn[..., 0]
        ours = time.perf_counter() - begun
        gigabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
        loop, weights = [], counts(made.patients, wanted.resamples, 0)
        for resample in range(wanted.of_the_loop):
            begun = time.perf_counter()
            rows = np.repeat(np.arange(wanted.images), weights[made.units, resample])
            theirs = [roc_auc_score(targets[rows, c], scores[rows, c]) for c in range(classes)]
            loop.append(time.perf_counter() - begun)
            np.testing.assert_allclose(found[resample], theirs, atol=1e-9)
    whole = np.median(loop) * wanted.resamples
    print(f"{wanted.resamples} resamples of {wanted.images:,} images x {classes} labels, AUROC and AUPRC, 1 thread:")
    print(f"ours {ours:.1f} s, {gigabytes:.2f} GB more; scikit-learn, AUROC alone, {whole:.0f} s (extrapolated)")
    print(f"ratio bootstrap_auroc {whole / ours:.1f}")


if __name__ == "__main__":
    main()
