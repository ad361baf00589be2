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
	fmt.Println(h.Architecture, h.Layers, "layers,", h.TensorBytes, "bytes of tensors")
	// Output: llama 3 layers, 706304 bytes of tensors
}
