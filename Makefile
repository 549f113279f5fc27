PYTHON ?= python3.11
VENV ?= .venv
GPU_PYTHON ?= python3
BIN = $(VENV)/bin
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test ray-test browser-test wheel-test lint aot bench gpu gpu-test clean

$(VENV)/.installed: setup.py pyproject.toml requirements.txt $(wildcard csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt
	# One GPU architecture keeps the setup short; a test compiles all of them.
	FASTBSN_ARCHS=$${FASTBSN_ARCHS:-90a} $(BIN)/pip install --quiet -e ".[test,bench,plots,mat,onnx]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m fastbsn.demo

test: $(VENV)/.installed
	$(PYTEST) --ignore=tests/kernels --ignore=tests/ops
	TRITON_INTERPRET=1 $(PYTEST) tests/kernels tests/ops  # Triton reads this once, so in processes of their own

# Ray brings a hundred packages: it has an environment of its own, which sees the packages of the first one.
ray-test: $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)-ray
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > $$($(VENV)-ray/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/first.pth
	$(VENV)-ray/bin/pip install --quiet "ray[data]>=2.40"
	$(VENV)-ray/bin/python -m pytest -q -m ray tests/labelling/test_ray.py

# Gradio holds Pillow below 13: an environment of its own over the other one. Chromium and ChromeDriver come from the system.
browser-test: $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)-app
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > $$($(VENV)-app/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/first.pth
	$(VENV)-app/bin/pip install --quiet gradio selenium
	$(VENV)-app/bin/python -m pytest -q -m browser tests/browser

# The wheel without the extension, with its dependencies as a user's pip finds them, in a fresh environment.
wheel-test:
	rm -rf $(VENV)-wheel build/wheel && $(PYTHON) -m venv $(VENV)-wheel
	FASTBSN_CUDA=0 $(VENV)-wheel/bin/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(VENV)-wheel/bin/pip install --quiet -r requirements.txt build/wheel/*.whl scikit-image
	cd build/wheel && ../../$(VENV)-wheel/bin/python -m fastbsn.demo

lint: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# Compile every shipped Triton configuration for every architecture, with the pinned release and the current one; needs no GPU.
aot: $(VENV)/.installed
	$(BIN)/python -m fastbsn.kernels.aot --out build/aot-pinned
	$(PYTHON) -m venv $(VENV)-aot && $(VENV)-aot/bin/pip install --quiet triton==3.9.0
	$(VENV)-aot/bin/python -m fastbsn.kernels.aot --out build/aot-current

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.cpu
	$(PYTHON) -m venv $(VENV)-engines && $(VENV)-engines/bin/pip install --quiet openvino onnxruntime pyoidn
	$(BIN)/python -m benchmarks.engines --out benchmarks/results/local/engines.json --sizes 512x512 1920x1080 --python $(VENV)-engines/bin/python

# On a GPU machine with its own torch, triton and nvcc; installs nothing. OUT is a folder outside the checkout.
gpu:
	$(GPU_PYTHON) -m benchmarks.gpu --out $(or $(OUT),$(error set OUT to a folder outside the checkout))

gpu-test:
	$(GPU_PYTHON) -m pytest -q -m gpu tests/gpu

clean:
	rm -rf $(VENV) $(VENV)-aot $(VENV)-ray $(VENV)-app $(VENV)-wheel build *.egg-info fastbsn/*.so
