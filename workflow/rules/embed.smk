"""Frozen features, once per dataset and backbone."""


rule embed:
    input:
        prepare=dependency("prepare"),
        weights=dependency("weights"),
    output:
        f"{WORK}/{{dataset}}/embed/{{backbone}}/{{key}}/embeddings.json",
    log:
        f"{WORK}/logs/embed/{{dataset}}/{{backbone}}/{{key}}.log",
    benchmark:
        f"{WORK}/benchmarks/embed/{{dataset}}/{{backbone}}/{{key}}.tsv"
    conda:
        "../../envs/models.yaml"
    threads: THREADS
    resources:
        mem_mb=memory,
        runtime=growing(480),
        gpu=GPUS,
    params:
        named=named,
    message:
        "Embedding {wildcards.dataset} with {wildcards.backbone}"
    shell:
        "python -m radprobe embed {params.named} > {log:q} 2>&1"
