"""Frozen features, once per dataset and backbone."""


rule embed:
    input:
        needs("embed"),
    output:
        f"{WORK}/{{dataset}}/embed/{{backbone}}/{{spec}}/embeddings.json",
    params:
        spec=knobs("embed"),
        named=named("embed"),
    threads: THREADS
    resources:
        mem_mb=8000,
        runtime=480,
        gpu=GPUS,
    conda:
        "../../envs/models.yaml"
    log:
        f"{WORK}/logs/embed/{{dataset}}/{{backbone}}/{{spec}}.log",
    benchmark:
        f"{WORK}/benchmarks/embed/{{dataset}}/{{backbone}}/{{spec}}.tsv"
    message:
        "Embedding {wildcards.dataset} with {wildcards.backbone}"
    shell:
        "{RADPROBE} embed {params.named} --params {PARAMS} > {log} 2>&1"
