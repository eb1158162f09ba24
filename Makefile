# CI runs the same targets. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= python3
BIN := .venv/bin
LOCKS := deploy/locks
RUN_LOCKS := $(LOCKS)/client.txt $(LOCKS)/server.txt $(LOCKS)/trainer.txt
NO_ENGINE := not slow and not faults and not soak and not examples and not compose and not operations and not swarm
# Tests start programs a thousand times, and each of them would compile our modules again.
unexport PYTHONDONTWRITEBYTECODE
# Most tests wait for processes of their own, so more of them than cores can run at once.
SPREAD := --numprocesses 6 --dist worksteal
# With BLAS threads of their own, those processes would wait for each other's cores.
test coverage test-oldest: export OPENBLAS_NUM_THREADS := 1
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs
PIP_FLAGS := --quiet --disable-pip-version-check --no-input

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "mlpserve needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "creating .venv"
	@$(PYTHON) -m venv .venv

# The packages that trainer, server and client need.
.venv/run.stamp: $(RUN_LOCKS) pyproject.toml | .venv/bin/python
	@echo "installing mlpserve and its dependencies into .venv (once, about a minute)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes $(RUN_LOCKS:%=-r %) -r $(LOCKS)/build.txt
	@$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@touch $@

# On top of that, the tools for working on mlpserve.
.venv/dev.stamp: $(LOCKS)/dev.txt .venv/run.stamp
	@echo "installing the development tools into .venv (once, a minute or two)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes -r $(LOCKS)/dev.txt
	@touch $@

# The generator of the stubs, old on purpose: see pyproject.toml.
.venv-proto/stamp: $(LOCKS)/proto.txt
	@$(PYTHON) -m venv .venv-proto
	@.venv-proto/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $(LOCKS)/proto.txt
	@touch $@

.PHONY: install
install: .venv/dev.stamp .venv-proto/stamp  ## make .venv with everything for development

# An environment that a user made by hand is used as it is: nothing is put into it.
RUNS := $(if $(wildcard .venv/run.stamp),.venv/run.stamp,$(if $(wildcard $(BIN)/mlpserve),,.venv/run.stamp))

.PHONY: demo
demo: $(RUNS)  ## train, publish, serve, call, swap: the whole loop in a minute
	@$(BIN)/python examples/quickstart.py

.PHONY: demo-learn
demo-learn: .venv/run.stamp  ## learn from callers: a shift, an alarm, reports, a challenger, a decision; two minutes
	@$(BIN)/python examples/learn.py

.PHONY: serve
serve: $(RUNS)  ## serve ./models on port 50051; trains a version first if there is none
	@$(BIN)/mlpserve-trainer train --unless-published
	@$(BIN)/mlpserve-server

.PHONY: test
test: install  ## the test suite: real servers and processes, about five minutes on two cores
	@echo "running the tests: about five minutes on two cores"
	$(BIN)/python -m pytest -m "$(NO_ENGINE)" $(SPREAD)

.PHONY: coverage
coverage: install  ## branch coverage of the tests; what runs in processes of its own is not seen
	$(BIN)/python -m pytest -m "$(NO_ENGINE)" $(SPREAD) --cov server --cov trainer --cov model \
		--cov client --cov web --cov cli --cov-branch --cov-report term:skip-covered

.PHONY: test-examples
test-examples: install  ## the quickstart, the notebook, the site and the examples of own data
	$(BIN)/python -m pytest -m examples --numprocesses 2 tests/docs tests/system/test_quickstart.py

.PHONY: test-slow
test-slow: install  ## the longer tests: kills, soaks, the real MNIST
	$(BIN)/python -m pytest -m slow -s --timeout 900

.PHONY: test-faults
test-faults: install  ## faults of processes, disks and networks, in quick sizes: under ten minutes
	GRPC_VERBOSITY=NONE $(BIN)/python -m pytest -m "faults and not soak and not slow" -s --timeout 600

.PHONY: soak
soak: install  ## the same faults in full size, for hours
	GRPC_VERBOSITY=NONE $(BIN)/python -m pytest -m soak -s --timeout 7200

.PHONY: test-compose
test-compose: install  ## compose on a real Docker engine
	$(BIN)/python -m pytest -m compose -s --timeout 900

.PHONY: test-operations
test-operations: install  ## the procedures of docs/operations.md on a real Docker engine
	$(BIN)/python -m pytest -m operations -s --timeout 900

.PHONY: test-swarm
test-swarm: install  ## a rolling update on a Docker Swarm of one node, under load
	$(BIN)/python -m pytest -m swarm -s --timeout 900

# The lower bounds of pyproject.toml, as they are; the client's, where they are below, beside it.
.venv-oldest/stamp: $(LOCKS)/oldest.txt $(LOCKS)/oldest-client.txt
	$(PYTHON) -m venv .venv-oldest
	@.venv-oldest/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $(LOCKS)/oldest.txt
	@.venv-oldest/bin/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@.venv-oldest/bin/python -m pip install $(PIP_FLAGS) --require-hashes --upgrade \
		--target .venv-oldest/client -r $(LOCKS)/oldest-client.txt
	@touch $@

.PHONY: test-oldest
test-oldest: .venv-oldest/stamp  ## the tests with the oldest libraries supported
	.venv-oldest/bin/python -m pytest -m "$(NO_ENGINE)" $(SPREAD) \
		tests/model tests/server tests/client --ignore tests/client/test_types.py --ignore-glob "*/object_store"
	PYTHONPATH=.venv-oldest/client .venv-oldest/bin/python -m pytest -m "$(NO_ENGINE)" $(SPREAD) \
		tests/client --ignore tests/client/test_types.py --ignore tests/client/test_calls_document.py \
		-k "not direct"

# Triton's client: it wants an older protobuf than ours.
.venv-triton/stamp: $(LOCKS)/triton.txt
	$(PYTHON) -m venv .venv-triton
	@.venv-triton/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $(LOCKS)/triton.txt
	@touch $@

.PHONY: test-triton
test-triton: install .venv-triton/stamp  ## the server with the clients of Triton, KServe and MLServer
	$(BIN)/python -m pytest tests/server/transport/test_tritonclient.py \
		tests/server/transport/test_kserve.py tests/web/test_rest_clients.py tests/web/test_openapi.py

# Captum, and the PyTorch that it needs; nothing of ours.
.venv-captum/stamp: tests/model/nn/captum.txt
	$(PYTHON) -m venv .venv-captum
	@.venv-captum/bin/python -m pip install $(PIP_FLAGS) -r tests/model/nn/captum.txt
	@touch $@

.PHONY: test-captum
test-captum: install .venv-captum/stamp  ## attributions beside Captum's DeepLift
	$(BIN)/python -m pytest tests/model/nn/test_captum.py -s

.node/stamp:
	npm install --silent --no-audit --no-fund --prefix .node \
		@grpc/grpc-js@1.14 @grpc/proto-loader@0.8 grpc-health-check@2.1
	@touch $@

.PHONY: test-node
test-node: install .node/stamp  ## the example in Node.js
	$(BIN)/python -m pytest tests/client/test_calls_document.py -k node

# What the fuzzer runs: all the packages, and atheris.
FUZZ_SECONDS ?= 60
.venv-fuzz/stamp: $(LOCKS)/fuzz.txt
	$(PYTHON) -m venv .venv-fuzz
	@.venv-fuzz/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $(LOCKS)/fuzz.txt -r $(LOCKS)/build.txt
	@.venv-fuzz/bin/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: fuzz
fuzz: .venv-fuzz/stamp  ## fuzz every parser of foreign bytes, FUZZ_SECONDS=60 each
	.venv-fuzz/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

.PHONY: test-grpcio
test-grpcio: install  ## the direct transport with every version of grpcio that it supports
	$(BIN)/python tests/server/transport/grpcio_range.py

.PHONY: check
check: install  ## lint, formatting, types, imports between rooms, proto lint, documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint
	$(MKDOCS) build --quiet

.PHONY: format
format: install  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: proto
proto: .venv-proto/stamp  ## generate the stubs from proto/
	.venv-proto/bin/python proto/generate.py proto

.PHONY: lock
lock: .venv/dev.stamp  ## resolve the newest allowed dependencies into deploy/locks
	$(BIN)/python deploy/lock.py

.PHONY: bench
bench: bench-serving bench-overload bench-costs bench-client bench-training  ## measure serving and training, with the peers that are installed

.PHONY: bench-quick
bench-quick: install  ## what got slower since the last landed figures: two minutes, ratios alone
	$(BIN)/python benchmarks/quick.py

.PHONY: bench-serving
bench-serving: install  ## serving beside C++ gRPC and other model servers; --install gets them
	$(BIN)/python benchmarks/serving.py

.PHONY: bench-overload
bench-overload: install  ## five times the capacity, and the largest batches beside calls
	$(BIN)/python benchmarks/overload.py

.PHONY: bench-costs
bench-costs: install  ## what TLS, tokens and the like cost a call
	$(BIN)/python benchmarks/costs.py

.PHONY: bench-evidence
bench-evidence: install  ## what the statistics promise, drift, attacks, and 100,000 reports; half an hour
	$(BIN)/python benchmarks/evidence.py

.PHONY: bench-memory
bench-memory: install  ## what the largest requests of many callers take in a container of 512 MiB
	$(BIN)/python benchmarks/memory.py

.PHONY: bench-client
bench-client: install  ## what the client costs a large batch
	$(BIN)/python benchmarks/client.py

.PHONY: bench-growth
bench-growth: install  ## what a server costs as connections, rows, weights, versions, models, workers grow
	$(BIN)/python benchmarks/growth.py

.PHONY: bench-recipes
bench-recipes: install  ## test accuracy and time of every recipe on MNIST, three seeds: half an hour
	$(BIN)/python benchmarks/recipes.py

.PHONY: bench-estimators
bench-estimators: install  ## our estimator beside scikit-learn's, on ten data sets: five minutes
	$(BIN)/python benchmarks/estimators.py

.PHONY: bench-interchange
bench-interchange: install  ## how exactly networks survive other formats; with PyTorch if it is installed
	$(BIN)/python -m benchmarks.interchange

.PHONY: bench-training
bench-training: install  ## training beside PyTorch, JAX and scikit-learn
	$(BIN)/python benchmarks/training.py

# Checked as a user gets it: in an environment of its own, with each program.
.PHONY: dist
dist: install  ## build wheel and source archive into dist/, and check that the wheel installs and runs
	rm -rf dist build/wheel-check
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(PYTHON) -m venv build/wheel-check
	build/wheel-check/bin/python -m pip install $(PIP_FLAGS) "$$(ls dist/*.whl)[server,trainer,web]"
	for program in mlpserve mlpserve-client mlpserve-models mlpserve-server mlpserve-trainer mlpserve-web; do \
		build/wheel-check/bin/$$program --version || exit 1; done
	rm -rf build/wheel-check

.PHONY: sbom
sbom: install  ## write dist/sbom/: what each image holds, as CycloneDX
	docker compose build
	$(BIN)/python deploy/sbom.py dist/sbom \
		$(foreach image,server trainer client web,mlpserve-$(image):$${MLPSERVE_TAG:-latest})

.PHONY: reference
reference: install  ## write the generated pages of docs/reference
	$(BIN)/python docs/tools/reference.py

.PHONY: docs
docs: install  ## build the documentation site into build/site
	$(MKDOCS) build
	@echo "open build/site/index.html"

.PHONY: notebook
notebook: install  ## execute examples/from_scratch.ipynb and store its output, for the site too
	$(BIN)/python docs/tools/notebook.py

.PHONY: pictures
pictures: install  ## renew the screenshots in docs/images; the report's needs chromium
	$(BIN)/python docs/tools/pictures.py

.PHONY: up
up:  ## docker compose up: train once, then serve on port 50051
	MLPSERVE_REVISION=$$(git rev-parse --short HEAD) docker compose up --build --wait

.PHONY: down
down:  ## stop and remove every container of the compose file; the models stay in their volume
	docker compose --profile "*" down

.PHONY: clean
clean:  ## remove environments, caches and what was built; the models in ./models stay
	rm -rf .venv .venv-proto .venv-oldest .venv-triton .venv-fuzz .venv-captum .node build dist .coverage
	rm -rf .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
