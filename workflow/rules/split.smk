"""Parts, and the certificate that nothing leaks between them."""


rule split:
    input:
        prepare=dependency("prepare"),
    output:
        f"{WORK}/{{dataset}}/split/{{key}}/split.json",
        f"{WORK}/{{dataset}}/split/{{key}}/leaks.json",
    log:
        f"{WORK}/logs/split/{{dataset}}/{{key}}.log",
    benchmark:
        f"{WORK}/benchmarks/split/{{dataset}}/{{key}}.tsv"
    conda:
        "../../envs/models.yaml"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        named=named,
    message:
        "Splitting {wildcards.dataset} and looking for leaks"
    shell:
        "python -m radprobe split {params.named} > {log:q} 2>&1"
