package gguf

import "strings"

// Token types as llama.cpp numbers them.
const (
	tokenNormal  = 1
	tokenControl = 3
)

// Ids of the special tokens; the 256 bytes follow them, then what merges make.
const (
	endOfText = iota
	imStart
	imEnd
	firstByte
	firstMerged = firstByte + 256
)

// vocabulary is a byte-level BPE tokenizer: the tokens, and the merges that make
// all of them beyond the first firstMerged, one each, in the order of the ids.
type vocabulary struct {
	tokens []string
	merges []string
}

// newVocabulary makes a vocabulary of n ≥ firstMerged tokens. Letters and the
// space come first in the merges, so that text is cut into pieces of several
// letters, as a real tokenizer does.
func newVocabulary(n int) vocabulary {
	v := vocabulary{tokens: make([]string, 0, n)}
	v.tokens = append(v.tokens, "<|endoftext|>", "<|im_start|>", "<|im_end|>")
	for b := range 256 {
		v.tokens = append(v.tokens, string(byteRune(byte(b))))
	}
	space := string(byteRune(' '))
	parts := []string{space}
	for _, letter := range "etaoinshrdlucmfwypvbgkjqxz" {
		parts = append(parts, string(letter))
	}
	seen := make(map[string]bool, n)
	// Pairs of parts by the sum of their places: the frequent ones first. Every
	// new token is a part for later ones, so they never run out.
	for sum := 1; len(v.tokens) < n; sum++ {
		for i := 0; i <= sum && len(v.tokens) < n; i++ {
			left, right := i, sum-i
			if left >= len(parts) || right >= len(parts) || strings.HasPrefix(parts[right], space) {
				continue // a piece of text has a space at its start only
			}
			token := parts[left] + parts[right]
			if seen[token] {
				continue
			}
			seen[token] = true
			v.tokens = append(v.tokens, token)
			v.merges = append(v.merges, parts[left]+" "+parts[right])
			parts = append(parts, token)
		}
	}
	return v
}

// tokenType returns the type of a token by its id.
func tokenType(id int) int32 {
	if id < firstByte {
		return tokenControl
	}
	return tokenNormal
}

// byteRune returns the character that stands for a byte in a byte-level
// vocabulary: the printable ones of Latin-1 stand for themselves, the others get
// the characters from U+0100 on.
// Source: OpenAI's GPT-2, bytes_to_unicode.
func byteRune(b byte) rune {
	if printable(b) {
		return rune(b)
	}
	r := rune(0x100)
	for other := range b {
		if !printable(other) {
			r++
		}
	}
	return r
}

func printable(b byte) bool {
	return b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE
}
