package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/gguf"
	"tempo/internal/hub"
	"tempo/internal/node"
)

// models looks at each model of the configuration, and says so; the report's Model is
// that of which is spoken, and in the end the first.
func (e *examination) models(ctx context.Context) {
	r := e.report
	wanted := e.config.Engine.Models()
	if len(wanted) == 0 {
		wanted = []config.Model{{}} // that of the cache
	}
	for _, m := range wanted {
		r.Model = e.model(ctx, m)
		r.Models = append(r.Models, r.Model)
		e.say(ModelSection)
	}
	r.Model = r.Models[0]
}

// model finds the file of a model, and reads its header.
func (e *examination) model(ctx context.Context, wanted config.Model) Model {
	m := Model{Name: wanted.Name, Path: wanted.Source, Source: e.opts.ModelSource}
	found, err := node.FindModel(wanted)
	if missing, ok := errors.AsType[*hub.NotFetchedError](err); ok {
		m.Check = e.offered(ctx, missing)
		return m
	}
	if wanted == (config.Model{}) {
		m.Source = cache
	}
	if err != nil {
		if m.Path == "" {
			m.Source = ""
		}
		m.Check = fail(err)
		return m
	}
	m.Name, m.Path = found.Name, found.Path
	m.read()
	return m
}

// read reads the header of the file.
func (m *Model) read() {
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

// offerLimit bounds the questions to a hub: they are tried again where it does not
// answer.
const offerLimit = 10 * time.Second

// offered says of a model that is not in the cache what would be fetched. It fetches
// nothing: whether the model fits cannot be known before.
func (e *examination) offered(ctx context.Context, missing *hub.NotFetchedError) Check {
	ctx, cancel := context.WithTimeout(ctx, offerLimit)
	defer cancel()
	o, err := hub.New(hub.Options{Endpoint: e.config.Hub.Endpoint, Token: e.config.Hub.Token}).Look(ctx, missing.Ref)
	if err != nil {
		check := fail(fmt.Errorf("%w; and it cannot be had: %w", missing, err))
		check.Hint = Hint(err)
		return check
	}
	files := "1 file"
	if o.Files > 1 {
		files = fmt.Sprintf("%d files", o.Files)
	}
	have := ""
	if o.Here > 0 {
		have = fmt.Sprintf(" (of %s; %s are there)", hub.Size(o.Bytes), hub.Size(o.Here))
	}
	check := fail(fmt.Errorf("%w: a worker would fetch %s, %s%s, from %s", missing, files, hub.Size(o.Bytes-o.Here), have, e.config.Hub.Endpoint))
	check.Hint = missing.Hint() + "; worker run and submit run --local do so by themselves"
	return check
}
