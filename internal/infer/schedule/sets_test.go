package schedule

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/llama"
)

// wide is a job with sets of several tokens.
func wide(change func(*api.Parallel)) api.Request {
	p := &api.Parallel{Threshold: 0.004, MaxTokens: 6, Mix: api.MixWeighted, ReturnSets: true}
	if change != nil {
		change(p)
	}
	s := api.DefaultSampling()
	s.Temperature = 0.5
	return api.Request{Prompt: "the quick brown fox " + infertest.Words(30), MaxTokens: 40, IgnoreEOS: true, Sampling: s, Parallel: p}
}

// kinds are the ways in which the members of a set go through the model.
func kinds() map[string]func(*api.Parallel) {
	removal := &api.RetroactiveRemoval{AttentionThreshold: 0.15, Window: 4}
	return map[string]func(*api.Parallel){
		"visible":                func(*api.Parallel) {},
		"visible, top":           func(p *api.Parallel) { p.Mix = api.MixTop },
		"isolated":               func(p *api.Parallel) { p.Isolate = true },
		"visible with removal":   func(p *api.Parallel) { p.Removal = removal },
		"isolated with removal":  func(p *api.Parallel) { p.Isolate, p.Removal = true, removal },
		"isolated, top, removal": func(p *api.Parallel) { p.Isolate, p.Removal, p.Mix = true, removal, api.MixTop },
	}
}

// noise is how much a probability may depend on what else is in the batch: the order in which
// attention adds up.
const noise = 0.01

// requireSets compares answers that were calculated in different company, up to the first
// position at which noise decides who is in the set; it returns how many that are.
func requireSets(t *testing.T, want, got *infer.Output) int {
	t.Helper()
	for i, w := range want.Parallel.Sets {
		if i >= len(got.Parallel.Sets) {
			require.Len(t, got.Parallel.Sets, len(want.Parallel.Sets), "one has ended at position %d", i)
		}
		g := got.Parallel.Sets[i]
		same := len(w) == len(g)
		for k := range min(len(w), len(g)) {
			require.InDelta(t, w[k].Probability, g[k].Probability, noise, "position %d, by rank", i)
			same = same && w[k].TokenID == g[k].TokenID && w[k].Removed == g[k].Removed
		}
		if same {
			continue
		}
		for _, m := range w {
			p := want.Parallel.Thresholds[i] // or it was cut, and is like the last
			for _, o := range g {
				if p = o.Probability; o.TokenID == m.TokenID {
					break
				}
			}
			require.InDelta(t, m.Probability, p, noise, "position %d, token %d", i, m.TokenID)
		}
		return i
	}
	return len(want.Parallel.Sets)
}

// A job's sets are the same in every layout, beside others of every kind, and when there is
// hardly room.
func TestSetsInCompany(t *testing.T) {
	t.Parallel()
	for name, kind := range kinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := wide(kind)
			alone := newRig(t, 1024, 6, 64).mustRun(t, job)
			require.Greater(t, alone.Parallel.MeanWidth, 1.5)
			require.Equal(t, job.Parallel.Removal != nil, alone.Parallel.Removed > 0)
			require.Equal(t, alone.CompletionTokens, alone.Parallel.Tokens)
			compared, answers := 0, 0
			compare := func(got *infer.Output) {
				compared += requireSets(t, alone, got)
				answers++
			}
			for _, layout := range []string{Auto, Streams, Unified} {
				opts := options(4096, 8, 48)
				opts.Layout = layout
				r := run(t, newScheduler(t, opts, nil))
				compare(r.mustRun(t, job))
				var jobs errgroup.Group
				got := make([]*infer.Output, 24)
				for i := range got {
					other, same := wide(func(p *api.Parallel) { p.MaxTokens = 1 + i%8 }), i%3 == 0
					other.Prompt = fmt.Sprint(i, " ", other.Prompt)
					switch {
					case same:
						other = job
					case i%3 == 1:
						other.Parallel = nil
					}
					jobs.Go(func() (err error) {
						got[i], err = r.run(t.Context(), other, infertest.NewLease(0))
						return err
					})
				}
				require.NoError(t, jobs.Wait())
				for i := 0; i < len(got); i += 3 {
					compare(got[i])
				}
				requireIDsBack(t, r)
			}
			require.Greater(t, compared, answers*20, "half of all positions at least")
		})
	}
}

// requireIDsBack checks that no job has kept a sequence beside its seat.
func requireIDsBack(t *testing.T, r *rig) {
	t.Helper()
	free := make(chan bool, 1)
	require.True(t, r.tell(func() {
		ok := true
		for _, p := range r.pools {
			ok = ok && (p.streams > 0 || len(p.ids) == 256-len(p.seats))
		}
		free <- ok
	}))
	require.True(t, <-free)
}

// With a threshold of 1 the answer is that of a greedy job.
func TestThresholdOneIsGreedy(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 4, 64)
	for i := range 5 {
		job := wide(func(p *api.Parallel) { p.Threshold = 1 })
		job.Prompt = fmt.Sprint(i, job.Prompt)
		sets := r.mustRun(t, job)
		job.Parallel, job.Sampling.Temperature = nil, 0
		require.Equal(t, r.mustRun(t, job).Text(), sets.Text())
		require.Equal(t, 1, sets.Parallel.Widest)
	}
}

// The sets of a job that gives way, or whose pool is made anew under it, go on as they would
// have.
func TestSetsAreSwapped(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds() {
		for _, again := range []bool{false, true} {
			job := wide(kind)
			job.MaxTokens = 80
			r := newRig(t, 1024, 6, 64)
			want := r.mustRun(t, job)
			l, n := infertest.NewLease(0), 0
			l.Grant = func(_ context.Context, used, _ int) error {
				switch n++; {
				case used > 0 && again: // in another layout what it has is decoded anew
					_, err := r.run(t.Context(), api.Request{Prompt: "for it", MaxTokens: 2, Reproducible: true}, infertest.NewLease(0))
					return err
				case used > 0:
					l.TakeBack()
				}
				return nil
			}
			got, err := r.run(t.Context(), job, l)
			require.NoError(t, err)
			require.Greater(t, n, 1)
			requireSets(t, want, got)
			_, err = r.run(t.Context(), job, infertest.NewLease(0))
			require.NoError(t, err)
		}
	}
}

// No set is larger than its job, the worker or the pressure allows, and the job never has
// more in the cache than it may.
func TestSetsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 5, 64)
	prompt := r.mustRun(t, wide(nil)).PromptTokens
	out := r.mustRun(t, wide(func(p *api.Parallel) { p.MaxTokens = 0 }))
	require.Equal(t, 5, out.Parallel.Widest, "what the worker decodes at once")
	require.Positive(t, out.Parallel.Cut)
	require.Zero(t, out.Parallel.CutByMemory, "that is no want of memory")
	require.Equal(t, 40, out.Parallel.Positions)

	r.Narrow(2)
	out = r.mustRun(t, wide(nil))
	require.Equal(t, 2, out.Parallel.Widest)
	require.Positive(t, out.Parallel.CutByMemory)
	require.LessOrEqual(t, out.Parallel.CutByMemory, 3*40, "the worker has 5 at most")
	require.Less(t, out.Parallel.CutByMemory, out.Parallel.Cut)
	require.Zero(t, r.mustRun(t, wide(func(p *api.Parallel) { p.MaxTokens = 2 })).Parallel.CutByMemory, "the job wants no more")
	r.Narrow(0)
	out = r.mustRun(t, wide(nil))
	require.Equal(t, 5, out.Parallel.Widest)
	require.Zero(t, out.Parallel.CutByMemory)

	require.NoError(t, r.Reshape(infer.Shape{Sequences: 1, Cells: 1024, Ample: 5}))
	out = r.mustRun(t, wide(nil))
	require.Equal(t, 1, out.Parallel.Widest)
	require.Positive(t, out.Parallel.CutByMemory)
	require.LessOrEqual(t, out.Parallel.CutByMemory, 4*40, "with memory it were 5")
	require.Zero(t, r.mustRun(t, wide(func(p *api.Parallel) { p.MaxTokens = 1 })).Parallel.CutByMemory)
	require.NoError(t, r.Reshape(infer.Shape{Sequences: 5, Cells: 1024}))

	out = r.mustRun(t, wide(func(p *api.Parallel) { p.MaxCacheTokens = prompt + 60 }))
	require.Equal(t, 40, out.Parallel.Positions, "there is a cell for each position")
	require.Equal(t, 60, out.Parallel.Tokens)
	require.Zero(t, out.Parallel.CutByMemory, "the job itself wants no more")
	out = r.mustRun(t, wide(func(p *api.Parallel) { p.MaxCacheTokens = prompt + 20 }))
	require.Equal(t, 20, out.Parallel.Tokens)
	require.Equal(t, "length", out.Choices[0].FinishReason)
	job := wide(nil)
	job.MaxTokens = 0
	l := infertest.NewLease(0)
	out, err := r.run(t.Context(), job, l)
	require.NoError(t, err)
	require.Equal(t, 1024-prompt, out.Parallel.Tokens, "as many as the pool has")
	require.Positive(t, out.Parallel.CutByMemory)
	for _, c := range l.Calls() {
		require.LessOrEqual(t, c.Used, c.Before)
		require.LessOrEqual(t, c.Asked, 1024)
	}
}

// A job whose memory does not come goes on with what it has where sets are to be narrow.
func TestNarrowSetsGoOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2048, 8, 64)
	job := wide(func(p *api.Parallel) { p.MaxTokens = 8 })
	job.MaxTokens = 100
	l := infertest.NewLease(0)
	refused := make(chan struct{})
	l.Grant = func(_ context.Context, used, _ int) error {
		if used > 0 {
			<-refused
		}
		return nil
	}
	ended := make(chan *infer.Output, 1)
	go func() {
		out, err := r.run(t.Context(), job, l)
		if err != nil {
			panic(err)
		}
		ended <- out
	}()
	state := func() (waits bool, left int) {
		got := make(chan struct{})
		r.tell(func() {
			if len(r.jobs) == 1 {
				j := r.jobs[0]
				waits, left = j.seat != nil && !j.goesOn(), j.leased-j.cells
			}
			close(got)
		})
		<-got
		return waits, left
	}
	require.Eventually(t, func() bool { waits, _ := state(); return waits }, soon, tick)
	_, left := state()
	require.Less(t, left, 8)
	r.Narrow(1)
	require.Eventually(t, func() bool { waits, left := state(); return waits && left == 0 }, soon, tick, "token by token")
	close(refused)
	out := <-ended
	require.Equal(t, 100, out.Parallel.Positions)
	require.Positive(t, out.Parallel.CutByMemory)
	require.LessOrEqual(t, out.Parallel.CutByMemory, out.Parallel.Cut)
}

// Stop strings end the most likely path, an end of text the answer only where it is the most
// probable token, and min_steps keeps it from ending.
func TestSetsEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 6, 64)
	job := wide(nil)
	text := r.mustRun(t, job).Text()
	job.Stop = []string{text[len(text)/2 : len(text)/2+3]}
	out := r.mustRun(t, job)
	require.Equal(t, "stop", out.Choices[0].FinishReason)
	require.Equal(t, text[:len(out.Text())], out.Text())
	require.Less(t, len(out.Text()), len(text)/2+1)

	end := r.model.EndTokens()[0]
	job = wide(nil)
	job.IgnoreEOS = false
	job.Sampling.LogitBias = map[int32]float64{end: 100}
	require.Equal(t, 0, r.mustRun(t, job).Parallel.Positions)
	job.Parallel.MinSteps = 7
	out = r.mustRun(t, job)
	require.Equal(t, 7, out.Parallel.Positions)
	for _, set := range out.Parallel.Sets {
		for _, m := range set {
			require.NotEqual(t, end, m.TokenID)
		}
	}
}

// What cannot have sets says so, and models with state are refused before.
func TestNoSets(t *testing.T) {
	t.Parallel()
	spec := gguf.Tiny()
	require.NoError(t, noSets(openSpec(t, spec)))
	spec.Architecture = gguf.Mamba
	m := openSpec(t, spec)
	require.ErrorContains(t, noSets(m), "state")
	require.ErrorContains(t, noRemoval(m, Options{}), "state")
	require.ErrorContains(t, noRemoval(openModel(t), Options{TypeV: "q8_0"}), "q8_0")
}

// A lease grows with the sets, and shrinks when they do.
func TestLeasesFollowSets(t *testing.T) {
	t.Parallel()
	r := newRig(t, 4096, 50, 128)
	job := wide(func(p *api.Parallel) {
		p.MaxTokens, p.Threshold = 0, 0.001
		p.Dynamic = &api.DynamicThreshold{Final: 1, Curve: api.CurveReLU, ActivationPoint: 0.2}
		p.Removal = &api.RetroactiveRemoval{AttentionThreshold: 0.5, Window: 8}
	})
	job.MaxTokens, job.Sampling.Temperature = 60, 3
	l := infertest.NewLease(0)
	out, err := r.run(t.Context(), job, l)
	require.NoError(t, err)
	require.Equal(t, 50, out.Parallel.Widest)
	most, shrunk := 0, false
	for _, c := range l.Calls() {
		require.LessOrEqual(t, c.Used, c.Before)
		shrunk = shrunk || c.Asked < c.Before
		most = max(most, c.Asked)
	}
	require.Greater(t, most, 512)
	require.True(t, shrunk)
	require.Less(t, l.Tokens(), most)
}

// Jobs of all kinds that cannot be in one context take turns, and all end.
func TestSetsTakeTurnsWithOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2048, 4, 64)
	var jobs errgroup.Group
	for i := range 24 {
		job := wide(func(p *api.Parallel) {
			p.Isolate = i%2 == 0
			if i%8 == 4 {
				p.Removal = &api.RetroactiveRemoval{AttentionThreshold: 0.1, Window: 2}
			}
		})
		switch i % 4 {
		case 1:
			job.Parallel = nil
		case 2:
			job.Parallel, job.Reproducible = nil, true
		case 3:
			texts, err := r.model.Tokenize(job.Prompt)
			require.NoError(t, err)
			jobs.Go(func() error {
				_, err := r.Embed(t.Context(), infer.Request{Job: &api.Request{}, Lease: infertest.NewLease(0)}, [][]llama.Token{texts})
				return err
			})
			continue
		}
		jobs.Go(func() error {
			_, err := r.run(t.Context(), job, infertest.NewLease(0))
			return err
		})
	}
	require.NoError(t, jobs.Wait())
	requireIDsBack(t, r)
}

// A job whose sets outgrow its stream goes on in a longer one, or in one pool.
func TestSetsOutgrowTheirStream(t *testing.T) {
	t.Parallel()
	opts := options(4*256, 6, 64)
	opts.Layout = Streams
	job := wide(nil)
	job.MaxTokens = 150
	want := newRig(t, 1024, 6, 64).mustRun(t, job)
	r := run(t, newScheduler(t, opts, nil))
	r.mustRun(t, api.Request{Prompt: "the streams are short", MaxTokens: 2})
	got := r.mustRun(t, job)
	require.Greater(t, got.Parallel.Tokens, 256)
	requireSets(t, want, got)
}
