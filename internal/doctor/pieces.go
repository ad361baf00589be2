package doctor

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/gguf"
	"tempo/internal/node"
	"tempo/internal/setup"
)

// cache is where pieces come from that nobody has named.
const cache = "cache"

// locate finds the pieces, as a worker does.
func (e *examination) locate() {
	r, c := e.report, e.config.Engine
	r.Libraries.Dir, r.Libraries.Source = c.LlamaLib, e.opts.LibrariesSource
	r.Model.Name, r.Model.Path = c.NamePath()
	r.Model.Source = e.opts.ModelSource
	if r.Libraries.Dir != "" && r.Model.Path != "" {
		return
	}
	found, _ := setup.Locate("") // what is missing is said with each piece
	if found == nil {
		found = &setup.Paths{}
	}
	if r.Libraries.Dir == "" {
		r.Libraries.Dir, r.Libraries.Source = found.LlamaLib, cache
	}
	if r.Model.Path == "" {
		r.Model.Path, r.Model.Source = found.Model, cache
		r.Model.Name, _ = config.Engine{Model: found.Model}.NamePath()
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

// model reads the header of the model file.
func (e *examination) model() {
	m := &e.report.Model
	if m.Path == "" {
		m.Source = ""
		m.Check = fail(&setup.NotSetUpError{Parts: []setup.Part{setup.Model}})
		return
	}
	if _, err := os.Stat(m.Path); err != nil {
		m.Check = fail(&node.ModelError{Path: m.Path, Err: err})
		return
	}
	h, err := gguf.ReadHeader(m.Path)
	if err != nil {
		m.Check = fail(err)
		m.Hint = cmp.Or(m.Hint, "give the path of a GGUF file with --model; without it the model of `worker setup` is taken")
		return
	}
	m.Architecture, m.Layers, m.Context, m.Tensors = h.Architecture, h.Layers, h.ContextLength, budget.Bytes(h.TensorBytes)
	m.ChatTemplate, m.Check = h.HasChatTemplate, Check{Status: OK}
	if !m.ChatTemplate {
		m.Check = Check{
			Status: Warn, Problem: "the file has no chat template: ChatML is used",
			Hint: "send lines with url /v1/completions, or take a conversion of the model that has its template",
		}
	}
}
