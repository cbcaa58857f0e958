# make demo: see it work. make test: all tests. Both need only Python >= 3.11 with venv and headers,
# a C compiler and a package index, and both install the package into $(VENV) as a user would.
PYTHON ?= python3
VENV ?= .venv
# What of pyproject.toml's extras `make test` installs; `test,oracles` adds the peers of tests.
EXTRAS ?= test
PYTEST_ARGS ?=
# Tests run in one process for each CPU, four at most; 0: in pytest's own.
PYTEST_JOBS ?= auto

BIN := $(VENV)/bin
DEV := .venv-dev
ASAN := build/venv-sanitize
DIST := build/venv-dist
TRACED := build/coverage
# Runs of neighbouring tests stay together, since they share fixtures and compiled kernels.
SPREAD := --numprocesses $(PYTEST_JOBS) --maxprocesses 4 --dist worksteal
IMAGES := tests/data/guest-images
# Directories are listed too: their times change when a file is added or removed.
SOURCES := pyproject.toml setup.py README.md $(shell find pyvirt \
    -name __pycache__ -prune -o -name '*.so' -prune -o -print)
# The tests that the sanitizers watch: the compiled core and all that feeds it from outside.
ASAN_TESTS := $(wildcard tests/core tests/mmu tests/mmu_sim tests/fuzz tests/traces \
    tests/entitlement tests/scheduling tests/guest $(addprefix tests/shadow/test_,agile_random.py \
    front_random.py dirty_log_random.py quadrants.py pcid.py engine_bad_input.py engine_policies.py)) \
    $(filter-out %_qemu.py %guest_kernel.py %test_linux.py %other_programs.py,$(wildcard tests/x86/test_*.py tests/x86/monitors/test_*.py))

# The current directory holds a pyvirt/ without compiled modules; it must not hide the installed one.
export PYTHONSAFEPATH := 1
ifndef PYVIRT_DATA
ifneq ($(wildcard ../shared/data),)
export PYVIRT_DATA := $(abspath ../shared/data)
endif
endif

# $(call install,VENV,EXTRAS): build and install the checkout, without leftovers of earlier builds.
define install
test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
rm -rf build/py*/lib* build/py*/bdist*
@echo 'building pyvirt and installing it into $(1) ...'
$(1)/bin/python -m pip install --quiet $(2)
endef

.PHONY: help demo test install tools dev lint docs bench-smoke sanitize coverage dist clean

help:
	@echo 'make demo | test | dev | lint | docs | bench-smoke | sanitize | coverage | dist | clean'

install: $(VENV)/.installed
$(VENV)/.installed: $(SOURCES)
	$(call install,$(VENV),'.[$(EXTRAS)]')
	touch $@

# What a user would type, on page tables that a Debian kernel (5 levels) and KVM (nested) wrote.
demo: $(VENV)/.installed
	@printf '\n--- every level of a virtualised system in 18 minutes (compiles kernels the first time)\n'
	$(BIN)/pyvirt run docs/examples/scenarios/levels.toml
	@printf '\n--- one kernel executed under every technique of virtualisation\n'
	$(BIN)/pyvirt x86 compare
	@printf '\n--- the same as virtual machines, executed and by rates\n'
	$(BIN)/pyvirt run docs/examples/scenarios/generations.toml
	@printf '\n--- a memory image of a Linux guest\n'
	$(BIN)/pyvirt image info $(IMAGES)/debian61_la57.tables.lime.xz --size 2304MiB
	@printf '\n--- addresses of one of its processes: user pages of 1G and 4K, an unmapped one\n'
	$(BIN)/pyvirt image translate $(IMAGES)/debian61_la57.tables.lime.xz --size 2304MiB \
	    --cr3 0x192c000 --levels 5 --user 0x3114b26800051c 0xf6f9846de37230 0xf6f9846df7c78b
	@printf '\n--- what that process maps (the first lines)\n'
	$(BIN)/pyvirt image leaves $(IMAGES)/debian61_la57.tables.lime.xz --size 2304MiB \
	    --cr3 0x192c000 --levels 5 --merge | head -n 12
	@printf '\n--- a guest in a guest, through its own tables and the nested ones of KVM\n'
	$(BIN)/pyvirt image translate $(IMAGES)/nested_npt.tables.lime.xz --size 512MiB --pa-width 48 \
	    --cr3 0x100000 --nested-root 0x19fd0000 0x1234 0x4000 0x200000 0x3f0000000000
	@printf '\n--- a recorded program as a guest: TLBs and walk caches of Zen 4, cycles of walks and exits\n'
	$(BIN)/pyvirt mmu docs/examples/data/mawk-hash.lackey.xz --mode nested --tlb zen4 \
	    --cost 'sagepte|adams-agesen-2006'
	@printf '\n--- a cluster out of balance: what DRS recommends, and why\n'
	$(BIN)/pyvirt cluster drs docs/examples/cluster.toml
	@printf '\n--- every mapping of these images against what the guests themselves reported\n'
	PYVIRT_DATA=tests/data $(BIN)/pyvirt validate

test: $(VENV)/.installed
	$(BIN)/pytest $(SPREAD) $(PYTEST_ARGS)

# --- development -----------------------------------------------------------------------------

# Linters, Sphinx and asv, beside the installed package.
tools: $(VENV)/.tools
$(VENV)/.tools: $(VENV)/.installed pyproject.toml
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group lint --group docs --group bench
	touch $@

# An editable install; after an edit of a .pyx: $(DEV)/bin/python setup.py build_ext --inplace
dev:
	test -x $(DEV)/bin/python || $(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(DEV)/bin/python -m pip install --quiet --group dev
	$(DEV)/bin/python -m pip install --quiet --config-settings editable_mode=compat -e .

# stubtest runs elsewhere than here, so that it compares the stubs with the installed modules.
lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/cython-lint --no-pycodestyle pyvirt tests docs
	$(BIN)/mypy
	cd build && $(abspath $(BIN))/stubtest pyvirt._core --mypy-config-file ../pyproject.toml \
	    --allowlist ../.ci/stubtest-allowlist.txt --ignore-unused-allowlist

docs: $(VENV)/.tools
	$(BIN)/sphinx-build -W --keep-going -b html docs build/docs

# One sample of each benchmark: shows that they run, not how fast. Those over streams of ten million
# addresses and tables of 1 TiB take twenty minutes more, and are for report.py.
bench-smoke: $(VENV)/.tools
	cd asv_bench && $(abspath $(BIN))/asv machine --yes >/dev/null && \
	    $(abspath $(BIN))/asv run --python=same --quick --show-stderr \
	    --bench '^(entitlement|images|imports|nested|translate)\.' --bench '^tables\.Edits' \
	    --set-commit-hash $$(git rev-parse HEAD)

# Only Python's own output is captured: a report comes from C, just before the process ends.
sanitize: export PYVIRT_SANITIZE := 1
sanitize:
	$(call install,$(ASAN),'.[test]')
	env LD_PRELOAD=$$(gcc -print-file-name=libasan.so) PYTHONMALLOC=malloc \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    $(ASAN)/bin/pytest --capture=sys $(SPREAD) $(PYTEST_ARGS) $(ASAN_TESTS)

# A copy of the tree, because traced modules beside the sources would be mistaken for normal ones.
# They are slow, so the large data sets are left out.
coverage: export PYVIRT_DATA :=
coverage: export PYVIRT_KERNELS :=
coverage: $(VENV)/.tools
	rm -rf $(TRACED) && mkdir -p $(TRACED)
	cp -R pyproject.toml setup.py README.md LICENSE pyvirt tests $(TRACED)
	$(BIN)/python -m pip install --quiet --group coverage
	cd $(TRACED) && PYVIRT_COVERAGE=1 $(abspath $(BIN))/python setup.py -q build_ext --inplace
	cd $(TRACED) && PYTHONSAFEPATH= $(abspath $(BIN))/python -m coverage run -m pytest \
	    --ignore tests/packaging $(PYTEST_ARGS)
	cd $(TRACED) && $(abspath $(BIN))/python -m coverage report

# The source archive, the wheel built from it, and the wheel used from another Cython package.
dist:
	rm -rf build/dist $(DIST)
	$(PYTHON) -m venv $(DIST)
	$(DIST)/bin/python -m pip install --quiet build
	$(DIST)/bin/python -m build --outdir build/dist
	$(DIST)/bin/python -m pip install --quiet "$$(ls build/dist/*.whl)[test]"
	$(DIST)/bin/pytest tests/packaging

clean:
	rm -rf .venv $(DEV) build pyvirt.egg-info docs/_build asv_bench/.asv \
	    .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pyvirt \( -name '*.so' -o -name '*.c' ! -path '*/guests/*' -o -name __pycache__ \) \
	    -exec rm -rf {} +
