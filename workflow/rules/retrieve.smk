"""Raw downloads, found or generated and verified by their hashes."""


localrules:
    retrieve,


rule retrieve:
    output:
        f"{WORK}/{{dataset}}/retrieve/{{key}}/raw.json",
        f"{WORK}/{{dataset}}/retrieve/{{key}}/index.json",
    log:
        f"{WORK}/logs/retrieve/{{dataset}}/{{key}}.log",
    benchmark:
        f"{WORK}/benchmarks/retrieve/{{dataset}}/{{key}}.tsv"
    priority: 100  # what is wrong with the raw data is said first
    conda:
        "../../envs/data.yaml"
    threads: THREADS
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        named=named,
    message:
        "Finding and hashing the raw files of {wildcards.dataset}"
    shell:
        "python -m radprobe retrieve {params.named} > {log:q} 2>&1"
