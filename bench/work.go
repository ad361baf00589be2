package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/gguf"
	"tempo/internal/infer/llama"
)

// job is a prompt of in tokens, after which out tokens are wanted.
type job struct {
	prompt   string
	in, out  int
	sampling api.Sampling
}

// greedy takes the likeliest token; sampled is what most users send.
func greedy() api.Sampling { return api.Sampling{TopP: 1, RepeatPenalty: 1} }

func sampled() api.Sampling { return api.Sampling{Temperature: 0.8, TopP: 0.95, RepeatPenalty: 1} }

func (j job) request() *api.Request {
	return &api.Request{URL: api.Completions, Prompt: j.prompt, MaxTokens: j.out, IgnoreEOS: true, N: 1, Sampling: j.sampling}
}

// tally is what came of a run.
type tally struct {
	prompt, generated int // tokens
	took              time.Duration
}

// rate is tokens generated a second.
func (t tally) rate() float64 { return float64(t.generated) / t.took.Seconds() }

const (
	promptTolerance    = 0.01
	generatedTolerance = 0.05 // a model may end a text before its time, which the rate has in it
)

// check says whether the jobs were done as they are: then both sides did the same.
func (t tally) check(jobs []job) error {
	in, out := 0, 0
	for _, j := range jobs {
		in, out = in+j.in, out+j.out
	}
	if off := float64(t.prompt)/float64(in) - 1; off > promptTolerance || off < -promptTolerance {
		return fmt.Errorf("prompts of %d tokens were counted as %d: not the work that the other side does", in, t.prompt)
	}
	if float64(t.generated) < (1-generatedTolerance)*float64(out) || t.generated > out {
		return fmt.Errorf("%d tokens were generated instead of %d: the model ends its texts, take one with random weights", t.generated, out)
	}
	return nil
}

// vocabulary makes texts of an exact number of tokens, of words that are a token
// each wherever they stand.
type vocabulary struct{ words []string }

const (
	fewestWords = 200
	mostWords   = 4096 // as many make enough different texts
)

// readVocabulary finds the words that a model has a token for.
func readVocabulary(libDir, model string, log *zap.Logger) (*vocabulary, error) {
	if _, err := gguf.ReadHeader(model); err != nil { // llama.cpp ends the process on some damaged files
		return nil, err
	}
	lib, err := llama.Load(libDir, log)
	if err != nil {
		return nil, err
	}
	m, err := lib.OpenModel(model, llama.ModelOptions{GPU: -1, DryRun: true})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	v := &vocabulary{}
	for t := range llama.Token(m.Vocabulary()) {
		if text := string(m.Piece(t)); isWord(text) && len(v.words) < mostWords {
			tokens, err := m.Tokenize(text)
			if err == nil && len(tokens) > 0 && tokens[len(tokens)-1] == t {
				v.words = append(v.words, text)
			}
		}
	}
	if len(v.words) < fewestWords {
		return nil, fmt.Errorf("make prompts for %s: its vocabulary has %d words, needed are %d", model, len(v.words), fewestWords)
	}
	all := strings.Join(v.words, "")
	tokens, err := m.Tokenize(all)
	if extra := len(tokens) - len(v.words); err != nil || extra < 0 || extra > 1 { // one for the beginning of the text
		return nil, fmt.Errorf("make prompts for %s: a text of %d words has %d tokens", model, len(v.words), len(tokens))
	}
	return v, nil
}

// isWord reports whether text is a space and lower-case letters.
func isWord(text string) bool {
	return len(text) > 2 && text[0] == ' ' && strings.Trim(text[1:], "abcdefghijklmnopqrstuvwxyz") == ""
}

// text makes a text of n tokens.
func (v *vocabulary) text(r *rand.Rand, n int) string {
	var b strings.Builder
	for range n {
		b.WriteString(v.words[r.IntN(len(v.words))])
	}
	return b.String()
}

// maker makes n jobs. The same r makes the same ones.
type maker func(v *vocabulary, r *rand.Rand, n int) []job

// distinct makes prompts that have nothing in common.
func distinct(in, out int, s api.Sampling) maker {
	return func(v *vocabulary, r *rand.Rand, n int) []job {
		jobs := make([]job, n)
		for i := range jobs {
			jobs[i] = job{v.text(r, in), in, out, s}
		}
		return jobs
	}
}

// prefixed makes prompts that all begin with the same tokens.
func prefixed(common, own, out int) maker {
	return func(v *vocabulary, r *rand.Rand, n int) []job {
		begin := v.text(r, common)
		jobs := make([]job, n)
		for i := range jobs {
			jobs[i] = job{begin + v.text(r, own), common + own, out, greedy()}
		}
		return jobs
	}
}

// The bounds of mixed jobs, in tokens.
const (
	shortestPrompt, longestPrompt = 16, 1000
	shortestAnswer, longestAnswer = 8, 256
	shortestPrefix, longestPrefix = 64, 640
	smallestFamily, largestFamily = 4, 12 // jobs with a prefix in common
	inFamilies                    = 3     // one job of so many
)

// mixed makes prompts and answers of very different lengths, a third of them in
// families that begin alike, in any order. The lengths and the order are the same
// whatever r is, so that runs can be compared; the words are not.
func mixed(v *vocabulary, r *rand.Rand, n int) []job {
	lengths := rand.New(rand.NewPCG(uint64(n), 3))
	between := func(least, most int) int { return least + lengths.IntN(most-least+1) }
	jobs := make([]job, 0, n)
	for len(jobs) < n/inFamilies {
		prefix := between(shortestPrefix, longestPrefix)
		begin := v.text(r, prefix)
		for range min(between(smallestFamily, largestFamily), n/inFamilies-len(jobs)) {
			own := between(shortestPrompt, longestPrompt-longestPrefix)
			jobs = append(jobs, job{begin + v.text(r, own), prefix + own, between(shortestAnswer, longestAnswer), greedy()})
		}
	}
	for len(jobs) < n {
		in := between(shortestPrompt, longestPrompt)
		jobs = append(jobs, job{v.text(r, in), in, between(shortestAnswer, longestAnswer), greedy()})
	}
	lengths.Shuffle(n, func(i, j int) { jobs[i], jobs[j] = jobs[j], jobs[i] })
	return jobs
}
