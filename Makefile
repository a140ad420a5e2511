# Everything a person types. `make help` lists the targets.
PYTHON  ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
DATASET ?= fashion_mnist
VARIANT ?= dhn
BITS    ?= 48
SEED    ?= 0

# torch's threads wait asleep, not spinning: many times faster where other programs share the cores
OMP_WAIT_POLICY ?= passive
export OMP_WAIT_POLICY

BIN   := .venv/bin
READY := .venv/.installed
RUN    = $(DATASET) --variant $(VARIANT) --bits $(BITS)

# how a data set's lists become LMDBs: options of tools/create_lmdb.py
LMDB_fashion_mnist = --images data/fashion_mnist/images.npy --classes 10 --encode raw

.DELETE_ON_ERROR:
.PHONY: help demo data weights train resume score report test lint reference conformance proto clean distclean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/\1|\2/' | \
	  while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done
	@echo "Variables: DATASET=$(DATASET) VARIANT=$(VARIANT) BITS=$(BITS) SEED=$(SEED) PYTHON=$(PYTHON)"

demo: data  ## everything once: data, LMDBs, training, codes, scores; ends with the table of results
	@$(BIN)/python tools/train.py $(RUN)
	@$(BIN)/python tools/score_run.py $(RUN)

data: $(READY)  ## get the data set and build its three LMDBs
	@$(BIN)/python tools/get_data.py $(DATASET) --seed $(SEED)
	@for split in train query database; do \
	  $(BIN)/python tools/create_lmdb.py data/$(DATASET)/$$split.txt data/$(DATASET)/$${split}_lmdb \
	    $(LMDB_$(DATASET)) || exit 1; done

weights: $(READY)  ## get BVLC's weights, NET=bvlc_alexnet or bvlc_reference_caffenet, and the mean image
	@$(BIN)/python tools/get_weights.py $(or $(NET),bvlc_alexnet) $(if $(MIRROR),--mirror $(MIRROR))

train: data  ## train DATASET= VARIANT= BITS= into runs/, going on from a run that was cut off
	@$(BIN)/python tools/train.py $(RUN)

resume: data  ## go on from the newest snapshot of a training that was cut off
	@$(BIN)/python tools/train.py $(RUN) --resume

score: $(READY)  ## codes of the query and database images, MAP under every protocol, metrics.json, report.html
	@$(BIN)/python tools/score_run.py $(RUN)

report: $(READY)  ## write a scored run's report.html again
	@$(BIN)/python tools/report.py $(RUN)

test: $(READY)  ## install what is missing and run the tests
	$(BIN)/python -m pytest

lint: $(READY)  ## ruff over the tree
	$(BIN)/ruff check .

reference:  ## put BVLC Caffe 1.0 (Debian 11's packages) under .reference/
	sh tests/conformance/reference.sh

conformance: $(READY)  ## run the same nets on BVLC Caffe and on the engine, and compare
	$(BIN)/python tests/conformance/conformance.py

proto: $(READY)  ## regenerate caffe.desc after an edit of caffe.proto
	$(BIN)/pip install --quiet 'grpcio-tools==1.85.1'
	$(BIN)/python -m caffe.proto.generate

clean:  ## remove what is quickly made again: the LMDBs and the caches
	rm -rf data/*/*_lmdb data/*/*_lmdb.partial data/*/*_lmdb.old .pytest_cache .ruff_cache
	find . \( -path ./.venv -o -path ./.reference -o -path ./.git \) -prune -o \
	  \( -name __pycache__ -o -name '*.egg-info' \) -type d -exec rm -rf {} +

distclean: clean  ## also remove the runs, the downloaded data, .venv and .reference
	find data -mindepth 2 -maxdepth 2 ! -name README.md ! -name '*_names.txt' -exec rm -rf {} +
	rm -rf runs weights .venv .reference

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "expected Python 3.10 to 3.13, found $$($(PYTHON) --version 2>&1 || echo none) ($(PYTHON));" \
	    "name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/pip || { rm -rf .venv && $(PYTHON) -m venv .venv; } || { rm -rf .venv; \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --requirement requirements.txt
	$(BIN)/pip install --no-deps --no-build-isolation --editable .
	@touch $@
