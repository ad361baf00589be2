package gguf_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"tempo/internal/gguf"
)

func Example() {
	dir, err := os.MkdirTemp("", "gguf")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tiny.gguf")

	spec := gguf.Tiny()
	spec.Layers = 3
	if err := gguf.WriteFile(path, spec); err != nil {
		log.Fatal(err)
	}
	h, err := gguf.ReadHeader(path)
	if err != nil {
		log.Fatal(err)
	}
	kv, err := h.KVBytesPerToken()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(h.Architecture, h.Layers, "layers,", kv, "bytes of KV cache a token")
	// Output: llama 3 layers, 384 bytes of KV cache a token
}
