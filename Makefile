# Everything a person types. `make help` lists the targets.
PYTHON  ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
DATASET ?= fashion_mnist
VARIANT ?= dhn
BITS    ?= 48
SEED    ?= 1
FEATURES ?= pixels

# the log of `caffe` goes to stderr, and so into train.log, and not into files in /tmp too
GLOG_logtostderr ?= 1
export GLOG_logtostderr

BIN   := .venv/bin
READY := .venv/.installed
# what a lock names and nothing else, files of its hashes alone, and no code of a package's set-up runs
INSTALL = $(BIN)/pip install --require-hashes --no-deps --only-binary :all: --requirement
SCORED = '$(DATASET)' --variant $(VARIANT) --bits $(BITS) --seed $(SEED) $(call option,net,NET)
RUN    = $(SCORED) $(call option,gpu,GPU)
SEARCH = $(call option,image,IMAGE) $(call option,key,KEY) $(call option,top,TOP) $(call option,html,HTML)
SPLITS = '$(DATASET)' $(call option,split,SPLIT) $(call option,seed,SPLIT_SEED) $(call option,from,FROM) \
         $(call option,allow-missing,MISSING) $(call option,skip-bad,SKIP_BAD) $(call switch,allow-overlap,ALLOW_OVERLAP)
option = $(if $($(2)),--$(1) '$($(2))')
# a variable that is 1 or is left out (0 says the same); another value stops make
switch = $(if $(filter-out 0 1,$($(2))),$(error $(2)=$($(2)): expected 1 or 0))$(if $(filter 1,$($(2))),--$(1))
# what one run has otherwise than the tables of prototxt/ (run_settings.py there), SET="momentum=0.95 ..." for any other
setting = $(if $($(2)),--set '$(1)=$($(2))')
SETTINGS = $(call setting,max_iter,ITERATIONS) $(call setting,base_lr,LR) $(call setting,snapshot,SNAPSHOT) \
           $(call setting,batch_size,BATCH) $(call setting,crop,CROP) $(call setting,resize,RESIZE) \
           $(call setting,lambda,LAMBDA) $(call setting,similar_weight,SIMILAR_WEIGHT) $(foreach each,$(SET),--set '$(each)')
# a variable that was typed (make BITS="12 24"), not one that has its default
given = $(if $(filter-out file undefined default,$(origin $(2))),$(if $(1),--$(1)) $($(2)))

# The variables that each target reads. Any other one that is typed stops make: it would be lost without a word.
run-reads   := DATASET VARIANT BITS SEED NET GPU
settings-reads := ITERATIONS LR SNAPSHOT BATCH CROP RESIZE LAMBDA SIMILAR_WEIGHT SET
split-reads := DATASET SPLIT SPLIT_SEED FROM MISSING SKIP_BAD ALLOW_OVERLAP
reads-demo      := $(run-reads)
reads-data      := $(split-reads)
reads-weights   := NET MIRROR
reads-train     := $(run-reads) GPUS WEIGHTS $(settings-reads) $(split-reads)
reads-resume    := $(run-reads) GPUS $(split-reads)
reads-score     := $(run-reads)
reads-report    := $(filter-out GPU,$(run-reads))
reads-index     := $(run-reads)
reads-search    := $(run-reads) IMAGE KEY TOP HTML
reads-serve     := $(run-reads) PORT
reads-baselines := DATASET FEATURES BITS SEED NET WEIGHTS $(split-reads)
reads-ablation  := DATASET VARIANTS BITS SEEDS NET WEIGHTS GPU $(settings-reads) $(split-reads)
reads-tune      := $(run-reads) GRID WEIGHTS $(settings-reads) $(split-reads)
reads-compare   := DATASET
reads-bench     := ROWS
reads-fuzz      := SECONDS SEED EACH SHORT
reads-soak      := SECONDS
reads-kill-test := SEED
reads-test      := ARGS
reads-coverage  := ARGS
reads-reference := MIRROR
# what make itself and the programs it starts read from their environment
reads-always    := PYTHON CC TMPDIR SHELL MAKEFLAGS REFERENCE OMP_% MKL_% CUDA_% GLOG_% PIP_% %_proxy

goals  := $(or $(MAKECMDGOALS),help)
read   := $(sort $(foreach goal,$(goals),$(reads-$(goal))) $(if $(filter help,$(goals)),DATASET VARIANT BITS SEED))
typed  := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
unread := $(filter-out $(read) $(reads-always),$(typed))
$(if $(unread),$(error make $(goals) does not read $(unread). It reads: $(or $(read),no variables)))

.DELETE_ON_ERROR:
.PHONY: help demo data weights train resume score report index search serve baselines ablation tune compare test test-slow coverage lint lock docs reference conformance gpu-check bench fuzz soak kill-test proto clean distclean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1|\2/' | \
	  while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done
	@echo "Variables: DATASET=$(DATASET) (or the path of a recipe) VARIANT=$(VARIANT) BITS=$(BITS) SEED=$(SEED)"
	@echo "VARIANTS= BITS= SEEDS= (ablation: lists), FEATURES=$(FEATURES) (baselines), GRID= (tune), ROWS= (bench), SECONDS= (fuzz, soak) EACH= SHORT= (fuzz) SEED= (fuzz, kill-test), ARGS= (test, coverage)"
	@echo "ITERATIONS= LR= BATCH= LAMBDA= SIMILAR_WEIGHT= CROP= RESIZE= SNAPSHOT= SET=\"momentum=0.95 ...\" (train, tune, ablation)"
	@echo "IMAGE= KEY= TOP= HTML= (search), PORT= (serve)"
	@echo "NET= WEIGHTS= GPU= GPUS=0,1 (training), SPLIT= SPLIT_SEED= FROM= MISSING= SKIP_BAD= ALLOW_OVERLAP= (data), PYTHON=$(PYTHON)"

demo: $(READY)  ## everything once: data, LMDBs, training, codes, scores; ends with the table of results
	@$(BIN)/python tools/demo.py $(RUN)

data: $(READY)  ## get the data set and build its three LMDBs
	@$(BIN)/python tools/get_data.py $(SPLITS)

weights: $(READY)  ## get the weights of NET=alexnet, caffenet or squeezenet, and the mean image
	@$(BIN)/python tools/get_weights.py $(or $(NET),alexnet) $(if $(MIRROR),--mirror $(MIRROR))

train: data  ## train DATASET= VARIANT= BITS= into runs/, going on from a run that was cut off
	@$(BIN)/python tools/train.py $(RUN) $(call option,gpus,GPUS) $(call option,weights,WEIGHTS) $(SETTINGS)

resume: data  ## go on from the newest snapshot of a training that was cut off
	@$(BIN)/python tools/train.py $(RUN) $(call option,gpus,GPUS) --resume

score: $(READY)  ## codes of the query and database images, MAP under every protocol, metrics.json, report.html
	@$(BIN)/python tools/score_run.py $(RUN)

report: $(READY)  ## write a scored run's report.html again
	@$(BIN)/python tools/report.py $(SCORED)

index: $(READY)  ## index the codes of a scored run, to search it
	@$(BIN)/python tools/build_index.py $(RUN)

search: $(READY)  ## the items of a run's index nearest to the picture IMAGE= or to the item KEY=; HTML=page.html with pictures
	@$(BIN)/python tools/search.py $(RUN) $(SEARCH)

serve: $(READY)  ## a page in the browser that searches a run's index, and an API: http://127.0.0.1:8000/ or PORT=
	@$(BIN)/python tools/serve.py $(RUN) $(call option,port,PORT)

baselines: data  ## LSH, SH, ITQ and ITQ-CCA on FEATURES=pixels or a blob (fc5, fc7), at BITS="12 24 32 48"
	@$(BIN)/python tools/baselines.py '$(DATASET)' --features $(FEATURES) $(call given,bits,BITS) $(call given,seed,SEED) \
	  $(call option,net,NET) $(call option,weights,WEIGHTS)

ablation: data  ## VARIANTS x BITS x SEEDS trained and scored, cell by cell, in one table with mean and spread
	@$(BIN)/python tools/ablation.py '$(DATASET)' $(call given,variants,VARIANTS) $(call given,bits,BITS) \
	  $(call given,seeds,SEEDS) $(call option,net,NET) $(call option,weights,WEIGHTS) $(call option,gpu,GPU) \
	  $(SETTINGS)

tune: data  ## choose learning rate and lambda on a held-out part of the training images; GRID=ours, paper or values
	@$(BIN)/python tools/tune.py $(RUN) $(call option,grid,GRID) $(call option,weights,WEIGHTS) $(SETTINGS)

compare: $(READY)  ## the paper's numbers, later re-runs' and the runs here, and in which settings they differ
	@$(BIN)/python tools/compare.py $(call given,,DATASET)

test: $(READY)  ## install what is missing and run the tests; ARGS="-k pooling" for some
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

test-slow: $(READY)  ## the tests that take minutes: full-size nets and weights on miniature data sets
	$(BIN)/python -m pytest -m slow

coverage: $(READY)  ## the tests, and which lines they do not run: a summary, and build/coverage/index.html
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --cov --cov-report term:skip-covered \
	  --cov-report html:build/coverage $(ARGS)

lint: $(READY)  ## ruff over the tree, its format, the types, who may import whom, known vulnerabilities of packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=engine:python_layers:tools:prototxt $(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python locks/audit.py

lock: $(READY)  ## write locks/, what `make` installs, again from requirements.txt
	$(BIN)/python locks/lock.py

# -W: pdoc looks for the types of a NamedTuple's fields in the wrong module, and warns that they are not there
docs: $(READY)  ## the docstrings as pages: build/docs/index.html
	@rm -rf build/docs
	PDOC_ALLOW_EXEC=1 PDOC_DISPLAY_ENV_VARS=1 $(BIN)/python -W 'ignore:Error parsing type annotation ForwardRef' -m pdoc \
	  --template-directory docs/pdoc --output-directory build/docs caffe atomic_writes dhn authors_forks \
	  $(sort $(basename $(notdir $(wildcard python_layers/*.py prototxt/*.py))))
	@echo "wrote build/docs/index.html"

reference:  ## put BVLC Caffe 1.0 (Debian 11's packages) under .reference/
	sh tests/conformance/reference.sh

conformance: $(READY)  ## run the same nets on BVLC Caffe and on the engine, and compare
	$(BIN)/python tests/conformance/conformance.py

gpu-check: $(READY)  ## prove the engine on a CUDA device, in under 4 minutes; build/gpu_check.json
	@$(BIN)/python tests/gpu/check.py

bench: $(READY)  ## ratios of time and memory to BVLC Caffe and plain PyTorch, 15 minutes; ROWS="alexnet lenet" for some
	@$(BIN)/python tests/bench/bench.py $(call given,,ROWS)

fuzz: $(READY)  ## commands read damaged files for SECONDS=60, drawn by SEED= or EACH=1 value by itself, or good ones while memory or disk is SHORT=1; in a mount namespace (root)
	@$(BIN)/python tests/fuzz/fuzz.py $(call option,seconds,SECONDS) $(call option,seed,SEED) $(call switch,each,EACH) $(call switch,short,SHORT)

soak: $(READY)  ## a training and a search server for SECONDS=3600: memory, threads and open files stay as they are
	@$(BIN)/python tests/soak/soak.py $(call option,seconds,SECONDS)

kill-test: $(READY)  ## every command that writes is killed at 40 instants and typed again, in a mount namespace (root); SEED=
	@$(BIN)/python tests/kill/kill.py $(call option,seed,SEED)

proto: $(READY)  ## regenerate caffe.desc after an edit of caffe.proto
	$(BIN)/python -m caffe.proto.generate

clean:  ## remove what is quickly made again: the LMDBs and the caches
	rm -rf data/*/*_lmdb data/*/*_lmdb.partial data/*/.*_lmdb.old .pytest_cache .ruff_cache .mypy_cache .coverage build
	find . \( -path ./.venv -o -path ./.reference -o -path ./.git \) -prune -o \
	  \( -name __pycache__ -o -name '*.egg-info' \) -type d -exec rm -rf {} +

distclean: clean  ## also remove the runs, what was downloaded and drawn, .venv and .reference
	find data/fashion_mnist -mindepth 1 ! -name README.md ! -name RESULTS.md ! -name label_names.txt -delete
	rm -f $(addprefix data/cifar10/,images.npy labels.npy images.json cifar-10-binary.tar.gz)
	rm -f $(foreach name,query.txt train.txt database.txt missing.txt bad_images.txt split.json,data/*/$(name))
	rm -rf runs weights .venv .reference engine/caffe/cpu/kernels-* tools/dhn/scoring/kernels-* tools/dhn/search/kernels-*

$(READY): locks/packages.txt locks/torch_cpu.txt locks/torch_cuda.txt pyproject.toml hatch_build.py $(wildcard engine/caffe/cpu/*.[ch] tools/dhn/*/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "expected Python 3.10 to 3.13, found $$($(PYTHON) --version 2>&1 || echo none) ($(PYTHON));" \
	    "name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/pip || { rm -rf .venv && $(PYTHON) -m venv .venv; } || { rm -rf .venv; \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian install python3-venv" >&2; exit 1; }
	$(INSTALL) locks/packages.txt
	@echo "torch: without CUDA where PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL has such a build, else PyPI's"
	$(INSTALL) locks/torch_cpu.txt || $(INSTALL) locks/torch_cuda.txt
	$(BIN)/pip install --no-deps --no-build-isolation --editable .
	@$(BIN)/pip check
	@$(BIN)/python -c 'import sys; from caffe.cpu import kernels; sys.exit(kernels.LIBRARY is None)' || \
	  echo "kernels.c was not compiled (pip install -v says why): nets will train more slowly on a CPU" >&2
	@touch $@
