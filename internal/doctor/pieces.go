package doctor

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"tempo/internal/setup"
)

// cache is where pieces come from that nobody has named.
const cache = "cache"

// locate finds the libraries, as a worker does.
func (e *examination) locate() {
	l := &e.report.Libraries
	l.Dir, l.Source = e.config.Engine.LlamaLib, e.opts.LibrariesSource
	if l.Dir != "" {
		return
	}
	if found, _ := setup.Locate(""); found != nil { // what is missing is said when it is looked at
		l.Dir, l.Source = found.LlamaLib, cache
	}
}

// libraries looks what backends the directory has. Whether they can be loaded shows
// when the memory is planned.
func (e *examination) libraries() {
	l := &e.report.Libraries
	if l.Dir == "" {
		l.Source = ""
		l.Check = fail(&setup.NotSetUpError{Parts: []setup.Part{setup.Lib}})
		return
	}
	files, err := os.ReadDir(l.Dir)
	if err != nil {
		l.Check = fail(fmt.Errorf("read the libraries' directory: %w", err))
		l.Hint = "give the directory of llama.cpp's libraries with --llama-lib; without it those of `worker setup` are taken"
		return
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Name()
	}
	l.Backends = backends(names)
	l.Check = Check{Status: OK}
	if !slices.Contains(names, "libllama.so") || len(l.Backends) == 0 {
		l.Check = Check{
			Status: Fail, Problem: fmt.Sprintf("%s has no libllama.so, or no backend (libggml-cpu*.so) beside it", l.Dir),
			Hint: "run make setup, or give the directory of llama.cpp's shared libraries with --llama-lib",
		}
	}
}

// backends are those of the libraries with these names: libggml-cuda.so,
// libggml-cpu-haswell.so.
func backends(names []string) []Backend {
	variants := map[string]int{}
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, "libggml-")
		rest, isLib := strings.CutSuffix(rest, ".so")
		if kind, _, _ := strings.Cut(rest, "-"); ok && isLib && kind != "base" {
			variants[strings.ToUpper(kind)]++
		}
	}
	var list []Backend
	for name, n := range variants {
		list = append(list, Backend{name, n})
	}
	slices.SortFunc(list, func(a, b Backend) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
