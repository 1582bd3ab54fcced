"""What dvc.yaml calls: coarse targets over the graph, one dataset at a time; a dataset that is not here has none."""


def made(dataset, *verbs):
    """The manifests of some verbs of a dataset (None: of weights)."""
    return [
        manifest
        for one in STEPS.values()
        if (one.dataset, one.verb) in {(dataset, verb) for verb in verbs}
        for manifest in one.outputs
    ]


RETRIEVED = [manifest for one in STEPS.values() if one.verb in ("retrieve", "weights") for manifest in one.outputs]


localrules:
    retrieved,


rule retrieved:
    input:
        RETRIEVED,
    output:
        f"{WORK}/retrieved.json",
    conda:
        "../../envs/data.yaml"
    params:
        datasets=list(STUDY.params.datasets),  # those of which nothing is here, too
    message:
        "Writing down which raw files and weights are here"
    shell:
        "python -m radprobe retrieved > {output}"


for each in STUDY.params.datasets:

    rule:
        name:
            f"embeddings_{each}"
        input:
            made(each, "retrieve", "prepare", "split", "embed"),
        localrule: True

    rule:
        name:
            f"results_{each}"
        input:
            made(each, "retrieve", "prepare", "split", "embed", "probe", "segment", "adapt", "score", "compare"),
        localrule: True
