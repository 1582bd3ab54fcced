"""embed: the frozen features of one dataset by one backbone, computed once; everything frozen reads them."""

from radprobe import artifacts, console
from radprobe.artifacts import Embeddings, Index, Manifest, Pixels, Weights
from radprobe.imaging import intensity
from radprobe.learning import features, metadata
from radprobe.learning.device import device
from radprobe.models import backbones
from radprobe.study import METADATA, Step, Study


def run(study: Study, step: Step) -> None:
    """Read Index, Pixels and Weights; write the shards of Embeddings and, last, their manifest."""
    source, knobs, params = step.need("prepare").folder, step.knobs, study.params.embed
    index = Index.load(source)
    if step.backbone == METADATA:
        features.write_vectors(metadata.features(index.table, knobs["columns"]), step.folder, step.spec)
        return
    pixels = Pixels.load(source)
    weights = Weights.load(step.need("weights").folder)
    entry = study.backbone(step.backbone)
    encoder = backbones.build(entry, weights, knobs["size"], knobs["blocks"], knobs["dense"])
    inputs = Manifest.read(source / "pixels.json").files["images.npy"]["sha256"]
    job = features.Job(
        images=pixels.images,
        ranges=intensity.ranges(pixels.images, index.table["volume_id"], study.dataset(step.dataset).intensity),
        names=index.table["sample_id"].tolist(),
        identity=[step.spec, inputs, weights.sha256],
        folder=step.folder,
        shard_rows=params.shard_rows,
        batch_size=params.batch_size,
        precision=knobs["precision"],
        max_dense_cache_gb=params.max_dense_cache_gb,
    )
    facts, names = features.encode(encoder, job, device(study.params.device))
    artifacts.seal(step.folder, Embeddings.KIND, step.spec, facts, names)
    console.say(f"{step.dataset} {step.backbone}: {facts['n']} images, {facts['images_per_second']:.1f}/s")
