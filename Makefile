# One word each, the same lines that CI runs. Needs Python 3.11 and make; .venv is made once and reused.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Old on purpose: newer generators write code that refuses older runtimes. No lower bound in pyproject.toml is below it.
GRPCIO_TOOLS := 1.76.0
SOAK_S ?= 60
# A test that holds Python's lock for good is not reached by its timeout: the run ends, and says where all threads are.
STOP_FROZEN := -o faulthandler_timeout=300 -o faulthandler_exit_on_timeout=true
KERNELS := $(wildcard service/runtime/kernels/*.[ch] service/runtime/kernels/build_hook.py)
BENCH := build/bench/quick

FIRST_CHECKPOINT = $(lastword $(sort $(wildcard runs/en-fr-tiny/step-*)))
SECOND_CHECKPOINT = $(lastword $(sort $(wildcard runs/en-fr-longer/step-*)))
THIRD_CHECKPOINT = $(lastword $(sort $(wildcard runs/en-fr-third/step-*)))
CHECKPOINT ?= runs/en-fr-mean
# A third of version 7, two thirds of the sixth run's end.
SIXTH_MEAN := third fourth fifth fifth $(foreach part,1 2 3 4 5 6 7 8,sixth)
EXPORT_FLAGS := --model-version 10 --max-source-tokens 72 --max-target-tokens 160 --lower-capitals --plain-quotes \
	--golden model/recipes/en-fr-golden.txt --card model/recipes/en-fr-card.json \
	--calibration $(DRAGOMAN_DATA)/en-fr/tatoeba.train.tsv.gz --calibration $(DRAGOMAN_DATA)/en-fr/europarl.en.bz2

# Images. BASE: any Debian-like image with Python 3.11 or later. BUILD_IMAGE: also `docker build`.
BASE ?= python:3.13-slim
IMAGE ?= localhost/dragoman
EXTRAS ?= otel
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BUILD_IMAGE ?= buildah bud --format docker
IMAGE_FLAGS = --file deploy/Dockerfile --build-arg BASE=$(BASE) --build-arg VERSION=$(VERSION) \
	--build-arg REVISION=$(shell git rev-parse --short HEAD 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo test faults soak lint type format proto contract train train-longer train-third train-fourth train-fifth train-sixth bundle bench gpu-check \
	audit clean image image-cuda image-base image-test rules

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/serve.stamp  ## the service on the shipped model, translations through a real gRPC client, metrics, stop
	@$(BIN)/python -m service.demo

test: lint type  ## everything that a change must pass
	$(BIN)/python -m pytest $(STOP_FROZEN)

faults: .venv/dev.stamp  ## every fault of the launched service, in full, in less than ten minutes
	$(BIN)/python -m pytest tests/faults -m "not soak" --timeout 600

soak: .venv/dev.stamp  ## a minute of everything at once; SOAK_S=1800 for half an hour
	$(BIN)/python -m pytest tests/soak -m soak -s --soak-s $(SOAK_S)

lint: .venv/dev.stamp  ## style
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .

type: .venv/dev.stamp  ## types
	$(BIN)/mypy --no-error-summary

format: .venv/dev.stamp  ## put the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: build/proto/$(GRPCIO_TOOLS).stamp  ## service/pb anew from proto/
	build/proto/bin/python -m grpc_tools.protoc -Iservice/pb=proto/dragoman/v1 \
		--python_out=. --pyi_out=. --grpc_python_out=. service/pb/translation.proto

contract: build/node.stamp .venv/dev.stamp  ## the contract: style, nothing broken since the release, a client in Node.js
	build/node/node_modules/.bin/buf lint
	build/node/node_modules/.bin/buf breaking --against proto/released.binpb
	$(BIN)/python -m pytest tests/unit/test_contract.py tests/integration/test_node_client.py

audit: build/audit/stamp  ## known vulnerabilities of the pinned packages; fails too where nobody can say
	@BIN=build/audit/bin sh deploy/audit.sh

train: .venv/dev.stamp  ## the shipped model anew; DRAGOMAN_DATA names the folder of the texts
	$(BIN)/dragoman train model/recipes/en-fr-tiny.toml
	$(MAKE) train-longer

train-longer: .venv/dev.stamp  ## what make train does next: trained on from the first run's end
	$(BIN)/dragoman train model/recipes/en-fr-longer.toml --initial-checkpoint $(FIRST_CHECKPOINT)
	$(MAKE) train-third

train-third: .venv/dev.stamp  ## and then: trained on from the second run's end
	$(BIN)/dragoman train model/recipes/en-fr-third.toml --initial-checkpoint $(SECOND_CHECKPOINT)
	$(MAKE) train-fourth

train-fourth: .venv/dev.stamp  ## and then: trained on from the third run's end
	$(BIN)/dragoman train model/recipes/en-fr-fourth.toml --initial-checkpoint $(THIRD_CHECKPOINT)
	$(MAKE) train-fifth

train-fifth: .venv/dev.stamp  ## and then: trained on from the mean of both ends
	test -d runs/en-fr-before || $(BIN)/dragoman average runs/en-fr-third runs/en-fr-fourth runs/en-fr-before --last 1
	$(BIN)/dragoman train model/recipes/en-fr-fifth.toml --initial-checkpoint runs/en-fr-before
	$(MAKE) train-sixth

train-sixth: .venv/dev.stamp  ## what make train does last: text as people type it, and the mean again
	test -d runs/en-fr-version-7 || $(BIN)/dragoman average $(addprefix runs/en-fr-,third fourth fifth fifth version-7) --last 1
	$(BIN)/dragoman train model/recipes/en-fr-sixth.toml --initial-checkpoint runs/en-fr-version-7
	test -d runs/en-fr-mean || $(BIN)/dragoman average $(addprefix runs/en-fr-,$(SIXTH_MEAN) mean) --last 1

bundle: .venv/dev.stamp  ## the shipped bundle anew, from the checkpoint that make train left
	$(BIN)/dragoman export $(CHECKPOINT) service/models/en-fr --precision cpu-int8 $(EXPORT_FLAGS)

bench: .venv/bench.stamp  ## every benchmark in its quick form, on a small model with random weights
	$(BIN)/python -m benchmarks.random_model build/bench/random --vocab-size 8000 --layers 2
	$(BIN)/python -m benchmarks.peers build/bench/random --forced 25 --quick --work $(BENCH) --out $(BENCH)/peers.json
	$(BIN)/python -m benchmarks.engine $(BENCH)/random/bundle --quick --out $(BENCH)/engine.json
	$(BIN)/python -m benchmarks.scaling $(BENCH)/random/bundle --quick --out $(BENCH)/scaling.json
	$(BIN)/python -m benchmarks.load build/bench/random --forced 25 --quick --work $(BENCH) --out $(BENCH)/load.json

gpu-check: .venv/dev.stamp .venv/bench.stamp  ## on a machine with an NVIDIA GPU and CUDA 13: its tests and benchmarks
	$(BIN)/python -m benchmarks.gpu $(if $(DRAGOMAN_DATA),--data $(DRAGOMAN_DATA)) --out build/gpu/gpu.json $(GPU_FLAGS)

image:  ## the container image for CPUs: no PyTorch, no CUDA
	$(BUILD_IMAGE) $(IMAGE_FLAGS) --build-arg EXTRAS=$(EXTRAS) --tag $(IMAGE):$(VERSION) .

image-cuda:  ## the container image for GPUs, with CUDA 13 from wheels
	$(BUILD_IMAGE) $(IMAGE_FLAGS) --build-arg EXTRAS=$(EXTRAS) --build-arg 'ONNXRUNTIME=onnxruntime-gpu[cuda,cudnn]' --tag $(IMAGE):$(VERSION)-cuda .

image-base:  ## a base image of Debian's own packages, where no image registry can be reached (root, mmdebstrap, podman)
	mkdir -p build
	mmdebstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm build/base.tar
	podman import build/base.tar localhost/python-base:bookworm

image-test: .venv/dev.stamp  ## the image as Kubernetes would run it: translate, probe, SIGTERM under load (podman)
	DRAGOMAN_IMAGE=$(IMAGE):$(VERSION) $(BIN)/python -m pytest -m image tests/deploy

rules: .venv/dev.stamp  ## deploy/k8s' copy of the alert rules anew
	$(BIN)/python deploy/prometheus/write_manifest.py

clean:  ## away with everything that can be made again, but for runs/
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

# What serving needs, and no more.
.venv/serve.stamp: pyproject.toml $(KERNELS) | .venv/bin/python
	$(PIP) install --editable .
	@touch $@

.venv/dev.stamp: pyproject.toml $(KERNELS) | .venv/bin/python
	$(PIP) install --editable '.[dev]'
	@touch $@ .venv/serve.stamp

.venv/bench.stamp: pyproject.toml $(KERNELS) | .venv/bin/python
	$(PIP) install --editable '.[bench]'
	@touch $@ .venv/serve.stamp

build/proto/$(GRPCIO_TOOLS).stamp:
	rm -rf build/proto
	$(PYTHON) -m venv build/proto
	build/proto/bin/python -m pip --disable-pip-version-check --quiet install grpcio-tools==$(GRPCIO_TOOLS)
	@touch $@

build/node.stamp: tests/integration/node/package.json
	mkdir -p build/node
	cp $< build/node/
	npm install --prefix build/node --silent --no-audit --no-fund
	@touch $@

build/audit/stamp:
	rm -rf build/audit
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip --disable-pip-version-check --quiet install pip-audit
	@touch $@
