package schedule

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/infer"
	"tempo/internal/infer/llama"
	"tempo/internal/infer/parallel"
	"tempo/internal/infer/sample"
)

// newSetsJob makes a job that has sets of such widths after a prompt of so many tokens, for a
// scheduler that does not run.
func newSetsJob(t *testing.T, s *Scheduler, change func(*api.Parallel), prompt int, widths ...int) *job {
	t.Helper()
	request := wide(func(p *api.Parallel) {
		p.MaxTokens = 0
		if change != nil {
			change(p)
		}
	})
	j := newPlainJob(t, &request, prompt)
	j.sets = s.newSets(infer.Request{Job: &request}, prompt, 1<<14)
	for _, n := range widths {
		var members []parallel.Member
		for i := range n {
			token := llama.Token(40 + 10*j.sets.Positions() + i)
			members = append(members, parallel.Member{Token: token, Probability: 0.5 / float64(1+i), Tag: -1})
			j.tokens = append(j.tokens, token)
		}
		j.sets.Add(members, n)
	}
	j.made = j.sets.Tokens()
	return j
}

// newPlainJob makes a job that is still at its prompt.
func newPlainJob(t *testing.T, request *api.Request, prompt int) *job {
	t.Helper()
	j := &job{
		req: infer.Request{Job: request}, ctx: t.Context(), prompt: prompt, limit: 1 << 14, longest: 1 << 14,
		leased: 1 << 14, index: -1, done: make(chan outcome, 1), answer: answer{text: newText(request.Stop)},
	}
	for i := range prompt {
		j.tokens = append(j.tokens, llama.Token(4+i%30))
	}
	return j
}

// newStill makes a scheduler that does not run, with one pool of the layout.
func newStill(t *testing.T, opts Options, l layout) (*Scheduler, *pool) {
	t.Helper()
	s := newScheduler(t, opts, nil)
	require.NoError(t, s.make([]layout{l}))
	return s, s.pools[0]
}

// Sets that are decoded anew go through the model by themselves in streams, where llama.cpp would
// take them apart for the sake of what is beside them.
func TestSetsAreDecodedAnewAlone(t *testing.T) {
	t.Parallel()
	streams, unified := layout{cells: 1024, streams: 4}, layout{cells: 1024}
	const again, plain = true, false
	for _, c := range []struct {
		name   string
		layout layout
		jobs   []bool
		want   []int
	}{
		{"one", streams, []bool{again}, []int{15}},
		{"two", streams, []bool{again, again}, []int{15, 0}},
		{"before a prompt", streams, []bool{again, plain}, []int{15, 0}},
		{"after a prompt", streams, []bool{plain, again, plain}, []int{20, 0, 20}},
		{"in one pool", unified, []bool{again, plain, again}, []int{15, 20, 15}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, p := newStill(t, options(1024, 8, 64), c.layout)
			for i, again := range c.jobs {
				j := newPlainJob(t, &api.Request{}, 20)
				if again {
					j = newSetsJob(t, s, nil, 10, 3, 2)
				}
				p.take(p.seats[i], j, 0)
			}
			require.NoError(t, p.allot())
			for i, want := range c.want {
				require.Equal(t, want, p.seats[i].take, "job %d", i)
			}
		})
	}
}

// Members that are kept apart wait where no sequence is left for them.
func TestMembersWaitForSequences(t *testing.T) {
	t.Parallel()
	s, p := newStill(t, options(1024, 8, 64), layout{cells: 1024, pooled: true})
	for i := range 3 {
		j := newSetsJob(t, s, func(p *api.Parallel) { p.Isolate = true }, 10, 2)
		j.cells = j.prompt
		p.take(p.seats[i], j, 0)
	}
	p.ids = p.ids[:5]
	require.NoError(t, p.allot())
	require.Equal(t, []int{2, 2, 0}, []int{p.seats[0].take, p.seats[1].take, p.seats[2].take})
}

// Jobs that keep sequences leave enough for the sets of a step.
func TestSequencesForSteps(t *testing.T) {
	t.Parallel()
	s, p := newStill(t, options(1024, 100, 128), layout{cells: 1024, pooled: true})
	first, second := newSetsJob(t, s, kinds()["visible with removal"], 10), newSetsJob(t, s, kinds()["isolated with removal"], 10)
	isolated := newSetsJob(t, s, kinds()["isolated"], 10)
	for _, j := range []*job{first, second, isolated} {
		j.leased = 100
	}
	require.True(t, p.room(first))
	p.take(p.seats[0], first, 0)
	require.Len(t, first.sets.tags, mostApart)
	require.False(t, p.room(second))
	require.True(t, p.room(isolated), "it keeps none, and its widest set has room in a step")
	narrow := newSetsJob(t, s, func(p *api.Parallel) {
		p.Threshold, p.Removal = 0.1, &api.RetroactiveRemoval{AttentionThreshold: 0.1, Window: 2}
	}, 10)
	narrow.leased = 100
	require.True(t, p.room(narrow), "it never has more than ten at a position")
	require.Equal(t, 10, p.tags(narrow))
	require.NoError(t, p.vacate(first))
	require.True(t, p.room(second))
}

// Of a job with sets only the prompt can be had from others: what has the same tokens behind it has
// them one after the other.
func TestSetsAreNotShared(t *testing.T) {
	t.Parallel()
	s, p := newStill(t, options(1024, 4, 64), layout{cells: 1024, streams: 2})
	j := newSetsJob(t, s, nil, 100, 6, 6, 6)
	other := newPlainJob(t, &api.Request{}, 0)
	other.tokens = append(other.tokens, j.tokens...)
	other.prompt, other.cells = len(other.tokens), len(other.tokens)
	p.take(p.seats[0], other, 0)
	from, common, wait := p.source(j)
	require.Same(t, p.seats[0], from)
	require.Equal(t, 99, common)
	require.False(t, wait)
}

// A job that loses its seat has nothing removed any more of the sets that it has: where they were in
// the pool, and by what they were kept apart, is for others.
func TestSetsSettleWithoutASeat(t *testing.T) {
	t.Parallel()
	s, p := newStill(t, options(1024, 4, 64), layout{cells: 1024, pooled: true})
	j := newSetsJob(t, s, kinds()["visible with removal"], 10, 3, 2)
	p.take(p.seats[0], j, 0)
	for i := range j.sets.Set(0).Members {
		m := &j.sets.Set(0).Members[i]
		m.Tag, m.Cell = j.sets.tags[i], 10+i
	}
	require.Equal(t, []int{0}, j.sets.Open())
	require.NoError(t, p.vacate(j))
	require.Empty(t, j.sets.Open())
	require.Empty(t, j.sets.tags)
	require.Len(t, p.ids, llama.MostSequences-len(p.seats))
}

// How wide a set can be, beside what its job asks for.
func TestWidest(t *testing.T) {
	t.Parallel()
	removal := kinds()["visible with removal"]
	isolated := kinds()["isolated"]
	for _, c := range []struct {
		name          string
		kind          func(*api.Parallel)
		sequences     int
		narrow, lease int // what the lease has beside the job's tokens
		want, ample   int
	}{
		{"what the worker allows", nil, 6, 0, 100, 6, 6},
		{"narrow", nil, 6, 2, 100, 2, 6},
		{"more than the lease has: it waits", nil, 6, 0, 3, 6, 6},
		{"narrow, as the lease has", nil, 6, 4, 3, 3, 6},
		{"narrow, and the lease has nothing", nil, 6, 4, 0, 1, 6},
		{"many sequences", nil, 200, 0, 1000, 200, 200},
		{"isolated", isolated, 200, 0, 1000, 64, 64},
		{"with removal, which takes two", removal, 200, 0, 1000, 64, 64},
		{"as many as in any shape", removal, 85, 0, 1000, 64, 64},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &Scheduler{model: openModel(t), opts: Options{Sequences: c.sequences}, narrow: c.narrow}
			j := newSetsJob(t, s, c.kind, 10)
			j.leased = len(j.tokens) + c.lease
			width, ample := s.widest(j)
			require.Equal(t, []int{c.want, c.ample}, []int{width, ample})
		})
	}
}

// No more is chosen than can be in a set. A token that ends the text is in none and is not one of
// those that were cut, be it among the first or the last; only as the most probable one it counts.
func TestEndsAreNoneOfASet(t *testing.T) {
	t.Parallel()
	s := newScheduler(t, options(1024, 8, 64), nil)
	end := s.model.EndTokens()[0]
	for _, c := range []struct {
		name      string
		rank      int // of the token that ends the text among nine
		wants     int // tokens in a set, 0 = as many as there may be
		want      []llama.Token
		cut, most int // most that may be chosen
	}{
		{"in a set", 1, 3, []llama.Token{40, 42, 43}, 5, 3},
		{"the last of a set", 2, 3, []llama.Token{40, 41, 43}, 5, 3},
		{"behind a set", 3, 3, []llama.Token{40, 41, 42}, 5, 3},
		{"far behind", 8, 3, []llama.Token{40, 41, 42}, 5, 3},
		{"all fit", 4, 0, []llama.Token{40, 41, 42, 43, 45, 46, 47, 48}, 0, 8},
		{"the first", 0, 3, nil, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) { // not parallel: of one scheduler
			j := newSetsJob(t, s, func(p *api.Parallel) { p.MaxTokens, p.Threshold = c.wants, 0.01 }, 10)
			j.req.Job.IgnoreEOS, j.asking, s.jobs = false, true, []*job{j}
			row := slices.Repeat([]float32{-20}, s.model.Vocabulary())
			for rank := range 9 {
				token := llama.Token(40 + rank)
				if rank == c.rank {
					token = end
				}
				row[token] = -float32(rank) / 10
			}
			e := j.sets
			e.rows, e.weights = [][]float32{row}, []float64{1}
			s.beginSet(j)
			e.mixture.Measure(0)
			s.choosing = []*job{j}
			s.chooseOne(0)
			require.NoError(t, e.err)
			require.Len(t, e.chosen, c.most)
			require.NoError(t, s.acceptSet(j, time.Now()))
			if c.want == nil {
				require.Equal(t, "stop", (<-j.done).out.Choices[0].FinishReason)
				require.Zero(t, e.Positions())
				return
			}
			var got []llama.Token
			for _, m := range e.Last().Members {
				got = append(got, m.Token)
			}
			require.Equal(t, c.want, got)
			require.Equal(t, c.cut, e.Result(s.model.Piece).Cut)
			s.jobs = nil
		})
	}
}

// A set that waits for memory is cut to what there is, if sets are to be narrow.
func TestSqueeze(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ narrow, cells, lease, want int }{
		{0, 13, 2, 5}, // no bound
		{4, 13, 2, 2},
		{1, 13, 2, 1},
		{4, 13, 5, 5}, // it does not wait
		{4, 13, 0, 5}, // there is nothing
		{4, 10, 2, 5}, // another set comes before it, anew
	} {
		s, p := newStill(t, options(1024, 8, 64), layout{cells: 1024})
		j := newSetsJob(t, s, nil, 10, 3, 5)
		j.cells, j.leased = c.cells, c.cells+c.lease
		p.take(p.seats[0], j, 0)
		s.jobs, s.narrow = []*job{j}, c.narrow
		s.squeeze()
		require.Equal(t, []int{c.want, 3 + c.want, 13 + c.want}, []int{j.newest(), j.made, len(j.tokens)}, "%+v", c)
		require.Equal(t, 5-c.want, j.sets.Result(s.model.Piece).Cut)
	}
}

// A job is at the end of its stream where its next set does not fit, but its memory and a longer one
// would have it.
func TestStuck(t *testing.T) {
	t.Parallel()
	s, p := newStill(t, options(1024, 8, 64), layout{cells: 1024, streams: 4})
	for _, c := range []struct {
		cells, lease, longest int
		want                  bool
	}{
		{254, 3, 1024, true},
		{254, 2, 1024, false}, // it waits for memory
		{253, 3, 1024, false}, // the set fits
		{254, 3, 256, false},  // there is nothing longer
	} {
		j := newSetsJob(t, s, nil, 254, 3)
		p.take(p.seats[0], j, 0)
		j.cells, j.leased, j.longest = c.cells, c.cells+c.lease, c.longest
		if c.cells < j.prompt { // as if the prompt were so long
			j.tokens, j.prompt = j.tokens[1:], j.prompt-1
		}
		require.Equal(t, c.want, j.stuck(), "%+v", c)
	}
}

// The members of isolated sets go through the model apart always, those that may be removed when
// they come, as only then they get sequences to be kept apart by.
func TestApart(t *testing.T) {
	t.Parallel()
	s := newScheduler(t, options(1024, 8, 64), nil)
	for name, want := range map[string][]bool{
		"visible": {false, false, false}, "isolated": {true, false, true},
		"visible with removal": {false, false, true}, "isolated with removal": {true, false, true},
	} {
		j := newSetsJob(t, s, kinds()[name], 10, 2, 1, 3)
		for i, want := range want {
			require.Equal(t, want, j.sets.apart(j.sets.Set(i), i), "%s: set %d", name, i)
		}
	}
}

// The answer is made of what is left.
func TestTextOfWhatIsLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 6, 64)
	out := r.mustRun(t, full(func(p *api.Parallel) { p.Removal = &api.RetroactiveRemoval{AttentionThreshold: 0.5, Window: 2} }))
	var left []byte
	firsts := 0
	for _, set := range out.Parallel.Sets {
		if set[0].Removed {
			firsts++
		}
		i := slices.IndexFunc(set, func(m api.ParallelToken) bool { return !m.Removed })
		left = append(left, r.model.Piece(set[i].TokenID)...)
	}
	require.Positive(t, firsts)
	text := newText(nil)
	text.add(left)
	require.Equal(t, text.String(), out.Text())
}

// What is left when tokens are removed may have a stop string, and ends there.
func TestRemovalMakesAStopString(t *testing.T) {
	t.Parallel()
	s := newScheduler(t, options(1024, 8, 64), nil)
	j := newSetsJob(t, s, kinds()["visible with removal"], 10, 2, 1)
	first, second := j.sets.Set(0), j.sets.Set(1)
	left := append(s.model.Piece(first.Members[1].Token), s.model.Piece(second.Members[0].Token)...)
	require.NotEmpty(t, left)
	j.answer.text = newText([]string{string(left)})
	j.req.Job.Stop = []string{string(left)}
	first.Members[1].Attend(1)
	require.Equal(t, []int{0}, j.sets.Judge(0))
	j.sets.removed, j.asking, s.jobs = true, true, []*job{j}
	j.sets.chosen, j.sets.over = []sample.Candidate{{Token: 70, Probability: 1}}, 1
	require.NoError(t, s.acceptSet(j, time.Now()))
	require.Len(t, j.done, 1)
	out := (<-j.done).out
	require.Equal(t, "stop", out.Choices[0].FinishReason)
	require.Empty(t, out.Text())
	require.Equal(t, 2, out.Parallel.Positions)
}

// What is removed makes room: a job can have more tokens than the pool has cells.
func TestRemovalFreesCells(t *testing.T) {
	t.Parallel()
	r := newRig(t, 256, 6, 64)
	job := full(func(p *api.Parallel) { p.Removal = &api.RetroactiveRemoval{AttentionThreshold: 0.5, Window: 1} })
	job.MaxTokens = 0
	out := r.mustRun(t, job)
	require.Greater(t, out.PromptTokens+out.Parallel.Tokens, 256+100)
	require.Equal(t, 256, out.PromptTokens+out.Parallel.Tokens-out.Parallel.Removed)
}

// The pools stay for sets for a while after the last job with some.
func TestPoolsLinger(t *testing.T) {
	t.Parallel()
	usual := layout{cells: 1024, streams: 4}
	for _, l := range []layout{{cells: 1024, pooled: true}, {cells: 1024, pooled: true, attends: true}} {
		s := &Scheduler{pools: []*pool{{layout: l}}, lastSets: 3}
		for arrived, want := range map[int]bool{3: false, 3 + linger - 1: false, 3 + linger: true} {
			s.arrived = arrived
			require.Equal(t, want, s.better([]layout{usual}, nil), "%d have come", arrived)
		}
	}
}

// Jobs that wait for a pool whose attention can be read end when it turns out that it cannot.
func TestAttentionCannotBeRead(t *testing.T) {
	t.Parallel()
	s := newScheduler(t, options(1024, 4, 64), nil)
	removal := newSetsJob(t, s, kinds()["visible with removal"], 10)
	sets, plain := newSetsJob(t, s, nil, 10), newPlainJob(t, &api.Request{}, 10)
	s.jobs = []*job{removal, sets, plain}
	s.target = []layout{{cells: 1024, pooled: true, attends: true}}
	s.checked, s.unread = true, errors.New("it is elsewhere")
	require.NoError(t, s.divide())
	require.Equal(t, []*job{sets, plain}, s.jobs)
	require.ErrorIs(t, (<-removal.done).err, s.unread)
}

// Fewer jobs at once are possible where sets have become smaller.
func TestUsageIsWhatIsLeft(t *testing.T) {
	t.Parallel()
	s, p := newStill(t, options(1024, 8, 64), layout{cells: 1024, pooled: true})
	j := newSetsJob(t, s, kinds()["visible with removal"], 10, 6, 2)
	p.take(p.seats[0], j, 0)
	s.jobs = []*job{j}
	j.leased = 100
	use := func() []int { jobs, cells := s.usage(); return []int{jobs, cells} }
	require.Equal(t, []int{6, 100}, use())
	j.sets.Set(0).Members[3].Attend(1)
	require.Len(t, j.sets.Judge(0), 5)
	require.Equal(t, []int{2, 100}, use())
}

// In streams only sets of one width go through the model together: llama.cpp would take the others
// apart, and their members would not see each other. Those that are left out come next.
func TestSetsOfOneWidthInStreams(t *testing.T) {
	t.Parallel()
	s, p := newStill(t, options(2048, 8, 64), layout{cells: 2048, streams: 8})
	for i, width := range []int{2, 3, 2, 1, 3} {
		j := newSetsJob(t, s, nil, 10, width)
		j.cells = j.prompt
		p.take(p.seats[i], j, 0)
	}
	takes := func() (list []int) {
		for _, seat := range p.seats {
			seat.take = 0
		}
		require.NoError(t, p.allot())
		for _, seat := range p.seats[:5] {
			list = append(list, seat.take)
		}
		return list
	}
	require.Equal(t, []int{2, 0, 2, 0, 0}, takes())
	require.Equal(t, []int{0, 3, 0, 0, 3}, takes())
	require.Equal(t, []int{0, 0, 0, 1, 0}, takes())
}

// What a GPU does before its first job: if attention cannot be read, or there is no room for it,
// nothing else is the worse for it.
func TestTryAttention(t *testing.T) {
	t.Parallel()
	s := newScheduler(t, options(1024, 4, 64), nil)
	s.tryAttention()
	require.True(t, s.checked)
	require.NoError(t, s.unread)
	require.True(t, s.pools[0].attends)

	s = newScheduler(t, options(1024, 4, 64), nil)
	s.opts.TypeK = "nonsense" // so that there can be no pool
	s.tryAttention()
	require.Error(t, s.unread)
	s.opts.TypeK = "f32"
	require.Positive(t, run(t, s).mustRun(t, wide(nil)).Parallel.Tokens)

	for name, change := range map[string]func(*Options){
		"the model cannot":  func(o *Options) { o.NoRemoval = errors.New("no") },
		"there is no room":  func(o *Options) { o.Attends = func(int) int { return 0 } },
		"the values cannot": func(o *Options) { o.TypeV = "q8_0" },
	} {
		s := newScheduler(t, options(1024, 4, 64), nil)
		change(&s.opts)
		s.tryAttention()
		require.False(t, s.checked, name)
	}
}
