package sample

import "errors"

// Options say how the tokens of one answer are drawn. The zero value is greedy, with
// everything else off. Whoever makes them has checked the ranges.
type Options struct {
	// Temperature is 0 for the likeliest token (greedy), else over 0: what the logits are
	// divided by.
	Temperature float64
	// TopK keeps the k likeliest tokens; 0 is off. TopP keeps the fewest likeliest tokens
	// that have at least this part of the probability of those that top-k kept; 0 and 1
	// are off. MinP keeps the tokens that are at least this part as likely as the
	// likeliest; 0 is off. None of them matters to a greedy choice.
	TopK       int
	TopP, MinP float64
	// RepeatPenalty divides the positive logits of tokens that came already in the answer
	// and multiplies the others; 0 and 1 are off. From the same logits FrequencyPenalty is
	// then taken once for each time that the token came, and PresencePenalty once.
	RepeatPenalty, FrequencyPenalty, PresencePenalty float64
	// Bias is added to the logits of tokens before all else; -100 or less bans one.
	Bias map[int32]float64
	Seed uint64
	// Logprobs asks for the log probability of the chosen token, and Top for the Top
	// likeliest tokens (0 to 20) beside it, in the model's own distribution: before bias,
	// penalties, filters and temperature.
	Logprobs bool
	Top      int
	// Ban are tokens that must never come. Those outside the vocabulary, here and in
	// Bias, can come in no case.
	Ban []int32
}

// penalised reports whether what was generated matters.
func (o Options) penalised() bool {
	return o.RepeatPenalty != 0 && o.RepeatPenalty != 1 || o.FrequencyPenalty != 0 || o.PresencePenalty != 0
}

// unfiltered reports whether every token can be drawn that is not banned.
func (o Options) unfiltered() bool {
	return o.Temperature > 0 && o.TopK == 0 && (o.TopP == 0 || o.TopP == 1) && o.MinP == 0
}

// Grammar says which tokens may come next. It may be slow: to mask a vocabulary takes
// thousands of times as long as to look at one token.
type Grammar interface {
	// Allows reports whether the token may come.
	Allows(token int32) bool
	// Filter keeps those that may come, in their order and in the same array.
	Filter(tokens []int32) []int32
	// Mask sets to -Inf the logits of the tokens that may not; logits has one for each
	// token of the vocabulary.
	Mask(logits []float32)
}

// Picked is a chosen token.
type Picked struct {
	Token int32
	// Logprob is the natural logarithm of the token's probability (Options.Logprobs; else
	// 0), Top the likeliest tokens, the likeliest first (Options.Top; else nil). It has
	// fewer where fewer have any probability.
	Logprob float32
	Top     []Likely
}

// Likely is a token with the natural logarithm of its probability.
type Likely struct {
	Token   int32
	Logprob float32
}

// ErrNotNumbers says that a logit is NaN or +Inf.
var ErrNotNumbers = errors.New("logits are not numbers: the model file or the library is damaged")

// ErrNoToken says that no token may come: bias, bans, the grammar or the model itself
// (-Inf) rule out every one.
var ErrNoToken = errors.New("no token may come: every one is banned")
