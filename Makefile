# kembed's few commands. `make help` lists them.

.DEFAULT_GOAL := help
.NOTPARALLEL:

cluster := e2e/cluster/cluster
# One selection of packages for everything, else cargo would compile what they share once for each set of features.
cargo_test := cargo test --locked --workspace
# The tests that need a cluster; e2e/Cargo.toml keeps them out of a plain `cargo test`.
e2e_tests := --test accelerator --test capacity --test cluster --test crash --test rbac --test recovery --test release

help: ## print this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(if $(KUBECONFIG),,images cluster) ## a cluster, kembed and a model in it, and its answers; KUBECONFIG=... uses a cluster of yours
	@scripts/demo

test: ## everything that CI runs: check, unit, clients, e2e; with the time of each step
	@scripts/steps setup check unit clients build images cluster e2e

check: setup ## formatting, lints, licences, scripts and the chart
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --workspace $(e2e_tests) -- -D warnings
	@# fuzz/ has a lock file of its own, and nothing else here would notice that it is an old one.
	cargo update --quiet --workspace --locked --manifest-path fuzz/Cargo.toml
	@scripts/deny
	@scripts/lint

unit: deps s3 ## tests that need no cluster
	$(cargo_test)

e2e: images s3 cluster ## tests on a real Kubernetes
	@scripts/images tests
	$(cargo_test) $(e2e_tests) --no-run
	@scripts/load
	@# More of them at a time than there are cores: most of the time they wait. What failed is the last that is printed of a
	@# test, without a backtrace, which would be longer than all else.
	$(cluster) exec -- env RUST_BACKTRACE=0 RUST_LIB_BACKTRACE=0 $(cargo_test) --offline $(e2e_tests) -- --test-threads 6

clients: deps ## inference pod and gateway by the clients that users have
	@# Not `cargo build`: that selects fewer features, and would compile much of what `unit` compiled once more.
	$(cargo_test) --no-run
	@operator/tests/clients/run
	@inference-pod/tests/clients/run

bench: deps ## how close serving on this machine's CPU comes to bare ONNX Runtime; takes 10 minutes
	@mkdir -p .build
	scripts/profiled cargo bench --locked --workspace --bench serving -- --json "$(CURDIR)/.build/bench.json" --svg "$(CURDIR)/.build/bench.svg"

bench-gateway: setup ## how fast and how safe the gateway is, beside nginx and haproxy where they are installed; takes 10 minutes
	@mkdir -p .build
	scripts/profiled cargo bench --locked --workspace --bench gateway -- --json "$(CURDIR)/.build/bench-gateway.json"

profile: setup ## profile the gateway anew, by which `build` compiles; takes 15 minutes
	@scripts/profile

soak: deps ## whether a pod's memory stays flat over 200,000 requests of mixed sizes; takes minutes
	scripts/profiled cargo bench --locked --workspace --bench soak

# Not in `check`: its programs are built apart from all else, which takes minutes.
fuzz: setup ## fuzz all that reads bytes from outside, SECONDS_EACH=30 for each target
	@scripts/fuzz

setup: ## install what this machine lacks (Debian 12)
	@scripts/setup

deps: setup ## fetch ONNX Runtime and the model of tests and demo
	@scripts/deps

# Tests alone need an S3 server, with and without a cluster.
s3: setup
	@scripts/minio >/dev/null

build: setup ## the programs, as images hold them
	scripts/profiled cargo build --locked --release --workspace --bins

images: build deps ## pack images for the test cluster
	@scripts/images

# Not in `images`: nothing that is tested here needs it.
image-cuda: build ## pack the inference pod with CUDA; fetches 680 MB
	@scripts/deps cuda
	@scripts/images cuda

# Not in `test`, for what it fetches: ONNX Runtime's own code for GPUs, on libraries that do nothing. After a change of its version.
provider: setup ## try graphs with ONNX Runtime's code for GPUs; fetches 680 MB
	@scripts/deps cuda
	cargo test --locked --package inference-pod --test provider -- --ignored --test-threads 1

cluster: setup ## start the test cluster; e2e/cluster/README.md has more
	$(cluster) up

down: ## end the test cluster and forget its state
	$(cluster) down --wipe

generate: ## write what is generated from the types in crds/
	@mkdir -p .build
	cargo run --locked --quiet --package operator -- crds >.build/generated
	mv .build/generated charts/kembed/files/embeddingservices.kembed.dev.yaml
	cargo run --locked --quiet --package operator -- docs >.build/generated
	mv .build/generated docs/conditions.md

clean: down ## also remove everything that was built here
	cargo clean
	rm -rf .build

.PHONY: help demo test check unit e2e clients bench bench-gateway profile soak fuzz setup deps s3 build images image-cuda provider cluster down generate clean
