"""Predictions that were made elsewhere, checked and brought to the form of our own."""


rule external:
    input:
        prepare=dependency("prepare"),
        split=dependency("split"),
        # its content is in the key: a new time of the same file re-runs nothing
        files=ancient(external_files),
    output:
        f"{RESULTS}/{{dataset}}/external/{{backbone}}/{{key}}/predictions.json",
    log:
        f"{WORK}/logs/external/{{dataset}}/{{backbone}}/{{key}}.log",
    benchmark:
        f"{WORK}/benchmarks/external/{{dataset}}/{{backbone}}/{{key}}.tsv"
    priority: 100  # what is wrong with the file is said first
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        named=named,
    message:
        "Reading {wildcards.backbone}'s predictions of {wildcards.dataset}"
    shell:
        "python -m radprobe external {params.named} > {log:q} 2>&1"
