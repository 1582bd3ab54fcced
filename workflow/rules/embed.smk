"""Frozen features, once per dataset and backbone."""


rule embed:
    input:
        needs("embed"),
    output:
        f"{WORK}/{{dataset}}/embed/{{backbone}}/{{spec}}/embeddings.json",
    log:
        f"{WORK}/logs/embed/{{dataset}}/{{backbone}}/{{spec}}.log",
    benchmark:
        f"{WORK}/benchmarks/embed/{{dataset}}/{{backbone}}/{{spec}}.tsv"
    conda:
        "../../envs/models.yaml"
    threads: THREADS
    resources:
        mem_mb=memory("embed"),
        runtime=growing(480),
        gpu=GPUS,
    params:
        spec=knobs("embed"),
        named=named("embed"),
    message:
        "Embedding {wildcards.dataset} with {wildcards.backbone}"
    shell:
        "python -m radprobe embed {params.named} > {log:q} 2>&1"
