#!/usr/bin/env bash
# Made by `make envs`. Of a pin file Snakemake installs the conda packages alone: here come those of pip. After the yaml
# itself they are all there, and pip does nothing. Snakemake runs a copy of this; the workflow sets RADPROBE_SOURCE.
set -euo pipefail
sed -n 's/^      - //p' "$RADPROBE_SOURCE/../envs/models.yaml" | python -m pip install --no-input -r /dev/stdin
