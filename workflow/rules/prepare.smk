"""Images verified, decoded once and packed; truth on the original grid."""


rule prepare:
    input:
        needs("prepare"),
    output:
        f"{WORK}/{{dataset}}/prepare/{{spec}}/index.json",
        f"{WORK}/{{dataset}}/prepare/{{spec}}/pixels.json",
    params:
        spec=knobs("prepare"),
        named=named("prepare"),
    threads: THREADS
    resources:
        mem_mb=4000,
        runtime=480,
    conda:
        "../../envs/data.yaml"
    log:
        f"{WORK}/logs/prepare/{{dataset}}/{{spec}}.log",
    benchmark:
        f"{WORK}/benchmarks/prepare/{{dataset}}/{{spec}}.tsv"
    message:
        "Verifying and decoding {wildcards.dataset}"
    shell:
        "{RADPROBE} prepare {params.named} --params {PARAMS} > {log} 2>&1"
