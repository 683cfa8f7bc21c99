# The commands of the project. `make demo` and `make test` need nothing but a Debian machine; see CONTRIBUTING.md.
SHELL := /bin/sh
JOBS ?= $(shell nproc)
# CI has warnings as errors. A newer compiler's warnings are to stop nobody else; so that `make demo` and `make test` share
# what they compile, it is one setting for both.
WERROR ?= OFF
ORACLE := .venv/bin/python
LLM_COMPRESSOR := .venv-llmcompressor/bin/python
ENGINES := .venv-engines/bin/python

.PHONY: build build-tests configure demo test sanitize conformance engines bench bench-scaling bench-quantize bench-kernels bench-threads micro-bench differential metamorphic fuzz format lint clean packages

# The program; the library comes with it.
build: configure
	@cmake --build --preset release -j $(JOBS) --target quantport_program

# And everything that tests it.
build-tests: configure
	@cmake --build --preset release -j $(JOBS)

configure: packages
	@cmake --preset release -G Ninja -DQUANTPORT_WERROR=$(WERROR) >build/release.configure.log 2>&1 || { cat build/release.configure.log; exit 1; }

packages:
	@mkdir -p build
	@tools/install_packages.sh

# Reverts the sample export to its hub names and verifies the result.
demo: build
	@tools/demo.sh build/release/quantport

test: build-tests
	@tools/install_packages.sh python
	@ctest --preset release -j $(JOBS)

# The unit tests and saved fuzz inputs under AddressSanitizer and UBSan; what runs threads under ThreadSanitizer.
sanitize: packages
	@for preset in asan tsan; do \
	  cmake --preset $$preset -G Ninja >build/$$preset.configure.log 2>&1 || { cat build/$$preset.configure.log; exit 1; }; \
	done
	@cmake --build --preset asan -j $(JOBS) --target quantport_tests quantport_fuzz_targets
	@ctest --preset asan -j $(JOBS) -L 'unit|fuzz-replay'
	@cmake --build --preset tsan -j $(JOBS) --target quantport_thread_tests
	@ctest --preset tsan -j $(JOBS) -L threads

# Goldens with one tensor of another shape or dtype under every command, all of them; `make test` runs a sample.
metamorphic: build
	@QUANTPORT=build/release/quantport python3 tests/metamorphic/metamorphic_test.py --all

# Against the real transformers, safetensors and ModelOpt, in a virtual environment of its own.
conformance: build $(ORACLE) $(LLM_COMPRESSOR)
	@tools/install_packages.sh conformance
	@tools/python_environment.sh python3 cmake build/release build/python-venv
	@$(ORACLE) -m pip install -q --no-deps --force-reinstall build/release/python/wheel/quantport-*.whl
	@QUANTPORT=build/release/quantport QUANTPORT_LLM_COMPRESSOR=$(LLM_COMPRESSOR) $(ORACLE) tools/run_conformance.py

$(ORACLE): tools/oracle-requirements.txt
	@tools/install_packages.sh conformance
	@python3 -m venv .venv
	@.venv/bin/python -m pip install -q -r tools/oracle-requirements.txt
	@touch $@

# llm-compressor wants another compressed-tensors than the oracle: an environment of its own on top of the oracle's.
$(LLM_COMPRESSOR): tools/llmcompressor-requirements.txt $(ORACLE)
	@python3 -m venv .venv-llmcompressor
	@$(ORACLE) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  >$$($(LLM_COMPRESSOR) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/oracle.pth
	@$(LLM_COMPRESSOR) -m pip install -q -r tools/llmcompressor-requirements.txt
	@touch $@

# Against the real vLLM and SGLang, which a CPU is enough for: records anew what they make of every cell of the table
# (tests/golden/engines), and holds `verify --engine` to it. ENGINE, and MODEL for one alone.
ENGINE ?= vllm sglang
engines: build $(ENGINES)
	@for engine in $(ENGINE); do \
	  QUANTPORT=build/release/quantport OMP_NUM_THREADS=1 $(ENGINES) tests/engines/record.py $$engine $(if $(MODEL),--model $(MODEL)) || exit 1; done
	@QUANTPORT=build/release/quantport python3 tests/cli/engines_test.py

# torchaudio and torchcodec come with vLLM, are built for CUDA and can't be imported here.
$(ENGINES): tests/engines/requirements.txt tests/engines/requirements-sglang.txt
	@python3 -m venv .venv-engines
	@$(ENGINES) -m pip install -q -r tests/engines/requirements.txt
	@$(ENGINES) -m pip install -q --no-deps -r tests/engines/requirements-sglang.txt
	@$(ENGINES) -m pip uninstall -q -y torchaudio torchcodec
	@touch $@

# Both write their part of docs/benchmarks.md. SIZE=1GB is a quick run. Needs 3.3 times the size of free disk, and root for
# what is measured on a loop-mounted xfs; without, the tables say that it is missing. Other work on the machine shows.
SIZE ?= 10GB
bench: build $(ORACLE)
	@tools/install_packages.sh xfs || echo "going on without xfs" >&2
	@python3 bench/run.py --size $(SIZE) --program build/release/quantport --python $(ORACLE) --workdir build/bench-data --output docs/benchmarks.md

# How in place and reflink grow with bytes and with tensors, up to 40 GB of holes.
bench-scaling: build
	@tools/install_packages.sh xfs || echo "going on without xfs" >&2
	@python3 bench/scaling.py --program build/release/quantport --workdir build/bench-data --output docs/benchmarks.md

# End to end, cold, against reading the model and writing the result.
bench-quantize: build
	@mkdir -p build/bench-data
	@python3 bench/quantize.py build/release/quantport build/bench-data --size $(SIZE)

# The kernels that quantize against ModelOpt's torch code on the same weights; writes its part of docs/benchmarks.md.
bench-kernels: $(ORACLE)
	@mkdir -p build && tools/install_packages.sh bench
	@cmake --preset bench -G Ninja >build/bench.configure.log 2>&1 || { cat build/bench.configure.log; exit 1; }
	@cmake --build --preset bench -j $(JOBS) --target quantport_quantize_bench
	@python3 bench/quantize_kernels.py --bench build/bench/quantport_quantize_bench --python $(ORACLE) --output docs/benchmarks.md

# Quantizing and copying by the number of threads. FOLDER may be one in memory.
FOLDER ?= build/bench-data
bench-threads: build
	@python3 bench/threads.py build/release/quantport $(FOLDER) --size $(SIZE)

micro-bench:
	@mkdir -p build && tools/install_packages.sh bench
	@cmake --preset bench -G Ninja >build/bench.configure.log 2>&1 || { cat build/bench.configure.log; exit 1; }
	@cmake --build --preset bench -j $(JOBS)
	@build/bench/quantport_bench
	@build/bench/quantport_quantize_bench

# SIMD against scalar kernels on ELEMENTS random elements of each kind; `make test` does so on a million.
ELEMENTS ?= 100000000
differential: build-tests
	@tools/differential.sh build/release/tests/quantport_tests $(ELEMENTS) $(JOBS)

# Fuzzes each target for SECONDS, with clang's libFuzzer.
SECONDS ?= 60
fuzz:
	@mkdir -p build && tools/install_packages.sh fuzz
	@cmake --preset fuzz -G Ninja >build/fuzz.configure.log 2>&1 || { cat build/fuzz.configure.log; exit 1; }
	@cmake --build --preset fuzz -j $(JOBS)
	@tools/fuzz.sh build/fuzz/fuzz $(SECONDS)

# The version that Debian 12 has: another one breaks lines elsewhere.
CLANG_FORMAT := clang-format-14

format:
	@tools/install_packages.sh lint
	@git ls-files '*.cc' '*.h' | xargs $(CLANG_FORMAT) -i

lint: build
	@tools/install_packages.sh lint
	@git ls-files '*.cc' '*.h' | xargs $(CLANG_FORMAT) --dry-run --Werror || { echo "make format mends these" >&2; exit 1; }
	@ctest --preset release -L lint

clean:
	@rm -rf build
