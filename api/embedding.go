package api

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
)

// ObjectList is the Object of an EmbeddingList, by which it is told from a Completion.
const ObjectList = "list"

// EmbeddingList is the body of an answer of /v1/embeddings.
type EmbeddingList struct {
	Object string         `json:"object"` // ObjectList
	Data   []Embedding    `json:"data"`   // one for each text, in their order
	Model  string         `json:"model"`
	Usage  EmbeddingUsage `json:"usage"`
}

// Embedding is the vector of one text.
type Embedding struct {
	Object    string `json:"object"` // "embedding"
	Index     int    `json:"index"`  // of the text in the input, from 0
	Embedding Vector `json:"embedding"`
}

// EmbeddingUsage counts tokens.
type EmbeddingUsage struct {
	PromptTokens int `json:"prompt_tokens"`
	TotalTokens  int `json:"total_tokens"`
}

// Vector is an embedding. It is written as a list of numbers or, if Base64 is set, as
// base64 of little-endian 32-bit floats, and read in both forms.
type Vector struct {
	Values []float32
	Base64 bool
}

// MarshalJSON writes the form that Base64 says. It returns an error if a value is not a
// finite number.
func (v Vector) MarshalJSON() ([]byte, error) {
	if !v.Base64 {
		return json.Marshal(v.Values) //nolint:wrapcheck // says what is wrong
	}
	raw := make([]byte, 0, 4*len(v.Values))
	for _, x := range v.Values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return json.Marshal(base64.StdEncoding.EncodeToString(raw)) //nolint:wrapcheck // a string: cannot fail
}

// UnmarshalJSON reads either form.
func (v *Vector) UnmarshalJSON(data []byte) error {
	if v.Base64 = kind(data) == "string"; !v.Base64 {
		return json.Unmarshal(data, &v.Values) //nolint:wrapcheck // says what is wrong
	}
	var raw []byte
	if err := json.Unmarshal(data, &raw); err != nil {
		return fmt.Errorf("decode an embedding: %w", err)
	}
	if len(raw)%4 != 0 {
		return fmt.Errorf("decode an embedding: %d bytes are no 32-bit floats", len(raw))
	}
	v.Values = make([]float32, len(raw)/4)
	for i := range v.Values {
		v.Values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return nil
}
