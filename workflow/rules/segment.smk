"""Decoders on frozen dense maps."""


rule segment:
    input:
        prepare=dependency("prepare"),
        split=dependency("split"),
        embed=dependency("embed"),
        weights=dependency("weights"),
    output:
        f"{RESULTS}/{{dataset}}/segment/{{backbone}}/{{key}}/predictions.json",
    log:
        f"{WORK}/logs/segment/{{dataset}}/{{backbone}}/{{key}}.log",
    benchmark:
        f"{WORK}/benchmarks/segment/{{dataset}}/{{backbone}}/{{key}}.tsv"
    conda:
        "../../envs/models.yaml"
    threads: THREADS
    resources:
        mem_mb=growing(8000),
        runtime=growing(480),
        gpu=GPUS,
    params:
        named=named,
    message:
        "Decoding {wildcards.dataset} from {wildcards.backbone}"
    shell:
        "python -m radprobe segment {params.named} > {log:q} 2>&1"
