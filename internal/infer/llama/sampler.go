package llama

import (
	"errors"
	"fmt"

	"github.com/hybridgroup/yzma/pkg/llama"
)

// SamplerOptions say how a token is drawn. Zero values mean "off", for
// Temperature greedy.
type SamplerOptions struct {
	Temperature      float64
	TopK             int
	TopP             float64 // 0 and 1 are off
	MinP             float64
	RepeatPenalty    float64 // 0 and 1 are off
	FrequencyPenalty float64
	PresencePenalty  float64
	Seed             uint32
}

// plain reports whether the options mean the most likely token, untouched.
func (o SamplerOptions) plain() bool { return o.Temperature <= 0 && !o.penalised() }

func (o SamplerOptions) penalised() bool {
	return (o.RepeatPenalty != 0 && o.RepeatPenalty != 1) || o.FrequencyPenalty != 0 || o.PresencePenalty != 0
}

// Sampler draws the tokens of one job with llama.cpp's sampler chain. Penalties
// count the tokens that the job has generated.
type Sampler struct {
	ctx   *Context
	chain llama.Sampler // 0 = plain argmax
}

// NewSampler makes the chain penalties → top-k → top-p → min-p → temperature →
// draw. It must be closed.
func (c *Context) NewSampler(o SamplerOptions) (*Sampler, error) {
	s := &Sampler{ctx: c}
	if o.plain() {
		return s, nil
	}
	s.chain = llama.SamplerChainInit(llama.SamplerChainParams{NoPerf: 1})
	if s.chain == 0 {
		return nil, errors.New("create a sampler chain: llama.cpp gave none")
	}
	var parts []llama.Sampler
	if o.penalised() {
		repeat := o.RepeatPenalty
		if repeat == 0 {
			repeat = 1
		}
		parts = append(parts, llama.SamplerInitPenalties(int32(c.model.Vocabulary()), int32(c.model.TrainContext()),
			float32(repeat), float32(o.FrequencyPenalty), float32(o.PresencePenalty)))
	}
	if o.Temperature <= 0 {
		parts = append(parts, llama.SamplerInitGreedy())
	} else {
		if o.TopK > 0 {
			parts = append(parts, llama.SamplerInitTopK(int32(o.TopK)))
		}
		if o.TopP > 0 && o.TopP < 1 {
			parts = append(parts, llama.SamplerInitTopP(float32(o.TopP), 1))
		}
		if o.MinP > 0 {
			parts = append(parts, llama.SamplerInitMinP(float32(o.MinP), 1))
		}
		parts = append(parts, llama.SamplerInitTemp(float32(o.Temperature)), llama.SamplerInitDist(o.Seed))
	}
	for _, p := range parts {
		if p == 0 {
			llama.SamplerFree(s.chain)
			return nil, fmt.Errorf("create a sampler for %+v: llama.cpp gave none", o)
		}
		llama.SamplerChainAdd(s.chain, p)
	}
	return s, nil
}

// Sample draws the next token from output i of the last Decode.
func (s *Sampler) Sample(i int) (Token, error) {
	if s.chain == 0 {
		return s.ctx.Argmax(i)
	}
	t := llama.SamplerSample(s.chain, s.ctx.handle, int32(i))
	if t < 0 || int(t) >= s.ctx.model.Vocabulary() {
		return 0, fmt.Errorf("sample: llama.cpp returned token %d", t)
	}
	return Token(t), nil
}

// Close frees the chain.
func (s *Sampler) Close() {
	if s.chain != 0 {
		llama.SamplerFree(s.chain)
		s.chain = 0
	}
}
