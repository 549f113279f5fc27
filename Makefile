PYTHON ?= $(or $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p)))),python3)
VENV ?= .venv
GPU_PYTHON ?= python3
BIN = $(VENV)/bin
# Many tests wait for processes of their own: three workers keep two cores busy.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test ray-test browser-test wheel-test lint aot bench gpu gpu-test clean

$(VENV)/.installed: setup.py pyproject.toml requirements.txt $(wildcard csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt
	# A CUDA build of torch brings the Triton that it was made for; beside a CPU build, that of the GPU machines.
	$(BIN)/python -c "import triton" 2> /dev/null || $(BIN)/pip install --quiet "triton==3.6.0; platform_system == 'Linux' and platform_machine == 'x86_64'"
	# One GPU architecture keeps the setup short; a test compiles all of them.
	FASTBSN_ARCHS=$${FASTBSN_ARCHS:-90a} $(BIN)/pip install --quiet -e ".[test,bench,plots,mat,onnx]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m fastbsn.demo

test: $(VENV)/.installed
	$(PYTEST) --ignore=tests/kernels --ignore=tests/ops
	TRITON_INTERPRET=1 $(PYTEST) tests/kernels tests/ops  # Triton reads this once, so in processes of their own

# Environments beside the first one, whose packages they see: Ray brings a hundred packages, Gradio holds Pillow below 13, and the kernels are
# compiled with the current Triton, too.
$(VENV)-%/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)-$*
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > $$($(VENV)-$*/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/first.pth
	$(VENV)-$*/bin/pip install --quiet $(PACKAGES_$*)
	touch $@

PACKAGES_ray = "ray[data]>=2.40"
PACKAGES_app = gradio selenium
PACKAGES_aot = triton==3.9.0
PACKAGES_engines = openvino onnxruntime pyoidn

ray-test: $(VENV)-ray/.installed
	$(VENV)-ray/bin/python -m pytest -q -m ray tests/labelling/test_ray.py

browser-test: $(VENV)-app/.installed  # Chromium and ChromeDriver come from the system
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
aot: $(VENV)/.installed $(VENV)-aot/.installed
	$(BIN)/python -m fastbsn.kernels.aot --out build/aot-pinned $(AOT_PINNED)
	$(VENV)-aot/bin/python -m fastbsn.kernels.aot --out build/aot-current $(AOT_CURRENT)

bench: $(VENV)/.installed $(VENV)-engines/.installed
	$(BIN)/python -m benchmarks.cpu
	$(BIN)/python -m benchmarks.engines --out benchmarks/results/local/engines.json --sizes 512x512 1920x1080 --python $(VENV)-engines/bin/python

# On a GPU machine with its own torch, triton and nvcc; installs nothing. OUT is a folder outside the checkout.
gpu:
	$(GPU_PYTHON) -m benchmarks.gpu --out $(or $(OUT),$(error set OUT to a folder outside the checkout))

gpu-test:
	$(GPU_PYTHON) -m pytest -q -m gpu tests/gpu

clean:
	rm -rf $(VENV) $(VENV)-* build *.egg-info fastbsn/*.so
