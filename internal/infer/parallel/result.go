package parallel

import (
	"tempo/api"
)

// Result is what the sets came to. piece gives the bytes of a token.
func (s *Sets) Result(piece func(int32) []byte) *api.ParallelResult {
	r := &api.ParallelResult{Positions: len(s.sets), Tokens: s.made, Widest: s.widest, Cut: s.cut, Removed: s.made - s.left}
	if r.Positions > 0 {
		r.MeanWidth = float64(r.Tokens) / float64(r.Positions)
	}
	var all [][]api.ParallelToken
	for _, e := range s.sets {
		var set []api.ParallelToken
		for _, m := range e.Members {
			set = append(set, api.ParallelToken{TokenID: m.Token, Text: string(piece(m.Token)), Probability: m.Probability, Removed: m.Removed})
		}
		all = append(all, set)
	}
	if s.o.ReturnSets {
		r.Sets, r.Thresholds = all, s.thresholds
	}
	return r
}
