"""Decoders on frozen dense maps."""


rule segment:
    input:
        prepare=dependency("prepare"),
        split=dependency("split"),
        embed=dependency("embed"),
        weights=dependency("weights"),
    output:
        f"{RESULTS}/{{dataset}}/segment/{{backbone}}/{{spec}}/predictions.json",
    log:
        f"{WORK}/logs/segment/{{dataset}}/{{backbone}}/{{spec}}.log",
    benchmark:
        f"{WORK}/benchmarks/segment/{{dataset}}/{{backbone}}/{{spec}}.tsv"
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
