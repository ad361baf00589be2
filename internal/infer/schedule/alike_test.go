package schedule

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/infer"
	"tempo/internal/infer/llama"
)

// Jobs with a long common beginning and little of their own are alike, distinct ones and
// those with a short header are not, and the first few of many decide nothing rashly.
func TestAlike(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		common, own int // tokens of a prompt
		jobs        int
		was, want   bool
	}{
		{name: "distinct", own: 128, jobs: 16},
		{name: "a short header", common: 25, own: 15, jobs: 16},
		{name: "the first few with a short header", common: 25, own: 15, jobs: 4},
		{name: "a long beginning", common: 512, own: 32, jobs: 16, want: true},
		{name: "too few to judge", common: 512, own: 32, jobs: 3},
		{name: "too few to judge anew", own: 128, jobs: 3, was: true, want: true},
		{name: "no longer", own: 128, jobs: 16, was: true},
	} {
		s := &Scheduler{opts: Options{Sequences: 16}, alike: c.was, arrived: 1}
		for i := range c.jobs {
			tokens := slices.Repeat([]llama.Token{1}, c.common)
			for k := range c.own {
				tokens = append(tokens, llama.Token(2+i*1000+k))
			}
			s.jobs = append(s.jobs, &job{
				req: infer.Request{Job: &api.Request{}}, tokens: tokens, prompt: len(tokens), longest: len(tokens) + 64,
			})
		}
		s.lookAlike()
		require.Equal(t, c.want, s.alike, c.name)
	}
}
