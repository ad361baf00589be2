package budget

// maxParallelTokens is TEMPO's upper end for the automatic limit.
const maxParallelTokens = 50

// AutoParallelTokens is TEMPO's rule for how many tokens may share a position
// where the user has not said: clamp(0.8 · available / bytesPerToken, 1, 50).
// available is what can still be reserved (it may be negative), bytesPerToken
// what one more parallel token costs; a cost of 0 or less gives 50.
func AutoParallelTokens(available, bytesPerToken Bytes) int {
	if bytesPerToken <= 0 {
		return maxParallelTokens
	}
	n := available.Mul(4) / 5 / bytesPerToken
	return int(min(max(n, 1), maxParallelTokens))
}
