# `make` checks and tests; `make test` is what a fresh machine needs to type.
# CI (.ci/run) calls these targets and nothing else.
GO    ?= go
T     ?= 30s
N     ?= 100
MODE  ?= all
RACE  ?= ./...
TOOLS := $(CURDIR)/.tools
export NODE_PATH := $(TOOLS)/node_modules
export PATH := $(TOOLS):$(PATH)

.PHONY: all build fmt vet staticcheck deps test race fuzz bench bench-compare torture golden
all: fmt vet staticcheck test
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/comqtt ./cmd/comqtt

# Tools are built once into .tools; the file names carry the versions.
$(TOOLS)/gofumpt-v0.12.0: MODULE = mvdan.cc/gofumpt@v0.12.0
$(TOOLS)/staticcheck-v0.8.2: MODULE = honnef.co/go/tools/cmd/staticcheck@v0.8.2
$(TOOLS)/benchstat-20260908: MODULE = golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
$(TOOLS)/%:
	GOBIN=$(TOOLS) $(GO) install $(MODULE) && touch $@
fmt: $(TOOLS)/gofumpt-v0.12.0
	@out=$$(gofumpt -l $(wildcard */)) && test -z "$$out" || { echo "to be formatted with gofumpt -w:"; echo "$$out"; exit 1; }
vet:
	$(GO) vet ./...
staticcheck: $(TOOLS)/staticcheck-v0.8.2
	staticcheck ./...

deps: # what the tests use and the machine lacks, where it may be installed
	@sh .ci/deps
test: deps
	$(GO) test ./...
race: # RACE="./broker ./wal" for some packages only
	CGO_ENABLED=1 $(GO) test -race -short $(RACE)
fuzz: # each target for T
	@grep -rho --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort -u | sed 's/func //' | while read -r name; do \
	  for dir in $$(grep -rl --include='*_test.go' "^func $$name(" . | xargs -n1 dirname | sort -u); do \
	    echo "== $$dir $$name"; $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(T) "$$dir" || exit 1; done; done
bench: $(TOOLS)/benchstat-20260908 # compared with the figures on record
	mkdir -p bin && $(GO) test -run '^$$' -bench . -benchmem ./... | tee bin/bench.txt
	if test -f docs/bench/last.txt; then benchstat docs/bench/last.txt bin/bench.txt; fi
bench-compare: build # with other brokers, on an idle machine; QUICK=1 or ONLY='fan-*' for a look
	tools/bench-compare
torture: # N kills of the real binary, 2 N power cuts, 40 N damages, planted defects; MODE=power for one of them
	$(GO) run ./cmd/torture -kills $(N) -mode $(MODE)
golden: # rewrites expected output; commit only a difference you understand
	$(GO) test $$(grep -rl --include='*_test.go' 'flag.Bool("update"' . | xargs -n1 dirname | sort -u) -update
	git diff --stat
