"""The contracts between stages: what lies on disk between one verb and the next.

Each artifact is a manifest `<kind>.json`, written last, beside the data files whose bytes and SHA-256 it lists. Loading
checks them; a manifest whose files are missing or changed is set aside, so that the next run makes the artifact again.
"""

from radprobe.artifacts.adapter import Adapter
from radprobe.artifacts.comparison import COMPARISON_SCHEMA, ROWS_SCHEMA, VARIANTS_SCHEMA, Comparison
from radprobe.artifacts.embeddings import Embeddings, Shards
from radprobe.artifacts.few_shot import FewShotScores
from radprobe.artifacts.index import INDEX_SCHEMA, LABEL, META, Index
from radprobe.artifacts.label_maps import LabelMaps
from radprobe.artifacts.leaks import LeakCertificate
from radprobe.artifacts.pixels import Pixels
from radprobe.artifacts.predictions import Predictions, again
from radprobe.artifacts.raw import RawManifest
from radprobe.artifacts.scores import SCORES_SCHEMA, Scores
from radprobe.artifacts.split import PARTS, SPLIT_SCHEMA, Split
from radprobe.artifacts.truth import Truth
from radprobe.artifacts.weights import Weights

__all__ = [
    "COMPARISON_SCHEMA",
    "INDEX_SCHEMA",
    "LABEL",
    "META",
    "PARTS",
    "ROWS_SCHEMA",
    "SCORES_SCHEMA",
    "SPLIT_SCHEMA",
    "VARIANTS_SCHEMA",
    "Adapter",
    "Comparison",
    "Embeddings",
    "FewShotScores",
    "Index",
    "LabelMaps",
    "LeakCertificate",
    "Pixels",
    "Predictions",
    "RawManifest",
    "Scores",
    "Shards",
    "Split",
    "Truth",
    "Weights",
    "again",
]
