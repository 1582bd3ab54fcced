"""Cheap heads on frozen features: all of a dataset and backbone in one job."""


rule probe:
    input:
        needs("probe"),
    output:
        f"{RESULTS}/{{dataset}}/probe/{{backbone}}/{{key}}/predictions.json",
    log:
        f"{WORK}/logs/probe/{{dataset}}/{{backbone}}/{{key}}.log",
    benchmark:
        f"{WORK}/benchmarks/probe/{{dataset}}/{{backbone}}/{{key}}.tsv"
    conda:
        "../../envs/models.yaml"
    threads: THREADS
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        key=knobs("probe"),
        named=named("probe"),
    message:
        "Probing {wildcards.backbone} on {wildcards.dataset}"
    shell:
        "python -m radprobe probe {params.named} > {log:q} 2>&1"
