# make demo      train YOLOv5-LSKA on drawn shapes for a few minutes, validate, detect; then segment
# make test      lint, types, tests
# make gpu       check the project on a CUDA device (10 minutes); the report is runs/gpu-report.md
# make bench     measure speed and memory, and update docs/performance.md (more than 20 minutes, nothing else running)
# make fuzz      search for inputs that the readers of files do not refuse (FUZZ_MINUTES each, 15 by default)
# make audit     look for known vulnerabilities of the installed packages (pip-audit; needs a network)
# make sbom      write sbom.json, the installed packages with versions and licences (CycloneDX)
# make install   create the environment; the other targets do this themselves
# make clean     remove caches and the drawn dataset, but not runs/ and the environment
#
# VENV=...         the environment, .venv by default
# PYTHON=...       the Python that creates it, python3 by default
# CONSTRAINTS=...  a file of pinned versions; empty for the newest that requirements.txt allows
# EPOCHS= IMG=     epochs and image size of the demo; SEGMENT_EPOCHS= of its segmentation model

VENV ?= .venv
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
EPOCHS ?= 50
SEGMENT_EPOCHS ?= 6
IMG ?= 160

FUZZ_MINUTES ?= 15

REQUIREMENTS = requirements.txt requirements-dev.txt
RUN = $(VENV)/bin/python
STAMP = $(VENV)/.requirements
TOOLS = $(VENV)-audit

.PHONY: demo test gpu bench fuzz audit sbom install clean

demo: install
	$(RUN) train.py --cfg yolov5n-LSKA.yaml --weights '' --data shapes.yaml --hyp hyp.shapes.yaml \
	  --optimizer AdamW --img $(IMG) --epochs $(EPOCHS) --batch-size 16 --name demo --exist-ok
	$(RUN) val.py --weights runs/train/demo/weights/best.pt --data shapes.yaml --img $(IMG) --name demo --exist-ok
	$(RUN) detect.py --weights runs/train/demo/weights/best.pt --source data/images --data shapes.yaml \
	  --img $(IMG) --name demo --exist-ok
	$(RUN) segment/train.py --cfg yolov5n-seg-LSKA.yaml --weights runs/train/demo/weights/best.pt --data shapes-seg.yaml \
	  --hyp hyp.shapes.yaml --optimizer AdamW --freeze 25 --img $(IMG) --epochs $(SEGMENT_EPOCHS) --batch-size 16 \
	  --noval --noplots --name demo --exist-ok
	$(RUN) segment/predict.py --weights runs/train-seg/demo/weights/best.pt --source data/images --data shapes-seg.yaml \
	  --img $(IMG) --name demo --exist-ok
	@echo
	@echo "Images with detections:            runs/detect/demo"
	@echo "Images with masks:                 runs/predict-seg/demo"
	@echo "Curves and example batches:        runs/train/demo (results.png, val_batch0_pred.jpg)"
	@echo "The trained model:                 runs/train/demo/weights/best.pt"

test: install
	$(RUN) -m tests

gpu: install
	$(RUN) -m tests.gpu

bench: install
	$(RUN) benchmarks/all.py

fuzz: install
	$(RUN) -m pip install --disable-pip-version-check --quiet 'atheris>=2.3'
	$(RUN) -m tests.fuzz --minutes $(FUZZ_MINUTES)

audit: install $(TOOLS)
	$(TOOLS)/bin/pip-audit --path "`$(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))'`"

sbom: install $(TOOLS)
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.json $(RUN)

# In an environment of their own: what they need would change the one that they describe.
$(TOOLS):
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --disable-pip-version-check --quiet 'pip-audit>=2.7' 'cyclonedx-bom>=7' || { rm -rf $(TOOLS); exit 1; }

# The stamp holds a checksum of the requirements: while they do not change, nothing is installed.
install:
	@want=`cat $(REQUIREMENTS) $(CONSTRAINTS) | cksum`; \
	if test -x $(RUN) && test "`cat $(STAMP) 2>/dev/null`" = "$$want"; then exit 0; fi; \
	if ! test -x $(RUN); then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "Python 3.10 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }; \
	  echo "Creating the environment $(VENV)"; \
	  $(PYTHON) -m venv $(VENV) || exit 1; \
	fi; \
	echo "Installing the requirements into $(VENV) (PyTorch with CUDA takes some gigabytes and minutes)"; \
	$(RUN) -m pip install --disable-pip-version-check \
	  $(REQUIREMENTS:%=-r %) $(CONSTRAINTS:%=-c %) || exit 1; \
	echo "$$want" > $(STAMP)

clean:
	rm -rf .mypy_cache .pytest_cache .ruff_cache datasets/shapes
	find . -name __pycache__ -type d -not -path './.venv/*' -exec rm -rf {} +
