# Tempo's targets. "make help" lists them; pinned versions stand here and in
# internal/setup.

GOLANGCI := v2.15.0

cache  := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/tempo
linter := $(cache)/tools/golangci-lint-$(GOLANGCI)/golangci-lint

# go-nvml's header makes the C compiler print pages of deprecation warnings.
export CGO_CFLAGS := -O2 -g -Wno-deprecated-declarations

# $(call need,PROGRAM,WHAT INSTALLS IT) fails in one line if a program is missing.
# npm and pip are looked for by "worker setup", and only if there is something to
# fetch.
define need
@command -v $(1) >/dev/null || { echo "make: $(1) is missing: install it ($(2))" >&2; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help run test chaos lint bench peers build setup setup-lib nats-server tools clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: setup ## set up, build, and run the example prompts
	@mkdir -p out
	bin/submit run examples/prompts.jsonl --local -o out/results.jsonl --errors out/errors.jsonl

test: setup ## run all tests with the race detector
	go test -race ./...

chaos: tools ## kill, stop and cut off everything, and count what came of the jobs (ARGS="--jobs 3000 --seed 7")
	go run ./test/chaos $(ARGS)

lint: $(linter) ## check style and import rules
	@files=$$(gofmt -l .); test -z "$$files" || { echo "run gofmt -w on: $$files" >&2; exit 1; }
	$(linter) run

bench: build ## run all benchmarks (bench-NAME: one; ARGS="--runs 3")
	go run ./bench $(ARGS)

bench-%: build
	go run ./bench $* $(ARGS)

peers: setup-lib ## build llama.cpp's programs that bench-engine measures against
	go run ./bench peers

build: tools ## build bin/worker and bin/submit
	go build -o bin/ ./cmd/worker ./cmd/submit

setup: build ## fetch the llama.cpp libraries and the model into the cache
	@bin/worker setup

setup-lib: build
	@bin/worker setup --only lib

nats-server: tools ## build bin/nats-server, for workers in processes of their own
	go build -o bin/nats-server github.com/nats-io/nats-server/v2

clean: ## remove what was built and written; the cache stays
	rm -rf bin out

tools:
	$(call need,go,Go 1.26 or later: Debian: apt install golang; Fedora: dnf install golang; macOS: brew install go)
	$(call need,cc,Debian: apt install gcc libc6-dev; Fedora: dnf install gcc; macOS: xcode-select --install)

$(linter): | tools
	GOBIN=$(dir $@) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
