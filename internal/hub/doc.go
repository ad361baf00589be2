// Package hub brings model files from a hub of Hugging Face's kind into the cache:
// files that are named hf://ORG/REPO/FILE.gguf[@REVISION].
//
// A file is fetched once, by one process at a time, and appears in the cache whole
// and checked (by its SHA-256, where the hub tells it) or not at all. What was
// fetched until a cut or a kill is kept, and the next try goes on behind it. A file
// that is there needs no hub. The hub's address is up to the user: none stands here.
//
// [Locate] only looks into the cache, [Client.Look] asks the hub what it would take,
// and [Client.Fetch] fetches.
package hub
