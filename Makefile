# Everything below makes .venv first if it is not there. A fresh machine needs Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
CORES ?= 2
export HF_HUB_DISABLE_TELEMETRY = 1
export NO_MKDOCS_2_WARNING = 1   # mkdocs-material says so in every build

RAW ?= $(RADPROBE_RAW)
WEIGHTS ?= $(RADPROBE_WEIGHTS)
PILOT = $(if $(LIMIT),--config limit=$(LIMIT))   # make real LIMIT=120 ...: on so many patients of each benchmark

.PHONY: setup demo phantoms study stage rescore real volumes test test-slow test-full test-slurm benchmarks lint docs reference pictures lock schema datasets-table backbones-table audit-page reliability golden audit envs pins clean retrieved ordered pixels

setup: .venv/ready

.venv/ready: envs/requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "radprobe needs Python 3.11 or newer: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -r envs/requirements.lock
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

demo: setup            ## the main job, on data that need no download; open demo/reports/explorer.html
	$(BIN)/snakemake --cores $(CORES) --profile workflow/profiles/demo
	@echo "Open demo/reports/explorer.html (the answer) and demo/reports/report.html (run times, provenance)."

phantoms: setup        ## all eleven benchmarks, generated, from raw files to scores
	$(BIN)/snakemake --cores $(CORES) --profile workflow/profiles/phantoms
	@echo "Open phantoms/reports/explorer.html."

study: setup           ## the study of params.yaml
	$(BIN)/snakemake --cores $(CORES)

stage: ordered         # what dvc.yaml calls: one target of the graph, here or by the profile of RADPROBE_PROFILE
	mkdir -p $(OUTS)
	$(BIN)/snakemake --cores all $(if $(RADPROBE_PROFILE),--profile $(RADPROBE_PROFILE)) $(TARGET)

VERSIONED = PYTHONPATH=src $(BIN)/python workflow/versioned.py

pixels:                # what dvc.yaml calls for datasets under dvc.pixels
	$(VERSIONED) lay $(DATASET)

retrieved: ordered     # what dvc.yaml calls first; a failed download or dataset stops its own stages, and no others
	mkdir -p work/weights
	-$(BIN)/snakemake --cores all retrieved
	PYTHONPATH=src $(BIN)/python -m radprobe retrieve --found > work/retrieved.json.partial
	mv work/retrieved.json.partial work/retrieved.json

ordered:               # what DVC brought is in its place and in order, though its times are in none
	$(VERSIONED) bring
	$(VERSIONED) ordered || { $(BIN)/snakemake --cores 1 --touch versioned && $(VERSIONED) order; }

rescore: setup ordered ## after `dvc pull` in a new clone: all scores again from what was pulled, with no image and no GPU
	$(BIN)/snakemake --cores $(CORES) --forcerun probe score compare

real: setup            ## real films on a laptop: make real RAW=<raw downloads> WEIGHTS=<weights>
	RADPROBE_RAW="$(RAW)" RADPROBE_WEIGHTS="$(WEIGHTS)" $(BIN)/snakemake --cores $(CORES) --profile workflow/profiles/real $(PILOT)
	@echo "Open real/reports/explorer.html (the answer) and real/reports/report.html (run times, provenance)."

volumes: setup         ## real volumes on a laptop: make volumes RAW=<raw downloads> WEIGHTS=<weights>
	RADPROBE_RAW="$(RAW)" RADPROBE_WEIGHTS="$(WEIGHTS)" $(BIN)/snakemake --cores $(CORES) --profile workflow/profiles/volumes $(PILOT)
	@echo "Open volumes/reports/explorer.html."

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
ON_EVERY_CORE = -n $(CORES) --dist loadfile --durations=20

test: setup            ## the tests of seconds: nearly all; those that need real data run when RADPROBE_REAL_DATA is set
	$(PYTEST) $(ON_EVERY_CORE) -m "not slow and not full and not slurm"

test-slow: setup       ## whole workflows, kills, every backbone
	$(PYTEST) $(ON_EVERY_CORE) -m "slow and not full and not slurm"

test-full: setup       ## tests of a minute and more
	$(PYTEST) $(ON_EVERY_CORE) -m full

test-slurm: setup      ## the workflow on a real Slurm on loopback; as root, who installs it with apt
	$(PYTEST) -m slurm tests/slurm $(if $(ONLY),-k $(ONLY))

benchmarks: demo       ## what benchmarks/ measures, on a machine that does nothing else; each ends in its ratios
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint --configfile workflow/profiles/demo/params.yaml

docs: setup            ## the site, into site/; a warning or a broken link fails
	$(BIN)/mkdocs build --strict --quiet
	@echo "Open site/index.html, or type $(BIN)/mkdocs serve, which has the search too."

reference: setup       ## docs/reference: params, command line and artifacts, from the code
	$(BIN)/python docs/generate.py

pictures: demo         ## docs/pictures, from the page of the demo; where Chromium is
	$(BIN)/python tests/pictures.py demo/reports/explorer.html

schema: setup          ## workflow/schemas from the typed params
	$(BIN)/radprobe schema > workflow/schemas/params.schema.json

datasets-table: setup  ## docs/datasets.md from the catalog
	$(BIN)/radprobe datasets --markdown > docs/datasets.md

backbones-table: setup ## what each backbone costs, and docs/backbones.md, from the catalog
	$(BIN)/radprobe backbones --costs > src/radprobe/catalog/backbone_costs.csv.new
	mv src/radprobe/catalog/backbone_costs.csv.new src/radprobe/catalog/backbone_costs.csv
	$(BIN)/radprobe backbones --markdown > docs/backbones.md

audit-page: setup      ## docs/audit.md from the catalog
	$(BIN)/python -c "from radprobe.report import audit; print(audit.markdown(), end='')" > docs/audit.md

reliability: setup     ## docs/reliability.md, from a run of the tests of faults, bad input and attacks
	RADPROBE_KILLS=50 $(PYTEST) -q -m survives --reliability=docs/reliability.md tests

golden: setup          ## tests/golden.json anew, after a VERSION was bumped; for its real films: RADPROBE_REAL_DATA, _WEIGHTS
	OMP_NUM_THREADS=1 $(BIN)/python tests/test_golden.py

# --strict: what could not be looked up fails; without it pip-audit passes where it reaches no service
audit:                 ## known weaknesses of the pinned packages, looked up over the network
	rm -rf .audit && $(PYTHON) -m venv .audit && .audit/bin/python -m pip install -q pip-audit==2.10.1
	.audit/bin/pip-audit --strict --no-deps --disable-pip -r envs/requirements.lock

lock:                  ## pins of all extras, where uv is installed; torch's local version is taken off
	(echo "# Every package of the tests and the demo, pinned. Made from pyproject.toml by \`make lock\`."; \
	uv pip compile -q pyproject.toml --extra workflow --extra demo --extra docs --extra test --python-version 3.11 --no-annotate --no-header \
	  | sed 's/+cpu//') > envs/requirements.lock.new
	mv envs/requirements.lock.new envs/requirements.lock

envs: setup            ## envs/*.yaml, after the lock or the groups of pyproject.toml changed
	$(BIN)/python envs/generate.py

pins: setup            ## envs/*.linux-64.pin.txt, the exact builds of what comes from conda; where conda is
	$(BIN)/python envs/generate.py --pins

clean:                 ## the demo and the caches; your data, work and results stay
	rm -rf demo site .audit .pytest_cache .ruff_cache
