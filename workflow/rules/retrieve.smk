"""From a raw download (yours, a generated phantom, or one inside a package) and weights files to verified manifests."""


localrules:
    retrieve,
    weights,


rule retrieve:
    output:
        f"{WORK}/{{dataset}}/retrieve/{{key}}/raw.json",
    log:
        f"{WORK}/logs/retrieve/{{dataset}}/{{key}}.log",
    benchmark:
        f"{WORK}/benchmarks/retrieve/{{dataset}}/{{key}}.tsv"
    priority: 100  # what is wrong with the raw data is said first
    conda:
        "../../envs/data.yaml"
    threads: THREADS
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        key=knobs("retrieve"),
        named=named("retrieve"),
    message:
        "Finding and hashing the raw files of {wildcards.dataset}"
    shell:
        "python -m radprobe retrieve {params.named} > {log:q} 2>&1"


rule weights:
    input:
        needs("weights"),
    output:
        f"{WORK}/weights/{{backbone}}/{{key}}/weights.json",
    log:
        f"{WORK}/logs/weights/{{backbone}}/{{key}}.log",
    benchmark:
        f"{WORK}/benchmarks/weights/{{backbone}}/{{key}}.tsv"
    priority: 100
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory("weights"),
        runtime=growing(60),
    params:
        key=knobs("weights"),
        named=named("weights"),
    message:
        "Finding and verifying the weights of {wildcards.backbone}"
    shell:
        "python -m radprobe retrieve --backbone {params.named} > {log:q} 2>&1"
