"""Cheap heads on frozen features: all of a dataset and backbone in one job."""


rule probe:
    input:
        needs("probe"),
    output:
        f"{RESULTS}/{{dataset}}/probe/{{backbone}}/{{spec}}/predictions.json",
    params:
        spec=knobs("probe"),
        named=named("probe"),
    threads: THREADS
    resources:
        mem_mb=8000,
        runtime=240,
    conda:
        "../../envs/models.yaml"
    log:
        f"{WORK}/logs/probe/{{dataset}}/{{backbone}}/{{spec}}.log",
    benchmark:
        f"{WORK}/benchmarks/probe/{{dataset}}/{{backbone}}/{{spec}}.tsv"
    message:
        "Probing {wildcards.backbone} on {wildcards.dataset}"
    shell:
        "{RADPROBE} probe {params.named} --params {PARAMS} > {log} 2>&1"
