package doctor

import (
	"errors"
	"fmt"

	"tempo/internal/budget"
	"tempo/internal/gguf"
	"tempo/internal/node"
	"tempo/internal/worker"
)

// errNoPlan says that the memory was not planned.
var errNoPlan = errors.New("the memory was not planned")

// RuleOf is the rule behind max_parallel_tokens in the report's form.
func RuleOf(p worker.Parallel) Rule {
	return Rule{Automatic: p.Automatic, Available: p.Available, TokenBytes: p.TokenBytes, Unbounded: p.Rule}
}

// layers lists the memory of each layer. Where the memory could not be planned it
// is only what the file says.
func (e *examination) layers(plan node.Preview, planErr error) {
	l := &Layers{List: []Layer{}, Differences: []string{}}
	e.report.Layers = l
	if s := e.report.Model.Status; s != OK && s != Warn {
		l.Check = skipped("it needs the model")
		return
	}
	header, err := gguf.ReadHeader(e.report.Model.Path)
	if err != nil {
		l.Check = fail(err)
		return
	}
	l.Check = Check{Status: OK}
	if planErr == nil {
		l.Cells, l.Sequences = plan.Plan.Cells, plan.Plan.Sequences
		l.DryWeights, l.DryKVCache = plan.Plan.Footprint.Weights, plan.Plan.Footprint.KVCache
	}
	k, _ := gguf.CacheType(e.config.Memory.CacheTypeK) // validated by config
	v, _ := gguf.CacheType(e.config.Memory.CacheTypeV)
	known := true
	for _, g := range header.LayerMemory(k, v) {
		one := Layer{
			Index: g.Index, Kind: string(g.Kind), Weights: budget.Bytes(g.WeightBytes),
			KVBytesPerToken: budget.Bytes(g.KVBytesPerToken), KVKnown: g.KVKnown(),
		}
		if l.Cells > 0 {
			one.KVCache = budget.Bytes(g.CacheBytes(gguf.CacheShape{Cells: l.Cells, Sequences: l.Sequences, Batch: e.config.Engine.BatchSize, FullWindow: true}))
		}
		known = known && one.KVKnown
		l.Weights, l.KVCache = l.Weights.Add(one.Weights), l.KVCache.Add(one.KVCache)
		l.List = append(l.List, one)
	}
	l.Rest = budget.Bytes(header.OtherBytes())
	l.Weights = l.Weights.Add(l.Rest)
	if planErr == nil {
		l.compare(header.TiedOutput, known)
	}
}

// compare says where the sums differ from the dry run.
func (l *Layers) compare(tied, known bool) {
	if d := l.DryWeights.Sub(l.Weights); d != 0 {
		why := "llama.cpp repacks or pads tensors for the processor"
		if tied {
			why += ", and may keep the token embeddings twice: as they are, and repacked as the output"
		}
		l.Differences = append(l.Differences, fmt.Sprintf("weights: the dry run has %v, %s than the file: %s", l.DryWeights, apart(d), why))
	}
	switch d := l.DryKVCache.Sub(l.KVCache); {
	case !known:
		l.Differences = append(l.Differences, fmt.Sprintf("KV cache: the dry run has %v; what the layers of this architecture keep is not known from the file", l.DryKVCache))
	case max(d, -d) >= budget.Bytes(max(l.Cells, 1)): // less is the rounding to whole cells
		l.Differences = append(l.Differences, fmt.Sprintf("KV cache: the dry run has %v, %s than the layers: llama.cpp may lay windows and states out in another way, or keep values padded without flash attention", l.DryKVCache, apart(d)))
	}
}

// apart says by how much a dry run differs.
func apart(d budget.Bytes) string {
	if d < 0 {
		return (-d).String() + " less"
	}
	return d.String() + " more"
}
