"""embed: the frozen features of one dataset by one backbone, computed once; everything frozen reads them."""

from radprobe import console
from radprobe.artifacts import Embeddings, Index, Pixels, Weights
from radprobe.jobs import Inputs, Runtime
from radprobe.jobs.embed import EmbedJob
from radprobe.learning import features, metadata
from radprobe.learning.device import device
from radprobe.manifests import Manifest, seal


def run(job: EmbedJob, inputs: Inputs, runtime: Runtime) -> None:
    """Read Index, Pixels and Weights; write the shards of Embeddings and, last, their manifest."""
    prepared, place = inputs.folder("prepare"), inputs.place
    index = Index.load(prepared)
    if job.columns is not None:
        features.write_vectors(metadata.features(index.table, job.columns), place)
    if job.encoding is None:
        return
    weights = Weights.load(inputs.folder("weights"))
    images = Manifest.read(prepared / "pixels.json").files["images.npy"]["sha256"]
    source = features.source(
        job.encoding, weights, index, Pixels.load(prepared), runtime.batch_size, device(runtime.device)
    )
    identity = [place.key, images, weights.sha256]
    store = features.Store(place.folder, runtime.shard_rows, identity, runtime.max_dense_cache_gb)
    facts, names = features.encode(source, store)
    seal(place, Embeddings.KIND, facts, names)
    console.say(f"{job.dataset} {job.backbone}: {facts['n']} images, {facts['images_per_second']:.1f}/s")
