# Targets: build demo test race sim bench torture check wheel

export CGO_ENABLED = 0

# What the libraries bring that we do not use, and what each start of the command would pay for: the variant of the client of Google Cloud Storage
# for gRPC, its traces as web pages, manual pages of the command line and its guesses at misspelt words.
export GOFLAGS := $(shell go env GOFLAGS) -tags=disable_grpc_modules,grpcnotrace,urfave_cli_no_docs,urfave_cli_no_suggest

SOURCES = $(shell find . -name '*.go' -not -name '*_test.go') go.mod go.sum

build: bin/replicate

bin/replicate: $(SOURCES)
	go build -trimpath -ldflags='-s -w' -o $@ ./cmd/replicate

# Trains a classifier twice, lists, mounts, compares and copies out what it committed.
demo: build
	.ci/need fuse3
	examples/iris/demo.sh

TEST_PACKAGES = jq strace procps util-linux fuse3 git rsync attr acl fio python3 python3-numpy python3-torch python3-sklearn python3-pandas python3-attr python3-ipython zsh fish tcsh dpkg openssh-server openssh-client docker.io containerd runc iptables debootstrap iproute2

# Every test. Ends with "N passed, N failed". ARGS are given to go test.
test: build
	.ci/need $(TEST_PACKAGES)
	.ci/tool versitygw fake-gcs-server
	.ci/test $(ARGS) ./...

# kill -9 at random moments, 200 times; the tests do it 20 times. A power cut after every change of a disk; the tests try 40.
torture: build
	REPLICATE_TORTURE=200 go test -count=1 -timeout 180m -run 'Torture|KilledServers|PowerCuts|NeverWaits' ./cmd/e2e ./fs

# Ten thousand schedules of the protocol that publishes, merges, collects and undeletes, by the real code; the tests run 200.
sim:
	REPLICATE_SIM=10000 go test -count=1 -timeout 180m -run TestSimulation -v ./storage/repository

# The Go tests of what serves several callers at once, under the race detector: needs a C compiler, and a quarter of an hour on two cores.
race:
	CGO_ENABLED=1 go test -race -timeout 60m ./fs/... ./index ./storage/...

# One table: every figure beside the peers that are installed, in one run.
bench: build
	.ci/need fuse3 restic borgbackup zstd rclone curl rsync openssh-server openssh-client docker.io containerd runc iptables debootstrap iproute2
	.ci/tool versitygw
	go run ./cmd/bench

check:
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	go test -run 'TestImports|TestPackageDocs' .

wheel: build
	python3 python/replicate_wheel.py dist

clean:
	rm -rf bin dist build

.PHONY: build demo test sim race bench torture check wheel clean
