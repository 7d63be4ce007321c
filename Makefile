# `make test` runs everything: ONNX Runtime included (fetched through pip when it is not in build/).
PYTHON ?= python3
VENV := build/onnxruntime/venv
# One resolution of features and one profile for tests, lints and pages, so that Burn is compiled once: `ci`, which takes three
# quarters of a release's processor time (docs/BENCHMARKS.md).
CARGO_FLAGS := --profile ci --locked --workspace

.PHONY: test lint doc onnxruntime texts clients sight

test: onnxruntime
	VJEPA_REQUIRE_ORT=1 VJEPA_ORT_DIR=$(CURDIR)/build/onnxruntime VJEPA_PYTHON=$(CURDIR)/$(VENV)/bin/python \
		cargo test $(CARGO_FLAGS)
	target/ci/examples/tiny_onnx build/onnx
	$(VENV)/bin/python tests/onnx/check.py build/onnx/*.onnx

# Triton's clients and a headless Chromium (`apt-get install chromium`) against the server.
MODEL ?= quickstart/textures.onnx
VIDEO ?= quickstart/videos/t3_d1_s0.mp4
clients: build/serve/venv/ready
	build/serve/venv/bin/python tests/serve/client.py $(MODEL)
	build/serve/venv/bin/python tests/serve/page.py $(MODEL) $(VIDEO)

# TensorBoard's own reader and a headless Chromium on a run of a minute, stopped and resumed.
sight: build/sight/venv/ready
	rm -rf build/sight/run
	target/ci/vjepa train --config configs/quickstart.yaml --set logging.folder=build/sight/run --set logging.diagnostics_every=20 \
		--set optimization.steps=60 --set optimization.warmup_steps=5 --set logging.checkpoint_every=25 --stop-at 40
	target/ci/vjepa train --config configs/quickstart.yaml --set logging.folder=build/sight/run --set logging.diagnostics_every=20 \
		--set optimization.steps=60 --set optimization.warmup_steps=5 --set logging.checkpoint_every=25 --resume
	target/ci/vjepa report build/sight/run
	target/ci/vjepa watch build/sight/run --once
	build/sight/venv/bin/python tests/sight/check.py build/sight/run --report build/sight/run/report.html

build/sight/venv/ready: tests/sight/requirements.txt
	$(PYTHON) -m venv build/sight/venv
	build/sight/venv/bin/python -m pip install --quiet --requirement tests/sight/requirements.txt
	touch $@

build/serve/venv/ready: tests/serve/requirements.txt
	$(PYTHON) -m venv build/serve/venv
	build/serve/venv/bin/python -m pip install --quiet --requirement tests/serve/requirements.txt
	touch $@

onnxruntime: $(VENV)/ready

$(VENV)/ready: tests/onnx/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement tests/onnx/requirements.txt
	touch $@

lint:
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings

# Crate pages name their private modules for who reads the source; those links are allowed to lead nowhere in the public docs.
doc:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc $(CARGO_FLAGS) --no-deps

# Rewrites the checked-in texts of graphs and filetests from what the compiler makes now.
texts:
	UPDATE_IR=1 UPDATE_FILETESTS=1 cargo test $(CARGO_FLAGS) --test graph_text --test filetests
