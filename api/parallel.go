package api

// Parallel asks for several tokens at one position, TEMPO's way to generate: all tokens
// that are likely enough there form a set, go through the model in one pass, and the next
// position follows from all of them.
type Parallel struct {
	// Threshold is how probable a token must be to be in a set, MinThreshold to 1. If none
	// is, the set is the most probable one. 1 is greedy decoding.
	Threshold float64
	// MaxTokens is how many tokens a set has at most; 0 = as many as the worker allows.
	// The most probable ones stay.
	MaxTokens int
	// Isolate hides the tokens of a set from each other. Without it each sees all others.
	Isolate bool
	// Mix is how the next distribution follows from a set: MixWeighted or MixTop.
	Mix string
	// MinSteps is how many positions there are at least before the answer may end.
	MinSteps int
	// Dynamic has the threshold change on the way; nil = it stays.
	Dynamic *DynamicThreshold
	// MaxCacheTokens bounds the job's tokens in the KV cache, those of the prompt
	// included; 0 = as many as its memory allows.
	MaxCacheTokens int
	// Removal takes tokens of earlier sets back that nobody attends to; nil = all stay.
	Removal *RetroactiveRemoval
	// ReturnSets has the result list all sets, and the threshold at each position.
	ReturnSets bool
}

// MinThreshold is the smallest threshold. At most 10,000 tokens are over it, whatever the
// vocabulary, so that a choice among them takes little memory.
const MinThreshold = 0.0001

// AllowedThreshold says what a threshold may be.
const AllowedThreshold = "a number from 0.0001 to 1"

// MaxWindow is the largest RetroactiveRemoval.Window, in positions.
const MaxWindow = 64

// What the next distribution is made of: the mean of those that follow the set's tokens,
// weighted by the tokens' probabilities, or that of the most probable token alone.
const (
	MixWeighted = "weighted"
	MixTop      = "top"
)

// DynamicThreshold has the threshold go from Parallel.Threshold at the first position to
// Final (MinThreshold to 1) at the last that max_tokens allows.
type DynamicThreshold struct {
	Final float64
	// Curve is CurveLinear, CurveBezier or CurveReLU.
	Curve string
	// P1 and P2 (0 to 1) are the inner control points of CurveBezier: heights, at a
	// third and two thirds of the way.
	P1, P2 float64
	// ActivationPoint (0 up to 1) is the part of the way at which CurveReLU begins to rise.
	ActivationPoint float64
}

// The curves of a DynamicThreshold.
const (
	CurveLinear = "linear"
	CurveBezier = "bezier"
	CurveReLU   = "relu"
)

// RetroactiveRemoval says when a token of a set is removed, from the KV cache and from the
// answer: when of the attention that later positions pay to its set less than
// AttentionThreshold (0 to 1) is for it. Attention is the mean over all layers and heads,
// and counts from the first position after the set up to the Window-th (1 to 64).
// The one that is attended to most always stays.
type RetroactiveRemoval struct {
	AttentionThreshold float64
	Window             int
}

// ParallelResult is what parallel generation came to.
type ParallelResult struct {
	// Text is the answer with each set of several tokens in brackets, the most probable
	// first: "The [quick/swift] fox". What was removed is not in it.
	Text      string  `json:"text"`
	Positions int     `json:"positions"`
	Tokens    int     `json:"tokens"`     // of all sets
	MeanWidth float64 `json:"mean_width"` // tokens / positions
	Widest    int     `json:"widest"`     // tokens of the largest set
	Cut       int     `json:"cut"`        // tokens over the threshold that a limit kept out
	// CutByMemory is how many of Cut only the worker's memory kept out: its pool of the KV
	// cache, or sets that were narrower while memory was short.
	CutByMemory int `json:"cut_by_memory,omitempty"`
	Removed     int `json:"removed"` // of the tokens, retroactively
	// Sets and Thresholds have an entry for each position, if return_parallel_sets asked
	// for them. The members of a set are ordered by probability, the greatest first.
	Sets       [][]ParallelToken `json:"sets,omitempty"`
	Thresholds []float64         `json:"thresholds,omitempty"`
}

// ParallelToken is a token of a set.
type ParallelToken struct {
	TokenID int32 `json:"token_id"`
	// Text has what is not whole in UTF-8 written as \xNN, and the backslash of a text that
	// would look like that as \x5c.
	Text        string  `json:"text"`
	Probability float64 `json:"probability"`
	Removed     bool    `json:"removed,omitempty"`
}
