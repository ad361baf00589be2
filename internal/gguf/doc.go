// Package gguf reads the headers of GGUF model files and writes small models
// with random weights.
//
// [ReadHeader] reads what memory estimates need (keys and tensor sizes, no
// weights), checks the file against them, and names what is wrong with it. It
// never guesses: a key that is needed and absent is an error, except where the
// format itself defines what an absent key means.
//
// [Header.LayerMemory] says what each layer takes, for its weights and for the
// sequences that run; [Header.LoadedBytes] and [Header.OffloadedBytes] what all
// weights take on a CPU and on a GPU.
//
// [Write] makes a model of one of a few architectures in any shape, byte for byte
// the same for the same [Spec]: what tests and benchmarks load where a real model
// would have to be downloaded.
//
// Source: the GGUF specification, version 3 (ggml, docs/gguf.md), and the loader
// of llama.cpp v0.5.0.
package gguf
