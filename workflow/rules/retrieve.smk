"""From a raw download (yours, a generated phantom, or one inside a package) and weights files to verified manifests."""


localrules:
    retrieve,
    weights,


rule retrieve:
    input:
        raw_files,
    output:
        f"{WORK}/{{dataset}}/retrieve/{{spec}}/raw.json",
    params:
        spec=knobs("retrieve"),
        named=named("retrieve"),
    threads: 1
    priority: 100  # what is wrong with the raw data is said first
    resources:
        mem_mb=2000,
        runtime=240,
    conda:
        "../../envs/data.yaml"
    log:
        f"{WORK}/logs/retrieve/{{dataset}}/{{spec}}.log",
    benchmark:
        f"{WORK}/benchmarks/retrieve/{{dataset}}/{{spec}}.tsv"
    message:
        "Finding and hashing the raw files of {wildcards.dataset}"
    shell:
        "{RADPROBE} retrieve {params.named} --params {PARAMS} > {log} 2>&1"


rule weights:
    input:
        local_weights,
    output:
        f"{WORK}/weights/{{backbone}}/{{spec}}/weights.json",
    params:
        spec=knobs("weights"),
        named=named("weights"),
    threads: 1
    priority: 100
    resources:
        mem_mb=4000,
        runtime=60,
    conda:
        "../../envs/models.yaml"
    log:
        f"{WORK}/logs/weights/{{backbone}}/{{spec}}.log",
    benchmark:
        f"{WORK}/benchmarks/weights/{{backbone}}/{{spec}}.tsv"
    message:
        "Finding and verifying the weights of {wildcards.backbone}"
    shell:
        "{RADPROBE} retrieve --backbone {params.named} --params {PARAMS} > {log} 2>&1"
