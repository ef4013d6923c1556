# make demo   install, then find the landmarks on examples/imgs
# make test   install, then run every test
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: install demo test lint clean
.DELETE_ON_ERROR:

install: $(VENV)/.installed

# visdom comes as source only; the release for Python 3.11 builds with a setuptools that still has pkg_resources.
$(VENV)/.installed: requirements.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet "setuptools>=77.0.3,<81" wheel
	$(RUN) -m pip install --quiet --no-build-isolation -r requirements.txt
	touch $@

demo: install
	$(RUN) demo.py --indir examples/imgs/ --outdir examples/outputs/ --nClasses 106 --save_img

test: install
	$(RUN) -m pytest

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:
	rm -rf $(VENV) examples/outputs
