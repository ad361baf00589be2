package main

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"tempo/internal/gguf"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/llama"
)

// smallModel has a vocabulary that prompts can be made of.
func smallModel(t *testing.T) string {
	t.Helper()
	s := gguf.Tiny()
	s.Vocab, s.Context = 8192, 4096
	file := filepath.Join(t.TempDir(), "small.gguf")
	require.NoError(t, gguf.WriteFile(file, s))
	return file
}

// A text has as many tokens as it was asked to have, by llama.cpp's own count.
func TestVocabularyCountsTokens(t *testing.T) {
	t.Parallel()
	file := smallModel(t)
	v, err := readVocabulary(infertest.LibDir(t), file, zap.NewNop())
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(v.words), fewestWords)
	lib, err := llama.Load(infertest.LibDir(t), zap.NewNop())
	require.NoError(t, err)
	m, err := lib.OpenModel(file, llama.ModelOptions{GPU: -1, DryRun: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 16, 128, 1000} {
		tokens, err := m.Tokenize(v.text(r, n))
		require.NoError(t, err)
		require.Len(t, tokens, n)
	}
}

func TestVocabularyOfBytesMakesNoPrompts(t *testing.T) {
	t.Parallel()
	s := gguf.Tiny()
	s.Vocab = 300
	file := filepath.Join(t.TempDir(), "bytes.gguf")
	require.NoError(t, gguf.WriteFile(file, s))
	_, err := readVocabulary(infertest.LibDir(t), file, zap.NewNop())
	require.ErrorContains(t, err, "its vocabulary has")
	_, err = readVocabulary(infertest.LibDir(t), filepath.Join(t.TempDir(), "none.gguf"), zap.NewNop())
	require.ErrorContains(t, err, "none.gguf")
}

// abc is a vocabulary of three words.
func abc() *vocabulary { return &vocabulary{[]string{" a", " b", " c"}} }

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func TestMakersRepeatThemselves(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]maker{
		"distinct": distinct(128, 64, greedy()),
		"prefixed": prefixed(512, 32, 64),
		"mixed":    mixed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			jobs := m(abc(), random(1), 40)
			require.Equal(t, jobs, m(abc(), random(1), 40))
			require.Len(t, jobs, 40)
			other := m(abc(), random(2), 40)
			seen := map[string]bool{}
			for i, j := range jobs {
				require.Equal(t, j.in, strings.Count(j.prompt, " "))
				require.NotEqual(t, j.prompt, other[i].prompt, "another seed, another text")
				require.Equal(t, [2]int{j.in, j.out}, [2]int{other[i].in, other[i].out}, "of the same lengths")
				require.False(t, seen[j.prompt], "two are alike")
				seen[j.prompt] = true
			}
		})
	}
}

func TestPrefixedShareTheirBeginningOnly(t *testing.T) {
	t.Parallel()
	jobs := prefixed(512, 32, 64)(abc(), random(1), 8)
	for _, j := range jobs {
		require.Equal(t, 544, j.in)
		require.Equal(t, jobs[0].prompt[:1024], j.prompt[:1024])
	}
	require.NotEqual(t, jobs[0].prompt[1024:], jobs[1].prompt[1024:])
}

func TestMixedLengthsAndFamilies(t *testing.T) {
	t.Parallel()
	const n = 1000
	jobs := mixed(abc(), random(1), n)
	begins, family := map[string]int{}, 0
	for _, j := range jobs {
		require.GreaterOrEqual(t, j.in, 16)
		require.LessOrEqual(t, j.in, 1000)
		require.GreaterOrEqual(t, j.out, 8)
		require.LessOrEqual(t, j.out, 256)
		if j.in >= shortestPrefix {
			begins[j.prompt[:2*shortestPrefix]]++ // 3^64 texts: no two by chance
		}
	}
	for _, of := range begins {
		require.LessOrEqual(t, of, largestFamily)
		if of > 1 {
			family += of
		}
	}
	require.InDelta(t, n/3, family, 1) // the last family can be of one
}

func TestTallyChecksTheWork(t *testing.T) {
	t.Parallel()
	jobs := []job{{in: 100, out: 50}, {in: 100, out: 50}}
	require.NoError(t, tally{prompt: 201, generated: 97}.check(jobs))
	require.InDelta(t, 50.0, tally{generated: 100, took: 2 * time.Second}.rate(), 1e-9)
	require.ErrorContains(t, tally{prompt: 203, generated: 100}.check(jobs), "prompts of 200 tokens were counted as 203")
	require.ErrorContains(t, tally{prompt: 197, generated: 100}.check(jobs), "counted as 197")
	require.ErrorContains(t, tally{prompt: 200, generated: 94}.check(jobs), "94 tokens were generated instead of 100")
	require.ErrorContains(t, tally{prompt: 200, generated: 101}.check(jobs), "101 tokens")
}
