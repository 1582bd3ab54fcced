"""Parts, and the certificate that nothing leaks between them."""


rule split:
    input:
        needs("split"),
    output:
        f"{WORK}/{{dataset}}/split/{{spec}}/split.json",
        f"{WORK}/{{dataset}}/split/{{spec}}/leaks.json",
    params:
        spec=knobs("split"),
        named=named("split"),
    threads: THREADS
    resources:
        mem_mb=4000,
        runtime=60,
    conda:
        "../../envs/data.yaml"
    log:
        f"{WORK}/logs/split/{{dataset}}/{{spec}}.log",
    benchmark:
        f"{WORK}/benchmarks/split/{{dataset}}/{{spec}}.tsv"
    message:
        "Splitting {wildcards.dataset} and looking for leaks"
    shell:
        "{RADPROBE} split {params.named} --params {PARAMS} > {log} 2>&1"
