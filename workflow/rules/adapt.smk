"""Backbones that are trained with their head: every bias, LoRA, or end to end."""


rule adapt:
    input:
        prepare=dependency("prepare"),
        split=dependency("split"),
        weights=dependency("weights"),
    output:
        f"{RESULTS}/{{dataset}}/adapt/{{backbone}}/{{key}}/predictions.json",
        f"{RESULTS}/{{dataset}}/adapt/{{backbone}}/{{key}}/adapter.json",
    log:
        f"{WORK}/logs/adapt/{{dataset}}/{{backbone}}/{{key}}.log",
    benchmark:
        f"{WORK}/benchmarks/adapt/{{dataset}}/{{backbone}}/{{key}}.tsv"
    conda:
        "../../envs/models.yaml"
    threads: THREADS
    resources:
        mem_mb=memory,
        runtime=growing(1440),
        gpu=GPUS,
    params:
        named=named,
    message:
        "Training {wildcards.backbone} on {wildcards.dataset}"
    shell:
        "python -m radprobe adapt {params.named} > {log:q} 2>&1"
