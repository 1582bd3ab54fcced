"""Decoders on frozen dense maps."""


rule segment:
    input:
        needs("segment"),
    output:
        f"{RESULTS}/{{dataset}}/segment/{{backbone}}/{{spec}}/predictions.json",
    params:
        spec=knobs("segment"),
        named=named("segment"),
    threads: THREADS
    resources:
        mem_mb=8000,
        runtime=480,
        gpu=GPUS,
    conda:
        "../../envs/models.yaml"
    log:
        f"{WORK}/logs/segment/{{dataset}}/{{backbone}}/{{spec}}.log",
    benchmark:
        f"{WORK}/benchmarks/segment/{{dataset}}/{{backbone}}/{{spec}}.tsv"
    message:
        "Decoding {wildcards.dataset} from {wildcards.backbone}"
    shell:
        "{RADPROBE} segment {params.named} --params {PARAMS} > {log} 2>&1"
