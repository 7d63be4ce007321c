# `make test` runs everything: ONNX Runtime included (fetched through pip when it is not in build/).
PYTHON ?= python3
VENV := build/onnxruntime/venv
# One resolution of features and one profile for tests, lints and pages, so that Burn is compiled once: `ci`, which takes three
# quarters of a release's processor time (docs/BENCHMARKS.md).
CARGO_FLAGS := --profile ci --locked --workspace

.PHONY: test lint doc onnxruntime texts clients browser program

test: onnxruntime
	VJEPA_REQUIRE_ORT=1 VJEPA_ORT_DIR=$(CURDIR)/build/onnxruntime VJEPA_PYTHON=$(CURDIR)/$(VENV)/bin/python \
		cargo test $(CARGO_FLAGS)
	target/ci/examples/tiny_onnx build/onnx
	$(VENV)/bin/python tests/onnx/check.py build/onnx/*.onnx

# What others read of ours. `clients`: Triton's clients of the server, TensorBoard's own reader of a run; `browser`: a headless Chromium
# (`apt-get install chromium`) on the server's page and on the run's report. On a run of a minute, stopped and resumed.
CHECKS := build/checks
RUN := --config configs/quickstart.yaml --set logging.folder=$(CHECKS)/run --set logging.diagnostics_every=20 \
	--set optimization.steps=60 --set optimization.warmup_steps=5 --set logging.checkpoint_every=25
VJEPA := target/ci/vjepa
MODEL ?= $(CHECKS)/model.onnx
VIDEO ?= assets/textures/t3_d1_s0.mp4

clients: $(CHECKS)/venv/ready $(CHECKS)/run/report.html $(CHECKS)/model.onnx
	$(CHECKS)/venv/bin/python tests/serve/client.py $(MODEL) --vjepa $(VJEPA)
	$(CHECKS)/venv/bin/python tests/sight/check.py $(CHECKS)/run

browser: $(CHECKS)/venv/ready $(CHECKS)/run/report.html $(CHECKS)/model.onnx
	$(CHECKS)/venv/bin/python tests/serve/page.py $(MODEL) $(VIDEO) --vjepa $(VJEPA)
	$(CHECKS)/venv/bin/python tests/sight/check.py $(CHECKS)/run --report $(CHECKS)/run/report.html

# Cargo knows whether there is anything to do, and leaves the program's time as it is where there is not.
program:
	cargo build $(CARGO_FLAGS) --bin vjepa

$(VJEPA): program

$(CHECKS)/run/report.html: $(VJEPA)
	rm -rf $(CHECKS)/run
	$(VJEPA) train $(RUN) --stop-at 40
	$(VJEPA) train $(RUN) --resume
	$(VJEPA) watch $(CHECKS)/run --once
	$(VJEPA) report $(CHECKS)/run

$(CHECKS)/model.onnx: $(CHECKS)/run/report.html
	$(VJEPA) probe --checkpoint $(CHECKS)/run/jepa-latest.safetensors --data assets/textures/labels.csv --kind linear --epochs 2 \
		--out $(CHECKS)/probe.safetensors
	$(VJEPA) compile --export onnx --checkpoint $(CHECKS)/run/jepa-latest.safetensors --probe $(CHECKS)/probe.safetensors --out $@

$(CHECKS)/venv/ready: tests/sight/requirements.txt tests/serve/requirements.txt
	$(PYTHON) -m venv $(CHECKS)/venv
	$(CHECKS)/venv/bin/python -m pip install --quiet --requirement tests/sight/requirements.txt --requirement tests/serve/requirements.txt
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
