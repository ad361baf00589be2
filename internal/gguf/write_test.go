package gguf

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWriteIsDeterministic(t *testing.T) {
	t.Parallel()
	digest := func(s Spec) [sha256.Size]byte {
		h := sha256.New()
		require.NoError(t, Write(h, s))
		return [sha256.Size]byte(h.Sum(nil))
	}
	other := Tiny()
	other.Seed++
	first := digest(Tiny())
	require.Equal(t, first, digest(Tiny()))
	require.NotEqual(t, first, digest(other))
}

func TestWriteThenRead(t *testing.T) {
	t.Parallel()
	half := Tiny()
	half.Type, half.Tied, half.ChatTemplate = F16, true, ""
	smol := Spec{
		Name: "smol", Layers: 4, Heads: 9, KVHeads: 3, Embedding: 576, FeedForward: 64,
		Vocab: 1024, Context: 8192, Type: F16, Tied: true, ChatTemplate: DefaultChatTemplate,
	}
	for name, s := range map[string]Spec{"tiny": Tiny(), "half": half, "smol": smol} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "m.gguf")
			require.NoError(t, WriteFile(path, s))
			h, err := ReadHeader(path)
			require.NoError(t, err)

			require.Equal(t, "llama", h.Architecture)
			require.Equal(t, s.Name, h.Name)
			require.Equal(t, s.Layers, h.Layers)
			require.Equal(t, s.Heads, h.Heads)
			require.Len(t, h.KVHeads, s.Layers)
			require.Equal(t, s.KVHeads, h.KVHeads[0])
			require.Equal(t, s.Embedding/s.Heads, h.KeyLength)
			require.Equal(t, s.Embedding/s.Heads, h.ValueLength)
			require.Equal(t, s.Embedding, h.Embedding)
			require.Equal(t, s.Vocab, h.Vocabulary)
			require.Equal(t, s.Context, h.ContextLength)
			require.Equal(t, s.Tied, h.TiedOutput)
			require.Equal(t, s.ChatTemplate != "", h.HasChatTemplate)

			width := int64(4)
			if s.Type == F16 {
				width = 2
			}
			require.Equal(t, int64(s.Vocab*s.Embedding)*width, h.TokenEmbdBytes)
			var sum int64
			for _, tensor := range h.Tensors {
				sum += tensor.Bytes
			}
			require.Equal(t, sum, h.TensorBytes)
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, info.Size(), h.FileBytes)

			last := h.Tensors[len(h.Tensors)-1]
			require.Equal(t, info.Size(), align(h.DataStart+last.Offset+last.Bytes, defaultAlignment))
			base, ok := h.Number("rope.freq_base")
			require.True(t, ok)
			require.InDelta(t, 10000, base, 0)
			layers, ok := h.Number("block_count")
			require.True(t, ok)
			require.InDelta(t, s.Layers, layers, 0)
			_, ok = h.Number("rope.scaling.factor")
			require.False(t, ok)
		})
	}
}

func TestWriteRefusesShapes(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Spec){
		"Layers":    func(s *Spec) { s.Layers = 0 },
		"Embedding": func(s *Spec) { s.Embedding = 66 },
		"KVHeads":   func(s *Spec) { s.KVHeads = 3 },
		"Vocab":     func(s *Spec) { s.Vocab = 258 },
		"Type":      func(s *Spec) { s.Type = 2 },
	} {
		s := Tiny()
		change(&s)
		require.ErrorContains(t, Write(io.Discard, s), name+" is ")
	}
}

// fullDisk takes left bytes.
type fullDisk struct{ left int }

var errFull = errors.New("disk full")

func (d *fullDisk) Write(b []byte) (int, error) {
	if len(b) > d.left {
		return 0, errFull
	}
	d.left -= len(b)
	return len(b), nil
}

func TestWriteReportsFullDisk(t *testing.T) {
	t.Parallel()
	for _, left := range []int{0, 100_000} {
		require.ErrorIs(t, Write(&fullDisk{left}, Tiny()), errFull)
	}
}

func TestVocabulary(t *testing.T) {
	t.Parallel()
	v := newVocabulary(4096)
	require.Len(t, v.tokens, 4096)
	require.Len(t, v.merges, 4096-firstMerged)
	known := make(map[string]bool)
	for id, token := range v.tokens {
		require.False(t, known[token], token)
		if id >= firstMerged {
			left, right, ok := strings.Cut(v.merges[id-firstMerged], " ")
			require.True(t, ok)
			require.Equal(t, token, left+right)
			require.True(t, known[left] && known[right], v.merges[id-firstMerged])
		}
		known[token] = true
	}
	require.Equal(t, 'Ġ', byteRune(' '))
	require.Equal(t, 'Ċ', byteRune('\n'))
	require.Equal(t, 'A', byteRune('A'))
}

func TestHalf(t *testing.T) {
	t.Parallel()
	for v, want := range map[float32]uint16{0: 0, 1: 0x3c00, -2: 0xc000, 0.5: 0x3800, 1.5: 0x3e00, 1e-9: 0, -7.984375: 0xc7fc} {
		require.Equal(t, want, half(v), "%v", v)
	}
}

func tinyBytes(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Write(&b, Tiny()))
	return b.Bytes()
}
