"""Weights of backbones, found or fetched, and verified."""


localrules:
    weights,


rule weights:
    input:
        adapted=dependency("weights"),
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
        mem_mb=memory,
        runtime=growing(60),
    params:
        named=named,
    message:
        "Finding and verifying the weights of {wildcards.backbone}"
    shell:
        "python -m radprobe weights {params.named} > {log:q} 2>&1"
