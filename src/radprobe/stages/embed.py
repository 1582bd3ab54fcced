"""embed: the frozen features of one dataset by one backbone, computed once; everything frozen reads them."""

from radprobe import console
from radprobe.artifacts import Embeddings, Index, Pixels, Weights
from radprobe.learning import features, metadata
from radprobe.learning.device import device
from radprobe.manifests import Manifest, seal
from radprobe.names import METADATA
from radprobe.study import Step, Study


def run(study: Study, step: Step) -> None:
    """Read Index, Pixels and Weights; write the shards of Embeddings and, last, their manifest."""
    prepared, knobs, params = step.dependency("prepare").folder, step.knobs, study.params.embed
    index = Index.load(prepared)
    if step.backbone == METADATA:
        features.write_vectors(metadata.features(index.table, knobs["columns"]), step.place)
        return
    weights = Weights.load(step.dependency("weights").folder)
    inputs = Manifest.read(prepared / "pixels.json").files["images.npy"]["sha256"]
    identity = [step.key, inputs, weights.sha256]
    entry, pixels, where = study.backbone(step.backbone), Pixels.load(prepared), device(study.params.device)
    scale = study.dataset(step.dataset).intensity
    source = features.source(entry, weights, index, pixels, scale, knobs, params.batch_size, where)
    store = features.Store(step.folder, params.shard_rows, identity, params.max_dense_cache_gb)
    facts, names = features.encode(source, store)
    seal(step.place, Embeddings.KIND, facts, names)
    console.say(f"{step.dataset} {step.backbone}: {facts['n']} images, {facts['images_per_second']:.1f}/s")
