// Package plain is what the engine's parallel generation (api.Parallel) is tested
// against: slow, short, and with everything calculated from scratch at each step. It is
// for tests only.
//
// There are two references with one set of rules. [Generate] has an arithmetic of its
// own, without llama.cpp: [Load] reads a small model of the llama architecture, and
// [Model.Forward] takes any number of tokens, each with its position and with those that
// it sees. It knows no cache and no batches. [Scratch] has llama.cpp calculate, for any
// model that it runs, and keeps the sets apart by sequences.
//
// With weights and cache in F32 and without flash attention their probabilities differ by
// less than 3e-6; flash attention takes keys and values as half floats in any case, which
// makes up to 2e-3. [Step.Borderline] and [Member.Shares] tell where so much could have
// changed what was chosen.
//
// Stop strings are left out: nothing here has text.
package plain
