package parallel

import (
	"tempo/api"
	"tempo/internal/settext"
)

// Result is what the sets came to. piece is a token's bytes.
func (s *Sets) Result(piece func(token int32) []byte) *api.ParallelResult {
	r := &api.ParallelResult{
		Text: s.text(piece), Positions: len(s.sets), Tokens: s.made, Widest: s.Widest(), Cut: s.cut, CutByMemory: s.short, Removed: s.made - s.left,
	}
	if r.Positions > 0 {
		r.MeanWidth = float64(r.Tokens) / float64(r.Positions)
	}
	if !s.o.ReturnSets {
		return r
	}
	r.Thresholds = s.thresholds
	for _, e := range s.sets {
		set := make([]api.ParallelToken, len(e.Members))
		for i, m := range e.Members {
			set[i] = api.ParallelToken{
				TokenID: m.Token, Text: settext.Token(string(piece(m.Token))), Probability: m.Probability, Removed: m.Removed,
			}
		}
		r.Sets = append(r.Sets, set)
	}
	return r
}

func (s *Sets) text(piece func(token int32) []byte) string {
	sets := make([][]settext.Member, len(s.sets))
	for i, e := range s.sets {
		for _, m := range e.Members {
			sets[i] = append(sets[i], settext.Member{Text: string(piece(m.Token)), Removed: m.Removed})
		}
	}
	return settext.Join(sets)
}
