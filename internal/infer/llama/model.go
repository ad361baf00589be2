package llama

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/hybridgroup/yzma/pkg/llama"

	"tempo/internal/budget"
)

// Token is an index into the vocabulary.
type Token = int32

// ModelOptions say how a model is loaded.
type ModelOptions struct {
	// GPU is the index of the CUDA device that takes all layers; below 0 the
	// model stays on the CPU.
	GPU int
	// Plain keeps the weights as they are in the file, whatever layout the CPU would
	// rather have.
	Plain bool
	// DryRun loads the metadata only and simulates allocations: contexts over
	// such a model report the sizes they would have and cannot decode.
	DryRun bool
}

// Model is a loaded GGUF file. Tokenizing is safe for concurrent use.
type Model struct {
	lib     *Library
	handle  llama.Model
	vocab   llama.Vocab
	opts    ModelOptions
	weights budget.Bytes
	buffers []string // names of the buffers with weights
	pieces  [][]byte // text of every token, "" for control tokens
	ends    []bool   // end-of-generation tokens
	// endTokens are those of which ends is true.
	endTokens []Token
}

// OpenModel loads the model file at path. The file must have been checked
// (internal/gguf): llama.cpp ends the process on some malformed files.
func (l *Library) OpenModel(path string, opts ModelOptions) (*Model, error) {
	params := llama.ModelDefaultParams()
	params.NGpuLayers = 0
	if opts.GPU >= 0 {
		params.NGpuLayers = math.MaxInt32
		params.SplitMode = llama.SplitModeNone
		params.MainGpu = int32(opts.GPU)
	}
	if opts.DryRun {
		params.NoAlloc = 1
	}
	if opts.Plain {
		params.UseExtraBufts = 0
	}
	if opts.DryRun || opts.GPU < 0 {
		// llama.cpp repacks weights for the CPU's matrix units; a mapped file would
		// stay resident beside the copies. NoAlloc cannot map either.
		params.LoadMode = llama.LoadModeNone
	}
	l.allocating.Lock()
	defer l.allocating.Unlock()
	l.log.reset()
	handle, err := llama.ModelLoadFromFile(path, params)
	sizes, reason := l.log.take()
	if err != nil || handle == 0 {
		return nil, fmt.Errorf("load model %s: %w", path, preferReason(err, reason))
	}
	m := &Model{lib: l, handle: handle, vocab: llama.ModelGetVocab(handle), opts: opts}
	m.weights = budget.FromUint64(llama.ModelSize(handle))
	if !opts.DryRun {
		m.weights = m.onDevice(sizes.model)
	}
	m.buffers = slices.Sorted(maps.Keys(sizes.model))
	m.readVocabulary()
	return m, nil
}

// preferReason prefers llama.cpp's own last error line to yzma's summary.
func preferReason(err error, reason string) error {
	if reason != "" {
		return errors.New(reason)
	}
	if err == nil {
		return errors.New("llama.cpp gave no model and no reason")
	}
	return err
}

// onDevice adds up the buffers that count against the device's limit: those of
// the GPU, or all of them on a CPU.
func (m *Model) onDevice(buffers map[string]budget.Bytes) budget.Bytes {
	var sum budget.Bytes
	for name, size := range buffers {
		if m.opts.GPU < 0 || name == fmt.Sprintf("CUDA%d", m.opts.GPU) {
			sum = sum.Add(size)
		}
	}
	return sum
}

// readVocabulary copies what decoding needs of every token, so that the decode
// path makes no call for it.
func (m *Model) readVocabulary() {
	n := llama.VocabNTokens(m.vocab)
	m.pieces = make([][]byte, n)
	m.ends = make([]bool, n)
	buf := make([]byte, 256)
	for t := range llama.Token(n) {
		size := llama.TokenToPiece(m.vocab, t, buf, 0, false)
		if size < 0 { // longer than the buffer: the size it needs, negated
			buf = make([]byte, -size)
			size = llama.TokenToPiece(m.vocab, t, buf, 0, false)
		}
		m.pieces[t] = append([]byte(nil), buf[:max(size, 0)]...)
		if m.ends[t] = llama.VocabIsEOG(m.vocab, t); m.ends[t] {
			m.endTokens = append(m.endTokens, Token(t))
		}
	}
}

// Recurrent reports whether some of what a sequence keeps is a state, not a cell for each
// token.
func (m *Model) Recurrent() bool {
	return llama.ModelIsRecurrent(m.handle) || llama.ModelIsHybrid(m.handle)
}

// Window is how many tokens back the layers with a sliding window see; 0 = there are none.
func (m *Model) Window() int { return int(llama.ModelNSWA(m.handle)) }

// Close gives the model's memory back. Its contexts must be closed before.
func (m *Model) Close() error {
	if err := llama.ModelFree(m.handle); err != nil {
		return fmt.Errorf("free model: %w", err)
	}
	return nil
}

// Weights is the memory of the model's tensors in bytes: as allocated on the
// device, in a dry run the sum of the tensors in the file.
func (m *Model) Weights() budget.Bytes { return m.weights }

// Buffers are the names of the buffers that have weights, sorted: "CPU", "AMX",
// "CUDA0", … A dry run has the same names.
func (m *Model) Buffers() []string { return m.buffers }

// OnGPU reports whether a GPU has the layers.
func (m *Model) OnGPU() bool { return m.opts.GPU >= 0 }

// TrainContext is the longest sequence the model was trained for, in tokens.
func (m *Model) TrainContext() int { return int(llama.ModelNCtxTrain(m.handle)) }

// Vocabulary is the number of tokens.
func (m *Model) Vocabulary() int { return len(m.pieces) }

// Piece is the text of a token, empty for control tokens. It can end in the
// middle of a UTF-8 sequence. The slice must not be changed.
func (m *Model) Piece(t Token) []byte {
	if t < 0 || int(t) >= len(m.pieces) {
		return nil
	}
	return m.pieces[t]
}

// Ends reports whether t ends a generation (end of text, end of turn).
func (m *Model) Ends(t Token) bool { return t >= 0 && int(t) < len(m.ends) && m.ends[t] }

// EndTokens are the tokens that end a generation. The slice must not be changed.
func (m *Model) EndTokens() []Token { return m.endTokens }

// Trim has the C library and Go give back to the system what they keep of freed
// memory.
func (m *Model) Trim() { m.lib.Trim() }

// ChatTemplate is the file's chat template (Jinja), "" if it has none.
func (m *Model) ChatTemplate() string { return llama.ModelChatTemplate(m.handle, "") }

// SpecialText is the text of the tokens that templates name.
func (m *Model) SpecialText() (bos, eos string) {
	return llama.VocabGetText(m.vocab, llama.VocabBOS(m.vocab)), llama.VocabGetText(m.vocab, llama.VocabEOS(m.vocab))
}

// ErrNUL says that a text has a NUL character, which llama.cpp's tokenizer
// cannot take.
var ErrNUL = errors.New("text contains a NUL character (U+0000)")

// Tokenize turns text into tokens. Special tokens written in the text
// (<|im_start|>) are recognised. The model's beginning-of-text token is put in
// front where the model wants one and the text does not already begin with it.
// It returns ErrNUL if text contains U+0000.
func (m *Model) Tokenize(text string) ([]Token, error) {
	if strings.ContainsRune(text, 0) {
		return nil, ErrNUL
	}
	bos, _ := m.SpecialText()
	addSpecial := !(llama.VocabGetAddBOS(m.vocab) && bos != "" && strings.HasPrefix(text, bos))
	found := llama.Tokenize(m.vocab, text, addSpecial, true)
	tokens := make([]Token, len(found))
	for i, t := range found {
		tokens[i] = Token(t)
	}
	return tokens, nil
}
