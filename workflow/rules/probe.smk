"""Cheap heads on frozen features: all of a dataset and backbone in one job."""


rule probe:
    input:
        prepare=dependency("prepare"),
        split=dependency("split"),
        embed=dependency("embed"),
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
        named=named,
    message:
        "Probing {wildcards.backbone} on {wildcards.dataset}"
    shell:
        "python -m radprobe probe {params.named} > {log:q} 2>&1"
