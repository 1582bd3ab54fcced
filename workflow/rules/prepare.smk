"""Images verified, decoded once and packed; truth on the original grid."""


rule prepare:
    input:
        retrieve=dependency("retrieve"),
    output:
        f"{WORK}/{{dataset}}/prepare/{{key}}/index.json",
        f"{WORK}/{{dataset}}/prepare/{{key}}/pixels.json",
        f"{WORK}/{{dataset}}/prepare/{{key}}/truth.json",
    log:
        f"{WORK}/logs/prepare/{{dataset}}/{{key}}.log",
    benchmark:
        f"{WORK}/benchmarks/prepare/{{dataset}}/{{key}}.tsv"
    conda:
        "../../envs/data.yaml"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
    params:
        named=named,
    message:
        "Verifying and decoding {wildcards.dataset}"
    shell:
        "python -m radprobe prepare {params.named} > {log:q} 2>&1"
