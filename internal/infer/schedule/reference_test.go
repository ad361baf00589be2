package schedule

import (
	"cmp"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/plain"
)

// off is how far a probability may be from that of plain arithmetic; tied is what may decide who is
// in a set, or removed, where two are as good as equal.
const (
	off  = 1e-3
	tied = 3e-6
)

// requireAsReference compares an answer with that of a reference, up to the first position at
// which rounding decides; it returns how many positions that are.
func requireAsReference(t *testing.T, want plain.Result, job *api.Request, got *infer.Output, off, tied float64) int {
	t.Helper()
	settled := len(want.Steps)
	for s, step := range want.Steps {
		for u := range s {
			for _, m := range want.Steps[u].Members {
				if k := s - u - 1; job.Parallel.Removal != nil && k < len(m.Shares) && math.Abs(m.Shares[k]-job.Parallel.Removal.AttentionThreshold) < tied {
					settled = min(settled, s+1) // from the next set on it matters who is gone
				}
			}
		}
		if s >= settled || step.Borderline(tied) {
			requireRemoved(t, want, job, got, s)
			return s
		}
		if len(step.Members) == 0 {
			require.Len(t, got.Parallel.Sets, s, "it has ended")
			break
		}
		require.Greater(t, len(got.Parallel.Sets), s, "position %d", s)
		set := got.Parallel.Sets[s]
		require.Len(t, set, len(step.Members), "position %d", s)
		require.InDelta(t, step.Threshold, got.Parallel.Thresholds[s], 1e-12)
		for k, m := range step.Members {
			require.Equal(t, m.Token, set[k].TokenID, "position %d, member %d", s, k)
			require.InDelta(t, m.Probability, set[k].Probability, off, "position %d, member %d", s, k)
		}
	}
	requireRemoved(t, want, job, got, len(want.Steps))
	require.Equal(t, want.Finish, got.Choices[0].FinishReason)
	require.Equal(t, want.Cut, got.Parallel.Cut)
	require.Equal(t, len(want.Removals), got.Parallel.Removed)
	return len(want.Steps)
}

// requireRemoved compares what was removed of the sets from which nothing can be any more after
// so many steps.
func requireRemoved(t *testing.T, want plain.Result, job *api.Request, got *infer.Output, steps int) {
	t.Helper()
	for s, step := range want.Steps {
		if r := job.Parallel.Removal; steps < len(want.Steps) && (r == nil || s+r.Window >= steps-1) {
			break
		}
		for k, m := range step.Members {
			require.Equal(t, m.Removed > 0, got.Parallel.Sets[s][k].Removed, "position %d, member %d, shares %v", s, k, m.Shares)
		}
	}
}

// variants are jobs of many kinds.
func variants() (jobs []api.Request) {
	removal := func(threshold float64, window int) *api.RetroactiveRemoval {
		return &api.RetroactiveRemoval{AttentionThreshold: threshold, Window: window}
	}
	curve := func(curve string) *api.DynamicThreshold {
		return &api.DynamicThreshold{Final: 0.5, Curve: curve, P1: 0.2, P2: 0.8, ActivationPoint: 0.5}
	}
	for i, p := range []api.Parallel{
		{Threshold: 0.004, MaxTokens: 8},
		{Threshold: 0.004, MaxTokens: 8, Isolate: true},
		{Threshold: 0.004, Removal: removal(0.02, 3)},
		{Threshold: 0.004, Isolate: true, Removal: removal(0.02, 2), MaxTokens: 20},
		{Threshold: 0.02, Removal: removal(0.3, 8)},
		{Threshold: 0.02, Isolate: true, Removal: removal(0.3, 1)},
		{Threshold: 0.02, Mix: api.MixTop},
		{Threshold: 0.01, Mix: api.MixTop, Isolate: true, Removal: removal(0.2, 4)},
		{Threshold: 0.05, Dynamic: curve(api.CurveLinear), MinSteps: 9},
		{Threshold: 0.01, Dynamic: curve(api.CurveBezier), Isolate: true},
		{Threshold: 0.01, Dynamic: curve(api.CurveReLU), Removal: removal(0.2, 5)},
		{Threshold: 0.004, MaxCacheTokens: 70},
		{Threshold: 0.1, Isolate: true},
		{Threshold: 1},
	} {
		p.Mix, p.ReturnSets = cmp.Or(p.Mix, api.MixWeighted), true
		job := api.Request{Prompt: fmt.Sprint(i, " the quick brown fox ", infertest.Words(3*i)), MaxTokens: 12, Sampling: api.DefaultSampling(), Parallel: &p}
		job.Sampling.Temperature = []float64{1, 1.5, 0.7}[i%3]
		if i%6 == 5 {
			job.Sampling.LogitBias = map[int32]float64{5: -100, 9: 2}
		}
		if p.MaxTokens == 0 && p.Threshold < 0.01 {
			job.MaxTokens, job.Sampling.Temperature = 6, 3 // wide
		}
		jobs = append(jobs, job)
	}
	return jobs
}

// TestSetsAsInPlainArithmetic: the same sets, of up to 50 tokens, as a calculation without
// llama.cpp, cache or batch, alone and all jobs at once, beside others.
func TestSetsAsInPlainArithmetic(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("model ", seed), func(t *testing.T) {
			t.Parallel()
			spec := gguf.Tiny()
			spec.Seed, spec.KVHeads = seed+1, []int{2, 4, 1}[seed]
			path := infertest.TinySpec(t).Model
			require.NoError(t, gguf.WriteFile(path, spec))
			arithmetic, err := plain.Load(path)
			require.NoError(t, err)
			model := openSpec(t, spec)
			var wants []plain.Result
			widest, all, removed := 0, 0, 0
			for _, job := range variants() {
				prompt, err := model.Tokenize(job.Prompt)
				require.NoError(t, err)
				want := plain.Generate(arithmetic, prompt, model.Ends, &job, plain.Limits{Width: 50, Cells: 8192, Context: 8192})
				wants, all, removed = append(wants, want), all+len(want.Steps), removed+len(want.Removals)
				for _, s := range want.Steps {
					widest = max(widest, len(s.Members))
				}
			}
			require.Equal(t, 50, widest)
			require.Greater(t, removed, 20)
			for _, layout := range []string{Auto, Streams} {
				opts := options(8192, 50, 128)
				opts.Layout, opts.NoFlash = layout, true // flash attention rounds to 16 bits
				s, err := New(model, opts, nil)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, s.Close()) })
				r := run(t, s)
				compared := 0
				for i, job := range variants() {
					compared += requireAsReference(t, wants[i], &job, r.mustRun(t, job), off, tied)
				}
				t.Logf("%s: %d of %d positions, up to %d tokens, %d removed", layout, compared, all, widest, removed)
				require.Greater(t, compared, all/2)
				var jobs errgroup.Group
				got := make([]*infer.Output, len(wants))
				for i, job := range variants() {
					jobs.Go(func() (err error) {
						got[i], err = r.run(t.Context(), job, infertest.NewLease(0))
						return err
					})
					jobs.Go(func() error { // somebody else
						_, err := r.run(t.Context(), api.Request{Prompt: job.Prompt, MaxTokens: 50, IgnoreEOS: true}, infertest.NewLease(0))
						return err
					})
				}
				require.NoError(t, jobs.Wait())
				for i, job := range variants() {
					requireAsReference(t, wants[i], &job, got[i], off, tied)
				}
			}
		})
	}
}
