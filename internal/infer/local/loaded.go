package local

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/infer/chat"
	"tempo/internal/infer/llama"
	"tempo/internal/infer/schedule"
)

// loaded is a model with its weights and the scheduler that runs on it.
type loaded struct {
	model    *llama.Model
	template *chat.Template
	sched    *schedule.Scheduler
	longest  int                // tokens of a job, prompt and output, whatever the pool
	stop     context.CancelFunc // ends the scheduler; nil = it does not run
	stopped  chan struct{}      // closed when it has ended
}

// start loads the model in a shape, and starts the scheduler. After an error
// nothing is left.
func (e *Engine) start(shape infer.Shape) (*loaded, error) {
	l := &loaded{longest: e.facts.Context}
	if err := e.allocate(l, shape); err != nil {
		return nil, errors.Join(err, l.close())
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.stopped = stop, make(chan struct{})
	go func() {
		defer close(l.stopped)
		if err := l.sched.Run(ctx); err != nil {
			e.broken <- err
		}
	}()
	return l, nil
}

func (e *Engine) allocate(l *loaded, shape infer.Shape) (err error) {
	if l.model, err = e.lib.OpenModel(e.spec.Model, e.modelOptions(false)); err != nil {
		return startError(err, adviceModel)
	}
	if l.sched, err = schedule.New(l.model, e.options(shape), e.log); err != nil {
		return e.contextError(err)
	}
	if l.template, err = e.chatTemplate(l.model); err != nil {
		return startError(err, adviceModel)
	}
	return nil
}

func (e *Engine) chatTemplate(m *llama.Model) (*chat.Template, error) {
	source := m.ChatTemplate()
	if source == "" {
		e.log.Warn("the model file has no chat template, ChatML is used", zap.String("model", e.spec.Model))
		source = chat.ChatML
	}
	bos, eos := m.SpecialText()
	return chat.New(source, bos, eos)
}

// footprint is what is allocated. It must not be called while the scheduler changes
// its shape.
func (l *loaded) footprint() budget.Footprint {
	f := l.sched.Footprint()
	f.Weights = l.model.Weights()
	return f
}

// prompt renders and tokenizes what the job asks for.
func (l *loaded) prompt(job *api.Request) ([]llama.Token, error) {
	text, param := job.Prompt, "prompt"
	if job.URL == api.ChatCompletions {
		param = "messages"
		var err error
		text, err = l.template.Render(job.Messages, job.Tools)
		if _, refused := errors.AsType[*infer.RequestError](err); refused { // it names the field itself
			return nil, err
		}
		if err != nil {
			return nil, &infer.RequestError{
				Param: param, Message: err.Error(),
				Advice: "check the order and the roles of the messages, or ask /v1/completions with a prompt of your own",
			}
		}
	}
	return l.tokenize(param, text, 1)
}

// texts tokenizes what an embeddings job asks for.
func (l *loaded) texts(input []string) ([][]llama.Token, error) {
	texts := make([][]llama.Token, len(input))
	for i, text := range input {
		param := "input"
		if len(input) > 1 {
			param = fmt.Sprintf("input[%d]", i)
		}
		var err error
		if texts[i], err = l.tokenize(param, text, 0); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// tokenize tokenizes the text in a field, which must leave room for so many tokens of
// output.
func (l *loaded) tokenize(param, text string, output int) ([]llama.Token, error) {
	tokens, err := l.model.Tokenize(text)
	if err != nil {
		return nil, &infer.RequestError{Param: param, Message: param + ": " + err.Error(), Advice: "remove the character"}
	}
	if len(tokens) == 0 {
		return nil, &infer.RequestError{Param: param, Message: param + " is empty for this model", Advice: "write at least one character"}
	}
	if most := l.longest - output; len(tokens) > most {
		return nil, &infer.RequestError{
			Param: param,
			Message: fmt.Sprintf("%s has %d tokens; a job can have at most %d with its output, so at most %d in the prompt",
				param, len(tokens), l.longest, most),
			Advice: fmt.Sprintf("shorten the prompt, or raise --context-size: the model was trained for %d tokens", l.model.TrainContext()),
		}
	}
	return tokens, nil
}

// end ends the scheduler, and with it the jobs.
func (l *loaded) end() {
	if l.stop != nil {
		l.stop()
		<-l.stopped
	}
}

// close frees everything. No job may be in it.
func (l *loaded) close() error {
	l.end()
	var errs []error
	if l.sched != nil {
		errs = append(errs, l.sched.Close())
	}
	if l.model != nil {
		errs = append(errs, l.model.Close())
	}
	return errors.Join(errs...)
}
