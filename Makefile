.DEFAULT_GOAL := help
.PHONY: help run test test-long fuzz chaos audit test-cluster proofs demo lint format bench bench-import bench-growth capacity image cluster-up cluster-down deploy forward clean

UV := ./scripts/uv
export UV_NO_PROGRESS ?= 1
# What the tests start is ready sooner, also where Python may not write bytecode itself.
export UV_COMPILE_BYTECODE ?= 1

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: ## Run the service with its own PostgreSQL on 127.0.0.1:8000 (PORT, ADMIN_PORT, DATABASE_URL are honoured)
	@[ -d .venv ] || echo "Preparing the environment, the first time only ..."
	@$(UV) sync --locked --quiet
	@$(UV) run --no-sync pricebook dev

demo: ## Load the sample price list into the running service and ask it three questions
	@$(UV) sync --locked --quiet
	@$(UV) run --no-sync pricebook demo deploy/demo/pricelist.csv --url $${PRICEBOOK_URL:-http://127.0.0.1:$${PORT:-8000}}

test: lint ## Lint, types, import rules, migrations, unit and API tests (TEST_DATABASE_URL replaces the embedded PostgreSQL)
	@$(UV) run --no-sync pytest

test-long: ## What takes minutes of itself: published price lists from end to end, servers and databases that are stopped and killed
	@$(UV) sync --locked --quiet
	@$(UV) run --no-sync pytest -m long

chaos: ## Kill, pause, fill and cut servers and a PostgreSQL under load, audit what is left, and write it to docs/crash-safety.md (ROUNDS=100, SEED)
	@$(UV) sync --locked --quiet
	@$(UV) run --no-sync python -m tests.chaos --page docs/crash-safety.md --rounds $${ROUNDS:-100} $${SEED:+--seed $$SEED}

fuzz: ## Give each parser EXAMPLES inputs (default 20000), and operations, rules, imports and the response cache a part of that, made up by hypothesis and schemathesis
	@$(UV) sync --locked --quiet
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),20000) $(UV) run --no-sync pytest --timeout 0 tests/fuzz tests/unit/test_import_files.py tests/unit/test_timeline.py tests/api/test_one_rule.py tests/api/test_import_oracle.py tests/api/test_response_cache_model.py

audit: ## Look up the locked packages among known vulnerabilities (asks api.osv.dev, with what they are named)
	@$(UV) audit --locked

test-cluster: ## On the cluster of KUBECONFIG: install, upgrade under load, uninstall (about ten minutes)
	@$(UV) sync --locked --quiet
	@$(UV) run --no-sync pytest -n 0 --timeout 1800 -m cluster tests/cluster

proofs: ## On the cluster of KUBECONFIG: everything that docs/proofs.md shows, and write its table (about an hour; or PROOFS=tests/cluster/test_....py)
	@$(UV) sync --locked --quiet
	@PROOFS_PAGE=docs/proofs.md $(UV) run --no-sync pytest -n 0 --timeout 0 -m "cluster or proof" $(or $(PROOFS),tests/cluster)

lint: ## Formatting, lint, types, import rules, shell scripts and workflows
	@$(UV) sync --locked --quiet
	@$(UV) run --no-sync ruff format --check .
	@$(UV) run --no-sync ruff check .
	@$(UV) run --no-sync mypy
	@$(UV) run --no-sync lint-imports
	@$(UV) run --no-sync shellcheck .ci/run scripts/*
	@$(UV) run --no-sync zizmor --offline --quiet .github

format: ## Format the code and mend what the linter can
	@$(UV) sync --locked --quiet
	@$(UV) run --no-sync ruff format .
	@$(UV) run --no-sync ruff check --fix .

bench: ## Compare Pricebook with a bare answer, a tutorial's stack, pgbench, PocketBase and Directus in one run, and write docs/performance.md (ROUNDS, SECONDS)
	@$(UV) sync --locked --quiet
	@$(UV) run --no-sync python -m bench --rivals --page docs/performance.md --rounds $(or $(ROUNDS),3) --seconds $(or $(SECONDS),8)

bench-import: ## Import a price list of 100,000 rows (ROWS), beside a bare COPY of the same rows
	@$(UV) sync --locked --quiet
	@$(UV) run --no-sync python -m bench.imports --rows $(or $(ROWS),100000)

bench-growth: ## What operations cost with 10,000 to 10,000,000 price rows (SIZES), as a table and curves in docs/performance.md (about 12 GB of disk)
	@$(UV) sync --locked --quiet
	@$(UV) run --no-sync --with matplotlib python -m bench.growth --page docs/performance.md --picture docs/pictures/growth.svg --sizes $(or $(SIZES),10000 100000 1000000 10000000)

capacity: ## From the last bench to pods, connections and memory, and what the chart says of them, in docs/scaling.md
	@$(UV) sync --locked --quiet
	@$(UV) run --no-sync python -m bench.capacity --page docs/scaling.md

image: ## Build the image of the service as IMAGE (default pricebook/pricebook:dev) with docker
	@docker buildx build --load --tag $${IMAGE:-pricebook/pricebook:dev} .

cluster-up: ## Start a local Kubernetes with kind (MONITORING=1 adds Prometheus and Grafana)
	@scripts/cluster up

cluster-down: ## Take the local Kubernetes down
	@scripts/cluster down

deploy: ## Build the image and install the chart in the local cluster, or upgrade it (KUBE_CONTEXT, NAMESPACE, MONITORING)
	@scripts/deploy

forward: ## Make the deployed service reachable at 127.0.0.1:8000, its admin port at 8001, until Ctrl-C
	@kubectl --context $${KUBE_CONTEXT:-kind-pricebook} --namespace $${NAMESPACE:-pricebook} port-forward deployment/pricebook 8000 8001

clean: ## Remove the development database and all caches
	rm -rf .data .venv .tools .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
